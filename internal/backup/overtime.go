package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/say"
)

// overtimeError is why a volume failed that took longer than it may, or whose run did.
type overtimeError struct{ message string }

func (e *overtimeError) Error() string { return e.message }

// bounded returns the context of a run's volumes, which ends when all of them together have taken as long as they may.
func (r *run) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	most := r.opts.MaxRunDuration
	if most <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, most, say.WithHint(
		&overtimeError{fmt.Sprintf("the run has gone on for max_run_duration, %s", most)},
		"max_run_duration in [limits] gives the run more time; `voltar run VOLUME` backs up one volume alone"))
}

// bound ends the turn of a volume that has just begun when it has taken as long as it may.
func (t *turn) bound(most time.Duration) {
	if most <= 0 {
		return
	}
	t.timer = time.AfterFunc(most, func() {
		t.cancel(say.WithHint(&overtimeError{fmt.Sprintf("it has taken longer than max_duration, %s", most)},
			"look at what makes it slow: the disk, the destinations, the command of a dump, or a great many small files; "+
				"max_duration in [limits] gives it more time"))
	})
}

// overtime is why the turn ended when it took too long, or nil.
func (t *turn) overtime() error {
	if t == nil {
		return nil
	}
	cause := context.Cause(t.ctx)
	var over *overtimeError
	if errors.As(cause, &over) {
		return cause
	}
	return nil
}
