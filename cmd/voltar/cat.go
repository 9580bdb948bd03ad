package main

import (
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/say"
)

func (a *app) catCommand() *cli.Command {
	return &cli.Command{
		Name: "cat", Usage: "write a file of a backup to standard output", ArgsUsage: "BACKUP pN:/PATH...",
		Description: "Links are followed, holes of sparse files are written as zeros. A volume without partitions takes /PATH alone.\n" +
			"An extent that is stored as an image is written as it was when it is named alone: `voltar cat BACKUP p3`.",
		Flags:  []cli.Flag{untrustedFlag(), fromFlag(), hostFlag(), identityFlag()},
		Action: a.cat,
	}
}

func (a *app) cat(c *cli.Context) error {
	b, meta, err := a.browse(c)
	if err != nil {
		return err
	}
	texts := c.Args().Tail()
	if len(texts) == 0 {
		return usageError{errors.New("name a file as pN:/PATH, or /PATH for a volume without partitions")}
	}
	damaged := false
	for _, text := range texts {
		place, err := b.Parse(text)
		if err != nil {
			return err
		}
		entry, err := a.catPlace(c, b, place)
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

// catPlace writes one file, or one image, and returns the entry of a file.
func (a *app) catPlace(c *cli.Context, b *browse.Backup, place browse.Place) (entry archive.Entry, err error) {
	var r io.ReadCloser
	if place.Whole {
		r, err = b.Image(c.Context, place.Extent)
	} else {
		tree, openErr := b.Tree(c.Context, place.Extent)
		if openErr != nil {
			return archive.Entry{}, openErr
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		r, entry, err = tree.Open(c.Context, place.Path)
	}
	if err != nil {
		return archive.Entry{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(a.rawOut, r)
	return entry, err
}
