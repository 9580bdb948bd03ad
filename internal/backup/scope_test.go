package backup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"voltar/internal/say"
)

// Whatever ends because a volume, or its run, has taken too long fails for that, with what to do.
func TestOvertime(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  Options
		cause string
		begun bool
	}{
		{"volume", Options{Limits: Limits{MaxDuration: time.Nanosecond}}, "longer than max_duration, 1ns", true},
		{"run, at work", Options{Limits: Limits{MaxRunDuration: time.Nanosecond}}, "max_run_duration, 1ns", true},
		{"run, before its turn", Options{Limits: Limits{MaxRunDuration: time.Nanosecond}}, "max_run_duration, 1ns", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := c.opts.bounded(t.Context())
			defer cancel()
			v := newTestRun(c.opts).newAccount(ctx, volumeSource("lv"))
			if c.begun {
				v.scope.begin(c.opts.MaxDuration)
			}
			<-v.scope.ctx.Done()
			v.fail(errors.New("read: operation aborted"))
			if v.failure == nil || !strings.Contains(v.failure.Error(), c.cause) || len(say.Hints(v.failure)) != 1 {
				t.Errorf("%v, hints %q; want %q", v.failure, say.Hints(v.failure), c.cause)
			}
			if t.Context().Err() != nil {
				t.Error("the run itself ended")
			}
		})
	}
}

func TestNoOvertime(t *testing.T) {
	opts := Options{Limits: Limits{MaxDuration: time.Hour}}
	ctx, cancel := opts.bounded(t.Context())
	defer cancel()
	v := newTestRun(opts).newAccount(ctx, volumeSource("lv"))
	v.scope.begin(opts.MaxDuration)
	v.fail(nil)
	v.scope.end()
	if v.failure != nil || !errors.Is(context.Cause(v.scope.ctx), context.Canceled) {
		t.Errorf("%v, %v", v.failure, context.Cause(v.scope.ctx))
	}
}
