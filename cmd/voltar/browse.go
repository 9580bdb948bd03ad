package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/sign"
	"voltar/internal/store"
)

// browseOptions name one backup to look into.
type browseOptions struct {
	setupOptions
	sourceOptions
	backup    string
	paths     []string // in it
	keepGoing bool
	to        string // the folder of the host that it goes to, "" for none
}

// readBrowse reads the flags and arguments of the commands that look into a backup.
func readBrowse(c *cli.Context) (browseOptions, error) {
	if c.NArg() == 0 {
		return browseOptions{}, usageError(errors.New("name a backup: VOLUME[@TIME], as `voltar list` shows them"))
	}
	if err := checkTimes(c.Args().Slice()[:1]); err != nil {
		return browseOptions{}, err
	}
	return browseOptions{
		setupOptions:  setupOptions{commonOptions: readCommon(c), untrusted: c.Bool("untrusted"), lookup: true, readOnly: true},
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
	d, b, err := s.FindBackup(ctx, o.from, o.host, o.backup)
	if err == nil && o.to != "" {
		err = s.RefuseWithin(ctx, "--to", o.to)
	}
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
	var index *archive.IndexError
	var hint string
	switch {
	case err == nil || len(say.Hints(err)) > 0:
		return err
	case errors.As(err, &unmatched), errors.Is(err, fs.ErrNotExist):
		hint = "`voltar ls` shows what it holds"
	case errors.Is(err, fs.ErrExist):
		hint = "--overwrite replace or --overwrite keep goes on, or give another folder"
	case errors.As(err, &index):
		hint = browse.RepairIndex(backup.ID)
	case errors.Is(err, store.ErrNotExist):
		hint = fmt.Sprintf("take another backup, or this one from another destination: `voltar list %s`", backup.ID.Ref)
	case isDamage(err):
		hint = fmt.Sprintf("take another backup (`voltar list %s`), or what is left of this one: --keep-going", backup.ID.Ref)
	default:
		return fmt.Errorf("%s: %w", backup.ID, err)
	}
	return say.WithHint(fmt.Errorf("%s: %w", backup.ID, err), hint)
}
