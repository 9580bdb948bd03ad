package main

import (
	"errors"
	"fmt"
	"math"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/config"
	"voltar/internal/say"
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
				Flags: append(commonFlags(),
					&cli.StringFlag{Name: "name", Usage: nameUsage, Value: "kept"},
					&cli.StringFlag{Name: "size",
						Usage: "copy-on-write space of each: `SIZE`, as 5%ORIGIN or 2G; less than the origin means until it is full"},
					&cli.BoolFlag{Name: "must-be-quiet", Usage: "fail when something could not be frozen, instead of going on crash-consistent"},
				),
				Action: a.snapshotCreate,
			},
			{Name: "list", Usage: "show them, with age and fill", ArgsUsage: "[NAME]", Flags: commonFlags(), Action: a.snapshotList},
			{Name: "remove", Usage: "remove a set", ArgsUsage: "NAME", Flags: commonFlags(), Action: a.snapshotRemove},
			{
				Name: "merge", Usage: "bring volumes back to what a set holds, and end it", ArgsUsage: "NAME",
				Description: "EVERYTHING WRITTEN TO THE VOLUMES SINCE IS LOST: --force says that this is meant.",
				Flags: append(commonFlags(),
					&cli.BoolFlag{Name: "force", Usage: "give up what was written to the volumes since"},
					&cli.BoolFlag{Name: "defer", Usage: "when a volume is in use, let it go back when it is activated next"}),
				Action: a.snapshotMerge,
			},
		},
	}
}

// withEngine builds an engine for one action.
func (a *app) withEngine(c *cli.Context, do func(*setup, *backup.Engine) error) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	if text := c.String("size"); text != "" {
		var size config.SnapshotSize
		if err := size.UnmarshalText([]byte(text)); err != nil {
			return usageError{fmt.Errorf("--size: %w", err)}
		}
		s.snapshotSize = &size
	}
	s.mustBeQuiet = c.Bool("must-be-quiet")
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	return do(s, engine)
}

func (a *app) snapshotCreate(c *cli.Context) error {
	return a.withEngine(c, func(s *setup, engine *backup.Engine) error {
		if s.config.Path() == "" && c.NArg() == 0 {
			return usageError{errors.New("there is no configuration: name volumes")}
		}
		made, problems, err := engine.Keep(c.Context, c.String("name"), c.Args().Slice())
		for _, p := range problems {
			s.log.Warn(p.Message, say.HintAttr(p.Hint))
		}
		if err != nil {
			return err
		}
		return a.printKept(c, made)
	})
}

func (a *app) snapshotList(c *cli.Context) error {
	return a.withEngine(c, func(_ *setup, engine *backup.Engine) error {
		kept, err := engine.ListKept(c.Context, c.Args().First())
		if err != nil {
			return err
		}
		return a.printKept(c, kept)
	})
}

func (a *app) snapshotRemove(c *cli.Context) error {
	return a.withEngine(c, func(_ *setup, engine *backup.Engine) error {
		removed, err := engine.RemoveKept(c.Context, c.Args().First())
		if c.Bool("json") {
			err = errors.Join(a.printJSON(removed), err)
		} else {
			for _, k := range removed {
				say.Println(a.stdout, "removed:", k.Snapshot)
			}
		}
		return err
	})
}

func (a *app) snapshotMerge(c *cli.Context) error {
	if !c.Bool("force") {
		return usageError{say.WithHint(errors.New("everything written to the volumes since the snapshots were made would be lost"),
			"--force does it; `voltar snapshot list` shows how old they are")}
	}
	return a.withEngine(c, func(_ *setup, engine *backup.Engine) error {
		merged, err := engine.MergeKept(c.Context, c.Args().First(), c.Bool("defer"))
		if c.Bool("json") {
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
func (a *app) printKept(c *cli.Context, kept []backup.Kept) error {
	if c.Bool("json") {
		return a.printJSON(kept)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
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
