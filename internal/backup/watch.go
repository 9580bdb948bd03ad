package backup

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/lvm"
	"voltar/report"
)

// reading is a snapshot that is being read, and watched meanwhile.
type reading struct {
	*snapshotted
	ctx   context.Context         // ends when the snapshot must not be read any more
	stop  context.CancelCauseFunc // ends it
	watch *lvm.Watch
}

// beginReading begins to watch over a snapshot.
func (s *snapshotted) beginReading() *reading {
	o := s.run.opts.Snapshot
	ctx, stop := context.WithCancelCause(s.scope.ctx)
	r := &reading{snapshotted: s, stop: stop}
	r.ctx, r.watch = s.run.LVM.Watch(ctx, s.snapshot, lvm.WatchPolicy{
		Interval: o.PollInterval, Space: s.space, ExtendAt: o.ExtendAtPercent, ExtendBy: o.ExtendByPercent,
		PoolDataLimit: o.ThinDataPercent, PoolMetadataLimit: o.ThinMetadataPercent,
	})
	return r
}

// backUp is the way of one volume from its snapshot to every destination. There is no backup before its end: nothing is
// published unless every condition of the gate holds.
func (r *reading) backUp(ctx context.Context) error {
	a, err := r.read()
	if a.snapshot, err = r.end(err); err != nil {
		return err
	}
	extent.Describe(&a.line, a.layout.Extents)
	a.compare()
	return a.publish(ctx)
}

// read finds out what is on the snapshot and archives it.
func (r *reading) read() (archived, error) {
	s, err := r.survey()
	if err != nil {
		return archived{}, err
	}
	return s.archive()
}

// stopped is why reading had to end before its time, or nil.
func (r *reading) stopped() error {
	if cause := context.Cause(r.ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// end ends what was read of the snapshot, which came to err, with a last look at it. It returns what the snapshot took, and why
// what was read must not be trusted, or nil.
func (r *reading) end(err error) (*catalog.Snapshot, error) {
	defer r.stop(nil)
	seen, lost := r.watch.Stop(context.WithoutCancel(r.ctx))
	kind := "classic"
	if r.snapshot.IsThin() {
		kind = "thin"
	}
	r.line.Snapshot = &report.Snapshot{
		Kind: kind, PeakBytes: seen.PeakBytes, PeakPercent: seen.PeakPercent, SizeBytes: seen.Last.SizeBytes, Note: r.reduced(),
	}
	if !seen.Last.Thin {
		r.line.Snapshot.SuggestedBytes = suggestedBytes(seen.PeakBytes, r.vg.ExtentBytes)
	}
	if seen.ExtendErr != nil && lost == nil {
		r.warn(fmt.Sprintf("the snapshot could not be extended: %v", seen.ExtendErr), "extend the volume group, or raise snapshot.size")
	}
	return &catalog.Snapshot{
		Kind: kind, SizeBytes: seen.Last.SizeBytes, PeakBytes: seen.PeakBytes, PeakPercent: seen.PeakPercent, Extended: seen.Extended,
	}, explainStop(r.ctx, err, lost)
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

// suggestedBytes is three times what was used, in whole extents, and never less than eight of them.
func suggestedBytes(peakBytes, extentBytes int64) int64 {
	if extentBytes <= 0 {
		return 0
	}
	extents := max(8, (3*peakBytes+extentBytes-1)/extentBytes)
	return extents * extentBytes
}
