package main

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/deliver"
	"voltar/internal/say"
	"voltar/report"
)

func (a *app) streamCommand() *cli.Command {
	return &cli.Command{
		Name: "stream", Usage: "run one [[stream]] of the configuration", ArgsUsage: "NAME",
		UsageText: "voltar stream binlogs",
		Description: "Stores the output of a command as a backup of its own, @stream/NAME: for example, binary logs between nights, from\n" +
			"a timer. It may run at the same time as `voltar run`.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "no-mail", Usage: "do not mail a report when it fails"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError(errors.New("name one [[stream]] of the configuration"))
			}
			return a.stream(c.Context, streamOptions{setupOptions{commonOptions: readCommon(c)}, c.Args().First(), c.Bool("no-mail")})
		},
	}
}

type streamOptions struct {
	setupOptions
	name   string
	noMail bool
}

func (a *app) stream(ctx context.Context, o streamOptions) error {
	s, engine, err := a.setupEngine(o.setupOptions)
	if err != nil {
		return err
	}
	result, err := engine.Stream(ctx, o.name)
	if result == nil {
		return err
	}
	result.ExitCode = runExitCode(ctx, result, err)
	if err != nil {
		say.Log(s.Log.Error, err)
	}
	// A good one comes many times a day, and says nothing.
	if result.ExitCode != exitDone {
		if undelivered := a.delivery(s).Run(ctx, result, deliver.Options{NoMail: o.noMail}); undelivered != nil {
			s.Log.Error("the report was not delivered", "err", undelivered)
		}
	}
	if err := a.printRun(result, report.Options{Location: time.Local}, o.json); err != nil {
		return err
	}
	return exitWith(result.ExitCode)
}
