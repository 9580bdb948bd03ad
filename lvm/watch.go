package lvm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/say"
)

// WatchPolicy says how a running snapshot is looked after.
type WatchPolicy struct {
	Interval time.Duration // between two looks; 0 means 2 s

	// Of classic snapshots.
	Space    *Reservation // the snapshot's, for which more is taken; nil means never to extend
	ExtendAt float64      // percent used from which the snapshot is extended; 0 means 70
	ExtendBy float64      // percent of its size to extend it by; 0 means 20

	// Of thin snapshots: the percentages of the pool's data and metadata at which to stop; 0 means 95. A pool that runs
	// full harms every volume in it, so a backup ends before that.
	PoolDataLimit, PoolMetadataLimit float64
}

func (p WatchPolicy) withDefaults() WatchPolicy {
	if p.Interval <= 0 {
		p.Interval = 2 * time.Second
	}
	for _, f := range []struct {
		value *float64
		def   float64
	}{{&p.ExtendAt, 70}, {&p.ExtendBy, 20}, {&p.PoolDataLimit, 95}, {&p.PoolMetadataLimit, 95}} {
		if *f.value <= 0 {
			*f.value = f.def
		}
	}
	return p
}

// WatchResult is what was seen of a snapshot while it was watched.
type WatchResult struct {
	Last          Status
	PeakBytes     int64   // of a classic snapshot's space
	PeakPercent   float64 // of a classic snapshot's space, or of a pool's data
	PeakMetadata  float64 // percent, of a pool's metadata
	Extended      int     // how often the snapshot was extended
	ExtendedBytes int64
	ExtendErr     error // the last extension that failed, such as for want of space
	MissedLooks   int   // looks that failed; the last one, in Stop, has to succeed
}

// Watch looks after one snapshot. Make it with Client.Watch and end it with Stop.
type Watch struct {
	policy WatchPolicy
	snap   Snapshot
	status func(context.Context) (Status, error)
	extend func(context.Context, int64) (int64, error)

	cancel context.CancelCauseFunc
	stop   context.CancelFunc // ends the polling
	done   chan struct{}
	result WatchResult
	cause  error // why the context was cancelled; set before done is closed
}

// Watch starts to look after snap. The context that it returns ends with a cause that wraps ErrSnapshotOverflow when
// the snapshot has become invalid, ErrPoolFull or ErrPoolUnhealthy when its pool crosses a limit, or ErrNotFound when
// the snapshot is gone. A classic snapshot that is merely nearly full goes on: its overflow harms nothing but the
// backup, which may be done before. The caller calls Stop.
func (c *Client) Watch(ctx context.Context, snap Snapshot, policy WatchPolicy) (context.Context, *Watch) {
	w := &Watch{
		policy: policy.withDefaults(),
		snap:   snap,
		status: func(ctx context.Context) (Status, error) { return c.watchedStatus(ctx, snap) },
	}
	w.extend = func(ctx context.Context, bytes int64) (int64, error) {
		var size int64
		err := policy.Space.Extend(ctx, bytes, func(bytes int64) (err error) {
			size, err = c.ExtendSnapshot(ctx, snap.VG, snap.Name, bytes)
			return err
		})
		return size, err
	}
	ticker := time.NewTicker(w.policy.Interval)
	return w.start(ctx, ticker.C, ticker.Stop), w
}

// start begins to look at each tick.
func (w *Watch) start(ctx context.Context, ticks <-chan time.Time, release func()) context.Context {
	watched, cancel := context.WithCancelCause(ctx)
	polling, stop := context.WithCancel(watched)
	w.cancel, w.stop, w.done = cancel, stop, make(chan struct{})
	go func() {
		defer close(w.done)
		defer release()
		for {
			select {
			case <-polling.Done():
				return
			case <-ticks:
			}
			if err := w.look(polling); err != nil {
				w.cause = err
				w.cancel(err)
				return
			}
		}
	}()
	return watched
}

// look reads the state once and returns an error when the snapshot is lost. A state that could not be read is counted;
// the verdict waits for the last look.
func (w *Watch) look(ctx context.Context) error {
	st, err := w.status(ctx)
	if errors.Is(err, ErrNotFound) {
		return err
	}
	if err != nil {
		if ctx.Err() == nil {
			w.result.MissedLooks++
		}
		return nil
	}
	if err := w.judge(st); err != nil {
		return err
	}
	if !st.Thin && w.policy.Space != nil && st.UsedPercent >= w.policy.ExtendAt {
		w.grow(ctx, st)
	}
	return nil
}

// judge notes a state, and returns an error when the snapshot is lost.
func (w *Watch) judge(st Status) error {
	if st.UUID != w.snap.UUID {
		return fmt.Errorf("watch %s: %w: its UUID is %s, not %s", w.snap, ErrNotOurs, st.UUID, w.snap.UUID)
	}
	r := &w.result
	if st.Invalid && st.SizeBytes == 0 { // the kernel tells no size then
		st.SizeBytes = cmp.Or(r.Last.SizeBytes, w.snap.SizeBytes)
		st.UsedBytes = st.SizeBytes
	}
	r.Last = st
	if st.Thin {
		r.PeakPercent = max(r.PeakPercent, st.Pool.DataPercent)
		r.PeakMetadata = max(r.PeakMetadata, st.Pool.MetadataPercent)
		return st.Pool.Check(w.policy.PoolDataLimit, w.policy.PoolMetadataLimit)
	}
	r.PeakBytes = max(r.PeakBytes, st.UsedBytes)
	r.PeakPercent = max(r.PeakPercent, st.UsedPercent)
	if st.Invalid {
		return say.WithHint(fmt.Errorf("%w: its %s filled up before all of %s was read",
			ErrSnapshotOverflow, say.Size(st.SizeBytes), w.snap.Origin),
			fmt.Sprintf("give snapshots of %s more space: size in [snapshot], or snapshot_size in a [[volume]]", w.snap.Origin))
	}
	return nil
}

// grow extends the snapshot once, as far as that can help.
func (w *Watch) grow(ctx context.Context, st Status) {
	most := MaxSnapshotBytes(w.snap.OriginBytes, 1)
	if w.snap.OriginBytes > 0 && st.SizeBytes >= most {
		return // it cannot overflow
	}
	by := max(percentOf(st.SizeBytes, w.policy.ExtendBy), 1)
	if w.snap.OriginBytes > 0 {
		by = min(by, most-st.SizeBytes)
	}
	// Once begun it is finished and counted, even when Stop comes meanwhile.
	size, err := w.extend(context.WithoutCancel(ctx), by)
	if err != nil {
		w.result.ExtendErr = err
		return
	}
	w.result.Extended++
	w.result.Last.SizeBytes = size
	w.result.ExtendedBytes += size - st.SizeBytes
}

// Stop ends the watch, looks a last time and returns what was seen. Its error tells that the snapshot must not be
// trusted: it was lost at any time, or its state cannot be read now. Call it after reading and before calling what was
// read a success. It also ends the context that Watch returned.
func (w *Watch) Stop(ctx context.Context) (WatchResult, error) {
	w.stop()
	<-w.done
	defer w.cancel(context.Canceled)
	if w.cause != nil {
		return w.result, w.cause
	}
	st, err := w.status(ctx)
	if err == nil {
		err = w.judge(st)
	}
	if err != nil {
		w.cause = err
	}
	return w.result, err
}
