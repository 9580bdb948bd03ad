package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

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
	FloorBytes int64 // where the group has less space, never go below this; 0 means one extent
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

// Allocator shares out the free space of volume groups among volumes that are worked on in parallel. It knows the groups from an
// inventory, and keeps count itself: of what was granted and not yet used, and of the snapshots that were made and removed through it.
// It asks lvm2 again when what it knows is older than trustFor, when something has failed for want of space, when a snapshot was
// extended, and when that one is gone. Space that others take meanwhile makes lvcreate fail; it then gets what there is.
// It is safe for concurrent use.
type Allocator struct {
	query   func(ctx context.Context, vg string) (VG, error)
	reserve func(VG) int64

	mu     sync.Mutex
	groups map[string]*groupSpace
}

// trustFor is how long a count of free space is believed: whoever works on the host during a run changes it, too.
const trustFor = 5 * time.Minute

type groupSpace struct {
	token    chan struct{} // holds one while nobody looks at or changes what follows
	reserved int64
	vg       VG        // its FreeBytes are less what snapshots took that were made since
	asked    time.Time // when vg was; zero when it must be again
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

// Note takes over what an inventory tells of the groups. It is called before anything is reserved.
func (a *Allocator) Note(inv Inventory) {
	for _, vg := range inv.VGs {
		if vg.ExtentBytes > 0 && len(filter(inv.VGs, func(other VG) bool { return other.Name == vg.Name })) == 1 {
			g := a.groupOf(vg.Name)
			<-g.token
			g.vg, g.asked = vg, time.Now()
			g.unlock()
		}
	}
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

func (a *Allocator) groupOf(vg string) *groupSpace {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.groups[vg]
	if g == nil {
		g = &groupSpace{token: make(chan struct{}, 1)}
		g.token <- struct{}{}
		a.groups[vg] = g
	}
	return g
}

// lock waits until nobody else looks at or changes the group's space.
func (a *Allocator) lock(ctx context.Context, vg string) (*groupSpace, error) {
	g := a.groupOf(vg)
	select {
	case <-g.token:
		return g, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *groupSpace) unlock() { g.token <- struct{}{} }

// free returns how much of a group could be reserved now, and its extent. The caller has the group locked.
func (a *Allocator) free(ctx context.Context, name string, g *groupSpace) (freeBytes, extentBytes int64, err error) {
	if g.asked.IsZero() || time.Since(g.asked) > trustFor {
		vg, err := a.query(ctx, name)
		if err != nil {
			return 0, 0, err
		}
		g.vg, g.asked = vg, time.Now()
	}
	return g.vg.FreeBytes - g.reserved - a.reserve(g.vg), g.vg.ExtentBytes, nil
}

// Reservation is granted space. Use turns it into a snapshot, and Release gives it back, before Use or when the snapshot is gone.
type Reservation struct {
	VG    string
	Bytes int64

	floorBytes int64
	alloc      *Allocator
	state      reservationState // guarded by the group's token, as is extended
	extended   bool             // the snapshot was: nobody counts what goes with it
}

type reservationState int

const (
	stateReserved reservationState = iota
	stateUsed                      // a snapshot has the space
	stateOver
)

// Reserve grants want bytes of a volume group's free space, or less down to floor, in whole extents. With less free
// the error wraps ErrNoSpace. The caller owns the Reservation and releases it.
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
	free, extent, err := a.free(ctx, vg, g)
	if err != nil {
		return fail(err)
	}
	want, floor = roundUp(want, extent), roundUp(floor, extent)
	granted, err := grant(want, floor, free, extent)
	if err != nil {
		if g.reserved > 0 {
			err = fmt.Errorf("%w (%s more are reserved for other snapshots of this run)", err, say.Size(g.reserved))
		}
		return fail(err)
	}
	g.reserved += granted
	return &Reservation{VG: vg, Bytes: granted, floorBytes: floor, alloc: a}, nil
}

// ReserveExactly grants so many bytes or none. Where the snapshot does not get them after all, it may have less, down to floor.
func (a *Allocator) ReserveExactly(ctx context.Context, vg string, bytes, floor int64) (*Reservation, error) {
	r, err := a.Reserve(ctx, vg, bytes, bytes)
	if err == nil {
		r.floorBytes = min(floor, r.Bytes)
	}
	return r, err
}

// Free tells how much of a volume group's space could be reserved now, and its extent.
func (a *Allocator) Free(ctx context.Context, vg string) (freeBytes, extentBytes int64, err error) {
	g, err := a.lock(ctx, vg)
	if err != nil {
		return 0, 0, err
	}
	defer g.unlock()
	return a.free(ctx, vg, g)
}

// Use runs create, which makes the volume that the reservation was for, once. Nobody is granted space of the
// group meanwhile, so that the volume's extents are never counted twice nor forgotten. Where others have taken space that
// lvm2 had reported free, create is run again with what is left, if that is no less than the floor; Bytes tells.
func (r *Reservation) Use(ctx context.Context, create func(bytes int64) error) error {
	g, err := r.alloc.lock(ctx, r.VG)
	if err != nil {
		return err
	}
	defer g.unlock()
	if r.state != stateReserved {
		return errors.New("cannot use a reservation that has ended")
	}
	err = create(r.Bytes)
	if errors.Is(err, ErrNoSpace) && r.shrink(ctx, g) {
		err = create(r.Bytes)
	}
	g.reserved -= r.Bytes
	if err != nil {
		r.state, g.asked = stateOver, time.Time{}
		return err
	}
	r.state = stateUsed
	g.vg.FreeBytes -= r.Bytes
	return nil
}

// shrink asks lvm2 what is free, and reports whether the reservation can do with less.
func (r *Reservation) shrink(ctx context.Context, g *groupSpace) bool {
	g.asked = time.Time{}
	free, extent, err := r.alloc.free(ctx, r.VG, g)
	if err != nil {
		return false
	}
	granted, err := grant(r.Bytes, r.floorBytes, free+r.Bytes, extent)
	if err != nil || granted == r.Bytes {
		return false
	}
	g.reserved -= r.Bytes - granted
	r.Bytes = granted
	return true
}

// Release gives the space back, of a reservation that was not used or whose snapshot is gone. A second time it does nothing.
func (r *Reservation) Release() {
	g := r.alloc.groupOf(r.VG)
	<-g.token // whoever has it gives it back
	defer g.unlock()
	switch r.state {
	case stateReserved:
		g.reserved -= r.Bytes
	case stateUsed:
		g.vg.FreeBytes += r.Bytes
		if r.extended {
			g.asked = time.Time{}
		}
	}
	r.state = stateOver
}

// Extend takes up to bytes more of the volume group's space for the snapshot that has the reservation, by extend. It goes with the
// snapshot. How much that is only lvm2 knows, which is asked when next somebody looks, and once more after Release.
func (r *Reservation) Extend(ctx context.Context, bytes int64, extend func(bytes int64) error) error {
	more, err := r.alloc.Reserve(ctx, r.VG, bytes, 1)
	if err != nil {
		return err
	}
	g := r.alloc.groupOf(r.VG)
	err = more.Use(ctx, func(bytes int64) error {
		r.extended, g.asked = true, time.Time{} // also where it fails: a part may have been done
		return extend(bytes)
	})
	if err != nil {
		more.Release()
	}
	return err
}
