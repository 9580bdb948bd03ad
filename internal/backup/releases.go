package backup

import (
	"context"
	"errors"
	"time"
)

// releaseTimeout bounds all the releases of one volume, which go on after the run was interrupted.
const releaseTimeout = 5 * time.Minute

// releases are the undoing of what was acquired, last in first out.
type releases struct{ list []func(context.Context) error }

func (r *releases) push(undo func(context.Context) error) { r.list = append(r.list, undo) }

// run undoes everything, whatever fails, in a context that outlives the cancellation of ctx.
func (r *releases) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var all []error
	for len(r.list) > 0 {
		undo := r.list[len(r.list)-1]
		r.list = r.list[:len(r.list)-1]
		all = append(all, undo(ctx))
	}
	return errors.Join(all...)
}
