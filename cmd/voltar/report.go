package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"voltar/internal/clock"
	"voltar/internal/durable"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/statuspage"
	"voltar/report"
)

// reportPerm is for reports that are written to files: they hold names of guests' files. A status page holds names of volumes, and
// whoever serves it reads it as the group of its folder.
const (
	reportPerm = 0o600
	pagePerm   = 0o640
)

func (a *app) reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "show a run's report (default: the last)", ArgsUsage: "[RUN]",
		UsageText: "voltar report # the last\n" +
			"voltar report --list\n" +
			"voltar report last --html /tmp/report.html\n" +
			"voltar report --fleet --older-than 26h # of all hosts that share the store\n" +
			"voltar report --proofs # which drills and restores there were in a year\n",
		Description: "RUN is the identity of a run, or \"last\", the default. Prints the report as text unless an option writes or sends it\n" +
			"in another form. With --fleet, reports on every host that has backups on the destinations, and exits with 3 if one\n" +
			"of their volumes has no good backup that is young enough. --html writes a status page, of this host or with --fleet of\n" +
			"all, that is complete in one file; of a RUN that is named it writes the report as it is mailed. --proofs tells of each\n" +
			"volume when it was last restored, by a drill or for use, and how long that took at the median and at worst.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "html", Usage: "write a status page, or the report of RUN, as HTML to `FILE` (- for standard output)"},
			&cli.StringFlag{Name: "trend", Usage: "write a chart of the last 30 runs as PNG to `FILE` (- for standard output)"},
			&cli.BoolFlag{Name: "send", Usage: "mail the report"},
			&cli.BoolFlag{Name: "list", Usage: "list the runs in the history"},
		}, append(fleetFlags(), proofsFlags()...)...),
		Action: func(c *cli.Context) error {
			if err := refuseTwoOutputs(c); err != nil {
				return err
			}
			if c.Bool("proofs") {
				o, err := readProofs(c)
				if err != nil {
					return err
				}
				return a.proofs(o)
			}
			for _, name := range []string{"since", "csv"} {
				if c.IsSet(name) {
					return usageError(fmt.Errorf("--%s goes with --proofs", name))
				}
			}
			if c.Bool("fleet") {
				o, err := readFleet(c)
				if err != nil {
					return err
				}
				return a.fleet(c.Context, o)
			}
			o, err := readReport(c)
			if err != nil {
				return err
			}
			return a.report(c.Context, o)
		},
	}
}

// refuseTwoOutputs refuses options that both write to standard output.
func refuseTwoOutputs(c *cli.Context) error {
	var to []string
	for _, name := range []string{"html", "trend"} {
		if c.String(name) == "-" {
			to = append(to, "--"+name+" -")
		}
	}
	if c.Bool("json") {
		to = append(to, "--json")
	}
	if len(to) < 2 {
		return nil
	}
	return usageError(say.WithHint(fmt.Errorf("%s cannot both go to standard output", strings.Join(to, " and ")),
		"--html FILE and --trend FILE write to files"))
}

type reportOptions struct {
	setupOptions
	run         string // its identity, or history.Last
	html, trend string // files
	page        bool   // html is to be the status page of this host, not the report of one run
	olderThan   time.Duration
	send, list  bool
}

func readReport(c *cli.Context) (reportOptions, error) {
	o := reportOptions{
		setupOptions: setupOptions{commonOptions: readCommon(c), lookup: true}, run: cmp.Or(c.Args().First(), history.Last),
		html: c.String("html"), trend: c.String("trend"), send: c.Bool("send"), list: c.Bool("list"),
	}
	o.page = o.html != "" && c.NArg() == 0
	for _, name := range []string{"older-than", "from", "except"} {
		if c.IsSet(name) && (name != "older-than" || !o.page) {
			return o, usageError(fmt.Errorf("--%s goes with --fleet", name))
		}
	}
	var err error
	if o.olderThan, err = readOlderThan(c); err != nil {
		return o, err
	}
	if c.NArg() > 1 {
		return o, usageError(errors.New("name one run, or none for the last"))
	}
	return o, nil
}

func (a *app) report(ctx context.Context, o reportOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	runs, err := s.Past().List(0)
	if err != nil {
		s.Log.Warn("the history cannot be read completely", "err", err)
	}
	if o.list {
		return a.listRuns(runs, o.json)
	}
	run, earlier, err := pickRun(runs, o.run)
	if err != nil {
		return err
	}
	return a.showRun(ctx, s, o, run, earlier)
}

// runLine is one run in the output of `voltar report --list`.
type runLine struct {
	Run     string         `json:"run"`
	Command string         `json:"command"`
	Started time.Time      `json:"started"`
	Verdict report.Verdict `json:"verdict"`
	Subject string         `json:"subject"`
	Ahead   bool           `json:"ahead,omitempty"` // dated ahead of this host's clock
}

// listRuns lists the history, the newest run first and those that are dated ahead last.
func (a *app) listRuns(runs []report.Run, asJSON bool) error {
	lines := []runLine{}
	for _, run := range runs {
		line := runLine{run.ID, run.Command, run.Started, run.Verdict(), report.Subject(run), clock.IsAhead(run.Started, a.now())}
		lines = append(lines, line)
	}
	if asJSON {
		return a.printJSON(lines)
	}
	table := a.newTable()
	say.Printf(table, "RUN\tLOCAL TIME\tVERDICT\tSUBJECT\n")
	for _, l := range lines {
		when := shortTime(l.Started)
		if l.Ahead {
			when += " (ahead of this clock)"
		}
		say.Printf(table, "%s\t%s\t%s\t%s\n", l.Run, when, l.Verdict, l.Subject)
	}
	return table.Flush()
}

// pickRun finds a run in the history, and those before it.
func pickRun(runs []report.Run, id string) (report.Run, []report.Run, error) {
	for i, run := range runs {
		if run.ID == id || id == history.Last {
			return run, runs[i+1:], nil
		}
	}
	if id == history.Last {
		return report.Run{}, nil, say.WithHint(errors.New("no run has been reported yet: the history is empty"),
			"`voltar run` makes the first report")
	}
	return report.Run{}, nil, say.WithHint(fmt.Errorf("%w: %q", history.ErrNotFound, id),
		"`voltar report --list` shows what there is")
}

// showRun renders a run in every form that is asked for; as text when it is none.
func (a *app) showRun(ctx context.Context, s *setup.Setup, o reportOptions, run report.Run, earlier []report.Run) error {
	earlier = slices.DeleteFunc(slices.Clone(earlier), func(r report.Run) bool { return clock.IsAhead(r.Started, a.now()) })
	opts := report.Options{Location: time.Local, History: history.Points(earlier)}
	shown := false
	switch {
	case o.page:
		if err := a.writeHostPage(o, append([]report.Run{run}, earlier...)); err != nil {
			return err
		}
		shown = true
	case o.html != "":
		page, err := report.HTML(run, opts)
		if err != nil {
			return err
		}
		if err := a.writeReport(o.html, []byte(page), reportPerm); err != nil {
			return err
		}
		shown = true
	}
	if o.trend != "" {
		picture, err := report.TrendPNG(history.Points(append([]report.Run{run}, earlier...)))
		if err != nil {
			return err
		}
		if picture == nil {
			return errors.New("there is no trend yet: it needs two runs")
		}
		if err := a.writeReport(o.trend, picture, reportPerm); err != nil {
			return err
		}
		shown = true
	}
	if o.send {
		if err := a.delivery(s).Again(ctx, run, opts); err != nil {
			return err
		}
		shown = true
	}
	if o.json || !shown {
		return a.printRun(&run, opts, o.json)
	}
	return nil
}

// writeHostPage writes the status page of this host, by its runs, the newest first.
func (a *app) writeHostPage(o reportOptions, runs []report.Run) error {
	shown, ok := statuspage.Host(runs, a.now(), o.olderThan, time.Local)
	if !ok {
		return errors.New("there is nothing to show yet: no run has made backups")
	}
	page, err := report.StatusPage(shown)
	if err != nil {
		return err
	}
	return a.writeReport(o.html, []byte(page), pagePerm)
}

// writeReport writes a file whole or not at all, where a symbolic link leads to when it is one; into what is no file, as a shell does; or
// to standard output for "-".
func (a *app) writeReport(file string, data []byte, perm os.FileMode) error {
	if file == "-" {
		_, err := a.rawOut.Write(data)
		return err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return usageError(fmt.Errorf("cannot write %s: it is a folder: name a file in it", file))
	} else if err == nil && !info.Mode().IsRegular() {
		return writeInto(path, data)
	}
	path = behindLinks(path)
	err = durable.WriteFile(path, data, perm)
	if dir := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) {
		return usageError(say.WithHint(fmt.Errorf("cannot write %s: there is no folder %s", file, dir), "make it: mkdir -p "+dir))
	}
	return say.AsRoot(err)
}

// behindLinks is where the symbolic links of a path lead to, also when nothing is there yet.
func behindLinks(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	target, err := os.Readlink(path)
	switch {
	case err != nil:
		return path
	case filepath.IsAbs(target):
		return target
	}
	return filepath.Join(filepath.Dir(path), target)
}

// writeInto writes into a device or a pipe, which stays. It does not wait for a reader where there is none.
func writeInto(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}
