package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/drill"
	"voltar/internal/journal"
	"voltar/internal/progress"
	"voltar/internal/restore"
	"voltar/internal/revive"
	"voltar/internal/safedir"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/report"
)

func (a *app) drillCommand() *cli.Command {
	return &cli.Command{
		Name: "drill", Usage: "try backups: restore them where nobody sees it, and compare", ArgsUsage: "[BACKUP...]",
		UsageText: "voltar drill web # the newest backup of web\n" +
			"voltar drill --next # the one that has waited longest\n" +
			"voltar drill --next --number 3 --mail\n",
		Description: "Restores each backup to a scratch file, checks its filesystems, compares every entry and every byte in them with\n" +
			"the backup, and removes the file. The host's own volumes are not touched, and nothing of the copy shows in /dev/disk\n" +
			"or to LVM. Exits with 3 if a backup does not come back as it was, and keeps the result in the history: reports say\n" +
			"since when a volume is proven.",
		Flags: []cli.Flag{untrustedFlag(),
			&cli.BoolFlag{Name: "next", Usage: "try the backup that has waited longest, a volume without any drill first"},
			&cli.IntFlag{Name: "number", Value: 1, Usage: "with --next: try so many"},
			fromFlag(),
			hostFlag(),
			identityFlag(),
			&cli.BoolFlag{Name: "mail", Usage: "mail the report if a backup is not proven"},
		},
		Action: func(c *cli.Context) error {
			o, err := readDrill(c)
			if err != nil {
				return usageError(err)
			}
			return a.drill(c.Context, o)
		},
	}
}

type drillOptions struct {
	setupOptions
	sourceOptions
	backups []string
	number  int // of those that have waited longest; 0 for those that are named
	mail    bool
}

func readDrill(c *cli.Context) (drillOptions, error) {
	o := drillOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted")},
		sourceOptions: readSource(c), backups: c.Args().Slice(), mail: c.Bool("mail"),
	}
	if c.Bool("next") {
		o.number = c.Int("number")
	}
	switch {
	case c.Bool("next") == (len(o.backups) > 0):
		return o, errors.New("name backups, VOLUME[@TIME], or give --next")
	case c.IsSet("number") && !c.Bool("next"):
		return o, errors.New("--number goes with --next")
	case c.Bool("next") && o.number < 1:
		return o, fmt.Errorf("--number: %d is less than 1", o.number)
	}
	return o, checkTimes(o.backups)
}

// drilledLine is one backup in the output of `voltar drill`.
type drilledLine struct {
	Backup      string  `json:"backup"`
	Destination string  `json:"destination"`
	Good        bool    `json:"good"`
	Seconds     float64 `json:"seconds"`
	Entries     int64   `json:"entries"`
	Error       string  `json:"error,omitempty"`
	Hint        string  `json:"hint,omitempty"` // what to do about the error, a line for each thing
}

func (a *app) drill(ctx context.Context, o drillOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	bars := progress.NewWork(a.screen, s.Log, "trying", "")
	host := s.OwnedHost()
	driller := &drill.Driller{Engine: s.RestoreEngine(host, bars), Options: drill.Options{
		MaxBytes: s.Config.Drill.MaxSize.Bytes(), MaxDuration: s.Config.Drill.MaxDuration.Span(), Now: s.Now,
		MarkDamaged: s.MarkDamaged,
	}}
	if driller.Decrypt, err = a.decrypt(s, o.identities, false); err != nil {
		return err
	}
	if driller.Folder, err = drillFolder(s); err != nil {
		return err
	}
	s.Recover(ctx, host)
	run := proofRun(s, o.host, drill.Command)
	if o.number > 0 {
		err = a.drillNext(ctx, s, driller, o, &run)
	} else {
		err = a.drillNamed(ctx, s, driller, o, &run)
	}
	bars.Close()
	switch {
	case err != nil && len(run.Volumes) == 0:
		return err
	case len(run.Volumes) == 0 && !o.json: // no fault; the log says what was passed over
		_, err := say.Println(a.stdout, "There is no backup of a volume that can be tried.")
		return err
	case len(run.Volumes) == 0:
		return a.printDrills(run, true)
	}
	run.Ended = s.Now().UTC()
	run.ExitCode = proofExitCode(ctx, run, err)
	a.delivery(s).Verification(ctx, &run, o.mail && len(run.NotGood()) > 0)
	if printErr := a.printDrills(run, o.json); printErr != nil {
		return printErr
	}
	if err != nil {
		a.printError(err)
	}
	return exitWith(run.ExitCode)
}

// proofRun begins the report of drills or restores.
func proofRun(s *setup.Setup, host, command string) report.Run {
	run := report.Run{
		Schema: report.Schema, Host: s.HostOr(host), Version: programVersion(), Config: s.Config.Path(), Command: command,
		Started: s.Now().UTC(),
	}
	run.ID = journal.NewRunID(run.Started)
	return run
}

// drillFolder is where scratch files lie: nobody else may enter it.
func drillFolder(s *setup.Setup) (string, error) {
	folder := s.Config.Drill.Folder
	if folder == "" {
		folder = filepath.Join(s.Config.StateDir, "drill")
	}
	root, err := safedir.Open(folder)
	if err != nil {
		return "", fmt.Errorf("the folder for scratch files: %w", err)
	}
	return folder, root.Close()
}

// drillNamed tries the backups that were named: of a guest, all disks of one moment.
func (a *app) drillNamed(ctx context.Context, s *setup.Setup, d *drill.Driller, o drillOptions, run *report.Run) error {
	var all []error
	for _, name := range o.backups {
		if ctx.Err() != nil {
			break
		}
		on, found, err := s.FindBackup(ctx, o.from, o.host, name)
		if err == nil && found.ID.Ref.Kind != catalog.SourceVolume {
			return usageError(say.WithHint(fmt.Errorf("voltar drill tries volumes, and %s is of a %s", found.ID, found.ID.Ref.Kind),
				fmt.Sprintf("`voltar verify --full %s` reads all of it", found.ID)))
		}
		if err == nil {
			all = append(all, try(ctx, d, found, on.Destination.Destination, run))
			continue
		}
		moment := revive.Moment{}
		if errors.Is(err, catalog.ErrNotFound) {
			moment = a.momentNamed(ctx, s, o.sourceOptions, name)
		}
		if len(moment.Disks) == 0 {
			all = append(all, err)
		}
		for _, disk := range moment.Disks {
			b, err := disk.Load(ctx, disk.On.Store)
			if err == nil {
				err = try(ctx, d, b, disk.On, run)
			}
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// drillNext tries those that have waited longest. One that does not fit, or that is encrypted for others, gives its turn to the next.
func (a *app) drillNext(ctx context.Context, s *setup.Setup, d *drill.Driller, o drillOptions, run *report.Run) error {
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return err
	}
	if len(stores) == 0 {
		return s.NoDestination("--from DIR/")
	}
	stores, vanished := s.WithoutVanished(ctx, stores)
	all := vanished
	runs, err := s.Past().Earlier()
	all = append(all, err)
	on := setup.Named(stores)
	found := catalog.ListEach(ctx, on, run.Host, catalog.Filter{Newest: 1, Good: true, Damage: s.Damage(), Now: s.Now(), Known: s.Known()})
	for _, l := range found {
		if l.Err != nil {
			all = append(all, catalog.At(l.Destination, l.Err))
		}
	}
	for _, c := range drill.Candidates(on, found, runs, s.Now()) {
		if len(run.Volumes) == o.number || ctx.Err() != nil {
			break
		}
		if c.Encryption != nil && len(o.identities) == 0 {
			s.Log.Info(c.ID.String() + " is passed over: it is encrypted, and no --identity is given")
			continue
		}
		b, err := c.Load(ctx, c.On.Store)
		if err == nil {
			err = try(ctx, d, b, c.On, run)
		}
		if errors.Is(err, restore.ErrTooLarge) {
			s.Log.Info(fmt.Sprintf("%s is passed over: %v", c.ID, err))
			err = nil
		}
		all = append(all, err)
		if errors.Is(err, restore.ErrHost) {
			break // the next one would meet the same
		}
	}
	if err := errors.Join(all...); err != nil || len(run.Volumes) > 0 {
		return err
	}
	return context.Cause(ctx)
}

// try tries one backup and enters the result. The error is of one that was not tried.
func try(ctx context.Context, d *drill.Driller, b catalog.Backup, on catalog.Destination, run *report.Run) error {
	v, err := d.Try(ctx, b, on)
	if err != nil {
		return err
	}
	addProof(run, v, on)
	return nil
}

// addProof enters a backup that was brought back.
func addProof(run *report.Run, v report.Volume, on catalog.Destination) {
	run.Volumes = append(run.Volumes, v)
	run.PlannedVolumes = len(run.Volumes)
	for _, known := range run.Destinations {
		if known.Name == on.Name {
			return
		}
	}
	run.Destinations = append(run.Destinations, report.Destination{
		Name: on.Name, Where: on.Store.String(), BackupBytes: -1, TotalBytes: -1, FreeBytes: -1,
	})
}

func proofExitCode(ctx context.Context, run report.Run, err error) int {
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case err != nil || len(run.NotGood()) > 0:
		return exitAttention
	}
	return exitDone
}

func isLineEnd(r rune) bool { return r == '\n' }

func (a *app) printDrills(run report.Run, asJSON bool) error {
	lines := []drilledLine{}
	for _, v := range run.Volumes {
		line := drilledLine{
			Backup: v.Backup, Destination: v.Copies[0].Destination, Good: v.Good(), Seconds: v.Ended.Sub(v.Started).Seconds(), Entries: v.Entries,
		}
		if problem := v.Copies[0].Error; problem != nil {
			line.Error, line.Hint = problem.Message, problem.Hint
		}
		lines = append(lines, line)
	}
	if asJSON {
		return a.printJSON(lines)
	}
	for i, line := range lines {
		took := report.FormatDuration(run.Volumes[i].Ended.Sub(run.Volumes[i].Started))
		if line.Good {
			_, _ = say.Painted(a.stdout, say.Clean(line.Backup)+" on "+say.Clean(line.Destination)+": ", say.Green, "proven",
				fmt.Sprintf(": it came back as it was in %s (%s)\n", took, say.Counted(line.Entries, "entry")))
			continue
		}
		_, _ = say.Painted(a.stdout, say.Clean(line.Backup)+" on "+say.Clean(line.Destination)+": ", say.Red, "NOT PROVEN", " after "+took+"\n")
		say.Indented(a.stdout, "  ", line.Error, strings.FieldsFunc(line.Hint, isLineEnd)...)
	}
	return nil
}
