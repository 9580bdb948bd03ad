package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/say"
	"voltar/report"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "back up volumes", ArgsUsage: "[VOLUME...]",
		Description: "Backs up the volumes that the configuration selects, or those that are named: VG/LV, LV, or patterns of\n" +
			"these. Each is snapshotted, archived to every destination and checked; then retention is applied and the\n" +
			"report is mailed.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would be done, and do nothing"},
			&cli.BoolFlag{Name: "no-mail", Usage: "send no report: neither mail nor webhook nor ping"},
			&cli.StringFlag{Name: "to", Usage: "back up to the folder `DIR` instead of the configured destinations"},
		},
		Action: a.run,
	}
}

func (a *app) run(c *cli.Context) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	if s.config.Path() == "" && c.NArg() == 0 {
		return usageError{errors.New("there is no configuration: name volumes, or write one with `voltar init`")}
	}
	if len(s.stores) == 0 {
		return usageError{errors.New("there is no destination: add one to the configuration, or give --to DIR")}
	}
	s.giveWay()
	bars := newProgress(a.rawErr, s.log)
	watched := newStillRunning(s, bars)
	engine, closeEngine, err := s.engine(watched)
	if err != nil {
		return err
	}
	defer closeEngine()
	if c.Bool("dry-run") {
		return a.dryRun(c, s, engine)
	}
	whole := c.NArg() == 0 && c.String("to") == "" && !c.Bool("no-mail")
	if whole {
		s.pingBegin(c.Context)
	}
	endWatch := func() {}
	if !c.Bool("no-mail") {
		endWatch = watched.watch(c.Context, s.config.Limits.TellAfter.Span())
	}
	result, err := engine.Run(c.Context, c.Args().Slice())
	endWatch()
	bars.Close()
	if result == nil {
		return err
	}
	result.ExitCode = runExitCode(c.Context, result, err)
	undelivered := s.deliver(c, result, whole)
	if undelivered != nil {
		s.log.Error("the report was not delivered", "err", undelivered)
	}
	if err != nil {
		say.Log(s.log.Error, err)
	}
	bars.RunEnded(result)
	if err := a.printRun(c, result); err != nil {
		return err
	}
	return exitWith(result.ExitCode)
}

// printRun prints what a run came to.
func (a *app) printRun(c *cli.Context, result *report.Run) error {
	if c.Bool("json") {
		text, err := report.JSON(*result)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(text)
		return err
	}
	_, err := io.WriteString(a.stdout, report.Text(*result, report.Options{Location: time.Local}))
	return err
}

// runExitCode is the exit code of a run, before its report was delivered.
func runExitCode(ctx context.Context, result *report.Run, err error) int {
	good, bad := 0, len(result.Errors)
	for _, v := range result.Volumes {
		if v.Status == report.VolumeOK || v.Status == report.VolumeDamaged || v.Status == report.VolumePartial {
			good++
		}
		if v.Status != report.VolumeOK {
			bad++
		}
	}
	for _, d := range result.Destinations {
		if d.Error != nil {
			bad++
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case errors.Is(err, backup.ErrUsage):
		return exitUsage
	case good == 0:
		return exitNothing
	case bad > 0:
		return exitAttention
	}
	return exitDone
}
