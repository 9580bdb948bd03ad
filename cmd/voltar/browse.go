package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/say"
	"voltar/internal/sign"
)

// errNoDestination is for commands that have nowhere to look.
var errNoDestination = usageError{errors.New("there is no destination: add one to the configuration, or give --from DIR/")}

// browseOptions name one backup to look into.
type browseOptions struct {
	setupOptions
	sourceOptions
	backup    string
	paths     []string // in it
	keepGoing bool
}

// readBrowse reads the flags and arguments of the commands that look into a backup.
func readBrowse(c *cli.Context) (browseOptions, error) {
	if c.NArg() == 0 {
		return browseOptions{}, usageError{errors.New("name a backup: VOLUME[@TIME], as `voltar list` shows them")}
	}
	return browseOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted"), lookup: true},
		sourceOptions: readSource(c), backup: c.Args().First(), paths: c.Args().Tail(), keepGoing: c.Bool("keep-going"),
	}, nil
}

// browse opens a backup for looking into.
func (a *app) browse(ctx context.Context, o browseOptions) (*browse.Backup, catalog.Backup, error) {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	decrypt, err := a.decrypt(s, o.identities, o.keepGoing)
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	d, b, err := s.findBackup(ctx, o.sourceOptions, o.backup)
	if err != nil {
		return nil, catalog.Backup{}, err
	}
	open := browse.Opener(decrypt)
	if sign.Signs(d.Store) && !o.untrusted {
		open = browse.Checked(decrypt) // a signature vouches for sums
	}
	return browse.New(d.Store, b, open), b, nil
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

// findBackup finds what "VOLUME[@TIME]" means on the destinations of --from. One that does not answer is passed over with a
// warning when another has the backup.
func (s *setup) findBackup(ctx context.Context, o sourceOptions, text string) (openDestination, catalog.Backup, error) {
	stores, err := s.storesFrom(o.from)
	if err != nil {
		return openDestination{}, catalog.Backup{}, err
	}
	if len(stores) == 0 {
		return openDestination{}, catalog.Backup{}, errNoDestination
	}
	filter := catalog.Filter{Damage: s.damage(), Now: s.now()}
	found, err := catalog.Find(ctx, destinations(stores), s.hostOf(o), text, filter)
	if err != nil {
		return openDestination{}, catalog.Backup{}, err
	}
	for _, err := range found.Others {
		say.Log(s.log.Warn, err)
	}
	if found.Damage != "" {
		s.log.Warn(fmt.Sprintf("%s on %s is damaged: %s", found.ID, stores[found.At].Name, found.Damage))
	}
	var ahead []string
	for _, id := range found.Ahead {
		ahead = append(ahead, id.String())
	}
	switch {
	case clock.IsAhead(found.ID.Time, filter.Now):
		s.log.Warn(fmt.Sprintf("%s is dated ahead of this host's clock: it may not be what its time says", found.ID))
	case len(ahead) > 0:
		s.log.Warn(fmt.Sprintf("%s is taken, and not %s, dated ahead of this host's clock: is the clock right?", found.ID,
			strings.Join(ahead, ", ")))
	}
	return stores[found.At], found.Backup, nil
}

// destinations are the stores with their names alone.
func destinations(stores []openDestination) []catalog.Destination {
	var list []catalog.Destination
	for _, d := range stores {
		list = append(list, d.Destination.Destination)
	}
	return list
}
