package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/control"
	"voltar/internal/say"
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

// cancelScope is a source's part in a run, which can be ended alone.
type cancelScope struct {
	name, lv string          // the source's, lv of volumes only: what is known of it otherwise changes while it is at work
	guest    *catalog.Guest  // whose disk it is; nil where nobody knows
	ctx      context.Context // ends with the run's, or alone when the source is cancelled or takes too long
	cancel   context.CancelCauseFunc
	begun    chan struct{} // closed when the source's turn has come
	ended    chan struct{} // closed when the source holds nothing any more
}

func newScope(ctx context.Context, name, lv string, guest *catalog.Guest) *cancelScope {
	s := &cancelScope{name: name, lv: lv, guest: guest, begun: make(chan struct{}), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// begin says that the source's turn has come, and returns the context of all that is done for it alone. It ends when the source
// has taken as long as it may.
func (s *cancelScope) begin(most time.Duration) context.Context {
	close(s.begun)
	if most > 0 {
		timer := time.AfterFunc(most, func() {
			s.cancel(say.WithHint(&overtimeError{fmt.Sprintf("it has taken longer than max_duration, %s", most)},
				"look at what makes it slow: the disk, the destinations, the command of a dump, or a great many small files; "+
					"max_duration in [limits] gives it more time"))
		})
		context.AfterFunc(s.ctx, func() { timer.Stop() })
	}
	return s.ctx
}

// end says that the source holds nothing any more.
func (s *cancelScope) end() {
	s.cancel(nil)
	close(s.ended)
}

// over tells whether the source is done.
func (s *cancelScope) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// overtimeError is why a source failed that took longer than it may, or whose run did.
type overtimeError struct{ message string }

func (e *overtimeError) Error() string { return e.message }

// overtime is why the scope ended when the source took too long, or nil.
func (s *cancelScope) overtime() error {
	cause := context.Cause(s.ctx)
	var over *overtimeError
	if errors.As(cause, &over) {
		return cause
	}
	return nil
}

// bounded returns the context of a run's sources, which ends when all of them together have taken as long as they may.
func (o *Options) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	most := o.MaxRunDuration
	if most <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, most, say.WithHint(
		&overtimeError{fmt.Sprintf("the run has gone on for max_run_duration, %s", most)},
		"max_run_duration in [limits] gives the run more time; `voltar run VOLUME` backs up one volume alone"))
}

// roster are the sources of a run, for those who take one out of it.
type roster struct {
	mu       sync.Mutex
	accounts []*account
}

func (r *roster) add(a *account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts = append(r.accounts, a)
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

// answer takes a source out of the run, or all disks of a guest, and returns when they are free.
func (r *run) answer(_ context.Context, request control.Request) (string, error) {
	accounts, err := r.roster.find(request.Cancel)
	if err != nil {
		return "", err
	}
	for _, a := range accounts {
		r.Log.Warn("cancelled by a person", "run", r.id, "volume", a.scope.name)
		a.scope.cancel(errCancelled)
	}
	var done []string
	var errs []error
	for _, a := range accounts {
		what, err := a.awaitCancelled()
		if errs = append(errs, err); err == nil {
			done = append(done, what)
		}
	}
	return strings.Join(done, "; "), errors.Join(errs...)
}

// awaitCancelled waits until a source that was cancelled is free, and says what became of it.
func (a *account) awaitCancelled() (string, error) {
	name := a.scope.name
	select {
	case <-a.scope.begun:
		<-a.scope.ended // bounded, as all cleaning up is; the run itself waits for it
	default: // when its turn comes it finds itself cancelled
		return name + " is taken out of the run before its turn", nil
	}
	switch {
	case len(a.remains) > 0:
		return "", say.WithHint(fmt.Errorf("%s is cancelled but not free: %s", name, strings.Join(a.remains, "; ")),
			"`voltar cleanup` tries again once the run has ended")
	case !errors.Is(a.failure, errCancelled):
		return "", fmt.Errorf("%s was done before it could be cancelled", name)
	}
	return name + " is free; the rest of the run goes on", nil
}

// find returns the source of the run that a person means and that is not done, or those disks of a guest.
func (r *roster) find(wanted string) ([]*account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var going []string
	var found []*account
	for _, a := range r.accounts {
		if a.scope.name == wanted || a.scope.lv == wanted {
			found = append(found, a)
		}
		if !a.scope.over() {
			going = append(going, a.scope.name)
		}
	}
	slices.Sort(going)
	switch {
	case len(found) == 1 && !found[0].scope.over():
		return found, nil
	case len(found) == 1:
		return nil, fmt.Errorf("the run is done with %s already", found[0].scope.name)
	case len(found) > 1:
		return nil, say.WithHint(fmt.Errorf("%q is in several volume groups", wanted), "name one as VG/LV")
	}
	if disks, err := r.disksOf(wanted); err != nil || len(disks) > 0 {
		return disks, err
	}
	if len(going) == 0 {
		return nil, fmt.Errorf("%q is not in the run, which is at work on no volume now", wanted)
	}
	return nil, fmt.Errorf("%q is not in the run, which has these before it: %s", wanted, strings.Join(going, ", "))
}

// disksOf returns the disks of the guest that a person means which are not done; none where there is no such guest.
func (r *roster) disksOf(wanted string) ([]*account, error) {
	for _, name := range catalog.GuestNames(wanted) {
		var found []*account
		ids := map[string]bool{}
		for _, a := range r.accounts {
			g := a.scope.guest
			if g != nil && slices.Contains([]string{g.ID, g.Name, g.Alias}, name.Name) && (name.Disk == "" || g.Disk == name.Disk) {
				found = append(found, a)
				ids[g.ID] = true
			}
		}
		if len(ids) > 1 {
			return nil, say.WithHint(fmt.Errorf("%q is the name of several guests", wanted),
				"name one by its ID: "+say.Listed(slices.Sorted(maps.Keys(ids)), shownGuests))
		}
		left := slices.DeleteFunc(slices.Clone(found), func(a *account) bool { return a.scope.over() })
		if len(left) > 0 {
			return left, nil
		}
		if len(found) > 0 {
			return nil, fmt.Errorf("the run is done with %s already", wanted)
		}
	}
	return nil, nil
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
