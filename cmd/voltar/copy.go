package main

import (
	"context"
	"errors"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/say"
)

func (a *app) copyCommand() *cli.Command {
	return &cli.Command{
		Name: "copy", Usage: "make up what one destination lacks of another", ArgsUsage: "[VOLUME[@TIME]...]",
		Description: "Copies the backups of the volumes that are named, or with --all of all, from one destination to another that\n" +
			"lacks them: the newest first, each file with its sums looked after, the manifest last. What the retention of\n" +
			"the other destination would remove at once is left. It can be broken off and started again at any time, and\n" +
			"goes on while a run works. Each run does this by itself, unless catch_up = false.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "from destination `NAME`"},
			&cli.StringFlag{Name: "to", Usage: "to destination `NAME`"},
			&cli.BoolFlag{Name: "all", Usage: "all that it lacks"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would be copied, and copy nothing"},
		},
		Action: a.copy,
	}
}

func (a *app) copy(c *cli.Context) error {
	switch {
	case c.String("from") == "" || c.String("to") == "":
		return usageError{errors.New("name two destinations: --from NAME --to NAME")}
	case c.Bool("all") == (c.NArg() > 0):
		return usageError{errors.New("name volumes or backups, or give --all for everything")}
	}
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	s.giveWay()
	bars := newProgress(a.rawErr, s.log)
	bars.doing = "copying"
	engine, closeEngine, err := s.engine(bars)
	if err != nil {
		return err
	}
	defer closeEngine()
	q := backup.CopyRequest{From: c.String("from"), To: c.String("to"), DryRun: c.Bool("dry-run")}
	named := map[string]bool{}
	if !c.Bool("all") {
		q.Pick = func(l *catalog.Stock) ([]catalog.Entry, error) { return pickBackups(l, c.Args().Slice(), named) }
	}
	lines, err := engine.Copy(c.Context, q)
	bars.Close()
	if lines == nil && err != nil {
		return err
	}
	if err := a.printCopies(c, lines); err != nil {
		return err
	}
	if err != nil {
		say.Log(s.log.Error, err)
	}
	return exitWith(copyExitCode(c.Context, lines, named, err))
}

// pickBackups returns the backups that arguments name: all of a volume, or of those that a pattern fits, or that of one
// time, which it notes in named.
func pickBackups(l *catalog.Stock, args []string, named map[string]bool) (picked []catalog.Entry, err error) {
	seen := map[string]bool{}
	for _, arg := range args {
		fit, err := fitting(l, arg, named)
		if err != nil {
			return nil, usageError{err}
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
	if strings.LastIndexByte(arg, '@') > 0 { // one at the beginning belongs to the name
		b, err := l.Resolve(arg)
		named[b.ID.String()] = true
		return []catalog.Entry{b}, err
	}
	fit = l.Entries(refMatcher([]string{arg}))
	if len(fit) == 0 {
		_, err = l.Resolve(arg) // whose message says what there is
	}
	return fit, err
}

// copyExitCode is the exit code of a copy. A backup that was named by its time and that retention left needs a person.
func copyExitCode(ctx context.Context, lines []placement.CopyLine, named map[string]bool, err error) int {
	copied, failed, left := 0, 0, 0
	for _, line := range lines {
		switch {
		case line.State == placement.CopyDone:
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
func (a *app) printCopies(c *cli.Context, lines []placement.CopyLine) error {
	if c.Bool("json") {
		if lines == nil {
			lines = []placement.CopyLine{}
		}
		return a.printJSON(lines)
	}
	words := map[placement.CopyState]string{placement.CopyMissing: "would copy", placement.CopyLeft: "left"}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	there := 0
	for _, line := range lines {
		if line.State == placement.CopyThere {
			there++
			continue
		}
		word := words[line.State]
		if word == "" {
			word = string(line.State)
		}
		reason := line.Reason
		if line.Hint != "" {
			reason += " (" + strings.ReplaceAll(line.Hint, "\n", "; ") + ")"
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", line.Backup, say.Size(line.SizeBytes), word, reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := say.Printf(a.stdout, "%s has %d of %d already.\n", c.String("to"), there, len(lines))
	return err
}
