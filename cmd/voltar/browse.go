package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/say"
)

// errNoDestination is for commands that have nowhere to look.
var errNoDestination = usageError{errors.New("there is no destination: add one to the configuration, or give --from DIR/")}

// fromFlag chooses the destination that a backup is read from.
func fromFlag() cli.Flag {
	return &cli.StringFlag{Name: "from", Usage: "read from destination `NAME`, or folder (with a slash); else from the first that has it"}
}

// hostFlag chooses the host whose backups are meant.
func hostFlag() cli.Flag {
	return &cli.StringFlag{Name: "host", Usage: "of the host `NAME`, instead of this one"}
}

// hostOf is the host whose backups are meant.
func (s *setup) hostOf(c *cli.Context) string { return cmp.Or(c.String("host"), s.host) }

// browse opens the backup that the first argument names for looking into.
func (a *app) browse(c *cli.Context) (*browse.Backup, catalog.Backup, error) {
	if c.NArg() == 0 {
		return nil, catalog.Backup{}, usageError{fmt.Errorf("name a backup: VOLUME[@TIME], as `voltar list` shows them")}
	}
	s, err := a.setup(c)
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	decrypt, err := a.decrypt(c, s, c.Bool("keep-going"))
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	d, b, err := s.findBackup(c)
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	return browse.New(d.store, b, browse.Opener(decrypt)), b, nil
}

// hinted names the backup in an error of looking into it, and says what to do next.
func hinted(err error, backup catalog.Backup) error {
	var unmatched *archive.UnmatchedError
	var damaged *archive.MemberError
	var hint string
	switch {
	case err == nil || len(say.Hints(err)) > 0:
		return err
	case errors.As(err, &unmatched), errors.Is(err, fs.ErrNotExist):
		hint = "`voltar ls` shows what it holds"
	case errors.Is(err, fs.ErrExist):
		hint = "--overwrite replace or --overwrite keep goes on, or give another folder"
	case errors.As(err, &damaged):
		hint = "take another backup (`voltar list`), or what is left of this one with `voltar extract --keep-going`"
	default:
		return fmt.Errorf("%s: %w", backup.ID, err)
	}
	return say.WithHint(fmt.Errorf("%s: %w", backup.ID, err), hint)
}

// findBackup finds what "VOLUME[@TIME]" means on the destinations of --from: the newest of them all without a time. Where
// several have it the first in the configuration gives it that is not known to be damaged. One that does not answer is
// passed over with a warning when another has the backup.
func (s *setup) findBackup(c *cli.Context) (namedStore, catalog.Backup, error) {
	stores, err := s.storesFrom(c.String("from"))
	if err != nil {
		return namedStore{}, catalog.Backup{}, err
	}
	ctx, text := c.Context, c.Args().First()
	var listings []*catalog.Listing
	var found catalog.Backup
	var on *namedStore
	var failed []error
	filter := catalog.Filter{Damage: s.damage(), Now: s.now()}
	for i, d := range stores {
		listing, err := listFor(ctx, d, s.hostOf(c), text, filter)
		var b catalog.Backup
		if err == nil {
			listings = append(listings, listing)
			b, err = resolveOn(ctx, d, listing, text)
		}
		switch {
		case ctx.Err() != nil:
			return namedStore{}, catalog.Backup{}, context.Cause(ctx)
		case err != nil:
			failed = append(failed, fmt.Errorf("destination %s: %w", d.name, err))
		case on == nil || b.ID.Time.After(found.ID.Time),
			b.ID.Compare(found.ID) == 0 && found.Damage != "" && b.Damage == "":
			found, on = b, &stores[i]
		}
	}
	if on == nil && len(failed) == 0 {
		return namedStore{}, catalog.Backup{}, errNoDestination
	}
	if on == nil {
		return namedStore{}, catalog.Backup{}, errors.Join(failed...)
	}
	for _, err := range failed {
		if !errors.Is(err, catalog.ErrNotFound) {
			say.Log(s.log.Warn, err)
		}
	}
	if found.Damage != "" {
		s.log.Warn(fmt.Sprintf("of %s on %s verify found %s", found.ID, on.name, found.Damage))
	}
	s.warnOfAhead(found.ID, listings)
	return *on, found, nil
}

// warnOfAhead says that the backup that was found is dated ahead, or which are and were passed over.
func (s *setup) warnOfAhead(found catalog.ID, listings []*catalog.Listing) {
	if clock.IsAhead(found.Time, s.now()) {
		s.log.Warn(fmt.Sprintf("%s is dated ahead of this host's clock: it may not be what its time says", found))
		return
	}
	ahead := map[string]bool{}
	for _, l := range listings {
		for _, b := range l.Backups {
			if b.ID.Ref == found.Ref && l.IsAhead(b.ID) {
				ahead[b.ID.String()] = true
			}
		}
	}
	if len(ahead) > 0 {
		s.log.Warn(fmt.Sprintf("%s is taken, and not %s, dated ahead of this host's clock: is the clock right?", found,
			strings.Join(slices.Sorted(maps.Keys(ahead)), ", ")))
	}
}

// resolveOn finds a backup in the list of one destination.
func resolveOn(ctx context.Context, d namedStore, listing *catalog.Listing, text string) (catalog.Backup, error) {
	if len(listing.Backups)+len(listing.Unreadable) == 0 {
		return catalog.Backup{}, noBackups(ctx, d, listing.Host)
	}
	return listing.Resolve(text)
}

// noBackups says that there is none of a host at all, and of which hosts there are some.
func noBackups(ctx context.Context, d namedStore, host string) error {
	hosts, err := catalog.Hosts(ctx, d.store)
	if err != nil {
		return err
	}
	hint := "there are some of " + strings.Join(hosts, ", ") + ": give --host NAME"
	if len(hosts) == 0 {
		hint = "nor of any other host: what is wanted is the folder that holds a folder for each host"
	}
	return say.WithHint(fmt.Errorf("%w: %s holds none of host %s", catalog.ErrNotFound, d.store, host), hint)
}

// listFor lists what is needed to tell which backup is meant: the volumes that the name can mean; when there are none,
// all, for the message that says what there is.
func listFor(ctx context.Context, d namedStore, host, text string, filter catalog.Filter) (*catalog.Listing, error) {
	name := text
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		name = text[:i]
	}
	only := filter
	only.Match = func(ref catalog.Ref) bool { return ref.String() == name || ref.Name == name }
	listing, err := catalog.List(ctx, d.store, host, only)
	if err == nil && len(listing.Backups)+len(listing.Unreadable) == 0 {
		filter.Newest = 1
		listing, err = catalog.List(ctx, d.store, host, filter)
	}
	return listing, err
}
