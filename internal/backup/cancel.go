package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"voltar/internal/control"
	"voltar/internal/say"
	"voltar/report"
)

// errCancelled is why a volume failed that a person took out of its run.
var errCancelled = errors.New("cancelled by a person with `voltar cancel`: nothing of it is kept from this run")

// forOthers is what the failure of a volume is to others that fail for it: they were not cancelled themselves.
func forOthers(cause error) error {
	if errors.Is(cause, errCancelled) {
		return errors.New(errCancelled.Error())
	}
	return cause
}

// explainFailure says why the volume failed, and of one that a person stopped how it is backed up after all.
func (v *volumeRun) explainFailure() *report.Problem {
	problem := report.ProblemOf(v.failure)
	if errors.Is(v.failure, errCancelled) {
		problem.Hint = "`voltar run " + v.name() + "` backs it up"
	}
	return problem
}

// turn is a volume's part in a run that can be ended alone.
type turn struct {
	name, lv string          // the volume's: what is known of it otherwise changes while it is at work
	ctx      context.Context // ends with the run's, or alone when the volume is cancelled
	cancel   context.CancelCauseFunc
	begun    chan struct{} // closed when the volume's turn has come
	ended    chan struct{} // closed when the volume holds nothing any more
	timer    *time.Timer   // ends it when it takes too long; nil without a bound
}

// takeTurns gives each volume of a run a turn of its own.
func (r *run) takeTurns(ctx context.Context, units []unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range units {
		for _, v := range u.members {
			v.turn = &turn{name: v.name(), lv: v.volume.Name, begun: make(chan struct{}), ended: make(chan struct{})}
			v.turn.ctx, v.turn.cancel = context.WithCancelCause(ctx)
			r.turns = append(r.turns, v)
		}
	}
}

// within is the context for a volume's own part in what is done for a unit.
func (v *volumeRun) within(ctx context.Context) context.Context {
	if v.turn == nil {
		return ctx
	}
	return v.turn.ctx
}

// beginTurn says that the volume's turn has come.
func (v *volumeRun) beginTurn() {
	if v.turn != nil {
		close(v.turn.begun)
		v.turn.bound(v.run.opts.MaxDuration)
	}
}

// endTurn says that the volume holds nothing any more.
func (v *volumeRun) endTurn() {
	if v.turn != nil {
		if v.turn.timer != nil {
			v.turn.timer.Stop()
		}
		v.turn.cancel(nil)
		close(v.turn.ended)
	}
}

// listen lets people take volumes out of the run. A run that cannot listen goes on without.
func (r *run) listen() (closeControl func()) {
	server, err := control.Listen(r.opts.RunDir, r.opts.controlName(), r.answer)
	if err != nil {
		r.warnOf(fmt.Errorf("`voltar cancel` will not reach this run: %w", err))
		return func() {}
	}
	return func() {
		if err := server.Close(); err != nil {
			r.Log.Warn("cannot end listening for requests", "run", r.id, "err", err)
		}
	}
}

func (o Options) controlName() string { return cmp.Or(o.ConfigPath, "none") }

// answer takes a volume out of the run, and returns when it is free.
func (r *run) answer(_ context.Context, request control.Request) (string, error) {
	v, err := r.findTurn(request.Cancel)
	if err != nil {
		return "", err
	}
	r.Log.Warn("cancelled by a person", "run", r.id, "volume", v.turn.name)
	v.turn.cancel(errCancelled)
	select {
	case <-v.turn.begun:
		<-v.turn.ended // bounded, as all cleaning up is; the run itself waits for it
	default: // when its turn comes it finds itself cancelled
		return v.turn.name + " is taken out of the run before its turn", nil
	}
	switch {
	case len(v.remains) > 0:
		return "", say.WithHint(fmt.Errorf("%s is cancelled but not free: %s", v.name(), strings.Join(v.remains, "; ")),
			"`voltar cleanup` tries again once the run has ended")
	case !errors.Is(v.failure, errCancelled):
		return "", fmt.Errorf("%s was done before it could be cancelled", v.name())
	}
	return v.name() + " is free; the rest of the run goes on", nil
}

// findTurn returns the volume of the run that a person means and that is not done.
func (r *run) findTurn(wanted string) (*volumeRun, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var going []string
	var found []*volumeRun
	for _, v := range r.turns {
		if v.turn.name == wanted || v.turn.lv == wanted {
			found = append(found, v)
		}
		if !v.turn.over() {
			going = append(going, v.turn.name)
		}
	}
	slices.Sort(going)
	switch {
	case len(found) == 1 && !found[0].turn.over():
		return found[0], nil
	case len(found) == 1:
		return nil, fmt.Errorf("the run is done with %s already", found[0].turn.name)
	case len(found) > 1:
		return nil, say.WithHint(fmt.Errorf("%q is in several volume groups", wanted), "name one as VG/LV")
	case len(going) == 0:
		return nil, fmt.Errorf("%q is not in the run, which is at work on no volume now", wanted)
	}
	return nil, fmt.Errorf("%q is not in the run, which has these before it: %s", wanted, strings.Join(going, ", "))
}

// over tells whether the volume is done.
func (t *turn) over() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// Cancel takes one volume out of the run of a configuration that is going on, in whichever process, and returns in words
// what was done when the volume is free. runDir is where the locks are.
func Cancel(ctx context.Context, runDir, configPath, volume string) (string, error) {
	done, err := control.Ask(ctx, runDir, Options{ConfigPath: configPath}.controlName(), control.Request{Cancel: volume})
	if errors.Is(err, control.ErrNobody) {
		return "", errors.New("no run of this configuration is going on: there is nothing to cancel")
	}
	if err != nil {
		return "", fmt.Errorf("cancel %s: %w", volume, err)
	}
	return done, nil
}
