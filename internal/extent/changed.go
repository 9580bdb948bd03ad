package extent

import (
	"context"
	"errors"
	"io"
	"slices"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/lvm"
)

// Last is the snapshot that a backup was made from and that was set aside then: the pool tells what is different in a later one.
type Last struct {
	ThinID      uint64 // of its pool
	Run         string // that made it, and the backup
	MappedBytes int64  // of it, when it was set aside
}

// changes are the parts of a snapshot that may differ from the one that the previous backup was made from.
type changes struct{ ranges []lvm.ByteRange }

// findChanges compares the snapshot with the last one; nil when nothing is known, so that all is read. It is asked before anything is
// mounted, which may write to the snapshot.
func (a *archiver) findChanges(ctx context.Context) *changes {
	identity := catalog.VolumeIdentity(a.Volume.VGUUID, a.Volume.UUID)
	if a.Last == nil || !a.Snapshot.IsThin() || !a.Previous.IsOf(ctx, a.Last.Run, identity) {
		return nil
	}
	var found changes
	err := a.withMetadata(ctx, func(thin lvm.ThinDevice) (err error) {
		found.ranges, err = a.LVM.ChangedRanges(ctx, a.Snapshot.Volume, thin, lvm.ThinBefore{ID: a.Last.ThinID, MappedBytes: a.Last.MappedBytes},
			archive.ImageMemberBytes)
		return err
	})
	if err != nil {
		a.noteReadAll("the pool does not tell what has changed", err)
		return nil
	}
	return &found
}

// none tells whether a part of the volume is as it was.
func (c *changes) none(offsetBytes, lengthBytes int64) bool {
	if c == nil {
		return false
	}
	at, _ := slices.BinarySearchFunc(c.ranges, offsetBytes, func(r lvm.ByteRange, offset int64) int {
		if r.OffsetBytes+r.LengthBytes <= offset {
			return -1
		}
		return 1
	})
	return at == len(c.ranges) || c.ranges[at].OffsetBytes >= offsetBytes+lengthBytes
}

// unchangedIn tells which ranges of an extent are as they were in the image before, nil for none. A mount that was tried may have replayed
// the filesystem's journal since the comparison. What a filesystem does not use is left out of its image, and that may have changed with no
// block of the range: then only the whole of it counts.
func (a *archiver) unchangedIn(x *Extent, before *catalog.Extent) func(archive.Range) bool {
	leavesOut := x.unused != "" || before.UsedBytes > 0
	if x.LV != nil || x.replayed || leavesOut && !a.changes.none(x.OffsetBytes, x.SizeBytes) {
		return nil
	}
	return func(r archive.Range) bool { return a.changes.none(x.OffsetBytes+r.OffsetBytes, r.LengthBytes) }
}

// storeUnread stores a filesystem that is as it was when the previous backup was made: its archive and index are written anew as they
// are, and nothing of the filesystem is read. It tells whether it could; otherwise the filesystem is stored like any other.
func (a *archiver) storeUnread(ctx context.Context, x *Extent) (done bool, err error) {
	if x.LV != nil || !a.changes.none(x.OffsetBytes, x.SizeBytes) {
		return false, nil
	}
	whole := a.Previous.OpenWhole(ctx, x.Name, a.Level)
	if whole == nil {
		return false, nil
	}
	defer func() { err = errors.Join(err, whole.Close()) }()
	before := whole.Extent
	isThere := before.OffsetBytes == x.OffsetBytes && before.SizeBytes == x.SizeBytes
	if !isThere || before.Filesystem == nil || before.Filesystem.Type != x.found.Type {
		return false, nil
	}
	carried, err := a.rewrite(ctx, x, whole)
	if err != nil {
		if ctx.Err() == nil && a.Out.Failure() == nil {
			err = nil // what is wrong with the previous backup is told when the filesystem is stored
		}
		return false, err
	}
	x.State, x.Reason, x.Filesystem = catalog.StateFiles, before.Reason, before.Filesystem
	x.UsedBytes, x.Entries, x.ContentBytes, x.UniqueBytes = before.UsedBytes, before.Entries, before.ContentBytes, before.UniqueBytes
	x.ExcludedBytes, x.ExcludedEntries = before.ExcludedBytes, before.ExcludedEntries
	x.NotStored, x.LongPaths = before.NotStored, before.LongPaths
	x.noteCarried(a.Previous.From(), carried, carried.Members, carried.Bytes)
	x.Carried.UnreadBytes = x.ContentBytes
	a.warnAttributes(x)
	return true, a.storeBootArea(ctx, x)
}

// rewrite writes an archive and its index as the previous backup has them.
func (a *archiver) rewrite(ctx context.Context, x *Extent, whole *placement.Whole) (carried archive.Carried, err error) {
	x.Archive = a.Names.Archive(x.Name)
	described := *whole.Extent.Index
	described.Name = a.Names.Index(x.Name)
	index, err := a.Out.Create(ctx, described.Name, 0)
	if err != nil {
		return carried, err
	}
	defer index.Abort()
	if err := whole.CopyIndex(ctx, index); err != nil {
		return carried, err
	}
	file, err := a.Out.Write(ctx, x.Archive, 0, func(w io.Writer) (err error) {
		carried, err = whole.Rewrite(ctx, w)
		return err
	})
	if err != nil {
		return carried, err
	}
	if _, err := index.Commit(ctx); err != nil {
		return carried, err
	}
	x.Index, x.StoredBytes = &described, file.SizeBytes
	return carried, nil
}
