package backup

import (
	"context"

	"voltar/archive"
	"voltar/internal/admit"
	"voltar/internal/quiesce"
	"voltar/lvm"
)

// admitted is a volume that is ready for its snapshot: nothing that takes time is left to do before it, so that nothing is
// frozen for longer than the snapshots themselves take.
type admitted struct {
	*candidate
	volume  lvm.Volume // active
	exclude *archive.Matcher
	space   *lvm.Reservation // for the snapshot; nil for thin volumes, which need none
}

// reduced says what the snapshot wanted of space and did not get; nothing where it has all.
func (a *admitted) reduced() string {
	if a.space == nil {
		return ""
	}
	want, _ := a.settings.SnapshotSize.Bounds(a.volume.SizeBytes, a.vg.ExtentBytes)
	return lvm.SizeReduced{WantedBytes: want, GrantedBytes: a.space.Bytes}.String()
}

// space is the free space of volume groups as an admit.Queue asks for it.
type space struct{ alloc *lvm.Allocator }

func (s space) Room(ctx context.Context, group string) (admit.Room, error) {
	free, extent, err := s.alloc.Free(ctx, group)
	return admit.Room{FreeBytes: free, ExtentBytes: extent}, err
}

func (s space) Take(ctx context.Context, group string, bytes, floorBytes int64) (admit.Taken, error) {
	return s.alloc.ReserveExactly(ctx, group, bytes, floorBytes)
}

// spareFraction is the part of a snapshot that it is extended by.
func (o *Options) spareFraction() float64 { return o.Snapshot.ExtendByPercent / 100 }

// wantOf is what a volume needs to begin.
func (o *Options) wantOf(v lvm.Volume, vg lvm.VG) admit.Want {
	if v.IsThin() {
		return admit.Want{}
	}
	want, floor := o.Settings(v).SnapshotSize.Bounds(v.SizeBytes, vg.ExtentBytes)
	return admit.Want{Group: v.VG, WantBytes: want, FloorBytes: floor}
}

// join takes the unit's place in the queue of its run.
func (u unit) join(ctx context.Context, queue *admit.Queue) *admit.Ticket {
	var request admit.Request
	for _, c := range u.volumes {
		request = append(request, u.run.opts.wantOf(c.volume, c.vg))
	}
	if len(u.volumes) == 1 {
		ctx = u.volumes[0].scope.ctx // it may be cancelled while it waits
	}
	return queue.Join(ctx, request)
}

// admit waits for the unit's turn and gets its volumes ready for their snapshots. It returns those that are.
func (u unit) admit(ticket *admit.Ticket) (ready []*admitted) {
	grant, err := ticket.Wait()
	for i, c := range u.volumes {
		ctx := c.scope.begin(u.run.opts.MaxDuration)
		c.line.Started = u.run.Now().UTC()
		var share *admit.Share
		switch {
		case err == nil:
			share = grant[i]
			c.held.Push(func(context.Context) error { share.Release(); return nil })
			c.fail(share.Err)
		case ctx.Err() == nil: // otherwise it says itself that it was stopped
			c.fail(err)
		}
		if c.failed() {
			continue
		}
		a, err := c.admit(ctx, share)
		if c.fail(err); err == nil {
			ready = append(ready, a)
		}
	}
	return ready
}

// admit gets a volume ready for the snapshot that it is backed up from, in the space that it was given.
func (c *candidate) admit(ctx context.Context, share *admit.Share) (*admitted, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	return c.ready(ctx, func() (*lvm.Reservation, error) {
		space, _ := share.Taken.(*lvm.Reservation)
		return space, nil
	})
}

// ready makes a volume active, runs its hooks and takes the space for its snapshot, where it needs any.
func (c *candidate) ready(ctx context.Context, take func() (*lvm.Reservation, error)) (*admitted, error) {
	exclude, err := archive.NewMatcher(c.settings.Exclude)
	if err != nil {
		return nil, err
	}
	a := &admitted{candidate: c, volume: c.volume, exclude: exclude}
	if !a.volume.Active {
		active, undo, err := c.run.owner.Activate(ctx, c.volume)
		if undo != nil {
			c.held.Push(undo)
		}
		if a.volume = active; err != nil {
			return nil, err
		}
	}
	if err := c.runHooks(ctx, quiesce.PhaseBefore); err != nil {
		return nil, err
	}
	if c.volume.IsThin() {
		return a, a.checkPool(ctx)
	}
	a.space, err = take()
	return a, err
}
