package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"voltar/internal/cmdline"
	"voltar/internal/config"
)

func (a *app) helpCommand(p *cmdline.Program) *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "say what a command does, as its --help", ArgsUsage: "[COMMAND]...",
		UsageText: "voltar help run\nvoltar help snapshot create",
		Action: func(c *cli.Context) error {
			path, err := p.Find(c.Args().Slice())
			if err != nil {
				return err
			}
			if readCommon(c).json {
				return a.printJSON(describe(p))
			}
			_, err = io.WriteString(a.stdout, p.Help(path))
			return err
		},
	}
}

// jsonSchema is that of docs/json.md. Within one, fields may be added; none goes or changes its meaning.
const jsonSchema = 1

// helpDocument is the output of `voltar help --json`: by what a program tells what it talks to.
type helpDocument struct {
	Schema   int           `json:"schema"` // of the JSON of all commands
	Version  string        `json:"version"`
	Commands []helpCommand `json:"commands"`
}

type helpCommand struct {
	Name  string `json:"name"`
	Group string `json:"group"`
	Usage string `json:"usage"`
}

func describe(p *cmdline.Program) helpDocument {
	d := helpDocument{Schema: jsonSchema, Version: p.Version}
	for _, group := range cmdline.Groups(p.Commands) {
		for _, c := range group.Commands {
			d.Commands = append(d.Commands, helpCommand{c.Name, group.Name, c.Usage})
		}
	}
	return d
}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the completion of a shell", ArgsUsage: "bash|zsh|fish",
		Description: "Completes commands, flags, volumes, backups, destinations and more. The packages install it.",
		UsageText: "source <(voltar completion bash) # for this shell alone\n" +
			"voltar completion fish >~/.config/fish/completions/voltar.fish # for each fish from now on",
		Action: func(c *cli.Context) error {
			script, err := cmdline.Script(c.Args().First())
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.rawOut, script)
			return err
		},
	}
}

func (a *app) manCommand(p *cmdline.Program) *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print a manual page as troff reads it: this program's, or voltar.toml's", ArgsUsage: "[voltar.toml]", Hidden: true,
		Action: func(c *cli.Context) error {
			var page string
			switch c.Args().First() {
			case "":
				page = cmdline.ProgramPage(p)
			case "voltar.toml":
				page = cmdline.ConfigPage(config.Sample, p.Version)
			default:
				return usageError(fmt.Errorf("no manual page %q: there is voltar.toml, or none for the program's own", c.Args().First()))
			}
			_, err := io.WriteString(a.rawOut, page)
			return err
		},
	}
}
