package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/statuspage"
	"voltar/internal/store"
	"voltar/report"
)

// fleetAge is how old the newest good backup of a volume may be unless a flag says otherwise: a night and what a night
// may take.
const fleetAge = 26 * time.Hour

// fleetFlags are those of `voltar report` for many hosts.
func fleetFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "fleet", Usage: "report the volumes without a good backup, of all hosts that share the destinations"},
		&cli.StringFlag{Name: "older-than", DefaultText: "26h",
			Usage: "with --fleet or --html: the newest good backup must be younger than `AGE`"},
		&cli.StringFlag{Name: "from", Usage: "with --fleet: look only on destination `NAME`"},
		&cli.StringSliceFlag{Name: "except",
			Usage: "with --fleet: leave out volumes that match `PATTERN`: HOST, or HOST/VG/LV"},
	}
}

type fleetOptions struct {
	setupOptions
	sourceOptions
	olderThan time.Duration
	except    []string
	html      string // file of the status page, "" for none
}

func readFleet(c *cli.Context) (fleetOptions, error) {
	o := fleetOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), lookup: true},
		sourceOptions: readSource(c), except: c.StringSlice("except"), html: c.String("html"),
	}
	var err error
	if o.olderThan, err = readOlderThan(c); err != nil {
		return o, err
	}
	for _, name := range []string{"trend", "send", "list"} {
		if c.IsSet(name) {
			return o, usageError(fmt.Errorf("--%s is about the runs of this host, and does not go with --fleet", name))
		}
	}
	for _, pattern := range o.except {
		if _, err := path.Match(pattern, ""); err != nil || strings.Count(pattern, "/") == 1 {
			return o, usageError(fmt.Errorf("--except: %q is no pattern of HOST or HOST/VG/LV", pattern))
		}
	}
	if c.NArg() > 0 {
		return o, usageError(errors.New("--fleet is about all hosts: name no run"))
	}
	return o, nil
}

// readOlderThan reads how old the newest good backup of a volume may be.
func readOlderThan(c *cli.Context) (time.Duration, error) {
	limit := config.Duration(fleetAge)
	if text := c.String("older-than"); text != "" {
		if err := limit.UnmarshalText([]byte(text)); err != nil {
			return 0, usageError(fmt.Errorf("--older-than: %w", err))
		}
	}
	return limit.Span(), nil
}

// fleet prints which volumes of all hosts lack a good backup that is young enough, the worst first.
func (a *app) fleet(ctx context.Context, o fleetOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return err
	}
	filter := catalog.Filter{Newest: 1, Good: true, Damage: s.Damage(), Now: s.Now(), Known: s.Known()}
	if o.html != "" {
		filter.Since = statuspage.Since(a.now())
	}
	stores, vanished := s.WithoutVanished(ctx, stores)
	found, failed, err := catalog.ListFleet(ctx, setup.Named(stores), filter)
	if err != nil {
		return err
	}
	runs, err := s.Past().List(0)
	if err != nil {
		s.Log.Warn("the history cannot be read completely", "err", err)
	}
	lines := catalog.Fleet(a.now(), o.olderThan, found)
	failed = append(failed, vanished...)
	empty, without := absences(ctx, s.Host, stores, runs, found, failed)
	failed = append(failed, empty...)
	if here := (catalog.FleetLine{Host: s.Host, AgeSeconds: -1, Late: true}); len(without) > 0 && !excepted(here, o.except) {
		failed = append(failed, without...)
		if !slices.ContainsFunc(lines, func(l catalog.FleetLine) bool { return l.Host == s.Host }) {
			lines = slices.Insert(lines, 0, here)
		}
	}
	for _, err := range failed {
		say.Log(s.Log.Error, err)
	}
	known := statuspage.HistoryOf(s.Host, runs)
	for i, l := range lines {
		lines[i].Proven = known(l.Host, l.Volume).Verified
	}
	lines = slices.DeleteFunc(lines, func(l catalog.FleetLine) bool { return excepted(l, o.except) })
	if o.html != "" {
		err = a.writeFleetPage(o, lines, found, failed, known)
	}
	switch {
	case err != nil:
	case o.json:
		err = a.printJSON(lines)
	case o.html == "":
		err = a.printFleet(lines, o.olderThan)
	}
	if err == nil && (len(failed) > 0 || len(lines) == 0 || slices.ContainsFunc(lines, func(l catalog.FleetLine) bool { return l.Late })) {
		err = exitWith(exitAttention)
	}
	return err
}

// absences says of each destination that answers whether it holds no host at all, and whether it is without this host,
// which has made backups there. An empty disk in place of the right one has nothing that is late.
func absences(
	ctx context.Context, host string, stores []setup.Destination, runs []report.Run, found []catalog.Listed, failed []error,
) (empty, without []error) {
	for _, d := range setup.Named(stores) {
		silent := slices.ContainsFunc(failed, func(err error) bool {
			var e *catalog.DestinationError
			return errors.As(err, &e) && e.Destination == d.Name
		})
		if silent {
			continue
		}
		var hosts []string
		for _, l := range found {
			if l.Destination == d.Name {
				hosts = append(hosts, l.Host)
			}
		}
		if len(hosts) == 0 {
			empty = append(empty, say.WithHint(fmt.Errorf("destination %s: there is no host on it: %s", d.Name, d.Store),
				cmp.Or(store.PendingNote(ctx, d.Store), "is the right disk mounted there, or the right bucket named?")))
		}
		if last, ok := history.LastAt(runs, host, d.Store.String()); ok && !slices.Contains(hosts, host) {
			without = append(without, fmt.Errorf("destination %s: the backups of %s are missing: its run of %s made some there",
				d.Name, host, shortTime(last)))
		}
	}
	return empty, without
}

// writeFleetPage writes the status page of all hosts.
func (a *app) writeFleetPage(o fleetOptions, lines []catalog.FleetLine, found []catalog.Listed, failed []error,
	known func(host, volume string) statuspage.Known) error {
	page, err := report.StatusPage(statuspage.Fleet(lines, found, failed, known, a.now(), o.olderThan, time.Local))
	if err != nil {
		return err
	}
	return a.writeReport(o.html, []byte(page), pagePerm)
}

// excepted tells whether a pattern fits the host or the volume.
func excepted(l catalog.FleetLine, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		name := l.Host
		if strings.Contains(pattern, "/") {
			name += "/" + l.Volume
		}
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}

// printFleet prints the volumes that are late, and how many are not.
func (a *app) printFleet(lines []catalog.FleetLine, limit time.Duration) error {
	late, hosts, lateHosts := 0, map[string]bool{}, map[string]bool{}
	table := a.newTable()
	for _, l := range lines {
		hosts[l.Host] = true
		if !l.Late {
			continue
		}
		if late == 0 {
			say.Printf(table, "HOST\tVOLUME\tNEWEST GOOD BACKUP\tAGE\tON\tNOTE\n")
		}
		late++
		lateHosts[l.Host] = true
		good, age, on := "none", "-", "-"
		if !l.Good.IsZero() {
			good, age, on = shortTime(l.Good), fleetAgeWords(time.Duration(l.AgeSeconds)*time.Second), strings.Join(l.On, ", ")
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Host, fleetName(l), good, age, on, fleetNote(l))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(lines) == 0 {
		_, err := say.Printf(a.stdout, "There is no volume to tell of.\n")
		return err
	}
	if late == 0 {
		subject := "All " + say.Counted(len(lines), "volume") + " on " + say.Counted(len(hosts), "host") + " have"
		if len(lines) == 1 {
			subject = "The one volume on " + say.Counted(len(hosts), "host") + " has"
		}
		if _, err := say.Printf(a.stdout, "%s a good backup younger than %s.\n", subject, fleetAgeWords(limit)); err != nil {
			return err
		}
		return a.printOldestProof(lines)
	}
	have := "have"
	if late == 1 {
		have = "has"
	}
	_, err := say.Printf(a.stdout, "\n%d of %s, on %d of %s, %s no good backup younger than %s.\n", late,
		say.Counted(len(lines), "volume"), len(lateHosts), say.Counted(len(hosts), "host"), have, fleetAgeWords(limit))
	if err != nil {
		return err
	}
	return a.printOldestProof(lines)
}

// printOldestProof prints a line on the volume that was proven least lately, of those of which that is known.
func (a *app) printOldestProof(lines []catalog.FleetLine) error {
	var oldest catalog.FleetLine
	for _, l := range lines {
		if !l.Proven.IsZero() && (oldest.Proven.IsZero() || l.Proven.Before(oldest.Proven)) {
			oldest = l
		}
	}
	if oldest.Proven.IsZero() {
		return nil
	}
	_, err := say.Printf(a.stdout, "The oldest proof is that of %s on %s: %s ago.\n", fleetName(oldest), oldest.Host,
		fleetAgeWords(a.now().Sub(oldest.Proven)))
	return err
}

// fleetName names a volume, and whose disk it is.
func fleetName(l catalog.FleetLine) string {
	return nameAndGuest(cmp.Or(l.Volume, "-"), l.Guest)
}

// fleetNote says what else there is to know of a volume that is late.
func fleetNote(l catalog.FleetLine) string {
	switch {
	case l.Volume == "":
		return "the host has no backups"
	case !l.Ahead.IsZero():
		return "one of " + shortTime(l.Ahead) + " is dated ahead of this host's clock"
	case l.Newest.After(l.Good):
		return "one of " + shortTime(l.Newest) + " is " + l.Status
	}
	return ""
}

// fleetAgeWords gives an age in hours, or in days from three on.
func fleetAgeWords(age time.Duration) string {
	const day = 24 * time.Hour
	if age >= 3*day {
		return fmt.Sprintf("%d d %d h", age/day, age%day/time.Hour)
	}
	if age >= time.Hour {
		words := fmt.Sprintf("%d h", age/time.Hour)
		if minutes := age % time.Hour / time.Minute; minutes > 0 {
			words += fmt.Sprintf(" %d m", minutes)
		}
		return words
	}
	return report.FormatDuration(age.Truncate(time.Minute))
}
