package lvm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fakeWatch is a Watch whose ticks and readings a test in a bubble of synctest gives.
type fakeWatch struct {
	*Watch
	ctx    context.Context
	ticks  chan time.Time
	status chan func() (Status, error)
	grown  []int64
}

func newFakeWatch(t *testing.T, policy WatchPolicy, snap Snapshot, extendErr error) *fakeWatch {
	f := &fakeWatch{ticks: make(chan time.Time), status: make(chan func() (Status, error), 1)}
	f.Watch = &Watch{policy: policy.withDefaults(), snap: snap}
	f.Watch.status = func(ctx context.Context) (Status, error) {
		if err := ctx.Err(); err != nil {
			return Status{}, err
		}
		return (<-f.status)()
	}
	f.extend = func(ctx context.Context, by int64) (int64, error) {
		f.grown = append(f.grown, by)
		return 1000 + by, extendErr
	}
	f.ctx = f.start(t.Context(), f.ticks, func() {})
	return f
}

// see lets the watch look once, and waits until it has.
func (f *fakeWatch) see(st Status, err error) {
	f.status <- func() (Status, error) { return st, err }
	f.ticks <- time.Time{}
	synctest.Wait()
}

// last gives the reading of Stop.
func (f *fakeWatch) last(t *testing.T, st Status, err error) (WatchResult, error) {
	f.status <- func() (Status, error) { return st, err }
	return f.Stop(t.Context())
}

var watchedSnap = Snapshot{Volume{VG: "vg0", Name: "snap", UUID: "u", Origin: "data", OriginBytes: 1 << 30}}

func used(percent float64) Status {
	return Status{UUID: "u", SizeBytes: 1000, UsedBytes: int64(percent * 10), UsedPercent: percent}
}

func TestWatchKeepsPeaksAndExtends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatch(t, WatchPolicy{Space: &Reservation{}}, watchedSnap, nil)
		for _, percent := range []float64{10, 69.9, 70, 30} {
			f.see(used(percent), nil)
		}
		f.see(Status{}, errors.New("lvs: busy"))
		res, err := f.last(t, used(31), nil)
		if err != nil || res.PeakPercent != 70 || res.PeakBytes != 700 || res.MissedLooks != 1 || res.Last.UsedPercent != 31 {
			t.Errorf("%+v, %v", res, err)
		}
		if len(f.grown) != 1 || f.grown[0] != 200 || res.Extended != 1 || res.ExtendedBytes != 200 {
			t.Errorf("extended by %v: %+v", f.grown, res)
		}
		if f.ctx.Err() == nil {
			t.Error("the context outlives Stop")
		}
	})
}

func TestWatchDoesNotExtend(t *testing.T) {
	for name, tt := range map[string]struct {
		policy WatchPolicy
		origin int64
		want   int
	}{
		"without a reservation":    {WatchPolicy{}, 1 << 30, 0},
		"beyond what can be used":  {WatchPolicy{Space: &Reservation{}}, 1, 1},
		"threshold set higher":     {WatchPolicy{Space: &Reservation{}, ExtendAt: 90}, 1 << 30, 0},
		"(but otherwise it does)":  {WatchPolicy{Space: &Reservation{}}, 1 << 30, 1},
		"(origin's size not told)": {WatchPolicy{Space: &Reservation{}}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				snap := watchedSnap
				snap.OriginBytes = tt.origin
				st := used(80)
				if tt.origin == 1 {
					st.SizeBytes, tt.want = MaxSnapshotBytes(1, 1), 0
				}
				f := newFakeWatch(t, tt.policy, snap, nil)
				f.see(st, nil)
				if _, err := f.last(t, used(80), nil); err != nil || len(f.grown) != tt.want {
					t.Errorf("extended %v, %v, want %d times", f.grown, err, tt.want)
				}
			})
		})
	}
}

func TestWatchGoesOnWithoutRoomToExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatch(t, WatchPolicy{Space: &Reservation{}}, watchedSnap, ErrNoSpace)
		f.see(used(80), nil)
		f.see(used(99), nil)
		res, err := f.last(t, used(99.9), nil)
		if err != nil || !errors.Is(res.ExtendErr, ErrNoSpace) || res.Extended != 0 || f.cause != nil {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestWatchEndsTheContextWithItsCause(t *testing.T) {
	invalid := used(100)
	invalid.Invalid = true
	other := used(1)
	other.UUID = "another"
	pool := func(data, meta float64) Status {
		return Status{UUID: "u", Thin: true, Pool: ThinPool{DataPercent: data, MetadataPercent: meta}}
	}
	for name, tt := range map[string]struct {
		st   Status
		err  error
		want error
	}{
		"overflow":      {st: invalid, want: ErrSnapshotOverflow},
		"gone":          {err: ErrNotFound, want: ErrNotFound},
		"replaced":      {st: other, want: ErrNotOurs},
		"pool data":     {st: pool(95, 1), want: ErrPoolFull},
		"pool metadata": {st: pool(1, 95), want: ErrPoolFull},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeWatch(t, WatchPolicy{}, watchedSnap, nil)
				f.see(tt.st, tt.err)
				<-f.ctx.Done()
				if cause := context.Cause(f.ctx); !errors.Is(cause, tt.want) {
					t.Errorf("cause %v, want %v", cause, tt.want)
				}
				if _, err := f.Stop(t.Context()); !errors.Is(err, tt.want) {
					t.Errorf("Stop: %v, want %v: a lost snapshot stays lost", err, tt.want)
				}
			})
		})
		t.Run(name+" at the last look", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeWatch(t, WatchPolicy{}, watchedSnap, nil)
				if _, err := f.last(t, tt.st, tt.err); !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestWatchTrustsNothingItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatch(t, WatchPolicy{}, watchedSnap, nil)
		f.see(used(10), nil)
		if _, err := f.last(t, Status{}, ErrStatusUnknown); !errors.Is(err, ErrStatusUnknown) {
			t.Errorf("%v, want ErrStatusUnknown", err)
		}
	})
}
