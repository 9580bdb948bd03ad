package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/say"
	"voltar/report"
)

// fleetAge is how old the newest good backup of a volume may be unless a flag says otherwise: a night and what a night
// may take.
const fleetAge = 26 * time.Hour

// fleetFlags are those of `voltar report` for many hosts.
func fleetFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "fleet", Usage: "instead, which volumes of all hosts that share the destinations have no good backup"},
		&cli.StringFlag{Name: "older-than", Usage: "with --fleet: younger than `AGE`", DefaultText: "26h"},
		&cli.StringFlag{Name: "from", Usage: "with --fleet: on destination `NAME`, instead of on any"},
		&cli.StringSliceFlag{Name: "except",
			Usage: "with --fleet: leave out what fits `PATTERN`: HOST, or HOST/VG/LV; for volumes that are gone"},
	}
}

// fleetLine is one volume of one host in the output of `voltar report --fleet`.
type fleetLine struct {
	Host       string    `json:"host"`
	Volume     string    `json:"volume,omitempty"`        // "" for a host that has no backups
	Good       time.Time `json:"newest_good,omitzero"`    // of the newest complete backup; zero for none
	AgeSeconds int64     `json:"age_seconds"`             // of that, -1 for none
	On         []string  `json:"destinations,omitempty"`  // that have it
	Newest     time.Time `json:"newest,omitzero"`         // of any kind
	Status     string    `json:"newest_status,omitempty"` // of that: complete, damaged, unreadable, untrusted, unfinished
	Ahead      time.Time `json:"ahead,omitzero"`          // the latest that is dated ahead of this host's clock, which is not counted
	Late       bool      `json:"late"`                    // there is no good one that is young enough
}

// fleet prints which volumes of all hosts lack a good backup that is young enough, the worst first.
func (a *app) fleet(c *cli.Context) error {
	limit := config.Duration(fleetAge)
	if text := c.String("older-than"); text != "" {
		if err := limit.UnmarshalText([]byte(text)); err != nil {
			return usageError{fmt.Errorf("--older-than: %w", err)}
		}
	}
	for _, pattern := range c.StringSlice("except") {
		if _, err := path.Match(pattern, ""); err != nil || strings.Count(pattern, "/") == 1 {
			return usageError{fmt.Errorf("--except: %q is no pattern of HOST or HOST/VG/LV", pattern)}
		}
	}
	if c.NArg() > 0 {
		return usageError{errors.New("--fleet is about all hosts: name no run beside it")}
	}
	s, err := a.setup(c)
	if err != nil {
		return err
	}
	found, failed, err := s.newestOfAll(c, catalog.Filter{Newest: 1, Good: true, Damage: s.damage(), Now: s.now()})
	if err != nil {
		return err
	}
	lines := fleetLines(a.now(), limit.Span(), found)
	lines = slices.DeleteFunc(lines, func(l fleetLine) bool { return excepted(l, c.StringSlice("except")) })
	if c.Bool("json") {
		err = a.printJSON(lines)
	} else {
		err = a.printFleet(lines, limit.Span())
	}
	if err == nil && (failed || slices.ContainsFunc(lines, func(l fleetLine) bool { return l.Late })) {
		err = exitWith(exitAttention)
	}
	return err
}

// excepted tells whether a pattern fits the host or the volume.
func excepted(l fleetLine, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		name := l.Host
		if strings.Contains(pattern, "/") {
			name += "/" + l.Volume
		}
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}

// hostListing is what one destination holds of one host.
type hostListing struct {
	destination string
	*catalog.Listing
}

// newestOfAll lists all hosts of the destination that --from names, or of all. One that does not answer is logged; when
// none does there is nothing to say.
func (s *setup) newestOfAll(c *cli.Context, filter catalog.Filter) (found []hostListing, failed bool, err error) {
	stores, err := s.storesFrom(c.String("from"))
	if err != nil {
		return nil, false, err
	}
	var all []error
	for _, d := range stores {
		listings, err := catalog.ListHosts(c.Context, d.store, filter)
		if c.Err() != nil {
			return nil, false, context.Cause(c.Context)
		}
		if err != nil {
			all = append(all, fmt.Errorf("destination %s: %w", d.name, err))
			continue
		}
		for _, l := range listings {
			found = append(found, hostListing{d.name, l})
		}
	}
	if len(all) > 0 && len(all) == len(stores) {
		return nil, false, errors.Join(all...)
	}
	for _, err := range all {
		say.Log(s.log.Error, err)
	}
	return found, len(all) > 0, nil
}

// fleetLines makes one line for each volume of each host out of what the destinations hold, the worst first: those that
// have no good backup at all, then those whose newest is the oldest.
func fleetLines(now time.Time, limit time.Duration, found []hostListing) []fleetLine {
	type key struct{ host, volume string }
	lines := map[key]*fleetLine{}
	line := func(host, volume string) *fleetLine {
		k := key{host, volume}
		if lines[k] == nil {
			lines[k] = &fleetLine{Host: host, Volume: volume}
		}
		return lines[k]
	}
	named := map[string]bool{} // hosts of which there is any volume
	for _, l := range found {
		for _, b := range backupLines(l.destination, l.Listing) {
			volume := strings.TrimSuffix(b.Backup, "@"+catalog.FormatTime(b.Time))
			line(l.Host, volume).add(b)
			named[l.Host] = true
		}
	}
	for _, l := range found {
		if !named[l.Host] {
			line(l.Host, "")
		}
	}
	list := []fleetLine{}
	for _, l := range lines {
		l.AgeSeconds = -1
		if !l.Good.IsZero() {
			l.AgeSeconds = int64(now.Sub(l.Good) / time.Second)
		}
		l.Late = l.Good.IsZero() || now.Sub(l.Good) > limit
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b fleetLine) int {
		return cmp.Or(a.Good.Compare(b.Good), strings.Compare(a.Host, b.Host), strings.Compare(a.Volume, b.Volume))
	})
	return list
}

// add takes one backup into account.
func (l *fleetLine) add(b backupLine) {
	if b.Ahead {
		if b.Time.After(l.Ahead) {
			l.Ahead = b.Time
		}
		return
	}
	if b.Status == string(catalog.StatusComplete) && !b.Time.Before(l.Good) {
		if b.Time.After(l.Good) {
			l.On = nil
		}
		l.Good, l.On = b.Time, append(l.On, b.Destination)
	}
	if b.Time.After(l.Newest) || b.Time.Equal(l.Newest) && b.Status == string(catalog.StatusComplete) {
		l.Newest, l.Status = b.Time, b.Status
	}
}

// printFleet prints the volumes that are late, and how many are not.
func (a *app) printFleet(lines []fleetLine, limit time.Duration) error {
	late, hosts, lateHosts := 0, map[string]bool{}, map[string]bool{}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
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
		say.Printf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Host, cmp.Or(l.Volume, "-"), good, age, on, l.note())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if late == 0 {
		_, err := say.Printf(a.stdout, "All %s on %s have a good backup younger than %s.\n", counted(len(lines), "volume"),
			counted(len(hosts), "host"), fleetAgeWords(limit))
		return err
	}
	_, err := say.Printf(a.stdout, "\n%d of %s, on %d of %s, have no good backup younger than %s.\n", late,
		counted(len(lines), "volume"), len(lateHosts), counted(len(hosts), "host"), fleetAgeWords(limit))
	return err
}

// note says what else there is to know of a volume that is late.
func (l *fleetLine) note() string {
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
