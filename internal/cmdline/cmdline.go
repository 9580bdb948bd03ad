// Package cmdline is what the command line of voltar has beyond urfave/cli: flags behind arguments, errors that say what was meant,
// help, manual pages, and completion.
package cmdline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/exitcode"
	"voltar/internal/say"
)

// Program is the command line. The help of a command is made of its Usage, ArgsUsage, Description (paragraphs), Flags and UsageText,
// which has an example a line, each with what it does behind " # ".
type Program struct {
	*cli.App
	Common []cli.Flag // taken by every command, and before the command
	// Elsewhere are commands of other programs, with the commands that do what they do.
	Elsewhere map[string][]string
}

// ErrHelp is returned for a command line that asks for help.
var ErrHelp = errors.New("help is asked for")

// Line is a command line, taken apart.
type Line struct {
	Path     []*cli.Command // the command and its subcommand; empty for the program itself
	Words    []string       // for urfave/cli: the names, the flags, the arguments
	operands []string
	rest     []string            // what follows a command that reads its flags itself
	values   map[string]string   // of the flags that take one, by their first name
	known    map[string]cli.Flag // by each of their names
	pending  cli.Flag            // one whose value is yet to come
	empty    cli.Flag            // one whose value is ""
	literal  bool                // "--" was there
}

// Parse rewrites a command line so that urfave/cli, which stops reading flags at the first argument, sees every flag:
// first the names of the command and its subcommands, then its flags, then its arguments. Common flags may stand before
// the command. An argument that begins with "-" is refused: no volume, backup or path of ours does, so it is a flag that
// nobody would have read. The error of a line that asks for help is ErrHelp; the path of the line is good then.
func (p *Program) Parse(args []string) (Line, error) {
	line, flags, help, unknown := p.take(args[1:])
	switch {
	case help && (len(line.operands) == 0 || len(line.Path) > 0 && len(line.last().Subcommands) == 0):
		return line, ErrHelp
	case unknown != "":
		return line, p.unknownFlag(line, unknown)
	case len(line.Path) == 0 && len(line.operands) > 0:
		return line, p.unknownCommand(p.Commands, "", line.operands[0])
	case len(line.Path) > 0 && len(line.last().Subcommands) > 0 && len(line.operands) > 0:
		return line, p.unknownCommand(line.last().Subcommands, line.last().Name+" ", line.operands[0])
	case line.pending != nil:
		return line, exitcode.UsageError(fmt.Errorf("%s needs a value: %s", flags[len(flags)-1], placeholder(line.pending)))
	case line.empty != nil:
		return line, exitcode.UsageError(say.WithHint(
			fmt.Errorf("the value of --%s is empty: give a %s, or leave the flag out", line.empty.Names()[0], placeholder(line.empty)),
			unsetHint))
	case len(line.Path) == 0:
		if err := line.checkWithoutCommand(flags); err != nil {
			return line, err
		}
	}
	if len(line.Path) > 0 && line.last().SkipFlagParsing {
		return Line{Path: line.Path, Words: slices.Concat([]string{args[0], line.last().Name}, flags, line.rest)}, nil
	}
	for _, operand := range line.operands {
		if operand == "" {
			return line, exitcode.UsageError(say.WithHint(errors.New("an argument is empty: give a name, or leave it out"), unsetHint))
		}
		if strings.HasPrefix(operand, "-") {
			return line, exitcode.UsageError(fmt.Errorf("argument %q begins with a dash: flags stand before \"--\"", operand))
		}
	}
	line.Words = []string{args[0]}
	for _, c := range line.Path {
		line.Words = append(line.Words, c.Name)
	}
	line.Words = slices.Concat(line.Words, flags, line.operands)
	return line, nil
}

// unsetHint goes with what is empty. Taken for nothing, it would mean all, or the default.
const unsetHint = "is a variable that it is taken from not set?"

// Value is that of a flag, by its first name, or "".
func (l *Line) Value(flag string) string { return l.values[flag] }

func (l *Line) last() *cli.Command { return l.Path[len(l.Path)-1] }

// take takes the words behind the program's name apart. unknown is the first flag that is none.
func (p *Program) take(words []string) (line Line, flags []string, help bool, unknown string) {
	line.known, line.values = map[string]cli.Flag{}, map[string]string{}
	line.learn(p.Common)
	commands := p.Commands
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" && !line.literal {
			line.literal = true
			continue
		}
		if name, value, hasValue := splitFlag(word); name != "" && !line.literal {
			flag := line.known[name]
			switch {
			case name == "help" || name == "h":
				help = true
			case len(line.Path) == 0 && (name == "version" || name == "v"):
			case flag == nil:
				if unknown == "" {
					unknown = word
				}
			case takesValue(flag) && !hasValue && i+1 < len(words):
				flags = append(flags, word)
				i++
				word = words[i]
				line.set(flag, word)
			case takesValue(flag) && !hasValue:
				line.pending = flag
			case takesValue(flag):
				line.set(flag, value)
			case hasValue && value != "true" && value != "false":
				unknown = word
			}
			flags = append(flags, word)
			continue
		}
		command := findCommand(commands, word)
		if command == nil || len(line.operands) > 0 || line.literal {
			line.operands = append(line.operands, word)
			continue
		}
		line.Path = append(line.Path, command)
		commands = command.Subcommands
		line.learn(command.Flags)
		if command.SkipFlagParsing {
			line.rest = words[i+1:]
			break
		}
	}
	return line, flags, help, unknown
}

// set notes the value of a flag. An empty one would count as none, and the flag would not do what it was given for.
func (l *Line) set(flag cli.Flag, value string) {
	l.values[flag.Names()[0]] = value
	if value == "" && l.empty == nil {
		l.empty = flag
	}
}

// checkWithoutCommand refuses the flags of commands where none is named.
func (l *Line) checkWithoutCommand(flags []string) error {
	for _, word := range flags {
		name, _, _ := splitFlag(word)
		flag := l.known[name]
		if flag == nil { // --version
			continue
		}
		long := "--" + flag.Names()[0]
		usage := long
		if takesValue(flag) {
			usage += " " + placeholder(flag)
		}
		return exitcode.UsageError(say.WithHint(fmt.Errorf("%s is an option of commands, and none is named", long),
			fmt.Sprintf("it stands after the command: `voltar COMMAND %s`; `voltar --help` lists the commands", usage)))
	}
	return nil
}

func (l *Line) learn(flags []cli.Flag) {
	for _, flag := range flags {
		for _, name := range flag.Names() {
			l.known[name] = flag
		}
	}
}

// unknownFlag says which flag a mistyped one may stand for, or that the value of one without values is none.
func (p *Program) unknownFlag(line Line, word string) error {
	name, value, hasValue := splitFlag(word)
	if flag := line.known[name]; flag != nil && hasValue {
		return exitcode.UsageError(fmt.Errorf("%s: %q is neither true nor false; --%s alone says yes",
			strings.TrimSuffix(word, "="+value), value, flag.Names()[0]))
	}
	of := p.Name
	for _, c := range line.Path {
		of += " " + c.Name
	}
	var names []string
	for known := range line.known {
		if len(known) > 1 {
			names = append(names, known)
		}
	}
	slices.Sort(names)
	err := fmt.Errorf("%s has no flag %s", of, word)
	if nearest := say.Nearest(name, names); nearest != "" {
		err = fmt.Errorf("%w: did you mean --%s?", err, nearest)
	}
	if len(line.Path) == 0 {
		return exitcode.UsageError(say.WithHint(err, "a command's own flags stand behind its name: `voltar --help` lists the commands"))
	}
	return exitcode.UsageError(say.WithHint(err, fmt.Sprintf("`%s --help` lists its flags", of)))
}

func (p *Program) unknownCommand(commands []*cli.Command, of, word string) error {
	if of != "" && len(commands) == 0 {
		of = p.Name + " " + strings.TrimSpace(of)
		return exitcode.UsageError(say.WithHint(fmt.Errorf("%q is unknown: %s has no commands of its own", word, of),
			fmt.Sprintf("`%s --help` says what it does", of)))
	}
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	if of == "" {
		names = append(names, "help")
	}
	hint := fmt.Sprintf("`%s` lists the commands", strings.TrimSpace("voltar "+of+"--help"))
	if others := p.Elsewhere[word]; of == "" && len(others) > 0 {
		return exitcode.UsageError(say.WithHint(fmt.Errorf("unknown command %q: did you mean %s?", word, strings.Join(others, " or ")), hint))
	}
	return exitcode.UsageError(say.WithHint(fmt.Errorf("unknown command %q%s", of+word, say.DidYouMean(word, names)), hint))
}

// splitFlag returns the name of the flag that an argument is, or "", and the value behind its "=".
func splitFlag(arg string) (name, value string, hasValue bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", "", false
	}
	return strings.Cut(strings.TrimLeft(arg, "-"), "=")
}

func takesValue(flag cli.Flag) bool {
	_, isBool := flag.(*cli.BoolFlag)
	return !isBool
}

func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, command := range commands {
		if command.HasName(name) {
			return command
		}
	}
	return nil
}

// placeholder is the name of a flag's value, as its usage has it between backquotes.
func placeholder(flag cli.Flag) string {
	if docs, ok := flag.(cli.DocGenerationFlag); ok {
		name, _ := placeholderOf(docs.GetUsage())
		return name
	}
	return "VALUE"
}

// isIn tells whether a flag is one of some, by its name.
func isIn(flag cli.Flag, flags []cli.Flag) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return f.Names()[0] == flag.Names()[0] })
}
