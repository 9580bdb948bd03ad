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
			_, err = io.WriteString(a.stdout, p.Help(path))
			return err
		},
	}
}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the completion of a shell", ArgsUsage: "bash|zsh|fish",
		Description: "Completes commands, flags, volumes, backups, destinations and more. The Debian package installs it.",
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
