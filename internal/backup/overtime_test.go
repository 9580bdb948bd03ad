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
		{"volume", Options{MaxDuration: time.Nanosecond}, "longer than max_duration, 1ns", true},
		{"run, at work", Options{MaxRunDuration: time.Nanosecond}, "max_run_duration, 1ns", true},
		{"run, before its turn", Options{MaxRunDuration: time.Nanosecond}, "max_run_duration, 1ns", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{Engine: &Engine{opts: c.opts}}
			v := &volumeRun{run: r}
			ctx, cancel := r.bounded(t.Context())
			defer cancel()
			r.takeTurns(ctx, []unit{{members: []*volumeRun{v}}})
			if c.begun {
				v.beginTurn()
			}
			<-v.within(t.Context()).Done()
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
	r := &run{Engine: &Engine{opts: Options{MaxDuration: time.Hour}}}
	v := &volumeRun{run: r}
	ctx, cancel := r.bounded(t.Context())
	defer cancel()
	r.takeTurns(ctx, []unit{{members: []*volumeRun{v}}})
	v.beginTurn()
	v.fail(nil)
	v.endTurn()
	if v.failure != nil || !errors.Is(context.Cause(v.turn.ctx), context.Canceled) {
		t.Errorf("%v, %v", v.failure, context.Cause(v.turn.ctx))
	}
}
