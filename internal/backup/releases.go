package backup

import (
	"context"
	"errors"
	"time"
)

// releaseTimeout bounds the release of one thing, which goes on after the run was interrupted. How many things a volume has, a
// guest decides: a map for each partition.
const releaseTimeout = 5 * time.Minute

// releases are the undoing of what was acquired, last in first out.
type releases struct{ list []func(context.Context) error }

func (r *releases) push(undo func(context.Context) error) { r.list = append(r.list, undo) }

// run undoes everything, whatever fails, each thing in a context that outlives the cancellation of ctx.
func (r *releases) run(ctx context.Context) error {
	var all []error
	for len(r.list) > 0 {
		undo := r.list[len(r.list)-1]
		r.list = r.list[:len(r.list)-1]
		all = append(all, within(ctx, undo))
	}
	return errors.Join(all...)
}

// within undoes one thing.
func within(ctx context.Context, undo func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return undo(ctx)
}
