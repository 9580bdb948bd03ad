package cmdline

import (
	_ "embed"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"voltar/internal/exitcode"
	"voltar/internal/say"

	"github.com/urfave/cli/v2"
)

// Kind is what a word of a command line can be, for completion.
type Kind string

// Kinds that the program itself completes; all others are the caller's.
const (
	KindNone    Kind = ""
	KindFile    Kind = "file"    // the shell completes it
	KindFolder  Kind = "folder"  // the shell completes it
	KindCommand Kind = "command" // a command of the program
)

// Candidate is a word that may stand at the cursor, and what it means.
type Candidate struct{ Word, Text string }

// Completion says what the words of a command line can be.
type Completion struct {
	// Arguments are the kinds of a command's arguments, by its full name ("snapshot list"). The last holds for all that follow.
	Arguments map[string][]Kind
	// Flags are the kinds of flags' values, by the command's full name and the flag ("run --to"), or the flag alone ("--from").
	Flags map[string]Kind
	// Values lists the words of a kind that begin with a text.
	Values func(kind Kind, beginning string, line Line) []Candidate
}

// Complete lists what may stand in place of the last of words, which follow the program's name. shell is what the shell shall
// complete by itself, or KindNone.
func (p *Program) Complete(c Completion, words []string) (list []Candidate, shell Kind) {
	if len(words) == 0 {
		words = []string{""}
	}
	current := words[len(words)-1]
	line, _, _, _ := p.take(words[:len(words)-1])
	name := line.name()
	var kind Kind
	prefix := ""
	switch flag, value, hasValue := splitFlag(current); {
	case line.pending != nil:
		kind = c.flagKind(name, line.pending)
	case strings.HasPrefix(current, "-") && !line.literal && hasValue:
		if known := line.known[flag]; known != nil && takesValue(known) {
			kind, prefix, current = c.flagKind(name, known), current[:len(current)-len(value)], value
		}
	case strings.HasPrefix(current, "-") && !line.literal:
		return p.completeFlags(line, current), KindNone
	case len(line.Path) == 0:
		return commandCandidates(p.Commands, current), KindNone
	case len(line.last().Subcommands) > 0:
		return commandCandidates(line.last().Subcommands, current), KindNone
	default:
		if kinds := c.Arguments[name]; len(kinds) > 0 {
			kind = kinds[min(len(line.operands), len(kinds)-1)]
		}
	}
	switch kind {
	case KindNone:
		return nil, KindNone
	case KindFile, KindFolder:
		return nil, kind
	case KindCommand:
		return commandCandidates(p.Commands, current), KindNone
	}
	for _, v := range c.Values(kind, current, line) {
		if strings.HasPrefix(v.Word, current) && !slices.Contains(line.operands, v.Word) {
			list = append(list, Candidate{prefix + v.Word, v.Text})
		}
	}
	return list, KindNone
}

// name is the full name of the command, without the program's.
func (l *Line) name() string {
	var names []string
	for _, c := range l.Path {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

// flagKind is what the value of a flag is.
func (c Completion) flagKind(command string, flag cli.Flag) Kind {
	long := "--" + flag.Names()[0]
	if kind, found := c.Flags[command+" "+long]; found {
		return kind
	}
	return c.Flags[long]
}

func (p *Program) completeFlags(line Line, beginning string) []Candidate {
	flags := p.Common
	if len(line.Path) > 0 {
		flags = slices.Concat(line.last().Flags, p.Common)
	}
	flags = append(slices.Clone(flags), &cli.BoolFlag{Name: "help", Usage: "say what the command does"})
	var list []Candidate
	for _, flag := range flags {
		long := "--" + flag.Names()[0]
		usage := ""
		if docs, ok := flag.(cli.DocGenerationFlag); ok {
			_, usage = placeholderOf(docs.GetUsage())
		}
		if strings.HasPrefix(long, beginning) && !slices.ContainsFunc(list, func(c Candidate) bool { return c.Word == long }) {
			list = append(list, Candidate{long, usage})
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int { return strings.Compare(a.Word, b.Word) })
	return list
}

func commandCandidates(commands []*cli.Command, beginning string) []Candidate {
	var list []Candidate
	for _, c := range commands {
		if !c.Hidden && strings.HasPrefix(c.Name, beginning) {
			list = append(list, Candidate{c.Name, c.Usage})
		}
	}
	return list
}

// plainWord is what shells take as it stands, quoted or not. Whoever can write to a store chooses names in it, and what one
// shell or another makes of a candidate is no place to rely on: "$(...)" behind a prompt is one key from being run.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.,:/@=+%~-]+$`)

// Print writes what the shells' scripts read: a candidate a line, with its meaning behind a tab, or ":file" and the like.
// A candidate that is no plain word is left out.
func Print(w io.Writer, list []Candidate, shell Kind) error {
	var b strings.Builder
	if shell != KindNone {
		b.WriteString(":" + string(shell) + "\n")
	}
	for _, c := range list {
		if plainWord.MatchString(c.Word) {
			b.WriteString(c.Word + "\t" + say.Clean(c.Text) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed completion.bash
var bashScript string

//go:embed completion.zsh
var zshScript string

//go:embed completion.fish
var fishScript string

// Shells are those that there is completion for.
var Shells = []string{"bash", "zsh", "fish"}

// Script returns the completion of a shell, or an error that names those there are.
func Script(shell string) (string, error) {
	switch shell {
	case "bash":
		return bashScript, nil
	case "zsh":
		return zshScript, nil
	case "fish":
		return fishScript, nil
	}
	return "", exitcode.UsageError(fmt.Errorf("there is no completion for %q: name %s", shell, strings.Join(Shells, ", ")))
}
