package backup

import (
	"context"

	"voltar/internal/admit"
	"voltar/lvm"
)

// space is the room of volume groups as an admit.Queue asks for it.
type space struct{ alloc *lvm.Allocator }

func (s space) Room(ctx context.Context, group string) (admit.Room, error) {
	free, extent, err := s.alloc.Free(ctx, group)
	return admit.Room{FreeBytes: free, ExtentBytes: extent}, err
}

func (s space) Take(ctx context.Context, group string, bytes int64) (admit.Taken, error) {
	return s.alloc.Reserve(ctx, group, bytes, bytes)
}

// newQueue makes the queue of a run.
func (e *Engine) newQueue() *admit.Queue {
	return admit.New(space{e.space}, e.opts.Parallel, e.spareFraction())
}

// spareFraction is the part of a snapshot that it is extended by.
func (e *Engine) spareFraction() float64 { return e.opts.Snapshot.ExtendByPercent / 100 }

// wantOf is what a volume needs to begin.
func (e *Engine) wantOf(v lvm.Volume, vg lvm.VG) admit.Want {
	if v.IsThin() {
		return admit.Want{}
	}
	want, floor := e.opts.Settings(v).SnapshotSize.Bounds(v.SizeBytes, vg.ExtentBytes)
	return admit.Want{Group: v.VG, WantBytes: want, FloorBytes: floor}
}

// join takes a unit's place in the queue of its run.
func (r *run) join(ctx context.Context, queue *admit.Queue, u unit) *admit.Ticket {
	var request admit.Request
	for _, v := range u.members {
		request = append(request, r.wantOf(v.volume, v.vg))
	}
	if len(u.members) == 1 {
		ctx = u.members[0].within(ctx) // it may be cancelled while it waits
	}
	return queue.Join(ctx, request)
}

// admitted enters what its members were given. Their shares go back with all else that they hold.
func (u unit) admitted(ctx context.Context, grant admit.Grant, err error) {
	for i, v := range u.members {
		if err != nil {
			if v.within(ctx).Err() == nil { // otherwise it says itself that it was stopped
				v.fail(err)
			}
			continue
		}
		v.share = grant[i]
		v.fail(v.share.Err)
		v.held.Push(func(context.Context) error { v.share.Release(); return nil })
	}
}
