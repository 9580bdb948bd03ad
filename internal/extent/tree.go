package extent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/say"
)

// Files is where the files of one backup go, and how they are made.
type Files struct {
	Out        *placement.Output
	Names      catalog.Names
	Level      archive.Level
	Exclude    *archive.Matcher
	Pool       *archive.Pool
	OnProgress func(archive.Progress)
	TempDir    string
	Made       archive.Day         // of the backup
	Previous   *placement.Previous // nil carries nothing over
}

// LiveTree archives a tree that is in use meanwhile, of which no filesystem tells how much it holds. Folders in closed are stored empty.
func (f *Files) LiveTree(ctx context.Context, root *os.File, closed []archive.FolderID) (*Extent, archive.TreeStats, error) {
	x := &Extent{whole: string(catalog.SourceDirectory)}
	var made archive.TreeStats
	err := f.writeTree(ctx, x, root, 0, archive.TreeOptions{Live: true, Closed: closed}, func(stats archive.TreeStats) error {
		made = stats
		if stats.Entries <= 1 && stats.ExcludedEntries == 0 {
			return say.WithHint(fmt.Errorf("%s is empty", root.Name()),
				"is what belongs there mounted? require_mount of the directory looks after it")
		}
		return nil
	})
	if err != nil {
		return nil, made, hintBounds(err)
	}
	x.SizeBytes = x.ContentBytes + x.ExcludedBytes
	x.UsedBytes = x.OwnBytes() + x.ExcludedBytes
	x.Reason = "read as it was used, without a snapshot"
	return x, made, nil
}

// Stream stores what is read from source under a name, and returns how much that was. Nothing is an error.
func (f *Files) Stream(ctx context.Context, name string, source io.Reader) (readBytes int64, err error) {
	_, err = f.Out.Write(ctx, name, 0, func(w io.Writer) error {
		stats, err := archive.WriteStream(ctx, source, w, archive.StreamOptions{Level: f.Level, OnProgress: f.OnProgress})
		if readBytes = stats.ContentBytes; err == nil && readBytes == 0 {
			err = errors.New("the command wrote nothing")
		}
		return err
	})
	return readBytes, err
}

// writeTree archives a tree, of at most maxBytes (0 when nothing is known), with its index. What check refuses does not
// count. The options say what is special about the tree; the rest of them are the volume's.
func (f *Files) writeTree(
	ctx context.Context, x *Extent, root *os.File, maxBytes int64, opts archive.TreeOptions, check func(archive.TreeStats) error,
) (err error) {
	x.Archive = f.Names.Archive(x.Name)
	x.Index = &catalog.Index{Name: f.Names.Index(x.Name)}
	index, err := f.Out.Create(ctx, x.Index.Name, 0)
	if err != nil {
		return err
	}
	defer index.Abort()
	opts.Level, opts.Pool, opts.Exclude, opts.OnProgress = f.Level, f.Pool, f.Exclude, f.OnProgress
	opts.TempDir, opts.Made = f.TempDir, f.Made
	opts.Previous = f.Previous.Open(ctx, x.Name, catalog.StateFiles, f.Level)
	defer func() { err = errors.Join(err, opts.Previous.Close()) }()
	var stats archive.TreeStats
	file, err := f.Out.Write(ctx, x.Archive, maxBytes, func(w io.Writer) (err error) {
		stats, err = archive.WriteTree(ctx, root, w, index, opts)
		return err
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", x.Label(), err)
	}
	if err := check(stats); err != nil {
		return err
	}
	if _, err := index.Commit(ctx); err != nil {
		return err
	}
	x.State = catalog.StateFiles
	x.Index.BlocksOffset = stats.IndexBlocksOffset
	x.noteTree(stats)
	x.StoredBytes = file.SizeBytes
	if opts.Previous != nil {
		x.noteCarried(f.Previous.From(), stats.Carried, stats.Members, stats.ArchiveBytes)
	}
	return nil
}

// noteCarried enters in the ledger what of an archive, of so many members and bytes, was carried over.
func (x *Extent) noteCarried(from string, carried archive.Carried, members, sizeBytes int64) {
	x.Carried = &catalog.Carried{
		From: from, Members: carried.Members, Bytes: carried.Bytes,
		NewMembers: members - carried.Members, NewBytes: sizeBytes - carried.Bytes,
	}
}

// noteTree enters in the ledger what the archive of a tree holds.
func (x *Extent) noteTree(stats archive.TreeStats) {
	x.Entries, x.ContentBytes, x.ReadBytes = stats.Entries, stats.ContentBytes, stats.ContentBytes
	x.UniqueBytes = 0
	if stats.SharedBytes > 0 {
		x.UniqueBytes = stats.ContentBytes - stats.SharedBytes
	}
	x.ExcludedEntries, x.ExcludedBytes = stats.ExcludedEntries, stats.ExcludedBytes
	x.NotStored, x.LongPaths = stats.NotStored, stats.LongPaths
	x.DamagedCount = stats.DamagedCount
	for _, d := range stats.Damaged {
		x.Damaged = append(x.Damaged, damageOf(d.Path, d.Reason))
	}
}

// AttributesNotStored says that extended attributes of files are not in the archive; "" when all are.
func (x *Extent) AttributesNotStored() (lost, hint string) {
	n := x.NotStored[archive.NotStoredXattrSize]
	if n == 0 {
		return "", ""
	}
	return fmt.Sprintf("%s extended attributes are not stored: their files have more of them than an archive takes", say.Count(n)),
		"768 KiB on one file; docs/format.md, Limits"
}

func damageOf(path, reason string) catalog.Damage {
	if utf8.ValidString(path) {
		return catalog.Damage{Path: path, Reason: reason}
	}
	return catalog.Damage{PathB64: []byte(path), Reason: reason}
}
