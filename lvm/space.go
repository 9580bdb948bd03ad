package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"voltar/internal/say"
)

// lvm2's own chunk size for classic snapshots, unless told otherwise; its largest is 512 KiB.
const defaultChunkBytes = 4 << 10

// MaxSnapshotBytes is the copy-on-write space that a classic snapshot of an origin can need at most, when every chunk
// of it changes: each chunk, the tables that map them and a header, rounded up to extents. (Documentation/admin-guide/
// device-mapper/snapshot.rst; a table entry has 16 bytes, a table a chunk.) lvm2 would not make it larger either.
func MaxSnapshotBytes(originBytes, extentBytes int64) int64 {
	const perTable = defaultChunkBytes / 16
	chunks := divideUp(originBytes, defaultChunkBytes)
	return roundUp((chunks+divideUp(chunks, perTable)+1)*defaultChunkBytes, extentBytes)
}

func divideUp(n, by int64) int64 { return n/by + min(n%by, 1) }

func roundUp(n, to int64) int64 {
	if to <= 0 {
		return n
	}
	return divideUp(n, to) * to
}

// SizePolicy says how large to make classic snapshots. Of Bytes and Percent one is set; with neither the size is such
// that the snapshot cannot overflow, which 100 percent means as well.
type SizePolicy struct {
	Percent    float64 // of the origin
	Bytes      int64
	FloorBytes int64 // where the group has less room, never go below this; 0 means one extent
}

// Bounds returns the size wanted and the least to accept for an origin, in whole extents.
func (p SizePolicy) Bounds(originBytes, extentBytes int64) (want, floor int64) {
	largest := MaxSnapshotBytes(originBytes, extentBytes)
	switch {
	case p.Bytes > 0:
		want = p.Bytes
	case p.Percent > 0 && p.Percent < 100:
		want = int64(math.Ceil(float64(originBytes) * p.Percent / 100))
	default:
		want = largest
	}
	want = min(roundUp(max(want, 1), extentBytes), largest)
	floor = min(roundUp(max(p.FloorBytes, 1), extentBytes), want)
	return want, floor
}

// SizeReduced tells that a snapshot is smaller than wanted.
type SizeReduced struct {
	WantedBytes, GrantedBytes int64
}

// String is a sentence for the report, or empty when nothing was reduced.
func (r SizeReduced) String() string {
	if r.GrantedBytes >= r.WantedBytes {
		return ""
	}
	return fmt.Sprintf("snapshot space reduced from %s to %s, which is all that the volume group has free",
		say.Size(r.WantedBytes), say.Size(r.GrantedBytes))
}

func grant(want, floor, free, extent int64) (int64, error) {
	if extent > 0 {
		free -= free % extent
	}
	if free < floor || free <= 0 {
		return 0, say.WithHint(fmt.Errorf("%w: %s are free, at least %s are needed",
			ErrNoSpace, say.Size(max(free, 0)), say.Size(max(floor, 1))),
			"extend the volume group, or lower the size or floor of snapshots")
	}
	return min(want, free), nil
}

// Allocator shares out the free space of volume groups among volumes that are worked on in parallel: space that was
// granted and not yet used counts as gone. It knows only what goes through it; space that others take meanwhile makes
// lvcreate fail, and nothing worse. It is safe for concurrent use.
type Allocator struct {
	query   func(ctx context.Context, vg string) (VG, error)
	reserve func(VG) int64

	mu     sync.Mutex
	groups map[string]*groupSpace
}

type groupSpace struct {
	turn     chan struct{} // holds a token while nobody looks at or changes the group's free space
	reserved int64         // guarded by the token
}

// NewAllocator returns an Allocator. keepFree returns how much of a volume group's space to leave free always; nil
// means none.
func (c *Client) NewAllocator(keepFree func(VG) int64) *Allocator {
	return newAllocator(c.group, keepFree)
}

func newAllocator(query func(context.Context, string) (VG, error), keepFree func(VG) int64) *Allocator {
	if keepFree == nil {
		keepFree = func(VG) int64 { return 0 }
	}
	return &Allocator{query: query, reserve: keepFree, groups: map[string]*groupSpace{}}
}

// group reports one volume group.
func (c *Client) group(ctx context.Context, name string) (VG, error) {
	inv, err := c.report(ctx, "vgs", append(reportArgs("-o", vgColumns)[1:], name))
	if err != nil {
		return VG{}, fmt.Errorf("read volume group %s: %w", name, err)
	}
	vg, ok := inv.VG(name)
	if !ok || vg.ExtentBytes <= 0 {
		return VG{}, fmt.Errorf("read volume group %s: %w", name, ErrVGNotFound)
	}
	return vg, nil
}

// lock takes the group's turn.
func (a *Allocator) lock(ctx context.Context, vg string) (*groupSpace, error) {
	a.mu.Lock()
	g := a.groups[vg]
	if g == nil {
		g = &groupSpace{turn: make(chan struct{}, 1)}
		g.turn <- struct{}{}
		a.groups[vg] = g
	}
	a.mu.Unlock()
	select {
	case <-g.turn:
		return g, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *groupSpace) unlock() { g.turn <- struct{}{} }

// Reservation is granted space. It ends with Use or Release, whichever comes first.
type Reservation struct {
	VG          string
	Bytes       int64
	WantedBytes int64

	alloc *Allocator
	once  sync.Once
}

// Reduced tells whether less was granted than wanted.
func (r *Reservation) Reduced() SizeReduced {
	return SizeReduced{WantedBytes: r.WantedBytes, GrantedBytes: r.Bytes}
}

// Reserve grants want bytes of a volume group's free space, or less down to floor, in whole extents. With less free
// the error wraps ErrNoSpace. The caller owns the Reservation and ends it.
func (a *Allocator) Reserve(ctx context.Context, vg string, want, floor int64) (*Reservation, error) {
	fail := func(err error) (*Reservation, error) {
		return nil, fmt.Errorf("reserve %s in %s: %w", say.Size(want), vg, err)
	}
	if want <= 0 || floor > want {
		return fail(fmt.Errorf("cannot reserve between %s and %s", say.Size(floor), say.Size(want)))
	}
	g, err := a.lock(ctx, vg)
	if err != nil {
		return fail(err)
	}
	defer g.unlock()
	group, err := a.query(ctx, vg)
	if err != nil {
		return fail(err)
	}
	want, floor = roundUp(want, group.ExtentBytes), roundUp(floor, group.ExtentBytes)
	granted, err := grant(want, floor, group.FreeBytes-g.reserved-a.reserve(group), group.ExtentBytes)
	if err != nil {
		if g.reserved > 0 {
			err = fmt.Errorf("%w (%s more are reserved for other snapshots of this run)", err, say.Size(g.reserved))
		}
		return fail(err)
	}
	g.reserved += granted
	return &Reservation{VG: vg, Bytes: granted, WantedBytes: want, alloc: a}, nil
}

// Free tells how much of a volume group's space could be reserved now, and its extent.
func (a *Allocator) Free(ctx context.Context, vg string) (freeBytes, extentBytes int64, err error) {
	g, err := a.lock(ctx, vg)
	if err != nil {
		return 0, 0, err
	}
	defer g.unlock()
	group, err := a.query(ctx, vg)
	return group.FreeBytes - g.reserved - a.reserve(group), group.ExtentBytes, err
}

// Use ends the reservation by running create, which makes the volume that it was for. Nobody is granted space of the
// group meanwhile, so that the volume's extents are never counted twice nor forgotten.
func (r *Reservation) Use(ctx context.Context, create func(bytes int64) error) error {
	err := errors.New("cannot use a reservation that has ended")
	r.once.Do(func() {
		var g *groupSpace
		if g, err = r.alloc.lock(ctx, r.VG); err != nil {
			r.end(context.WithoutCancel(ctx))
			return
		}
		defer g.unlock()
		defer func() { g.reserved -= r.Bytes }()
		err = create(r.Bytes)
	})
	return err
}

// Release gives the space back. After Use, or a second time, it does nothing.
func (r *Reservation) Release() {
	r.once.Do(func() { r.end(context.Background()) })
}

// end cannot fail: ctx does not end, and whoever has the turn gives it back.
func (r *Reservation) end(ctx context.Context) {
	if g, err := r.alloc.lock(ctx, r.VG); err == nil {
		g.reserved -= r.Bytes
		g.unlock()
	}
}
