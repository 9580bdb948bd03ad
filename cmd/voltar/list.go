package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/say"
)

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "show the backups there are", ArgsUsage: "[VOLUME...]",
		Description: "Each can be given to the other commands as it stands in the first column. VOLUME alone means its newest\n" +
			"that is not dated ahead of this host's clock.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "only those on destination `NAME`, or in a folder (with a slash)"},
			hostFlag(),
			&cli.BoolFlag{Name: "all-hosts",
				Usage: "of all hosts that share the destinations: the newest good one of each volume, and what is newer"},
		},
		Action: func(c *cli.Context) error {
			s, err := a.setup(c)
			if err != nil {
				return err
			}
			return a.list(c, s)
		},
	}
}

// backupLine is one backup in the output of `voltar list`.
type backupLine struct {
	Host        string    `json:"host,omitempty"` // of --all-hosts
	Backup      string    `json:"backup"`
	Time        time.Time `json:"time"`
	Destination string    `json:"destination"`
	Path        string    `json:"path"`
	Status      string    `json:"status"` // complete, damaged, ahead, unreadable, untrusted, unfinished
	SizeBytes   int64     `json:"size"`
	Entries     int64     `json:"entries"`
	Encrypted   bool      `json:"encrypted,omitempty"`
	Ahead       bool      `json:"ahead,omitempty"` // dated ahead of this host's clock: it is the newest for nobody
	Note        string    `json:"note,omitempty"`
}

func (a *app) list(c *cli.Context, s *setup) error {
	if c.Bool("all-hosts") {
		return a.listHosts(c, s)
	}
	stores, err := s.storesFrom(c.String("from"))
	if err == nil && len(stores) == 0 {
		err = errNoDestination
	}
	if err != nil {
		return err
	}
	lines, failed := []backupLine{}, false
	filter := catalog.Filter{Match: refMatcher(c.Args().Slice()), Damage: s.damage(), Now: s.now()}
	for i, listing := range listAll(c.Context, stores, s.hostOf(c), filter) {
		if listing.err != nil {
			say.Log(s.log.Error, listing.err, "destination", stores[i].name)
			failed = true
			continue
		}
		lines = append(lines, backupLines(stores[i].name, listing.Listing)...)
	}
	if c.Bool("json") {
		err = a.printJSON(lines)
	} else {
		err = a.printBackups(lines, false)
		if len(lines) == 0 && !failed {
			a.printError(say.WithHint(fmt.Errorf("there is no backup of host %s%s", s.hostOf(c), ofThat(c)),
				"`voltar list --all-hosts` looks at other hosts, too"))
		}
	}
	if err == nil && failed {
		err = exitWith(exitAttention)
	}
	return err
}

// listed is what a destination holds, or why that cannot be told.
type listed struct {
	*catalog.Listing
	err error
}

// listAll lists all destinations at once, so that one that does not answer keeps nobody waiting for the others.
func listAll(ctx context.Context, stores []namedStore, host string, filter catalog.Filter) []listed {
	listings := make([]listed, len(stores))
	var group sync.WaitGroup
	for i, d := range stores {
		group.Go(func() {
			listings[i].Listing, listings[i].err = catalog.List(ctx, d.store, host, filter)
		})
	}
	group.Wait()
	return listings
}

// ofThat says in a message that only some volumes were looked for.
func ofThat(c *cli.Context) string {
	if c.NArg() == 0 {
		return ""
	}
	return " for " + strings.Join(c.Args().Slice(), ", ")
}

// listHosts lists the newest backups of all hosts.
func (a *app) listHosts(c *cli.Context, s *setup) error {
	found, failed, err := s.newestOfAll(c, catalog.Filter{
		Match: refMatcher(c.Args().Slice()), Newest: 1, Good: true, Damage: s.damage(), Now: s.now(),
	})
	if err != nil {
		return err
	}
	lines := []backupLine{}
	for _, l := range found {
		for _, line := range backupLines(l.destination, l.Listing) {
			line.Host = l.Host
			lines = append(lines, line)
		}
	}
	slices.SortStableFunc(lines, func(a, b backupLine) int { return strings.Compare(a.Host, b.Host) })
	if c.Bool("json") {
		err = a.printJSON(lines)
	} else {
		err = a.printBackups(lines, true)
	}
	if err == nil && failed {
		err = exitWith(exitAttention)
	}
	return err
}

func backupLines(destination string, listing *catalog.Listing) []backupLine {
	var lines []backupLine
	for _, b := range listing.Backups {
		line := backupLine{
			Backup: b.ID.String(), Time: b.ID.Time, Destination: destination, Path: b.Path(),
			Status: string(b.Manifest.Status), SizeBytes: b.SizeBytes, Encrypted: b.Manifest.Encryption != nil,
		}
		for _, x := range b.Manifest.Extents {
			line.Entries += x.Entries
		}
		tellDamage(&line, b.Damage)
		lines = append(lines, line)
	}
	for _, u := range listing.Unreadable {
		line := backupLine{Backup: u.ID.String(), Time: u.ID.Time, Destination: destination, Path: u.Path,
			Status: "unreadable", Note: u.Err.Error()}
		if errors.Is(u.Err, catalog.ErrUntrusted) {
			line.Status = "untrusted"
		}
		lines = append(lines, line)
	}
	for _, u := range listing.Unfinished {
		lines = append(lines, backupLine{Backup: u.ID.String(), Time: u.ID.Time, Destination: destination, Path: u.Path,
			Status: "unfinished", Note: "no manifest: it is being written, or a run died over it"})
	}
	for i := range lines {
		noteAhead(&lines[i], listing.Now)
	}
	return lines
}

// statusAhead is that of a complete backup that is dated ahead (package clock).
const statusAhead = "ahead"

func noteAhead(line *backupLine, now time.Time) {
	if !clock.IsAhead(line.Time, now) {
		return
	}
	line.Ahead = true
	if line.Status == string(catalog.StatusComplete) {
		line.Status = statusAhead
	}
	line.note("dated ahead of this host's clock, so it counts for nothing and is taken only where its time is named")
}

// note adds to what there is to say of a backup.
func (l *backupLine) note(text string) {
	if l.Note != "" {
		l.Note += "; "
	}
	l.Note += text
}

func (a *app) printBackups(lines []backupLine, withHost bool) error {
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if withHost {
		say.Printf(table, "HOST\t")
	}
	say.Printf(table, "BACKUP\tLOCAL TIME\tON\tSIZE\tFILES\tSTATUS\n")
	for _, line := range lines {
		status := line.Status
		if line.Encrypted {
			status += ", encrypted"
		}
		if line.Note != "" {
			status += ": " + line.Note
		}
		if withHost {
			say.Printf(table, "%s\t", line.Host)
		}
		say.Printf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", line.Backup, shortTime(line.Time), line.Destination,
			say.Size(line.SizeBytes), line.Entries, status)
	}
	return table.Flush()
}

// storesFrom returns the destination of a name, the folder of a path, which has a slash, or all destinations without either.
func (s *setup) storesFrom(name string) ([]namedStore, error) {
	if name == "" {
		return s.stores, nil
	}
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); err != nil {
			return nil, usageError{fmt.Errorf("--from: %w", err)}
		}
		s.stores = nil
		err := s.openStores(name)
		return s.stores, err
	}
	for _, d := range s.stores {
		if d.name == name {
			return []namedStore{d}, nil
		}
	}
	return nil, usageError{fmt.Errorf("there is no destination %q in the configuration", name)}
}
