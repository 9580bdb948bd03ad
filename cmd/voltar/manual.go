package main

import (
	_ "embed"
	"fmt"
	"io"

	"voltar/internal/cmdline"
	"voltar/internal/config"

	"github.com/urfave/cli/v2"
)

// completions are the scripts that ask the program itself for its commands and flags.
//
//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the shell completion", ArgsUsage: "bash|zsh|fish",
		Action: func(c *cli.Context) error {
			script := ""
			var err error
			switch shell := c.Args().First(); shell {
			case "bash":
				script = bashCompletion
			case "zsh":
				script = zshCompletion
			case "fish":
				script, err = c.App.ToFishCompletion()
			default:
				err = usageError(fmt.Errorf("no completion for %q: name bash, zsh or fish", shell))
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.rawOut, script)
			return err
		},
	}
}

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print a manual page as troff reads it: this program's, or voltar.toml's", ArgsUsage: "[voltar.toml]", Hidden: true,
		Action: func(c *cli.Context) error {
			var page string
			switch c.Args().First() {
			case "":
				page = cmdline.ProgramPage(c.App, commonFlags())
			case "voltar.toml":
				page = cmdline.ConfigPage(config.Sample, c.App.Version)
			default:
				return usageError(fmt.Errorf("no manual page %q: there is voltar.toml, or none for the program's own", c.Args().First()))
			}
			_, err := io.WriteString(a.rawOut, page)
			return err
		},
	}
}
