// Package cmdline is what the command line of voltar has beyond urfave/cli: flags behind arguments, and manual pages.
package cmdline

import (
	"fmt"
	"slices"
	"strings"

	"voltar/internal/exitcode"

	"github.com/urfave/cli/v2"
)

// Reorder rewrites a command line so that urfave/cli, which stops reading flags at the first argument, sees every flag:
// first the names of the command and its subcommands, then its flags, then its arguments. Common flags may stand before
// the command. An argument that begins with "-" is refused: no volume, backup or path of ours does, so it is a flag that
// nobody would have read.
func Reorder(program *cli.App, common []cli.Flag, args []string) ([]string, error) {
	if slices.Contains(args, "--generate-bash-completion") {
		return args, nil
	}
	known := flagKinds(common)
	commands := program.Commands
	path, flags, operands := []string{args[0]}, []string{}, []string{}
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			operands = append(operands, args[i+1:]...)
			break
		}
		if name, hasValue := splitFlag(arg); name != "" {
			flags = append(flags, arg)
			takesValue, isKnown := known[name]
			if isKnown && takesValue && !hasValue && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
			continue
		}
		if command := findCommand(commands, arg); command != nil && len(operands) == 0 {
			path = append(path, arg)
			commands = command.Subcommands
			for name, takesValue := range flagKinds(command.Flags) {
				known[name] = takesValue
			}
			continue
		}
		operands = append(operands, arg)
	}
	if len(path) == 1 && len(operands) > 0 {
		return nil, exitcode.UsageError(fmt.Errorf("unknown command %q: see `voltar --help`", operands[0]))
	}
	for _, operand := range operands {
		if strings.HasPrefix(operand, "-") {
			return nil, exitcode.UsageError(fmt.Errorf("argument %q begins with a dash: flags stand before \"--\"", operand))
		}
	}
	return slices.Concat(path, flags, operands), nil
}

// splitFlag returns the name of the flag that an argument is, or "", and whether a value stands behind its "=".
func splitFlag(arg string) (name string, hasValue bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", false
	}
	name, _, hasValue = strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name, hasValue
}

// flagKinds tells for each name whether the flag takes a value.
func flagKinds(flags []cli.Flag) map[string]bool {
	kinds := map[string]bool{}
	for _, flag := range flags {
		_, isBool := flag.(*cli.BoolFlag)
		for _, name := range flag.Names() {
			kinds[name] = !isBool
		}
	}
	return kinds
}

func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, command := range commands {
		if command.HasName(name) {
			return command
		}
	}
	return nil
}
