package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/internal/verify"
	"voltar/report"
)

// shownLost is how many lost files the report of a verification names.
const shownLost = 20

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "check stored backups", ArgsUsage: "[BACKUP...]",
		Description: "Checks the newest backup of every volume, those that are named, or all, on every destination: that the files\n" +
			"are there with the sums of the manifest, that archives are whole, and that index, archive and manifest agree.\n" +
			"Says which files are damaged and what is lost in them, ends with 3 when there is any, and keeps the result\n" +
			"in the history for the next reports. List, retention and restore know what is damaged from then on.",
		Flags: []cli.Flag{untrustedFlag(),
			&cli.BoolFlag{Name: "all", Usage: "check every backup there is"},
			&cli.BoolFlag{Name: "quick", Usage: "read only the indexes and the heads of the archives' members"},
			&cli.StringFlag{Name: "sample", Usage: "like --quick, and inflate a share of each archive: `N%`"},
			&cli.BoolFlag{Name: "full", Usage: "beside the sums, inflate everything and compare every entry with the index"},
			&cli.StringFlag{Name: "from", Usage: "only what is on destination `NAME`, or in a folder (with a slash)"},
			hostFlag(),
			identityFlag(),
			&cli.BoolFlag{Name: "repair-index", Usage: "make lost or damaged indexes again from their archives"},
			&cli.BoolFlag{Name: "mail", Usage: "mail the report"},
		},
		Action: a.verify,
	}
}

// verifyLevel reads the flags that say how much to check.
func verifyLevel(c *cli.Context) (opts verify.Options, command string, err error) {
	opts, command = verify.Options{Level: verify.Sums}, "verify"
	given := 0
	if c.Bool("quick") {
		opts.Level, command = verify.Quick, "verify --quick"
		given++
	}
	if c.Bool("full") {
		opts.Level = verify.Full
		given++
	}
	if text := c.String("sample"); text != "" {
		percent, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
		if err != nil || percent < 1 || percent > 100 {
			return opts, "", usageError{fmt.Errorf("--sample: %q is no share from 1%% to 100%%", text)}
		}
		opts.Level, opts.SamplePercent, opts.Seed = verify.Sample, percent, rand.Uint64()
		command = fmt.Sprintf("verify --sample %d%%", percent)
		given++
	}
	if given > 1 {
		return opts, "", usageError{errors.New("choose one of --quick, --sample and --full")}
	}
	return opts, command, nil
}

// verification is one backup on one destination and what was found.
type verification struct {
	on       *namedStore
	backup   catalog.Backup // without a manifest when that cannot be read
	repaired []string
	result   verify.Result
	err      error // why nothing is known
	ended    time.Time
}

func (v *verification) good() bool { return v.err == nil && v.result.Good() }

func (a *app) verify(c *cli.Context) error {
	opts, command, err := verifyLevel(c)
	if err != nil {
		return err
	}
	if c.Bool("all") && c.NArg() > 0 {
		return usageError{errors.New("--all checks every backup: name none beside it")}
	}
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	if opts.Decrypt, err = a.decrypt(c, s, true); err != nil {
		return err
	}
	run := report.Run{
		Schema: report.Schema, Host: s.hostOf(c), Version: programVersion(), Config: s.config.Path(), Command: command,
		Started: time.Now().UTC(),
	}
	run.ID = journal.NewRunID(run.Started)
	list, err := s.chooseBackups(c, &run)
	if err != nil {
		return err
	}
	for i := range list {
		s.verifyOne(c, &list[i], opts)
	}
	s.noteDamage(c, list, opts.Level)
	run.Ended = time.Now().UTC()
	describeVerification(&run, list)
	run.ExitCode = verifyExitCode(c.Context, run, list)
	s.keepVerification(c, &run)
	if err := a.printVerification(c, list, run); err != nil {
		return err
	}
	return exitWith(run.ExitCode)
}

// chooseBackups lists what is to be checked, and enters the destinations into the report.
func (s *setup) chooseBackups(c *cli.Context, run *report.Run) ([]verification, error) {
	stores, err := s.storesFrom(c.String("from"))
	if err != nil {
		return nil, err
	}
	var list []verification
	var missing []error
	for i := range stores {
		d := &stores[i]
		where := report.Destination{Name: d.name, Where: d.store.String(), BackupBytes: -1, TotalBytes: -1, FreeBytes: -1}
		chosen, err := s.chooseOn(c, d)
		var lacking *lackingError
		switch {
		case c.Err() != nil:
			return nil, context.Cause(c.Context)
		case errors.As(err, &lacking):
			missing = append(missing, lacking)
		case err != nil:
			where.Error = report.ProblemOf(err)
			say.Log(s.log.Error, err, "destination", d.name)
		}
		list = append(list, chosen...)
		run.Destinations = append(run.Destinations, where)
	}
	if len(list) == 0 && len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	return list, nil
}

// lackingError says that a destination does not have a backup that was named. Another may.
type lackingError struct{ error }

func (e *lackingError) Unwrap() error { return e.error }

// chooseOn lists what is to be checked on one destination.
func (s *setup) chooseOn(c *cli.Context, d *namedStore) ([]verification, error) {
	var list []verification
	if c.NArg() > 0 {
		var lacking error
		for _, text := range c.Args().Slice() {
			listing, err := listFor(c.Context, *d, s.hostOf(c), text, catalog.Filter{Now: s.now()})
			if err != nil {
				return list, err
			}
			b, err := listing.Resolve(text)
			u := slices.IndexFunc(listing.Unreadable, func(u catalog.Unreadable) bool { return errors.Is(err, u.Err) })
			switch {
			case err == nil:
				list = append(list, verification{on: d, backup: b})
			case u >= 0:
				list = append(list, unreadable(d, listing.Host, listing.Unreadable[u]))
			default:
				lacking = errors.Join(lacking, fmt.Errorf("destination %s: %w", d.name, err))
			}
		}
		if lacking != nil {
			return list, &lackingError{lacking}
		}
		return list, nil
	}
	filter := catalog.Filter{Newest: 1, Now: s.now()}
	if c.Bool("all") {
		filter.Newest = 0
	}
	listing, err := catalog.List(c.Context, d.store, s.hostOf(c), filter)
	if err != nil {
		return nil, err
	}
	for _, b := range listing.Backups {
		list = append(list, verification{on: d, backup: b})
	}
	for _, u := range listing.Unreadable {
		list = append(list, unreadable(d, listing.Host, u))
	}
	return list, nil
}

// unreadable is the result for a backup whose manifest cannot be used, which is all that there is to say of it. Of a
// stranger's nothing is known: it may be whole.
func unreadable(d *namedStore, host string, u catalog.Unreadable) verification {
	v := verification{on: d, backup: catalog.Backup{Host: host, ID: u.ID}, ended: time.Now().UTC()}
	if errors.Is(u.Err, catalog.ErrUntrusted) {
		v.err = u.Err
		return v
	}
	v.result.Findings = []verify.Finding{{File: catalog.ManifestName, Message: u.Err.Error()}}
	return v
}

// verifyOne checks one backup, after its indexes were repaired where that is asked for and needed.
func (s *setup) verifyOne(c *cli.Context, v *verification, opts verify.Options) {
	if v.backup.Manifest == nil {
		return
	}
	defer func() { v.ended = time.Now().UTC() }()
	v.result, v.err = verify.Backup(c.Context, v.on.store, v.backup, opts)
	if v.err != nil || !v.result.Repair || !c.Bool("repair-index") {
		return
	}
	written, amended, err := s.repairIndexes(c.Context, v, opts.Decrypt)
	v.repaired = written
	if err != nil {
		v.result.Notes = append(v.result.Notes, "the index was not repaired: "+err.Error())
	}
	if len(written) > 0 && err == nil {
		v.backup = amended
		v.result, v.err = verify.Backup(c.Context, v.on.store, amended, opts)
	}
}

// repairIndexes repairs one backup under the locks that keep runs from removing it meanwhile.
func (s *setup) repairIndexes(
	ctx context.Context, v *verification, decrypt browse.DecryptFunc,
) (written []string, amended catalog.Backup, err error) {
	if v.on.unfit != nil {
		return nil, v.backup, v.on.unfit
	}
	unlock, err := s.lockBackup(ctx, *v.on, v.backup.ID.Ref, "voltar verify")
	if err != nil {
		return nil, v.backup, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return verify.RepairIndexes(ctx, v.on.store, v.backup, verify.Keys{Decrypt: decrypt, Recipients: v.on.recipients})
}

// describeVerification enters what was found into the report: one line for each volume, with all its backups that were
// checked.
func describeVerification(run *report.Run, list []verification) {
	volumes := map[string]*report.Volume{}
	started := run.Started
	for _, v := range list {
		name := v.backup.ID.Ref.String()
		volume := volumes[name]
		if volume == nil {
			volume = &report.Volume{Name: name, Status: report.VolumeOK, Started: started}
			volumes[name] = volume
		}
		volume.Ended, started = v.ended, v.ended
		volume.Backup = v.backup.ID.String()
		volume.ReadBytes += v.result.ReadBytes
		volume.StoredBytes += v.backup.SizeBytes
		volume.PreviousStoredBytes = volume.StoredBytes
		if v.backup.Manifest != nil {
			volume.SizeBytes = v.backup.Manifest.Source.SizeBytes
			for _, x := range v.backup.Manifest.Extents {
				volume.Entries += x.Entries
			}
		}
		volume.Copies = append(volume.Copies, copyOf(v))
		noteLost(volume, v)
		if !v.good() {
			volume.Status = report.VolumeDamaged
		} else if volume.Status == report.VolumeOK {
			volume.LastVerified = v.ended
		}
	}
	for _, volume := range volumes {
		run.Volumes = append(run.Volumes, *volume)
	}
	slices.SortFunc(run.Volumes, func(a, b report.Volume) int { return strings.Compare(a.Name, b.Name) })
	run.PlannedVolumes = len(run.Volumes)
}

// copyOf describes one backup on one destination.
func copyOf(v verification) report.Copy {
	copied := report.Copy{Destination: v.on.name, Path: catalog.Place(v.on.store, v.backup.Path())}
	if v.err != nil {
		copied.Error = report.ProblemOf(fmt.Errorf("%s: %w", v.backup.ID, v.err))
		return copied
	}
	if v.result.Good() {
		return copied
	}
	f := v.result.Findings[0]
	message := fmt.Sprintf("%s: %s", v.backup.ID, join(f))
	if more := len(v.result.Findings) - 1; more > 0 {
		message += fmt.Sprintf(", and %d more findings", more)
	}
	hint := "take an older backup for what is lost here, and see after the destination's disk"
	if v.result.Repair {
		hint = "`voltar verify --repair-index` makes an index again from its archive"
	}
	copied.Error = &report.Problem{Message: message, Hint: hint}
	return copied
}

func join(f verify.Finding) string {
	if f.File == "" {
		return f.Message
	}
	return f.File + ": " + f.Message
}

func noteLost(volume *report.Volume, v verification) {
	volume.DamagedCount += int64(len(v.result.Lost)) + v.result.Omitted
	for _, l := range v.result.Lost {
		if len(volume.DamagedFiles) == shownLost {
			return
		}
		volume.DamagedFiles = append(volume.DamagedFiles, lostName(l))
	}
}

func lostName(l verify.Lost) string {
	name := "/" + l.Path
	switch l.Path {
	case "":
		name = "(its name is lost too)"
	case ".":
		name = "/"
	}
	if l.Extent != "" {
		name = l.Extent + ":" + name
	}
	return name
}

func verifyExitCode(ctx context.Context, run report.Run, list []verification) int {
	checked, bad := 0, 0
	for _, v := range list {
		if v.err == nil {
			checked++
		}
		if !v.good() {
			bad++
		}
	}
	for _, d := range run.Destinations {
		if d.Error != nil {
			bad++
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case checked == 0:
		return exitNothing
	case bad > 0:
		return exitAttention
	}
	return exitDone
}

// keepVerification mails the report, where that is asked for, and keeps it in the history.
func (s *setup) keepVerification(c *cli.Context, run *report.Run) {
	past := s.past()
	told := false
	if c.Bool("mail") {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), deliverTimeout)
		defer cancel()
		runs, err := past.Earlier()
		if err != nil {
			s.log.Warn("the history cannot be read whole", "err", err)
		}
		if told, err = s.send(ctx, run, sameCommand(runs, run.Command)); err != nil {
			s.log.Error("the report was not delivered", "err", err)
			if run.ExitCode == exitDone {
				run.ExitCode = exitNotDelivered
			}
		}
	}
	if run.Host == s.host { // the history is of this host's volumes
		if err := past.Save(*run); err != nil {
			s.log.Warn("the report cannot be kept in the history", "err", err)
		}
	}
	if err := leaveWord(run, told); err != nil {
		s.log.Warn("systemd will report this a second time", "err", err)
	}
}

// verifiedLine is one backup on one destination in the output of `voltar verify`.
type verifiedLine struct {
	Backup      string        `json:"backup"`
	Destination string        `json:"destination"`
	Good        bool          `json:"good"`
	Error       string        `json:"error,omitempty"`
	Hint        string        `json:"hint,omitempty"` // what to do about the error, a line for each thing
	Findings    []findingLine `json:"findings"`
	Lost        []lostLine    `json:"lost"`
	LostOmitted int64         `json:"lost_omitted,omitempty"`
	Repaired    []string      `json:"repaired,omitempty"`
	Notes       []string      `json:"notes,omitempty"`
	ReadBytes   int64         `json:"read"`
}

type findingLine struct {
	File    string `json:"file"`
	Message string `json:"message"`
}

func newVerifiedLine(v verification) verifiedLine {
	line := verifiedLine{
		Backup: v.backup.ID.String(), Destination: v.on.name, Good: v.good(), Findings: []findingLine{}, Lost: []lostLine{},
		LostOmitted: v.result.Omitted, Repaired: v.repaired, Notes: v.result.Notes, ReadBytes: v.result.ReadBytes,
	}
	if v.err != nil {
		problem := report.ProblemOf(v.err)
		line.Error, line.Hint = problem.Message, problem.Hint
	}
	for _, f := range v.result.Findings {
		line.Findings = append(line.Findings, findingLine{f.File, f.Message})
	}
	for _, l := range v.result.Lost {
		line.Lost = append(line.Lost, lostLine{Path: lostName(l), Reason: l.Reason})
	}
	return line
}

func (a *app) printVerification(c *cli.Context, list []verification, run report.Run) error {
	lines := []verifiedLine{}
	for _, v := range list {
		lines = append(lines, newVerifiedLine(v))
	}
	if c.Bool("json") {
		return a.printJSON(lines)
	}
	bad := 0
	for _, line := range lines {
		a.printVerified(line)
		if !line.Good {
			bad++
		}
	}
	switch {
	case len(lines) == 0 && !slices.ContainsFunc(run.Destinations, func(d report.Destination) bool { return d.Error != nil }):
		say.Println(a.stdout, "There are no backups to check.")
	case bad > 0:
		say.Printf(a.stdout, "%d of %d backups are not good.\n", bad, len(lines))
	}
	return nil
}

func (a *app) printVerified(line verifiedLine) {
	verdict := "good"
	if !line.Good {
		verdict = "NOT GOOD"
	}
	say.Printf(a.stdout, "%s on %s: %s, %s read\n", line.Backup, line.Destination, verdict, say.Size(line.ReadBytes))
	if line.Error != "" {
		say.Println(a.stdout, "  "+line.Error)
	}
	for _, name := range line.Repaired {
		say.Println(a.stdout, "  written anew: "+name)
	}
	for _, f := range line.Findings {
		say.Println(a.stdout, "  "+join(verify.Finding{File: f.File, Message: f.Message}))
	}
	for _, l := range line.Lost {
		say.Printf(a.stdout, "  lost: %s: %s\n", l.Path, l.Reason)
	}
	if line.LostOmitted > 0 {
		say.Printf(a.stdout, "  lost: %d more\n", line.LostOmitted)
	}
	for _, note := range line.Notes {
		say.Println(a.stdout, "  note: "+note)
	}
}
