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

	"voltar/internal/journal"
	"voltar/internal/progress"
	"voltar/internal/say"
	"voltar/internal/verify"
	"voltar/report"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "check stored backups", ArgsUsage: "[BACKUP...]",
		UsageText: "voltar verify # the newest backup of each volume, everywhere\n" +
			"voltar verify --all --sample 5%\n" +
			"voltar verify web --full\n",
		Description: "Checks the newest backup of every volume, the backups that are named, or all, on every destination: the files\n" +
			"must be there with the sums of the manifest, archives must be whole, and index, archive and manifest must agree.\n" +
			"Prints which files are damaged and what is lost in them, exits with 3 if there is any damage, and keeps the result\n" +
			"in the history for the next reports. From then on, list, retention and restore know what is damaged.",
		Flags: []cli.Flag{untrustedFlag(),
			&cli.BoolFlag{Name: "all", Usage: "check all backups"},
			&cli.BoolFlag{Name: "quick", Usage: "read only the indexes and the headers of the archives' members"},
			&cli.StringFlag{Name: "sample", Usage: "like --quick, and decompress a share of each archive: `N%`"},
			&cli.BoolFlag{Name: "full", Usage: "also decompress everything and compare every entry with the index"},
			&cli.StringFlag{Name: "from", Usage: "check only destination `NAME`, or a folder (with a slash)"},
			hostFlag(),
			identityFlag(),
			&cli.BoolFlag{Name: "repair-index", Usage: "make lost or damaged indexes again from their archives"},
			&cli.BoolFlag{Name: "mail", Usage: "mail the report"},
		},
		Action: func(c *cli.Context) error {
			o, err := readVerify(c)
			if err != nil {
				return err
			}
			return a.verify(c.Context, o)
		},
	}
}

type verifyOptions struct {
	setupOptions
	sourceOptions
	backups                []string
	all, repairIndex, mail bool
	check                  verify.Options
	command                string // as the history has it
}

func readVerify(c *cli.Context) (verifyOptions, error) {
	o := verifyOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted"), readOnly: !c.Bool("mail")},
		sourceOptions: readSource(c), backups: c.Args().Slice(),
		all: c.Bool("all"), repairIndex: c.Bool("repair-index"), mail: c.Bool("mail"),
		check: verify.Options{Level: verify.Sums}, command: "verify",
	}
	given := 0
	if c.Bool("quick") {
		o.check.Level, o.command = verify.Quick, "verify --quick"
		given++
	}
	if c.Bool("full") {
		o.check.Level = verify.Full
		given++
	}
	if text := c.String("sample"); text != "" {
		percent, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
		if err != nil || percent < 1 || percent > 100 {
			return o, usageError(fmt.Errorf("--sample: %q is no share from 1%% to 100%%", text))
		}
		o.check.Level, o.check.SamplePercent, o.check.Seed = verify.Sample, percent, rand.Uint64()
		o.command = fmt.Sprintf("verify --sample %d%%", percent)
		given++
	}
	if given > 1 {
		return o, usageError(errors.New("choose one of --quick, --sample and --full"))
	}
	if o.all && len(o.backups) > 0 {
		return o, usageError(errors.New("--all checks all backups: name none"))
	}
	return o, checkTimes(o.backups)
}

func (a *app) verify(ctx context.Context, o verifyOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	if o.check.Decrypt, err = a.decrypt(s, o.identities, true); err != nil {
		return err
	}
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return err
	}
	if len(stores) == 0 {
		return s.NoDestination("--from DIR/")
	}
	pass := &verify.Pass{Host: s.HostOr(o.host), Options: o.check, RepairIndex: o.repairIndex,
		RunDir: s.Config.RunDir, Log: s.Log, Now: s.Now, Written: s.Written()}
	for _, d := range stores {
		pass.On = append(pass.On, d.Destination)
	}
	run := report.Run{
		Schema: report.Schema, Host: pass.Host, Version: programVersion(), Config: s.Config.Path(), Command: o.command,
		Started: time.Now().UTC(),
	}
	run.ID = journal.NewRunID(run.Started)
	list, destinations, unfound := pass.Choose(ctx, o.backups, o.all)
	if unfound != nil && len(list) == 0 {
		return unfound
	}
	run.Destinations = destinations
	work := progress.NewWork(a.screen, s.Log, "verifying", "")
	pass.Options.OnRead = work.Done
	work.Started(pass.SizeBytes(list))
	for i := range list {
		pass.Check(ctx, &list[i])
	}
	work.Close()
	if s.Config.Path() != "" { // without a configuration there is no state either
		if err := pass.Remember(ctx, s.DamageNotes(), list); err != nil {
			s.Log.Warn("what is known of damaged backups is not up to date", "err", err)
		}
	}
	run.Ended = time.Now().UTC()
	verify.Describe(&run, list)
	if run.ExitCode = verifyExitCode(ctx, run, list); unfound != nil && run.ExitCode == exitDone {
		run.ExitCode = exitAttention
	}
	a.delivery(s).Verification(ctx, &run, o.mail)
	if err := a.printVerification(list, o, run.Host == s.Host); err != nil {
		return err
	}
	if len(list) == 0 && !slices.ContainsFunc(run.Destinations, func(d report.Destination) bool { return d.Error != nil }) {
		hosts, _ := hostsOn(ctx, stores) // who does not answer has failed before
		unfound = noBackups(ctx, stores, run.Host, nil, hosts)
	}
	if unfound != nil {
		a.printError(unfound)
	}
	return exitWith(run.ExitCode)
}

func verifyExitCode(ctx context.Context, run report.Run, list []verify.Checked) int {
	checked, bad := 0, 0
	for _, c := range list {
		if c.Err == nil {
			checked++
		}
		if !c.Good() {
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

// verifiedLine is one backup on one destination in the output of `voltar verify`.
type verifiedLine struct {
	Backup      string        `json:"backup"`
	Destination string        `json:"destination"`
	Level       verify.Level  `json:"level"`
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

func newVerifiedLine(c verify.Checked, level verify.Level) verifiedLine {
	line := verifiedLine{
		Backup: c.Backup.ID.String(), Destination: c.On.Name, Level: level, Good: c.Good(), Findings: []findingLine{}, Lost: []lostLine{},
		LostOmitted: c.Result.Omitted, Repaired: c.Repaired, Notes: c.Result.Notes, ReadBytes: c.Result.ReadBytes,
	}
	if c.Err != nil {
		problem := report.ProblemOf(c.Err)
		line.Error, line.Hint = problem.Message, problem.Hint
	}
	for _, f := range c.Result.Findings {
		line.Findings = append(line.Findings, findingLine{f.File, f.Message})
	}
	for _, l := range c.Result.Lost {
		line.Lost = append(line.Lost, lostLine{Path: l.String(), Reason: l.Reason})
	}
	return line
}

// printVerification prints what was found; ours are backups that this host can make anew.
func (a *app) printVerification(list []verify.Checked, o verifyOptions, ours bool) error {
	lines := []verifiedLine{}
	for _, c := range list {
		lines = append(lines, newVerifiedLine(c, o.check.Level))
	}
	if o.json {
		return a.printJSON(lines)
	}
	bad := 0
	for _, line := range lines {
		a.printVerified(line)
		if !line.Good {
			bad++
		}
	}
	if bad > 0 {
		are := "are"
		if bad == 1 {
			are = "is"
		}
		say.Printf(a.stdout, "%d of %s %s not good.\n", bad, say.Counted(len(lines), "backup"), are)
		for _, hint := range nextSteps(list, ours, o.repairIndex) {
			say.Println(a.stdout, say.HintLabel+hint)
		}
	}
	return nil
}

// nextSteps say what to do about the backups that are not good, a line for each: which destination has it whole, or how to get a new one,
// and what brings back what is left. Indexes that were just tried are not tried again.
func nextSteps(list []verify.Checked, ours, tried bool) (steps []string) {
	good := map[string][]string{} // the destinations where a backup was found to be good
	for _, c := range list {
		if c.Good() {
			good[c.Backup.ID.String()] = append(good[c.Backup.ID.String()], c.On.Name)
		}
	}
	for i := range list {
		c := &list[i]
		id, volume := c.Backup.ID.String(), c.Backup.ID.Ref.String()
		var step string
		switch {
		case c.Err != nil || c.Good(): // nothing is known of it, and the error says what to do
			continue
		case len(good[id]) > 0:
			step = fmt.Sprintf("%s is good on %s: `voltar restore %s --from %s` takes it from there",
				id, strings.Join(good[id], ", "), id, good[id][0])
		case c.Result.Repair && !tried:
			step = fmt.Sprintf("`voltar verify --repair-index %s` makes its index again from its archive", id)
		case !ours:
			step = fmt.Sprintf("`voltar list %s --host %s` shows the older ones", volume, c.Backup.Host)
		default:
			step = fmt.Sprintf("`voltar run %s` makes a new backup now; `voltar list %s` shows the older ones", volume, volume)
		}
		if len(steps) == stepsTold {
			return append(steps, "as with these, so with the others")
		}
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

// stepsTold is how many backups get a line of what to do.
const stepsTold = 10

// levelWords say what a level has looked at.
var levelWords = map[verify.Level]string{
	verify.Quick: "indexes and headers", verify.Sample: "headers, and a sample of the data", verify.Sums: "the sums of all files",
	verify.Full: "all data, against sums and index",
}

func (a *app) printVerified(line verifiedLine) {
	verdict, color := "good", say.Green
	if !line.Good {
		verdict, color = "NOT GOOD", say.Red
	}
	_, _ = say.Painted(a.stdout, say.Clean(line.Backup)+" on "+say.Clean(line.Destination)+": ", color, verdict,
		fmt.Sprintf(" (%s), %s read\n", levelWords[line.Level], say.Size(line.ReadBytes)))
	if line.Error != "" {
		say.Indented(a.stdout, "  ", line.Error)
	}
	for _, name := range line.Repaired {
		say.Println(a.stdout, "  written anew: "+name)
	}
	for _, f := range line.Findings {
		say.Indented(a.stdout, "  ", verify.Finding{File: f.File, Message: f.Message}.String())
	}
	for _, l := range line.Lost {
		say.Printf(a.stdout, "  lost: %s: %s\n", l.Path, l.Reason)
	}
	if line.LostOmitted > 0 {
		say.Printf(a.stdout, "  lost: %d more\n", line.LostOmitted)
	}
	for _, note := range line.Notes {
		say.Indented(a.stdout, "  note: ", note)
	}
}
