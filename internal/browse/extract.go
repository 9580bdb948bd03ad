package browse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

// ExtractOptions of Extract; the zero value stops at the first fault and overwrites nothing.
type ExtractOptions struct {
	// KeepGoing takes out all that can be had: of archives with damaged or missing bytes, and without an index.
	KeepGoing bool
	Overwrite archive.Overwrite
	// Devices and Privileges bring back what has a say on this host, as archive.ExtractOptions has them.
	Devices, Privileges bool
	NoOwner             bool // leave owners out, for want of privileges
	// OnProgress is called a few times a second with what was taken out of the extent that is being read.
	OnProgress func(extent string, stats archive.ExtractStats)
}

// Extracted says what was taken out of one extent.
type Extracted struct {
	Extent string
	Folder string   // below the target; "." is the target itself
	Notes  []string // what is out of the ordinary, in words
	Stats  archive.ExtractStats
}

// Good says whether all is as it was when it was backed up. Privileges that nobody asked for are not missing.
func (x *Extracted) Good() bool {
	return len(x.Notes) == 0 && len(x.Stats.Failures) == 0 && len(x.Stats.Damage) == 0 &&
		!slices.ContainsFunc(x.Stats.Shortfalls, func(s archive.Shortfall) bool { return s.What != archive.Withheld })
}

// Extract takes places, whose paths may be patterns, with all that is below them out of a backup; all files when there
// are none. Each extent goes into a folder of its name below root, the only one of an unpartitioned volume into root
// itself, each file below its full path there. Nothing gets outside of root, which stays the caller's, and these folders keep
// owner and mode, whatever the root of the extent has. With KeepGoing the error wraps archive.ErrIncomplete when something is
// lost; the results list it.
func (b *Backup) Extract(ctx context.Context, root *os.Root, places []Place, opts ExtractOptions) ([]Extracted, error) {
	wanted := map[string][]string{}
	for _, p := range places {
		if p.Extent.State != catalog.StateFiles {
			return nil, say.WithHint(fmt.Errorf("%w: %s is not stored as files: %s", ErrUsage, label(p.Extent), reason(p.Extent)),
				"`voltar cat` writes an image as it is")
		}
		wanted[p.Extent.Name] = append(wanted[p.Extent.Name], p.Path)
	}
	var done []Extracted
	var incomplete error
	for _, x := range b.FileExtents() {
		paths, ok := wanted[x.Name]
		if len(places) > 0 && !ok {
			continue
		}
		out, err := b.extractExtent(ctx, root, x, paths, opts)
		done = append(done, out)
		switch {
		case err != nil && ctx.Err() != nil:
			return done, context.Cause(ctx)
		case err != nil && !opts.KeepGoing:
			return done, fmt.Errorf("%s: %w", label(x), err)
		case err != nil:
			incomplete = errors.Join(incomplete, fmt.Errorf("%s: %w", label(x), err))
		}
	}
	if len(done) == 0 {
		return nil, fmt.Errorf("%w: %s holds no extent that is stored as files", ErrUsage, b.backup.ID)
	}
	return done, incomplete
}

func (b *Backup) extractExtent(
	ctx context.Context, root *os.Root, x catalog.Extent, paths []string, opts ExtractOptions,
) (out Extracted, err error) {
	out = Extracted{Extent: x.Name, Folder: "."}
	to := root
	if x.Name != "" {
		out.Folder = x.Name
		if to, err = subfolder(root, x.Name); err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
	}
	var index *archive.Index
	switch tree, openErr := b.Tree(ctx, x); {
	case openErr == nil:
		defer func() { err = errors.Join(err, tree.Close()) }()
		index = tree.Index()
	case errors.Is(openErr, ErrNoIndex) && opts.KeepGoing:
		out.Notes = append(out.Notes, openErr.Error())
	default:
		return out, openErr
	}
	data, err := b.open(ctx, b.store, b.backup, x.Archive)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	if err := b.checkSize(x.Archive, data); err != nil {
		if !opts.KeepGoing {
			return out, say.WithHint(err, "--keep-going takes out what is left")
		}
		out.Notes = append(out.Notes, err.Error())
	}
	reader, err := archive.NewReader(ctx, data, data.SizeBytes(), archive.ReaderOptions{
		KeepGoing: opts.KeepGoing, MaxBytes: streamBytes(index),
	})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	out.Stats, err = archive.Extract(ctx, reader, to, archive.ExtractOptions{
		Paths: paths, Index: index, Overwrite: opts.Overwrite, KeepGoing: opts.KeepGoing, Devices: opts.Devices,
		Privileges: opts.Privileges, NoOwner: opts.NoOwner, OnProgress: func(s archive.ExtractStats) {
			if opts.OnProgress != nil {
				opts.OnProgress(x.Name, s)
			}
		},
	})
	return out, err
}

// streamBytes is what an archive may inflate to; 0 sets no limit.
func streamBytes(index *archive.Index) int64 {
	if index == nil {
		return 0
	}
	return index.TarBytes()
}

// subfolder opens a folder in root, or makes it. Something else in its place, such as a symbolic link, is an error.
func subfolder(root *os.Root, name string) (*os.Root, error) {
	if err := catalog.CheckFileName(name); err != nil {
		return nil, err
	}
	err := root.Mkdir(name, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("cannot use %q in the target: it is no folder", name)
	}
	return root.OpenRoot(name)
}
