package lvm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"voltar/internal/say"
)

func TestSnapshotsGetWhatTheGroupHas(t *testing.T) {
	const extent, gib = 4 * mib, 1 << 30
	for name, tt := range map[string]struct {
		origin  int64
		policy  SizePolicy
		free    int64
		want    int64
		reduced bool
		err     error
	}{
		"whole origin and its tables": {origin: 100 * mib, free: gib, want: 104 * mib},
		"100 percent is the same":     {origin: 100 * mib, policy: SizePolicy{Percent: 100}, free: gib, want: 104 * mib},
		"part, rounded up":            {origin: 100 * mib, policy: SizePolicy{Percent: 10}, free: gib, want: 12 * mib},
		"bytes, rounded up":           {origin: 100 * mib, policy: SizePolicy{Bytes: 5 * mib}, free: gib, want: 8 * mib},
		"never more than needed":      {origin: 100 * mib, policy: SizePolicy{Bytes: gib}, free: 2 * gib, want: 104 * mib},
		"reduced to what is free":     {origin: gib, free: 103 * mib, want: 100 * mib, reduced: true},
		"just the floor":              {origin: gib, policy: SizePolicy{FloorBytes: 100 * mib}, free: 100 * mib, want: 100 * mib, reduced: true},
		"below the floor":             {origin: gib, policy: SizePolicy{FloorBytes: 104 * mib}, free: 103 * mib, err: ErrNoSpace},
		"floor above the size wanted": {origin: gib, policy: SizePolicy{Bytes: 8 * mib, FloorBytes: gib}, free: 12 * mib, want: 8 * mib},
		"nothing free":                {origin: gib, err: ErrNoSpace},
		"less than an extent free":    {origin: gib, free: 3 * mib, err: ErrNoSpace},
		"overdrawn":                   {origin: gib, free: -gib, err: ErrNoSpace},
		"tiny origin":                 {origin: 512, free: gib, want: extent},
	} {
		t.Run(name, func(t *testing.T) {
			want, floor := tt.policy.Bounds(tt.origin, extent)
			got, err := grant(want, floor, tt.free, extent)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v, want %d, %v", got, err, tt.want, tt.err)
			}
			note := SizeReduced{WantedBytes: want, GrantedBytes: got}.String()
			if err == nil && (note != "") != tt.reduced {
				t.Errorf("note %q, want reduced %v", note, tt.reduced)
			}
		})
	}
}

// fakeGroup is a volume group whose free space a test sets.
type fakeGroup struct {
	vg    VG
	err   error
	asked int
}

func (f *fakeGroup) query(context.Context, string) (VG, error) {
	f.asked++
	return f.vg, f.err
}

func TestAllocatorCountsWhatIsNotUsedYet(t *testing.T) {
	ctx := t.Context()
	group := &fakeGroup{vg: VG{FreeBytes: 100 * mib, ExtentBytes: 4 * mib}}
	a := newAllocator(group.query, func(VG) int64 { return 20 * mib })
	first, err := a.Reserve(ctx, "vg0", 50*mib, 4*mib)
	if err != nil || first.Bytes != 52*mib {
		t.Fatalf("first: %+v, %v", first, err)
	}
	second, err := a.Reserve(ctx, "vg0", 52*mib, 4*mib)
	if err != nil || second.Bytes != 28*mib {
		t.Fatalf("second: %+v, %v, want the rest but the reserve", second, err)
	}
	if _, err := a.Reserve(ctx, "vg0", 4*mib, 4*mib); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "reserved for other") {
		t.Errorf("third: %v, want ErrNoSpace that tells of the others", err)
	}
	if other, err := a.Reserve(ctx, "vg1", 80*mib, 80*mib); err != nil {
		t.Errorf("another group: %+v, %v", other, err)
	}
	second.Release()
	second.Release()
	used := errors.New("made")
	if err := first.Use(ctx, func(bytes int64) error {
		group.vg.FreeBytes -= bytes
		return used
	}); !errors.Is(err, used) {
		t.Errorf("Use: %v", err)
	}
	first.Release()
	if err := first.Use(ctx, func(int64) error { t.Error("used twice"); return nil }); err == nil {
		t.Error("a reservation that ended was used")
	}
	if third, err := a.Reserve(ctx, "vg0", 100*mib, 4*mib); err != nil || third.Bytes != 28*mib {
		t.Errorf("after both ended: %+v, %v, want what is left", third, err)
	}
}

// A run counts for itself what its snapshots take and give back: lvm2 is not asked once a volume.
func TestAllocatorKeepsCount(t *testing.T) {
	ctx := t.Context()
	group := &fakeGroup{err: errors.New("asked")}
	a := newAllocator(group.query, nil)
	a.Note(Inventory{VGs: []VG{{Name: "vg0", FreeBytes: 100 * mib, ExtentBytes: 4 * mib}, {Name: "twins", ExtentBytes: 1}, {Name: "twins", ExtentBytes: 1}}})
	free := func() int64 {
		t.Helper()
		free, _, err := a.Free(ctx, "vg0")
		if err != nil {
			t.Fatal(err)
		}
		return free
	}
	for range 3 {
		r, err := a.Reserve(ctx, "vg0", 60*mib, 60*mib)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Use(ctx, func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := free(); got != 40*mib {
			t.Errorf("%d free while the snapshot stands", got)
		}
		r.Release()
		r.Release()
		if got := free(); got != 100*mib {
			t.Errorf("%d free when it is gone", got)
		}
	}
	if _, _, err := a.Free(ctx, "twins"); group.asked != 1 || err == nil {
		t.Errorf("two groups of one name: %v, asked %d times", err, group.asked)
	}
}

// What others take meanwhile shows when lvcreate fails: the snapshot gets what there is, if that is enough.
func TestAllocatorLearnsWhatOthersTook(t *testing.T) {
	for name, tt := range map[string]struct {
		left, floor int64
		want        []int64 // that creation was tried with
		err         error
	}{
		"enough is left":    {left: 32 * mib, floor: 16 * mib, want: []int64{80 * mib, 32 * mib}},
		"too little":        {left: 12 * mib, floor: 16 * mib, want: []int64{80 * mib}, err: ErrNoSpace},
		"all is there":      {left: 100 * mib, floor: 16 * mib, want: []int64{80 * mib}, err: ErrNoSpace},
		"nobody took less":  {left: 32 * mib, floor: 80 * mib, want: []int64{80 * mib}, err: ErrNoSpace},
		"it cannot be read": {left: -1, floor: 16 * mib, want: []int64{80 * mib}, err: ErrNoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			group := &fakeGroup{vg: VG{FreeBytes: tt.left, ExtentBytes: 4 * mib}}
			if tt.left < 0 {
				group.err = errors.New("no answer")
			}
			a := newAllocator(group.query, nil)
			a.Note(Inventory{VGs: []VG{{Name: "vg0", FreeBytes: 100 * mib, ExtentBytes: 4 * mib}}})
			r, err := a.ReserveExactly(ctx, "vg0", 80*mib, tt.floor)
			if err != nil {
				t.Fatal(err)
			}
			var tried []int64
			err = r.Use(ctx, func(bytes int64) error {
				if tried = append(tried, bytes); len(tried) == 1 {
					return ErrNoSpace
				}
				return nil
			})
			if !errors.Is(err, tt.err) || !slices.Equal(tried, tt.want) {
				t.Errorf("tried %v, %v, want %v, %v", tried, err, tt.want, tt.err)
			}
			group.err = nil
			want := max(tt.left, 0)
			if err == nil {
				want = 0
			}
			group.vg.FreeBytes = want
			if free, _, err := a.Free(ctx, "vg0"); err != nil || free != want {
				t.Errorf("then %d are free, %v, want %d", free, err, want)
			}
		})
	}
}

// Nobody counts what an extended snapshot gives back: lvm2 is asked, and not for others of its group.
func TestAllocatorAsksAfterAnExtension(t *testing.T) {
	ctx := t.Context()
	group := &fakeGroup{vg: VG{FreeBytes: 100 * mib, ExtentBytes: 4 * mib}}
	a := newAllocator(group.query, nil)
	take := func(bytes int64) error { group.vg.FreeBytes -= bytes; return nil }
	snapshot := func(bytes int64) *Reservation {
		t.Helper()
		r, err := a.Reserve(ctx, "vg0", bytes, bytes)
		if err == nil {
			err = r.Use(ctx, take)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := func(when string, wantFree int64, wantAsked int) {
		t.Helper()
		if free, _, err := a.Free(ctx, "vg0"); err != nil || free != wantFree || group.asked != wantAsked {
			t.Errorf("%s: %d free, %v, asked %d times, want %d, %d times", when, free, err, group.asked, wantFree, wantAsked)
		}
	}
	extended, other := snapshot(40*mib), snapshot(20*mib)
	want("two snapshots", 40*mib, 1)
	if err := extended.Extend(ctx, 8*mib, take); err != nil {
		t.Fatal(err)
	}
	want("one is extended", 32*mib, 2)
	group.vg.FreeBytes += 20 * mib
	other.Release()
	want("the other is gone", 52*mib, 2)
	group.vg.FreeBytes = 100 * mib
	extended.Release()
	want("both are gone", 100*mib, 3)
	snapshot(40 * mib).Release()
	want("a later one is gone", 100*mib, 3)
}

// A run that is cancelled while it extends a snapshot gives back what it had reserved for that, at whichever step it ends.
func TestAnExtensionThatIsCancelledTakesNothing(t *testing.T) {
	group := &fakeGroup{vg: VG{FreeBytes: 1024 * mib, ExtentBytes: 4 * mib}}
	reserving := func() {}
	a := newAllocator(group.query, func(VG) int64 { reserving(); return 0 })
	r, err := a.Reserve(t.Context(), "vg0", 4*mib, 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		reserving = cancel
		if err := r.Extend(ctx, 64*mib, func(int64) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
			t.Fatalf("a cancelled extension: %v", err)
		}
	}
	r.Release()
	if free, _, err := a.Free(t.Context(), "vg0"); err != nil || free != 1024*mib {
		t.Errorf("%d are free, %v", free, err)
	}
}

func TestAllocatorWaitsForOthers(t *testing.T) {
	group := &fakeGroup{vg: VG{FreeBytes: 100 * mib, ExtentBytes: 4 * mib}}
	a := newAllocator(group.query, nil)
	res, err := a.Reserve(t.Context(), "vg0", 4*mib, 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	err = res.Use(t.Context(), func(int64) error {
		cancel(cause)
		_, err := a.Reserve(ctx, "vg0", 4*mib, 4*mib)
		return err
	})
	if !errors.Is(err, cause) {
		t.Errorf("%v, want the cause of the wait's end", err)
	}
}

func TestAllocatorPassesOnWhatItCannotRead(t *testing.T) {
	a := newAllocator((&fakeGroup{err: ErrVGNotFound}).query, nil)
	if _, err := a.Reserve(t.Context(), "vg0", 4*mib, 4*mib); !errors.Is(err, ErrVGNotFound) {
		t.Errorf("%v, want ErrVGNotFound", err)
	}
	if _, err := a.Reserve(t.Context(), "vg0", 4*mib, 8*mib); err == nil {
		t.Error("a floor above the wish was granted")
	}
}

func TestThinPoolCheck(t *testing.T) {
	good := ThinPool{VG: "v", Name: "p", SizeBytes: 1000, DataPercent: 50, MetadataBytes: 10, MetadataPercent: 20}
	for name, tt := range map[string]struct {
		change func(*ThinPool)
		err    error
		words  string
	}{
		"below both":         {change: func(*ThinPool) {}},
		"data at its limit":  {change: func(p *ThinPool) { p.DataPercent = 80 }, err: ErrPoolFull, words: "data 80.00 % of 1000 B used, limit 80 %"},
		"metadata above it":  {change: func(p *ThinPool) { p.MetadataPercent = 90.5 }, err: ErrPoolFull, words: "metadata 90.50 % of 10 B used, limit 70 %"},
		"unknown":            {change: func(p *ThinPool) { p.DataPercent = Unknown }, err: ErrPoolUnhealthy, words: "not active"},
		"metadata unknown":   {change: func(p *ThinPool) { p.MetadataPercent = Unknown }, err: ErrPoolUnhealthy, words: "not active"},
		"needs a check":      {change: func(p *ThinPool) { p.CheckNeeded = true }, err: ErrPoolUnhealthy, words: "lvconvert --repair v/p"},
		"metadata read-only": {change: func(p *ThinPool) { p.Health = "metadata_read_only" }, err: ErrPoolUnhealthy, words: "metadata_read_only"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			tt.change(&p)
			err := p.Check(80, 70)
			if !errors.Is(err, tt.err) || (err != nil && !strings.Contains(say.Text(err), tt.words)) {
				t.Errorf("%v, want %v with %q", err, tt.err, tt.words)
			}
		})
	}
}
