package main

import (
	_ "embed"
	"fmt"
	"io"

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
				err = usageError{fmt.Errorf("no completion for %q: name bash, zsh or fish", shell)}
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.rawOut, script)
			return err
		},
	}
}
