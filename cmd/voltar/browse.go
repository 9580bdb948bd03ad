package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/internal/browse"
	"voltar/internal/catalog"
)

// fromFlag chooses the destination that a backup is read from.
func fromFlag() cli.Flag {
	return &cli.StringFlag{Name: "from", Usage: "read from destination `NAME`; without it from the first that has the backup"}
}

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
	d, b, err := s.findBackup(c.Context, c.String("from"), c.Args().First())
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	return browse.New(d.store, b, browse.Opener(decrypt)), b, nil
}

// findBackup finds what "VOLUME[@TIME]" means on the destinations: the newest of them all without a time. Where several
// have it the first in the configuration gives it. One that does not answer is passed over with a warning when another
// has the backup.
func (s *setup) findBackup(ctx context.Context, from, text string) (namedStore, catalog.Backup, error) {
	stores, err := s.storesFrom(from)
	if err != nil {
		return namedStore{}, catalog.Backup{}, err
	}
	var found catalog.Backup
	var on *namedStore
	var failed []error
	for i, d := range stores {
		b, err := resolveOn(ctx, d, s.host, text)
		switch {
		case ctx.Err() != nil:
			return namedStore{}, catalog.Backup{}, context.Cause(ctx)
		case err != nil:
			failed = append(failed, fmt.Errorf("destination %s: %w", d.name, err))
		case on == nil || b.ID.Time.After(found.ID.Time):
			found, on = b, &stores[i]
		}
	}
	if on == nil && len(failed) == 0 {
		return namedStore{}, catalog.Backup{}, usageError{errors.New("there is no destination in the configuration")}
	}
	if on == nil {
		return namedStore{}, catalog.Backup{}, errors.Join(failed...)
	}
	for _, err := range failed {
		if !errors.Is(err, catalog.ErrNotFound) {
			s.log.Warn(err.Error())
		}
	}
	return *on, found, nil
}

// resolveOn finds a backup on one destination.
func resolveOn(ctx context.Context, d namedStore, host, text string) (catalog.Backup, error) {
	listing, err := listFor(ctx, d, host, text)
	if err != nil {
		return catalog.Backup{}, err
	}
	return listing.Resolve(text)
}

// listFor lists what is needed to tell which backup is meant: the volumes that the name can mean; when there are none,
// all, for the message that says what there is.
func listFor(ctx context.Context, d namedStore, host, text string) (*catalog.Listing, error) {
	name := text
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		name = text[:i]
	}
	listing, err := catalog.List(ctx, d.store, host, catalog.Filter{Match: func(ref catalog.Ref) bool {
		return ref.String() == name || ref.Name == name
	}})
	if err == nil && len(listing.Backups)+len(listing.Unreadable) == 0 {
		listing, err = catalog.List(ctx, d.store, host, catalog.Filter{Newest: 1})
	}
	return listing, err
}
