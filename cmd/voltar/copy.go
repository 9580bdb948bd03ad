package main

import (
	"context"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/progress"
	"voltar/internal/say"
)

func (a *app) copyCommand() *cli.Command {
	return &cli.Command{
		Name: "copy", Usage: "copy missing backups between destinations", ArgsUsage: "[VOLUME[@TIME]...]",
		UsageText: "voltar copy --from disk --to offsite --all --dry-run\n" +
			"voltar copy --from offsite --to disk web@2026-11-20\n",
		Description: "Copies the backups of the named volumes, or of all volumes with --all, to a destination that lacks them: the newest\n" +
			"first, each file with its sums checked, the manifest last. Leaves out backups that the retention of that\n" +
			"destination would remove at once. You can interrupt it and start it again at any time; it may run at the same\n" +
			"time as `voltar run`. Each run does this by itself, unless catch_up = false.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "copy from destination `NAME`"},
			&cli.StringFlag{Name: "to", Usage: "copy to destination `NAME`"},
			&cli.BoolFlag{Name: "all", Usage: "copy all missing backups"},
			dryRunFlag("print what would be copied, and copy nothing"),
		},
		Action: func(c *cli.Context) error {
			o, err := readCopy(c)
			if err != nil {
				return err
			}
			return a.copy(c.Context, o)
		},
	}
}

type copyOptions struct {
	setupOptions
	from, to string
	backups  []string // volumes and backups; none for all
	dryRun   bool
}

func readCopy(c *cli.Context) (copyOptions, error) {
	o := copyOptions{
		setupOptions: setupOptions{commonOptions: readCommon(c)},
		from:         c.String("from"), to: c.String("to"), backups: c.Args().Slice(), dryRun: c.Bool("dry-run"),
	}
	switch {
	case o.from == "" || o.to == "":
		return o, usageError(errors.New("name two destinations: --from NAME --to NAME"))
	case c.Bool("all") == (len(o.backups) > 0):
		return o, usageError(errors.New("name volumes or backups, or give --all for everything"))
	}
	return o, checkTimes(o.backups)
}

func (a *app) copy(ctx context.Context, o copyOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	s.GiveWay()
	bars := progress.NewRun(a.screen, s.Log, "copying", "comparing "+o.from+" with "+o.to, true)
	engine, err := s.Engine(bars)
	if err != nil {
		return err
	}
	q := backup.CopyRequest{From: o.from, To: o.to, DryRun: o.dryRun}
	named := map[string]bool{}
	if len(o.backups) > 0 {
		q.Pick = func(l *catalog.Stock) ([]catalog.Entry, error) { return pickBackups(l, o.backups, named) }
	}
	lines, err := engine.Copy(ctx, q)
	bars.Close()
	if lines == nil && err != nil {
		return err
	}
	if err := a.printCopies(lines, o); err != nil {
		return err
	}
	if err != nil {
		say.Log(s.Log.Error, err)
	}
	return exitWith(copyExitCode(ctx, lines, named, err))
}

// pickBackups returns the backups that arguments name: all of a volume, or of those that a pattern fits, or that of one
// time, which it notes in named.
func pickBackups(l *catalog.Stock, args []string, named map[string]bool) (picked []catalog.Entry, err error) {
	seen := map[string]bool{}
	for _, arg := range args {
		fit, err := fitting(l, arg, named)
		if err != nil {
			return nil, usageError(err)
		}
		for _, b := range fit {
			if !seen[b.ID.String()] {
				picked = append(picked, b)
			}
			seen[b.ID.String()] = true
		}
	}
	return picked, nil
}

func fitting(l *catalog.Stock, arg string, named map[string]bool) (fit []catalog.Entry, err error) {
	if _, _, timed := cutTime(arg); timed {
		b, err := l.Resolve(arg)
		named[b.ID.String()] = true
		return []catalog.Entry{b}, err
	}
	fit = l.Entries(refMatcher([]string{arg}))
	if len(fit) == 0 {
		fit, err = catalog.OfGuest(l.Entries(nil), arg)
	}
	if len(fit) == 0 && err == nil {
		_, err = l.Resolve(arg) // whose message says what there is
	}
	return fit, err
}

// copyExitCode is the exit code of a copy. A backup that was named by its time and that retention left needs a person.
func copyExitCode(ctx context.Context, lines []placement.CopyLine, named map[string]bool, err error) int {
	copied, failed, left := 0, 0, 0
	for _, line := range lines {
		switch {
		case line.State == placement.CopyDone, line.State == placement.CopyMended:
			copied++
		case line.State == placement.CopyFailed:
			failed++
		case line.State == placement.CopyLeft && named[line.Backup]:
			left++
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case failed > 0 && copied == 0:
		return exitNothing
	case failed > 0 || left > 0 || err != nil:
		return exitAttention
	}
	return exitDone
}

// printCopies prints what became of each backup, but for those that were there already: how many these are.
func (a *app) printCopies(lines []placement.CopyLine, o copyOptions) error {
	if o.json {
		return a.printJSON(lines)
	}
	words := map[placement.CopyState]string{
		placement.CopyMissing: "would copy", placement.CopyLeft: "left", placement.CopyDamaged: "would repair",
	}
	table := a.newTable()
	there := 0
	var copied, shared int64 // bytes
	for _, line := range lines {
		if line.State == placement.CopyThere {
			there++
			continue
		}
		word := words[line.State]
		if word == "" {
			word = string(line.State)
		}
		if line.State == placement.CopyDone || line.State == placement.CopyMended {
			copied, shared = copied+line.SizeBytes, shared+line.SharedBytes
		}
		if line.SharedBytes > 0 {
			word += ", " + say.Size(line.SizeBytes-line.SharedBytes) + " new"
		}
		reason := strings.ReplaceAll(line.Reason, "\n", "; ")
		if line.Hint != "" {
			reason += " (" + strings.ReplaceAll(line.Hint, "\n", "; ") + ")"
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", line.Backup, say.Size(line.SizeBytes), word, reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if shared > 0 {
		if _, err := say.Printf(a.stdout, "%s of %s new: the rest is shared with backups that %s has.\n", say.Size(copied-shared),
			say.Size(copied), o.to); err != nil {
			return err
		}
	}
	_, err := say.Printf(a.stdout, "%s has %d of %d already.\n", o.to, there, len(lines))
	return err
}
