package extent

import (
	"context"
	"errors"
	"iter"

	"voltar/archive"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/lvm"
)

// mappedMinBytes is from which size on it is worth asking a thin pool what an image need not read.
const mappedMinBytes = 32 << 20

// allocated yields what of a range of a device has to be read for an image; nil stands for all of it. What a thin pool
// has not allocated is zeros. It is asked for each image anew, as a filesystem that was mounted in between may have
// replayed its journal. Whatever is odd about the answer, all is read.
func (a *archiver) allocated(ctx context.Context, device string, offsetBytes, sizeBytes int64) iter.Seq2[archive.Range, error] {
	if !a.Snapshot.IsThin() || device != a.Snapshot.DMPath || sizeBytes < mappedMinBytes {
		return nil
	}
	mapped, err := a.mappedRanges(ctx)
	if err != nil {
		a.noteReadAll("the pool does not tell what it has allocated", err)
		return nil
	}
	return func(yield func(archive.Range, error) bool) {
		for _, r := range mapped {
			begin := max(r.OffsetBytes, offsetBytes) - offsetBytes
			end := min(r.OffsetBytes+r.LengthBytes, offsetBytes+sizeBytes) - offsetBytes
			if begin < end && !yield(archive.Range{OffsetBytes: begin, LengthBytes: end - begin}, nil) {
				return
			}
		}
	}
}

// noteReadAll says in the log why all of the volume is read.
func (a *archiver) noteReadAll(why string, err error) {
	log := a.Log.With("run", a.Run, "volume", a.Volume.String())
	if errors.Is(err, lvm.ErrMetadataHeld) {
		log.Warn("all of the volume is read, as "+why, "err", err)
	} else {
		log.Info("all of the volume is read, as "+why, "err", err)
	}
}

// mappedRanges reads the allocation of the snapshot.
func (a *archiver) mappedRanges(ctx context.Context) (ranges []lvm.ByteRange, err error) {
	err = a.withMetadata(ctx, func(thin lvm.ThinDevice) (err error) {
		ranges, err = a.LVM.MappedRanges(ctx, thin, a.Snapshot.SizeBytes, archive.ImageMemberBytes)
		return err
	})
	return ranges, err
}

// withMetadata reads from a snapshot of the pool's metadata, which is there only for that: one at a time in each pool.
func (a *archiver) withMetadata(ctx context.Context, read func(lvm.ThinDevice) error) error {
	thin, err := a.LVM.ThinDevice(ctx, a.Snapshot.Volume)
	if err != nil {
		return err
	}
	var held owned.Stack
	defer func() {
		if releaseErr := held.Release(ctx); releaseErr != nil {
			a.Warn(releaseErr.Error(), "the next run, or `voltar cleanup`, tries again")
		}
	}()
	lock, err := a.Locks.Lock(ctx, journal.ScopeThinPool, thin.Pool.UUID)
	if err != nil {
		return err
	}
	held.Push(func(context.Context) error { return lock.Unlock() })
	undo, err := a.HoldMetadata(ctx, thin.Pool)
	if undo != nil {
		held.Push(undo)
	}
	if err != nil {
		return err
	}
	return read(thin)
}
