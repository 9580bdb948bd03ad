package cmdline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/exitcode"
	"voltar/internal/say"
)

// helpColumns is how wide help is at most.
const helpColumns = 80

// Find returns the command that words name, for its help.
func (p *Program) Find(words []string) ([]*cli.Command, error) {
	var path []*cli.Command
	commands, of := p.Commands, ""
	for _, word := range words {
		command := findCommand(commands, word)
		if command == nil {
			return nil, p.unknownCommand(commands, of, word)
		}
		path, commands, of = append(path, command), command.Subcommands, of+word+" "
	}
	return path, nil
}

// Help is what --help prints of a command, or of the program where the path is empty.
func (p *Program) Help(path []*cli.Command) string {
	if len(path) == 0 {
		return p.programHelp()
	}
	command := path[len(path)-1]
	name := p.Name
	for _, c := range path {
		name += " " + c.Name
	}
	var h help
	h.wrap("", name+" - "+command.Usage)
	usage := "Usage: " + name
	if len(command.Subcommands) > 0 {
		usage += " COMMAND"
	}
	h.line("")
	h.wrap("       ", strings.TrimSpace(usage+" [OPTION]... "+command.ArgsUsage))
	for paragraph := range strings.SplitSeq(command.Description, "\n\n") {
		if paragraph != "" {
			h.line("")
			h.wrap("", paragraph)
		}
	}
	if len(command.Subcommands) > 0 {
		h.commands("Commands", command.Subcommands)
	}
	var own []cli.Flag
	for _, flag := range command.Flags {
		if !isIn(flag, p.Common) {
			own = append(own, flag)
		}
	}
	h.flags("Options", own)
	h.flags("Options of every command", p.Common)
	h.examples(command)
	return h.String()
}

func (p *Program) programHelp() string {
	var h help
	h.line(p.Name + " - " + p.Usage)
	h.line("")
	h.line("Usage: " + p.Name + " COMMAND [OPTION]... [ARGUMENT]...")
	for _, group := range Groups(p.Commands) {
		h.commands(group.Name, group.Commands)
	}
	h.flags("Options of every command", p.Common)
	h.line("")
	h.line("`voltar help COMMAND` tells more of a command, `man voltar` of all.")
	return h.String()
}

// Group is a number of commands that belong together.
type Group struct {
	Name     string
	Commands []*cli.Command
}

// Groups returns the commands that are not hidden by their categories, in the order in which these come first.
func Groups(commands []*cli.Command) []Group {
	var groups []Group
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == c.Category })
		if i < 0 {
			i = len(groups)
			groups = append(groups, Group{Name: c.Category})
		}
		groups[i].Commands = append(groups[i].Commands, c)
	}
	return groups
}

// help is text for a terminal.
type help struct{ strings.Builder }

func (h *help) line(s string) { h.WriteString(s + "\n") }

// wrap writes text in lines of at most helpColumns; all but the first begin with an indentation.
func (h *help) wrap(indent, text string) { h.wrapAfter("", indent, text) }

// wrapAfter writes text that begins behind another on its line.
func (h *help) wrapAfter(before, indent, text string) {
	column := len([]rune(before))
	h.WriteString(before)
	first := true
	for word := range strings.FieldsSeq(text) {
		length := len([]rune(word))
		switch {
		case first:
		case column+1+length > helpColumns:
			h.WriteString("\n" + indent)
			column = len(indent)
		default:
			h.WriteByte(' ')
			column++
		}
		h.WriteString(word)
		column += length
		first = false
	}
	h.WriteByte('\n')
}

func (h *help) commands(title string, list []*cli.Command) {
	h.line("\n" + title + ":")
	width := 0
	for _, c := range list {
		width = max(width, len(c.Name))
	}
	for _, c := range list {
		h.wrapAfter(fmt.Sprintf("  %-*s  ", width, c.Name), strings.Repeat(" ", width+4), c.Usage)
	}
}

// flagColumn is where the usage of flags begins.
const flagColumn = 26

func (h *help) flags(title string, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	h.line("\n" + title + ":")
	for _, flag := range flags {
		docs, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		name, usage := placeholderOf(docs.GetUsage())
		short, long := "    ", ""
		for _, n := range flag.Names() {
			if len(n) == 1 {
				short = "-" + n + ", "
			} else {
				long = "--" + n
			}
		}
		if docs.TakesValue() {
			long += " " + name
		}
		if text := defaultOf(docs); text != "" {
			usage += " (default: " + text + ")"
		}
		if env := docs.GetEnvVars(); len(env) > 0 {
			usage += " [$" + strings.Join(env, ", $") + "]"
		}
		before := "  " + short + long
		if len(before)+2 > flagColumn {
			h.line(before)
			before = ""
		}
		h.wrapAfter(fmt.Sprintf("%-*s", flagColumn, before), strings.Repeat(" ", flagColumn), usage)
	}
}

// defaultOf is the value that a flag has unless it is given.
func defaultOf(flag cli.DocGenerationFlag) string {
	if text, ok := flag.(*cli.StringFlag); ok {
		if text.DefaultText != "" {
			return text.DefaultText
		}
		return text.Value
	}
	return ""
}

func (h *help) examples(command *cli.Command) {
	if command.UsageText == "" {
		return
	}
	h.line("\nExamples:")
	for _, e := range Examples(command) {
		h.line("  " + e.Line)
		if e.Text != "" {
			h.wrapAfter("      ", "      ", e.Text)
		}
	}
}

// Example is a command line and what it does.
type Example struct{ Line, Text string }

// Examples are those of a command.
func Examples(command *cli.Command) []Example {
	var list []Example
	for line := range strings.SplitSeq(strings.TrimSpace(command.UsageText), "\n") {
		if line != "" {
			command, text, _ := strings.Cut(line, " # ")
			list = append(list, Example{strings.TrimSpace(command), strings.TrimSpace(text)})
		}
	}
	return list
}

// RefuseArguments is for commands that take none: whoever gives one means something that would not be done.
func RefuseArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return exitcode.UsageError(say.WithHint(fmt.Errorf("%s takes no arguments: %q", c.Command.Name, c.Args().First()),
			fmt.Sprintf("`voltar %s --help` says what it does", c.Command.Name)))
	}
	return nil
}
