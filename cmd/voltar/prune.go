package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/progress"
	"voltar/internal/say"
	"voltar/internal/setup"
)

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "apply retention to the backups there are", ArgsUsage: "[VOLUME...]",
		UsageText: "voltar prune --dry-run # the reason for each backup\n" +
			"voltar prune\n",
		Description: "Removes the backups that the policy of their destination no longer keeps, as each run does by itself. Always keeps\n" +
			"the last good backup of a volume.",
		Flags: []cli.Flag{dryRunFlag("print the reason for each backup, and remove nothing")},
		Action: func(c *cli.Context) error {
			return a.remove(c.Context, c.Command.Name, readRemove(c), a.prune)
		},
	}
}

func (a *app) prune(ctx context.Context, e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
	defer a.showRemoving(e, "pruning")()
	return e.Prune(ctx, wanted, dryRun)
}

// showRemoving shows how far what removes backups is, until it is called.
func (a *app) showRemoving(e *backup.Engine, doing string) (end func()) {
	work := progress.NewWork(a.screen, e.Log, doing, "sources")
	work.Started(0)
	e.OnSource = work.Reached
	return work.Close
}

func (a *app) forgetCommand() *cli.Command {
	return &cli.Command{
		Name: "forget", Usage: "remove one backup, or all of sources that no longer exist", ArgsUsage: "VOLUME@TIME|VG/LV|@KIND/NAME...",
		UsageText: "voltar forget nova-volumes/volume-00000009 --dry-run\n" +
			"voltar forget nova-volumes/volume-00000009 # all backups of a volume that is gone\n" +
			"voltar forget web@2026-11-20T010001Z # this backup, on all destinations\n" +
			"voltar forget web@2026-11-20T010001Z --from offsite\n",
		Description: "Removes all backups of a volume that is no longer on this host, and of a directory, dump or stream that is no longer\n" +
			"in the configuration. Keeps backups of sources that still exist.\n" +
			"VOLUME@TIME names one backup, also of a source that exists. The newest good backup on a destination stays unless\n" +
			"--force is given, and so does one that was made at one moment with others of its [[group]], unless these go too; so does\n" +
			"one whose manifest cannot be read. What object lock holds stays in any case. A backup that was removed --from one\n" +
			"destination alone may come back by the next run, which makes up what a destination lacks (catch_up).",
		Flags: []cli.Flag{dryRunFlag("print what would be removed, and remove nothing"),
			&cli.StringFlag{Name: "from", Usage: "remove backups with a time only from destination `NAME`"},
			&cli.BoolFlag{Name: "force", Usage: "remove backups with a time also where one is the newest good one, or one of a group alone"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError(errors.New("name a volume as VG/LV, a source as @KIND/NAME, or a backup as VOLUME@TIME"))
			}
			o := readRemove(c)
			timed := slices.ContainsFunc(o.sources, func(text string) bool { _, _, timed := cutTime(text); return timed })
			if timed {
				return a.forgetBackups(c.Context, o, c.String("from"), c.Bool("force"))
			}
			if c.IsSet("from") || c.Bool("force") {
				return usageError(errors.New("--from and --force go with backups that are named with a time: VOLUME@TIME"))
			}
			return a.remove(c.Context, c.Command.Name, o, a.forget)
		},
	}
}

func (a *app) forget(ctx context.Context, e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
	defer a.showRemoving(e, "forgetting")()
	return e.Forget(ctx, wanted, dryRun)
}

// forgetBackups removes backups that are named with their times.
func (a *app) forgetBackups(ctx context.Context, o removeOptions, from string, force bool) error {
	if err := checkTimes(o.sources); err != nil {
		return err
	}
	for _, text := range o.sources {
		if _, _, timed := cutTime(text); !timed {
			return usageError(fmt.Errorf("%q has no time, and another name has one: name backups, or what is gone, in commands of their own", text))
		}
	}
	s, engine, err := a.setupEngine(o.setupOptions)
	if err != nil {
		return err
	}
	stores := s.Stores
	if from != "" {
		stores = slices.DeleteFunc(slices.Clone(stores), func(d setup.Destination) bool { return d.Name != from })
	}
	meant, err := byGuest(ctx, s, stores, o.sources)
	if err != nil {
		return err
	}
	end := a.showRemoving(engine, "forgetting")
	lines, err := engine.ForgetBackups(ctx, backup.ForgetRequest{Backups: meant.words, From: from, Force: force, DryRun: o.dryRun})
	end()
	return a.printRemoved(s, lines, err, o)
}

type removeOptions struct {
	setupOptions
	sources []string // names and patterns; none for all
	dryRun  bool
}

func readRemove(c *cli.Context) removeOptions {
	return removeOptions{setupOptions{commonOptions: readCommon(c)}, c.Args().Slice(), c.Bool("dry-run")}
}

// remove runs what prune and forget have in common and prints a line for each backup.
func (a *app) remove(
	ctx context.Context, command string, o removeOptions,
	do func(ctx context.Context, e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error),
) error {
	if err := refuseTimes(command, o.sources); err != nil {
		return err
	}
	s, engine, err := a.setupEngine(o.setupOptions)
	if err != nil {
		return err
	}
	meant, err := byGuest(ctx, s, s.Stores, o.sources)
	if err == nil && command == "forget" {
		err = meant.refuseForeign()
	}
	if err != nil {
		return err
	}
	lines, err := do(ctx, engine, refMatcher(meant.words), o.dryRun)
	if err == nil {
		err = unfound(meant.words, say.Names(lines, func(l keep.Line) string { return l.Backup }))
	}
	return a.printRemoved(s, lines, err, o)
}

// printRemoved prints what became of each backup; err is of what could not be done.
func (a *app) printRemoved(s *setup.Setup, lines []keep.Line, err error, o removeOptions) error {
	if err != nil && lines == nil {
		return err
	}
	show := func() error { return a.printPruneLines(lines, o.dryRun, err != nil) }
	if o.json {
		show = func() error { return a.printJSON(lines) }
	}
	if unprinted := show(); unprinted != nil {
		return errors.Join(err, unprinted)
	}
	if err != nil {
		say.Log(s.Log.Error, err)
		return exitWith(exitAttention)
	}
	return nil
}

func (a *app) printPruneLines(lines []keep.Line, dryRun, failed bool) error {
	table := a.newTable()
	removed := 0
	var heldBytes, freedBytes int64 // of those that go
	for _, line := range lines {
		verdict := "removed"
		switch {
		case line.Keep:
			verdict = "kept"
		case dryRun:
			verdict = "would remove"
		}
		if !line.Keep {
			removed++
			heldBytes, freedBytes = heldBytes+line.SizeBytes, freedBytes+line.FreedBytes
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\n", line.Destination, line.Backup, say.Size(line.SizeBytes), verdict, line.Reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if freedBytes < heldBytes {
		word := "freed"
		if dryRun {
			word = "would free"
		}
		if _, err := say.Printf(a.stdout, "This %s %s of %s: the rest is shared with backups that stay.\n", word, say.Size(freedBytes),
			say.Size(heldBytes)); err != nil {
			return err
		}
	}
	if removed > 0 || failed {
		return nil
	}
	_, err := say.Printf(a.stdout, "There is nothing to remove: %s kept.\n", say.Counted(len(lines), "backup"))
	return err
}
