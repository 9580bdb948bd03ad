package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/say"
)

// work is a restore while it lasts.
type work struct {
	*Engine
	plan    *Plan
	owner   *owned.Owner // nil for a folder, which leaves nothing
	device  string       // of the target, once it is open
	touched bool         // something was written to the target
	stands  bool         // every step was taken: the target is restored, whatever fails after that
	zeros   bool         // what was not written to the target reads as zeros
	held    owned.Stack
	began   time.Time      // by a clock that nobody sets
	seconds float64        // until the target stood that is compared from then on
	missing map[string]int // how many filesystems did not have what a pattern of paths wants
	filled  int            // filesystems

	mu     sync.Mutex // guards what follows
	result Result
}

// Run takes the steps of a plan. The Result is complete even beside an error; where the target stands incomplete, the
// error says how that shows. An error beside StatusRestored is of what came after the last step.
func (e *Engine) Run(ctx context.Context, p *Plan) (_ *Result, err error) {
	w := &work{Engine: e, plan: p, zeros: p.zeros, missing: map[string]int{}, began: time.Now()}
	w.result = Result{
		Backup: p.Backup, Destination: p.Destination, Target: p.Target, Run: p.run, Started: e.Now().UTC(),
		Parts: []PartResult{}, Checked: []string{}, Notes: p.Notes, Losses: p.Losses,
	}
	if err := w.begin(); err != nil {
		if p.scratch != nil {
			err = hostTrouble(err)
		}
		return nil, err
	}
	if e.Progress != nil {
		e.Progress.Started(p.TotalBytes)
	}
	err = w.steps(ctx)
	if err != nil && p.scratch != nil {
		err = p.scratch.explainFull(err)
	}
	w.stands = err == nil
	for _, pattern := range p.paths {
		if err == nil && w.missing[pattern] == w.filled {
			w.lose("nothing in the backup matches %q", pattern)
		}
	}
	err = errors.Join(err, w.held.Release(ctx), w.endJournal())
	return w.finish(err), w.explain(err)
}

// begin takes the lock of the target and opens the journal, where the plan makes anything that needs one.
func (w *work) begin() error {
	if w.plan.lock == "" {
		return nil
	}
	started := w.Now().UTC()
	holder := journal.Holder{Run: w.plan.run, Command: w.plan.command, Started: started}
	locks, err := journal.NewLocks(w.opts.RunDir, holder)
	if err != nil {
		return err
	}
	lock, err := locks.TryLock(w.plan.lockScope, w.plan.lock)
	if err != nil {
		return hintHeld(err)
	}
	w.held.Push(func(context.Context) error { return lock.Unlock() })
	ledger, err := journal.Begin(w.Journals(), journal.Info{
		Run: w.plan.run, Host: w.opts.Host, Command: w.plan.command, Started: started,
	})
	if err != nil {
		return errors.Join(err, w.held.Release(context.Background()))
	}
	w.owner = &owned.Owner{Host: w.Host, Run: w.plan.run, Journal: ledger}
	return nil
}

// hintHeld says how a volume that a run has is had from it, and that drills in one folder come one after the other.
func hintHeld(err error) error {
	var held *journal.HeldError
	switch {
	case !errors.As(err, &held):
		return err
	case held.Holder.Command == "voltar run":
		return say.WithHint(err,
			fmt.Sprintf("wait for it, or take the volume out of that run with `voltar cancel %s`", held.Name))
	case held.Scope == journal.ScopeScratch:
		return say.WithHint(err, "wait for it: drills in one folder come one after the other")
	}
	return err
}

// hostTrouble says of an error that it proves nothing against the backup.
func hostTrouble(err error) error {
	if err == nil || errors.Is(err, ErrSums) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrHost, err)
}

func (w *work) endJournal() error {
	if w.owner == nil {
		return nil
	}
	return w.owner.Journal.Close()
}

func (w *work) steps(ctx context.Context) error {
	for i, s := range w.plan.Steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i > 0 && i == w.plan.proofsAt {
			w.seconds = time.Since(w.began).Seconds()
		}
		text := s.Describe()[0]
		w.Log.Debug("step", "run", w.plan.run, "does", text)
		if short, ok := s.(interface{ progress() string }); ok {
			text = short.progress()
		}
		if w.Progress != nil {
			w.Progress.Step(text)
		}
		if err := s.do(ctx, w); err != nil {
			if ctx.Err() != nil { // what a step says of it names a symptom: a command that was ended, a broken pipe
				return context.Cause(ctx)
			}
			return err
		}
		if c, ok := s.(interface{ checks() []string }); ok {
			w.checked(c.checks()...)
		}
	}
	if w.plan.verify == VerifyStream {
		w.checked(checkedSums)
	}
	return nil
}

// checked notes what was found to be right.
func (w *work) checked(what ...string) {
	for _, one := range what {
		if !slices.Contains(w.result.Checked, one) {
			w.result.Checked = append(w.result.Checked, one)
		}
	}
}

func (w *work) finish(err error) *Result {
	w.result.Ended = w.Now().UTC()
	w.result.Seconds = cmp.Or(w.seconds, time.Since(w.began).Seconds())
	switch {
	case !w.stands && w.touched:
		w.result.Status = StatusIncomplete
	case !w.stands:
		w.result.Status = StatusUntouched
	case len(w.result.Losses) > 0:
		w.result.Status = StatusLosses
	default:
		w.result.Status = StatusRestored
	}
	if err != nil {
		w.result.Error, w.result.Hint = err.Error(), strings.Join(say.Hints(err), "\n")
	}
	return &w.result
}

// explain adds to an error what became of the target.
func (w *work) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case w.stands:
		return say.WithHint(fmt.Errorf("%s is restored to %s, but what came after that failed: %w",
			w.plan.Backup, w.plan.Target, err),
			"`voltar cleanup` removes what may be left")
	case w.plan.scratch != nil:
		return fmt.Errorf("try %s in %s: %w", w.plan.Backup, w.plan.Target, err)
	case w.touched:
		return say.WithHint(fmt.Errorf("restore %s to %s: %w\n%s", w.plan.Backup, w.plan.Target, err, w.plan.mark.text), w.plan.mark.hint)
	}
	return fmt.Errorf("restore %s to %s: %w", w.plan.Backup, w.plan.Target, err)
}

func (w *work) progress(bytes int64) {
	if w.Progress == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Progress.Done(bytes)
}

// lose notes something of the backup that is not restored.
func (w *work) lose(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.lose(format, args...)
}

func (w *work) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.note(format, args...)
}

func (r *Result) lose(format string, args ...any) {
	r.Losses = append(r.Losses, fmt.Sprintf(format, args...))
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}
