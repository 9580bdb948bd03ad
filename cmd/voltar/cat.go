package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

func (a *app) catCommand() *cli.Command {
	return &cli.Command{
		Name: "cat", Usage: "write a file of a backup to standard output", ArgsUsage: "BACKUP pN:/PATH...",
		UsageText: "voltar cat web p1:/etc/fstab\n" +
			"voltar cat web p3 >p3.img # an extent that is stored as an image\n",
		Description: "Follows links, and writes holes of sparse files as zeros. For a volume without partitions, give /PATH alone. An extent\n" +
			"that is stored as an image is written as it was if it is named alone: `voltar cat BACKUP p3`. Of a damaged file,\n" +
			"--keep-going writes what comes before the damage, says that it is cut, and exits with 3: the last of what is\n" +
			"written, up to 16 MiB, may be wrong, too.",
		Flags: []cli.Flag{untrustedFlag(), fromFlag(), hostFlag(), identityFlag(),
			&cli.BoolFlag{Name: "keep-going", Usage: "write what can be read of a damaged file, and go on with the next"}},
		Action: func(c *cli.Context) error {
			o, err := readBrowse(c)
			if err != nil {
				return err
			}
			return a.cat(c.Context, o)
		},
	}
}

func (a *app) cat(ctx context.Context, o browseOptions) error {
	if len(o.paths) == 0 {
		return usageError(errors.New("name a file as pN:/PATH, or /PATH for a volume without partitions"))
	}
	b, meta, err := a.browse(ctx, o)
	if err != nil {
		return err
	}
	damaged := false
	for _, text := range o.paths {
		place, err := b.Parse(text)
		if err != nil {
			return err
		}
		entry, err := a.catPlace(ctx, b, place, o.keepGoing)
		if o.keepGoing && isDamage(err) {
			say.Indented(a.stderr, "voltar: ", fmt.Sprintf("%q is cut: %s", text, err))
			damaged = true
			continue
		}
		if err != nil {
			return hinted(err, meta)
		}
		if entry.Damaged != "" {
			say.Printf(a.stderr, "voltar: %q was damaged when it was backed up: %s\n", text, entry.Damaged)
			damaged = true
		}
	}
	if damaged {
		return exitWith(exitAttention)
	}
	return nil
}

// isDamage tells whether an error says that an archive or image holds something else than was stored, or less.
func isDamage(err error) bool {
	if errors.Is(err, browse.ErrNoIndex) {
		return false
	}
	var damage *archive.MemberError
	return errors.As(err, &damage) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, catalog.ErrDamaged)
}

// catPlace writes one file, or one image, and returns the entry of a file.
func (a *app) catPlace(ctx context.Context, b *browse.Backup, place browse.Place, keepGoing bool) (entry archive.Entry, err error) {
	var r io.ReadCloser
	if place.Whole {
		open := b.Image
		if keepGoing {
			open = b.ImageSalvaged
		}
		r, err = open(ctx, place.Extent)
	} else {
		tree, openErr := b.Tree(ctx, place.Extent)
		if openErr != nil {
			return archive.Entry{}, openErr
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		open := tree.Open
		if keepGoing {
			open = tree.OpenSalvaged
		}
		r, entry, err = open(ctx, place.Path)
	}
	if err != nil {
		return archive.Entry{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(a.rawOut, r)
	return entry, err
}
