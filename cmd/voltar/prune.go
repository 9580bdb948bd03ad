package main

import (
	"context"
	"errors"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/progress"
	"voltar/internal/say"
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

// prune shows how far it is.
func (a *app) prune(ctx context.Context, e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
	work := progress.NewWork(a.screen, e.Log, "pruning", "sources")
	defer work.Close()
	work.Started(0)
	e.OnPruned = work.Reached
	return e.Prune(ctx, wanted, dryRun)
}

func (a *app) forgetCommand() *cli.Command {
	return &cli.Command{
		Name: "forget", Usage: "remove all backups of sources that no longer exist", ArgsUsage: "VG/LV|@KIND/NAME...",
		UsageText: "voltar forget nova-volumes/volume-00000009 --dry-run\n" +
			"voltar forget nova-volumes/volume-00000009\n",
		Description: "Removes all backups of a volume that is no longer on this host, and of a directory, dump or stream that is no longer\n" +
			"in the configuration. Keeps backups of sources that still exist.",
		Flags: []cli.Flag{dryRunFlag("print what would be removed, and remove nothing")},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError(errors.New("name a volume as VG/LV, or a source as @KIND/NAME"))
			}
			return a.remove(c.Context, c.Command.Name, readRemove(c), forget)
		},
	}
}

func forget(ctx context.Context, e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
	return e.Forget(ctx, wanted, dryRun)
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
	lines, err := do(ctx, engine, refMatcher(o.sources), o.dryRun)
	if err != nil && lines == nil {
		return err
	}
	if o.json {
		if err := a.printJSON(lines); err != nil {
			return err
		}
	} else if err := a.printPruneLines(lines, o.dryRun); err != nil {
		return err
	}
	if err != nil {
		say.Log(s.Log.Error, err)
		return exitWith(exitAttention)
	}
	return nil
}

func (a *app) printPruneLines(lines []keep.Line, dryRun bool) error {
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	removed := 0
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
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\n", line.Destination, line.Backup, say.Size(line.SizeBytes), verdict, line.Reason)
	}
	if err := table.Flush(); err != nil || removed > 0 {
		return err
	}
	_, err := say.Printf(a.stdout, "There is nothing to remove: %s kept.\n", counted(len(lines), "backup"))
	return err
}
