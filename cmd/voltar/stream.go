package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"voltar/internal/say"
)

func (a *app) streamCommand() *cli.Command {
	return &cli.Command{
		Name: "stream", Usage: "run one [[stream]] of the configuration", ArgsUsage: "NAME",
		Description: "Keeps the output of a command as a backup of its own, @stream/NAME: binary logs between nights, by a timer.\n" +
			"It goes on while a run works.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "no-mail", Usage: "do not mail a report when it fails"}},
		Action: a.stream,
	}
}

func (a *app) stream(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageError{errors.New("name one [[stream]] of the configuration")}
	}
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	result, err := engine.Stream(c.Context, c.Args().First())
	if result == nil {
		return err
	}
	result.ExitCode = runExitCode(c.Context, result, err)
	if err != nil {
		say.Log(s.log.Error, err)
	}
	// A good one comes many times a day, and says nothing.
	if result.ExitCode != exitDone {
		if undelivered := s.deliver(c, result, false); undelivered != nil {
			s.log.Error("the report was not delivered", "err", undelivered)
		}
	}
	if err := a.printRun(c, result); err != nil {
		return err
	}
	return exitWith(result.ExitCode)
}
