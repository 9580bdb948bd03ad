package lvm

import (
	"context"
	"errors"
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
	vg  VG
	err error
}

func (f *fakeGroup) query(context.Context, string) (VG, error) { return f.vg, f.err }

func TestAllocatorCountsWhatIsNotUsedYet(t *testing.T) {
	ctx := t.Context()
	group := &fakeGroup{vg: VG{FreeBytes: 100 * mib, ExtentBytes: 4 * mib}}
	a := newAllocator(group.query, func(VG) int64 { return 20 * mib })
	first, err := a.Reserve(ctx, "vg0", 50*mib, 4*mib)
	if err != nil || first.Bytes != 52*mib || first.Reduced().String() != "" {
		t.Fatalf("first: %+v, %v", first, err)
	}
	second, err := a.Reserve(ctx, "vg0", 52*mib, 4*mib)
	if err != nil || second.Bytes != 28*mib || second.Reduced().String() == "" {
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

func TestAllocatorWaitsForItsTurn(t *testing.T) {
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
