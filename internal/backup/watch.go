package backup

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/catalog"
	"voltar/lvm"
	"voltar/report"
)

// watchPolicy says how the snapshots of a run are looked after while they are read.
func (r *run) watchPolicy() lvm.WatchPolicy {
	o := r.opts.Snapshot
	return lvm.WatchPolicy{
		Interval: o.PollInterval, Alloc: r.space, ExtendAt: o.ExtendAtPercent, ExtendBy: o.ExtendByPercent,
		PoolDataLimit: o.ThinDataPercent, PoolMetadataLimit: o.ThinMetadataPercent,
	}
}

// endReading ends what was read of the snapshot, which came to err, with a last look at it. It returns why that must not be
// trusted, or nil.
func (v *volumeRun) endReading(ctx context.Context, err error) error {
	if v.watch == nil || v.watched != nil {
		return err
	}
	lost := v.endWatch(ctx)
	defer v.stop(nil)
	return explainStop(v.reading, err, lost)
}

// stopped is why reading had to end before its time, or nil.
func (v *volumeRun) stopped() error {
	if v.reading == nil {
		return nil
	}
	if cause := context.Cause(v.reading); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// endWatch looks at the snapshot a last time. Its error says that what was read must not be trusted.
func (v *volumeRun) endWatch(ctx context.Context) error {
	seen, err := v.watch.Stop(context.WithoutCancel(ctx))
	v.watched = &seen
	v.result.Snapshot = v.describeSnapshot(seen)
	if seen.ExtendErr != nil && err == nil {
		v.warn(fmt.Sprintf("the snapshot could not be extended: %v", seen.ExtendErr), "extend the volume group, or raise snapshot.size")
	}
	return err
}

// explainStop puts the reason why reading had to end before the errors that followed from it. lost is what the last look
// at the snapshot brought.
func explainStop(watched context.Context, err, lost error) error {
	cause := context.Cause(watched)
	switch {
	case err == nil:
		return lost
	case errors.Is(lost, lvm.ErrSnapshotOverflow):
		return lost
	case cause == nil, errors.Is(cause, context.Canceled): // the watch ended in the ordinary way
		return errors.Join(err, lost)
	}
	return cause
}

// describeSnapshot is the snapshot's line in the report, with a size for the next time where this one was a poor guess.
func (v *volumeRun) describeSnapshot(seen lvm.WatchResult) *report.Snapshot {
	s := &report.Snapshot{Kind: v.snapshotKind(), PeakBytes: seen.PeakBytes, PeakPercent: seen.PeakPercent, SizeBytes: seen.Last.SizeBytes}
	s.Note = v.reduced.String()
	if !seen.Last.Thin {
		s.SuggestedBytes = suggestedBytes(seen.PeakBytes, v.vg.ExtentBytes)
	}
	return s
}

// suggestedBytes is three times what was used, in whole extents, and never less than eight of them.
func suggestedBytes(peakBytes, extentBytes int64) int64 {
	if extentBytes <= 0 {
		return 0
	}
	extents := max(8, (3*peakBytes+extentBytes-1)/extentBytes)
	return extents * extentBytes
}

func (v *volumeRun) snapshotKind() string {
	if v.snapshot.IsThin() {
		return "thin"
	}
	return "classic"
}

// snapshotFacts are those of the manifest.
func (v *volumeRun) snapshotFacts() *catalog.Snapshot {
	return &catalog.Snapshot{
		Kind: v.snapshotKind(), SizeBytes: v.watched.Last.SizeBytes, PeakBytes: v.watched.PeakBytes,
		PeakPercent: v.watched.PeakPercent, Extended: v.watched.Extended,
	}
}
