package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/internal/store"
)

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list backups", ArgsUsage: "[VOLUME[@TIME]...]",
		UsageText: "voltar list\n" +
			"voltar list web # the backups of one volume, or of a guest's disks\n" +
			"voltar list web@2026-11-20 # those of one day\n" +
			"voltar list --from /mnt/disk/ --host vmhost3 # those of another host, on a disk\n" +
			"voltar list --all-hosts # the newest of every host\n",
		Description: "The first column is what the other commands take as BACKUP. A VOLUME alone means its newest backup, not counting\n" +
			"backups that are dated ahead of this host's clock. A backup that lacks a file is listed as damaged: on S3 in every\n" +
			"list, on a disk if its VOLUME is named, or with --all-hosts. If a VOLUME is named and its backups share their place\n" +
			"on a disk, ITS OWN is what no other backup has: what removing this one alone frees. A guest's name, or GUEST:DISK,\n" +
			"stands for the volumes that are its disks by their backups. Ends with 1 if nothing of what is named, a VOLUME or\n" +
			"--host, has a backup, and with 3 if some of it has none. A list without names may be empty: it then says where it looked.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "list only destination `NAME`, or a folder (with a slash)"},
			hostFlag(),
			&cli.BoolFlag{Name: "all-hosts",
				Usage: "list, for all hosts that share the destinations, the newest good backup of each volume and what is newer"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("all-hosts") && c.IsSet("host") {
				return usageError(errors.New("--all-hosts is about every host, and --host about one: give one of them"))
			}
			return a.list(c.Context, listOptions{
				setupOptions:  setupOptions{commonOptions: readCommon(c), lookup: true, readOnly: true},
				sourceOptions: readSource(c), volumes: c.Args().Slice(), allHosts: c.Bool("all-hosts"),
			})
		},
	}
}

type listOptions struct {
	setupOptions
	sourceOptions
	volumes  []string // names, patterns and backups; none for all
	allHosts bool
}

func (a *app) list(ctx context.Context, o listOptions) error {
	if err := checkTimes(o.volumes); err != nil {
		return err
	}
	var names []string
	for _, text := range o.volumes {
		name, _, timed := cutTime(text)
		if timed && o.allHosts {
			return usageError(say.WithHint(fmt.Errorf("%q has a time, and --all-hosts lists the newest of each", text),
				"--host NAME lists all backups of one host"))
		}
		names = append(names, name)
	}
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return err
	}
	if len(stores) == 0 {
		return s.NoDestination("--from DIR/")
	}
	stores, vanished := s.WithoutVanished(ctx, stores)
	lines, guests, failed, err := askBackups(ctx, s, o, stores, names)
	if err != nil {
		return err
	}
	failed = append(failed, vanished...)
	var missing error
	if len(failed) == 0 {
		failed, missing = missingIn(ctx, s, o, stores, lines, guests)
	}
	for _, err := range failed {
		say.Log(s.Log.Error, err)
	}
	if o.json {
		err = a.printJSON(lines)
	} else if len(lines) > 0 {
		err = a.printBackups(lines, o.allHosts)
	}
	if missing != nil {
		a.printError(missing)
	}
	switch {
	case err != nil:
		return err
	case len(failed) > 0 || missing != nil && len(lines) > 0:
		return exitWith(exitAttention)
	case len(lines) == 0 && (len(o.volumes) > 0 || o.host != ""):
		return exitWith(exitNothing)
	}
	return nil
}

// missingIn is what there is to say of the words that a list has no backup for, or of a list that is empty; guests are words that it has.
func missingIn(ctx context.Context, s *setup.Setup, o listOptions, stores []setup.Destination, lines []catalog.Line, guests []string,
) (failed []error, missing error) {
	if len(lines) > 0 {
		volumes := slices.DeleteFunc(slices.Clone(o.volumes), func(text string) bool { return slices.Contains(guests, text) })
		return nil, unfound(volumes, say.Names(lines, func(l catalog.Line) string { return l.Backup }))
	}
	hosts, failed := hostsOn(ctx, stores)
	if len(failed) > 0 {
		return failed, nil
	}
	host := s.HostOr(o.host)
	if o.allHosts {
		host = ""
	}
	return nil, noBackups(ctx, stores, host, o.volumes, hosts)
}

// askBackups asks the destinations for the backups that a list is to have; names are those of their sources, none for all. guests are
// the words that named one; failed has an error for each destination that does not say.
func askBackups(
	ctx context.Context, s *setup.Setup, o listOptions, stores []setup.Destination, names []string,
) (lines []catalog.Line, guests []string, failed []error, err error) {
	listMany()
	filter := catalog.Filter{
		Match: refMatcher(names), Damage: s.Damage(), Now: s.Now(), Known: s.Known(), Compare: catalog.CompareShown,
	}
	if len(names) > 0 {
		filter.Compare = catalog.CompareAll
	}
	if o.allHosts {
		filter.Newest, filter.Good = 1, true
	}
	ask := func(filter catalog.Filter) ([]catalog.Listed, []error, error) {
		return askStores(ctx, s, o, stores, filter)
	}
	found, failed, err := ask(filter)
	if err != nil {
		return nil, nil, nil, err
	}
	ofGuests, guests, err := askGuests(ask, filter, o.volumes, found)
	if err != nil {
		return nil, nil, nil, err
	}
	lines = []catalog.Line{}
	for i, l := range append(found, ofGuests...) {
		isWanted := func(line catalog.Line) bool {
			return len(o.volumes) == 0 || i >= len(found) || isListed(line, o.volumes)
		}
		of := l.Lines(l.Destination)
		if len(o.volumes) > 0 && !o.allHosts {
			at := slices.IndexFunc(stores, func(d setup.Destination) bool { return d.Name == l.Destination })
			if err := l.NoteOwn(ctx, stores[at].Store, of, isWanted); err != nil {
				failed = append(failed, fmt.Errorf("destination %s: %w", l.Destination, err))
			}
		}
		for _, line := range of {
			if !isWanted(line) {
				continue
			}
			if o.allHosts {
				line.Host = l.Host
			}
			same := func(have catalog.Line) bool {
				return have.Host == line.Host && have.Destination == line.Destination && have.Backup == line.Backup
			}
			if i < len(found) || !slices.ContainsFunc(lines, same) { // a guest and a disk of it may both be named
				lines = append(lines, line)
			}
		}
	}
	return lines, guests, failed, nil
}

// askStores asks the destinations for backups of one host, or of all.
func askStores(
	ctx context.Context, s *setup.Setup, o listOptions, stores []setup.Destination, filter catalog.Filter,
) (found []catalog.Listed, failed []error, err error) {
	if o.allHosts {
		if found, failed, err = catalog.ListFleet(ctx, setup.Named(stores), filter); err != nil {
			return nil, nil, err
		}
		slices.SortStableFunc(found, func(a, b catalog.Listed) int { return strings.Compare(a.Host, b.Host) })
		return found, failed, nil
	}
	for _, l := range catalog.ListEach(ctx, setup.Named(stores), s.HostOr(o.host), filter) {
		if l.Err != nil {
			failed = append(failed, catalog.At(l.Destination, l.Err))
			continue
		}
		found = append(found, l)
	}
	return found, failed, nil
}

// askGuests lists the disks of guests that words name which name no volume. A word that was answered is not asked again.
func askGuests(
	ask func(catalog.Filter) ([]catalog.Listed, []error, error), filter catalog.Filter, volumes []string, found []catalog.Listed,
) (list []catalog.Listed, guests []string, err error) {
	var all []catalog.Listed // the newest of each volume, once it is needed
	for _, text := range volumes {
		if slices.ContainsFunc(found, func(l catalog.Listed) bool { return holds(l.Listing, text) }) {
			continue
		}
		if all == nil {
			newest := filter
			newest.Match, newest.Newest, newest.Compare = nil, 1, catalog.CompareNone
			if all, _, err = ask(newest); err != nil { // what does not answer was told by the first question
				return nil, nil, err
			}
		}
		word, when, _ := cutTime(text)
		disks := map[catalog.Ref]bool{}
		for _, l := range all {
			entries, err := catalog.OfGuest(l.Backups, word)
			if err != nil {
				return nil, nil, usageError(err)
			}
			for _, e := range entries {
				disks[e.ID.Ref] = true
			}
		}
		if len(disks) == 0 {
			continue
		}
		ofDisks := filter
		ofDisks.Match = func(ref catalog.Ref) bool { return disks[ref] }
		listed, _, err := ask(ofDisks)
		if err != nil {
			return nil, nil, err
		}
		for _, l := range listed {
			only := *l.Listing
			only.Backups, err = catalog.OfGuest(l.Backups, word)
			if err != nil {
				return nil, nil, usageError(err)
			}
			only.Backups = slices.DeleteFunc(only.Backups, func(e catalog.Entry) bool {
				return !strings.HasPrefix(catalog.FormatTime(e.ID.Time), when)
			})
			only.Unreadable, only.Unfinished = nil, nil
			if l.Listing = &only; len(only.Backups) > 0 {
				list, guests = append(list, l), append(guests, text)
			}
		}
	}
	return list, guests, nil
}

// holds tells whether a listing has something that a word names.
func holds(l *catalog.Listing, text string) bool {
	named := func(id catalog.ID) bool { return isNamed(id, []string{text}) }
	return slices.ContainsFunc(l.Backups, func(e catalog.Entry) bool { return named(e.ID) }) ||
		slices.ContainsFunc(l.Unreadable, func(u catalog.Unreadable) bool { return named(u.ID) }) ||
		slices.ContainsFunc(l.Unfinished, func(u catalog.Unfinished) bool { return named(u.ID) })
}

// isListed tells whether a line is of a backup that is named.
func isListed(line catalog.Line, volumes []string) bool {
	name, _, _ := cutTime(line.Backup)
	ref, err := catalog.ParseRef(name)
	return err == nil && isNamed(catalog.ID{Ref: ref, Time: line.Time}, volumes)
}

// noBackups is what there is to say where none was found, of one host or, where that is "", of any: where was looked, and what lies there.
func noBackups(ctx context.Context, stores []setup.Destination, host string, volumes, hosts []string) error {
	of := "of any host"
	if host != "" {
		of = "of host " + host
	}
	if len(volumes) > 0 {
		of += " for " + strings.Join(volumes, ", ")
	}
	places := say.Names(stores, func(d setup.Destination) string { return d.Name + " (" + d.Store.String() + ")" })
	err := fmt.Errorf("there is no backup %s on %s", of, say.Listed(places, catalog.ShownHosts))
	if len(volumes) > 0 && (slices.Contains(hosts, host) || host == "" && len(hosts) > 0) {
		return say.WithHint(err, "`voltar list` without a name shows what there is")
	}
	hosts = slices.DeleteFunc(hosts, func(other string) bool { return other == host })
	hint := catalog.NoHosts
	switch pending := pendingNotes(ctx, stores); {
	case len(hosts) > 0 && host == "":
		hint = "there are folders of " + say.Listed(hosts, catalog.ShownHosts) + ", without any backup"
	case len(hosts) > 0:
		hint = fmt.Sprintf("there are backups of %s: give --host NAME, or --all-hosts", say.Listed(hosts, catalog.ShownHosts))
	case len(pending) > 0:
		hint = strings.Join(pending, "; ")
	}
	return say.WithHint(err, hint)
}

// pendingNotes tell of the destinations that are not there yet.
func pendingNotes(ctx context.Context, stores []setup.Destination) (notes []string) {
	for _, d := range stores {
		if note := store.PendingNote(ctx, d.Store); note != "" {
			notes = append(notes, d.Name+": "+note)
		}
	}
	return notes
}

// hostsOn lists the hosts that have backups on some destinations. failed has an error for each that does not say.
func hostsOn(ctx context.Context, stores []setup.Destination) (hosts []string, failed []error) {
	type answer struct {
		hosts []string
		err   error
	}
	for i, a := range catalog.AskAll(stores, func(d setup.Destination) (a answer) {
		a.hosts, a.err = catalog.Hosts(ctx, d.Store)
		return a
	}) {
		hosts = append(hosts, a.hosts...)
		if a.err != nil {
			failed = append(failed, catalog.At(stores[i].Name, a.err))
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), failed
}

func (a *app) printBackups(lines []catalog.Line, withHost bool) error {
	table := a.newTable()
	if withHost {
		say.Printf(table, "HOST\t")
	}
	withGuests := slices.ContainsFunc(lines, func(l catalog.Line) bool { return l.Guest != nil })
	say.Printf(table, "BACKUP\t")
	if withGuests {
		say.Printf(table, "GUEST\t")
	}
	withOwn := slices.ContainsFunc(lines, func(l catalog.Line) bool { return l.OwnBytes != nil })
	own := ""
	if withOwn {
		own = "\tITS OWN"
	}
	say.Printf(table, "LOCAL TIME\tON\tSIZE%s\tFILES\tSTATUS\n", own)
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
		size := say.Size(line.SizeBytes)
		if withOwn {
			size += "\t"
		}
		if line.OwnBytes != nil {
			size += say.Size(*line.OwnBytes)
		}
		say.Printf(table, "%s\t", line.Backup)
		if withGuests {
			guest := "-"
			if line.Guest != nil {
				guest = line.Guest.String()
			}
			say.Printf(table, "%s\t", guest)
		}
		say.Printf(table, "%s\t%s\t%s\t%d\t%s\n", shortTime(line.Time), line.Destination, size, line.Entries, status)
	}
	return table.Flush()
}
