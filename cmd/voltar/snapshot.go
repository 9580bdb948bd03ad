package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/config"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/report"
)

// snapshotCommand serves the scripts that other tools run before and after a storage-level snapshot. 0 means done, and
// anything else not: a before script that fails stops the tool.
func (a *app) snapshotCommand() *cli.Command {
	nameUsage := "the set is called `NAME`"
	return &cli.Command{
		Name: "snapshot", Usage: "LVM snapshots alone, for other tools' before and after scripts",
		Description: "Makes snapshots of volumes at one moment, with everything frozen that the configuration names for them,\n" +
			"and leaves them standing under a name. A run of voltar never removes them.",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "snapshot volumes, all at one moment", ArgsUsage: "[VOLUME...]",
				UsageText: "voltar snapshot create --name nightly web db",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "name", Usage: nameUsage, Value: "kept"},
					&cli.StringFlag{Name: "size",
						Usage: "copy-on-write space of each: `SIZE`, as 5%ORIGIN or 2G; less than the origin means until it is full"},
					&cli.BoolFlag{Name: "must-be-quiet", Usage: "fail when something could not be frozen, instead of going on crash-consistent"},
				},
				Action: func(c *cli.Context) error {
					o, err := readSnapshot(c)
					if err != nil {
						return err
					}
					return a.snapshotCreate(c.Context, o)
				},
			},
			{Name: "list", Usage: "show them, with age and fill", ArgsUsage: "[NAME]",
				Action: func(c *cli.Context) error { return a.snapshotList(c.Context, readSet(c)) }},
			{Name: "remove", Usage: "remove a set", ArgsUsage: "NAME",
				Action: func(c *cli.Context) error { return a.snapshotRemove(c.Context, readSet(c)) }},
			{
				Name: "merge", Usage: "bring volumes back to what a set holds, and end it", ArgsUsage: "NAME",
				UsageText:   "voltar snapshot merge nightly --force",
				Description: "EVERYTHING WRITTEN TO THE VOLUMES SINCE IS LOST: --force says that this is meant.",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "force", Usage: "give up what was written to the volumes since"},
					&cli.BoolFlag{Name: "defer", Usage: "when a volume is in use, let it go back when it is activated next"}},
				Action: func(c *cli.Context) error {
					if !c.Bool("force") {
						return usageError(say.WithHint(errors.New("everything written to the volumes since the snapshots were made would be lost"),
							"--force does it; `voltar snapshot list` shows how old they are"))
					}
					return a.snapshotMerge(c.Context, readSet(c), c.Bool("defer"))
				},
			},
		},
	}
}

type snapshotOptions struct {
	setupOptions
	set     string // the name of the set; "" for all
	volumes []string
}

// readSet reads the arguments of the commands that name a set.
func readSet(c *cli.Context) snapshotOptions {
	return snapshotOptions{setupOptions: setupOptions{commonOptions: readCommon(c)}, set: c.Args().First()}
}

func readSnapshot(c *cli.Context) (snapshotOptions, error) {
	o := snapshotOptions{setupOptions: setupOptions{commonOptions: readCommon(c), mustBeQuiet: c.Bool("must-be-quiet")},
		set: c.String("name"), volumes: c.Args().Slice()}
	if text := c.String("size"); text != "" {
		var size config.SnapshotSize
		if err := size.UnmarshalText([]byte(text)); err != nil {
			return o, usageError(fmt.Errorf("--size: %w", err))
		}
		o.snapshotSize = &size
	}
	return o, nil
}

// withEngine builds an engine for one action.
func (a *app) withEngine(o setupOptions, do func(*setup.Setup, *backup.Engine) error) error {
	s, engine, err := a.setupEngine(o)
	if err != nil {
		return err
	}
	return do(s, engine)
}

func (a *app) snapshotCreate(ctx context.Context, o snapshotOptions) error {
	return a.withEngine(o.setupOptions, func(s *setup.Setup, engine *backup.Engine) error {
		if s.Config.Path() == "" && len(o.volumes) == 0 {
			return usageError(errors.New("there is no configuration: name volumes"))
		}
		made, problems, err := engine.Keep(ctx, o.set, o.volumes)
		for _, p := range problems {
			s.Log.Warn(p.Message, say.HintAttr(p.Hint))
		}
		if err != nil {
			return err
		}
		return a.printKept(made, o.json)
	})
}

func (a *app) snapshotList(ctx context.Context, o snapshotOptions) error {
	return a.withEngine(o.setupOptions, func(_ *setup.Setup, engine *backup.Engine) error {
		kept, err := engine.ListKept(ctx, o.set)
		if err != nil {
			return err
		}
		return a.printKept(kept, o.json)
	})
}

func (a *app) snapshotRemove(ctx context.Context, o snapshotOptions) error {
	return a.withEngine(o.setupOptions, func(_ *setup.Setup, engine *backup.Engine) error {
		removed, err := engine.RemoveKept(ctx, o.set)
		if o.json {
			return errors.Join(a.printJSON(removed), err)
		}
		for _, k := range removed {
			say.Println(a.stdout, "removed:", k.Snapshot)
		}
		return err
	})
}

func (a *app) snapshotMerge(ctx context.Context, o snapshotOptions, later bool) error {
	return a.withEngine(o.setupOptions, func(_ *setup.Setup, engine *backup.Engine) error {
		merged, err := engine.MergeKept(ctx, o.set, later)
		if o.json {
			return errors.Join(a.printJSON(merged), err)
		}
		for _, m := range merged {
			if m.Deferred {
				say.Printf(a.stdout, "%s goes back to %s when it is activated next; until then it shows what it holds now\n", m.Volume, m.Snapshot)
			} else {
				say.Printf(a.stdout, "%s is back at %s\n", m.Volume, shortTime(m.Made))
			}
		}
		return err
	})
}

// printKept prints snapshots as a table.
func (a *app) printKept(kept []backup.Kept, asJSON bool) error {
	if asJSON {
		return a.printJSON(kept)
	}
	table := a.newTable()
	say.Printf(table, "NAME\tVOLUME\tSNAPSHOT\tAGE\tSIZE\tFILL\tSTATE\n")
	for _, k := range kept {
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, k.Volume, k.Device, keptAge(k), say.Size(k.SizeBytes),
			keptFill(k), keptState(k))
	}
	return table.Flush()
}

func keptAge(k backup.Kept) string {
	if k.Made.IsZero() {
		return "unknown"
	}
	return report.FormatDuration(max(0, time.Since(k.Made)))
}

func keptFill(k backup.Kept) string {
	if k.UsedPercent < 0 || k.Thin {
		return "-" // a thin snapshot shares its pool
	}
	return fmt.Sprintf("%.1f%%", math.Round(k.UsedPercent*10)/10)
}

func keptState(k backup.Kept) string {
	switch {
	case k.Invalid:
		return "OVERFLOWED: nothing in it counts"
	case k.Merging:
		return "merging"
	case !k.Active:
		return "not active"
	case k.Quiesce != "":
		return k.Quiesce
	}
	return "ok"
}
