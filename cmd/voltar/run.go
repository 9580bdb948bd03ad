package main

import (
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/deliver"
	"voltar/internal/progress"
	"voltar/internal/say"
	"voltar/report"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "back up volumes", ArgsUsage: "[VOLUME...]",
		UsageText: "voltar run --dry-run # what tonight's run would do\n" +
			"voltar run # back up everything that the configuration selects, and mail the report\n" +
			"voltar run nova-volumes/volume-00000001 --no-mail # one volume, without a report\n" +
			"voltar run web1 # the disks of a guest\n" +
			"voltar run web --to /mnt/disk # one volume, to a disk that is plugged in\n",
		Description: "Backs up the volumes that the configuration selects, or the volumes that are named: VG/LV, LV, a\n" +
			"pattern, or a guest for all its disks.\n" +
			"Snapshots each volume, archives it to every destination and checks the result; then applies retention and\n" +
			"mails the report.",
		Flags: []cli.Flag{
			dryRunFlag("print what a run would do, and do nothing"),
			&cli.BoolFlag{Name: "no-mail", Usage: "send no report: no mail, no webhook, no ping"},
			&cli.StringFlag{Name: "to", Usage: "back up to the folder `DIR`, which must be there, instead of the configured destinations"},
		},
		Action: func(c *cli.Context) error {
			return a.run(c.Context, runOptions{
				setupOptions: setupOptions{commonOptions: readCommon(c), folder: c.String("to")},
				volumes:      c.Args().Slice(), dryRun: c.Bool("dry-run"), noMail: c.Bool("no-mail"),
			})
		},
	}
}

type runOptions struct {
	setupOptions
	volumes        []string // names and patterns; none for all that the configuration selects
	dryRun, noMail bool
}

func (a *app) run(ctx context.Context, o runOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	if s.Config.Path() == "" && len(o.volumes) == 0 {
		return usageError(say.WithHint(errors.New("there is no configuration"),
			"`voltar init` writes one; without one, name volumes and give --to DIR"))
	}
	if len(s.Stores) == 0 {
		return s.NoDestination("--to DIR")
	}
	s.GiveWay()
	bars := progress.NewRun(a.screen, s.Log, "backing up", "looking at volumes and destinations", false)
	delivery := a.delivery(s)
	watched := delivery.StillRunning(bars)
	engine, err := s.Engine(watched)
	if err != nil {
		return err
	}
	if o.dryRun {
		return a.dryRun(ctx, s, engine, o)
	}
	whole := len(o.volumes) == 0 && o.folder == "" && !o.noMail
	if whole {
		delivery.Begin(ctx)
	}
	endWatch := func() {}
	if !o.noMail {
		endWatch = watched.Watch(ctx, s.Config.Limits.TellAfter.Span())
	}
	result, err := engine.Run(ctx, o.volumes)
	endWatch()
	bars.Close()
	if result == nil || errors.Is(err, backup.ErrUsage) && a.isTyped() {
		return err // who typed a wrong name reads it here: nobody else needs to hear of it
	}
	result.ExitCode = runExitCode(ctx, result, err)
	undelivered := delivery.Run(ctx, result, deliver.Options{NoMail: o.noMail, Whole: whole})
	if undelivered != nil {
		s.Log.Error("the report was not delivered", "err", undelivered)
	}
	if err != nil {
		say.Log(s.Log.Error, err)
	}
	bars.RunEnded(result)
	code := result.ExitCode
	if err := a.printRun(result, delivery.Rendering(result), o.json); withoutUnread(err) != nil {
		s.Log.Error("the report was not printed", "err", err)
		if code == exitDone {
			code = exitNotDelivered
		}
	}
	return exitWith(code)
}

// printRun prints what a run came to; the options are for its text.
func (a *app) printRun(result *report.Run, opts report.Options, asJSON bool) error {
	if asJSON {
		text, err := report.JSON(*result)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(text)
		return err
	}
	_, err := io.WriteString(a.stdout, report.Text(*result, opts))
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
