package main

import (
	"errors"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/keep"
	"voltar/internal/say"
)

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "apply retention to the backups there are", ArgsUsage: "[VOLUME...]",
		Description: "Removes what the policy of each destination no longer keeps, as each run does by itself. The last good\n" +
			"backup of a volume always stays.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print the reason for each backup, and remove nothing"}},
		Action: func(c *cli.Context) error {
			return a.remove(c, func(e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
				return e.Prune(c.Context, wanted, dryRun)
			})
		},
	}
}

func (a *app) forgetCommand() *cli.Command {
	return &cli.Command{
		Name: "forget", Usage: "remove the backups of what is gone", ArgsUsage: "VG/LV|@KIND/NAME...",
		Description: "Removes all backups of a volume that is no longer on this host, and of a directory, dump or stream that is no longer\n" +
			"in the configuration. Those of what is there are kept.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would go, and remove nothing"}},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError{errors.New("name a volume as VG/LV, or a source as @KIND/NAME")}
			}
			return a.remove(c, func(e *backup.Engine, wanted func(catalog.Ref) bool, dryRun bool) ([]keep.Line, error) {
				return e.Forget(c.Context, wanted, dryRun)
			})
		},
	}
}

// remove runs what prune and forget have in common and prints a line for each backup.
func (a *app) remove(c *cli.Context, do func(*backup.Engine, func(catalog.Ref) bool, bool) ([]keep.Line, error)) error {
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	engine, closeEngine, err := s.engine(nil)
	if err != nil {
		return err
	}
	defer closeEngine()
	dryRun := c.Bool("dry-run")
	lines, err := do(engine, refMatcher(c.Args().Slice()), dryRun)
	if err != nil && lines == nil {
		return err
	}
	if c.Bool("json") {
		if lines == nil {
			lines = []keep.Line{}
		}
		if err := a.printJSON(lines); err != nil {
			return err
		}
	} else if err := a.printPruneLines(lines, dryRun); err != nil {
		return err
	}
	if err != nil {
		say.Log(s.log.Error, err)
		return exitWith(exitAttention)
	}
	return nil
}

func (a *app) printPruneLines(lines []keep.Line, dryRun bool) error {
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		verdict := "removed"
		switch {
		case line.Keep:
			verdict = "kept"
		case dryRun:
			verdict = "would remove"
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\n", line.Destination, line.Backup, say.Size(line.SizeBytes), verdict, line.Reason)
	}
	return table.Flush()
}

// refMatcher tells whether a source is one of those that patterns name; without patterns all are.
func refMatcher(patterns []string) func(catalog.Ref) bool {
	if len(patterns) == 0 {
		return nil
	}
	return func(ref catalog.Ref) bool {
		for _, pattern := range patterns {
			if pattern == ref.String() || config.MatchVolume(pattern, ref.VG, ref.Name) {
				return true
			}
		}
		return false
	}
}
