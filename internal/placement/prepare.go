package placement

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// Backup is one backup on its way to the destinations of a run: Prepare, Begin, Publish of its Output, and Retain.
type Backup struct {
	targets  Targets
	run      *Run
	ref      catalog.Ref
	identity catalog.Identity
	places   []*place // none before there is room
}

// place is what becomes of one backup on one destination.
type place struct {
	target *Target
	copy   report.Copy
	stands bool // the manifest is written

	mu  sync.Mutex
	err error // why it dropped out
}

// failure returns why the place dropped out, or nil.
func (p *place) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *place) alive() bool { return p.failure() == nil }

// drop takes the place out of the backup. The first cause counts.
func (p *place) drop(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// For is a backup of a source that is to go to all of the targets.
func (ts Targets) For(run *Run, source catalog.Source) *Backup {
	return &Backup{targets: ts, run: run, ref: source.Ref(), identity: source.Identity()}
}

// Prepare makes room on every destination that can be written to, as much as the source's next backup needs by the
// last one. A destination that fails drops out with its cause; the error says that none is left. The problems are for the report.
func (b *Backup) Prepare(ctx context.Context) (problems []report.Problem, err error) {
	for _, t := range b.targets {
		at := &place{target: t, copy: report.Copy{Destination: t.Name}}
		b.places = append(b.places, at)
		err := t.Err()
		if err == nil {
			var result keep.Result
			result, err = b.makeRoom(ctx, t)
			problems = append(problems, at.take(result)...)
		}
		if err != nil {
			at.drop(err)
		}
	}
	return problems, failureOf(b.places)
}

// makeRoom looks whether a backup fits that takes what the next one needs by the last one. Where it does not, old ones go before it.
func (b *Backup) makeRoom(ctx context.Context, t *Target) (keep.Result, error) {
	last, ok := t.lastComplete(b.identity)
	if !ok {
		return keep.Result{}, nil
	}
	return b.run.Keeper().MakeRoom(ctx, t.Kept(), b.identity, b.run.Written.NeedsBytes(t.Store, last))
}

// take enters in the report what retention did on a destination, and returns what it warns of.
func (p *place) take(result keep.Result) []report.Problem {
	p.copy.Removed = append(p.copy.Removed, result.Removed...)
	p.target.hold(result.Held)
	return result.Warnings
}

// failureOf returns why no place is left, or nil while one is.
func failureOf(places []*place) error {
	all := []error{ErrNone}
	for _, p := range places {
		err := p.failure()
		if err == nil {
			return nil
		}
		all = append(all, catalog.At(p.target.Name, err))
	}
	return errors.Join(all...)
}

// ErrNone is wrapped by the error of a backup that no destination took.
var ErrNone = errors.New("no destination took the backup")

// LastBytes is what the newest backup of the source takes that lacked nothing, on the destination where it takes most; -1
// where there is none.
func (b *Backup) LastBytes() int64 {
	most := int64(-1)
	for _, at := range b.places {
		if at.target.Err() != nil {
			continue
		}
		if last, ok := at.target.lastComplete(b.identity); ok {
			most = max(most, last.SizeBytes)
		}
	}
	return most
}

// LastEntries is how many files and folders the newest backup of the source has that lacked nothing; 0 where there is none.
func (b *Backup) LastEntries() int64 {
	for _, at := range b.places {
		if !at.alive() {
			continue
		}
		if last, ok := at.target.lastComplete(b.identity); ok {
			return last.Entries
		}
	}
	return 0
}

// maxBegins bounds how often a backup is begun that meets another run of the same name each time.
const maxBegins = 5

// Begin begins the backup, of one and the same time, on every destination that was prepared. Where another run of the same
// name has just taken that time, a later one is taken. The caller must Close the output, also with an error.
func (b *Backup) Begin(ctx context.Context, from time.Time) (*Output, error) {
	var prepared []*place
	for _, at := range b.places {
		if at.alive() {
			prepared = append(prepared, at)
		}
	}
	for try := 1; ; try++ {
		o, met := b.beginAll(ctx, prepared, from, try == maxBegins)
		if !met {
			return o, o.Failure()
		}
		if err := o.Close(ctx); err != nil {
			return o, err
		}
		from = o.ID.Time.Add(time.Duration(1+rand.N(2*try)) * time.Second) // two that have met part ways
	}
}

// beginAll begins the backup at each of the places, of the first time from one on that is free on all. It tells whether
// another run was met, which ends the place only at the last try.
func (b *Backup) beginAll(ctx context.Context, places []*place, from time.Time, last bool) (o *Output, met bool) {
	var stores []store.Store
	for _, at := range places {
		stores = append(stores, at.target.Store)
	}
	at, failed := catalog.FreeTime(ctx, stores, b.run.Host.Name, b.ref, from)
	o = &Output{run: b.run, ID: catalog.ID{Ref: b.ref, Time: at}, places: b.places}
	for i, at := range places {
		err := failed[i]
		if err == nil {
			err = o.beginAt(ctx, at, b.run.ID)
		}
		switch {
		case errors.Is(err, catalog.ErrTaken) && !last:
			met = true
		case err != nil:
			at.drop(err)
		}
	}
	return o, met
}

// Retain applies the policy of each destination on which the backup stands. The problems are for the report.
func (b *Backup) Retain(ctx context.Context) (problems []report.Problem) {
	for _, at := range b.places {
		if !at.stands {
			continue
		}
		result, err := b.run.Keeper().Retain(ctx, at.target.Kept(), b.identity)
		problems = append(problems, at.take(result)...)
		if err != nil {
			problems = append(problems, *report.ProblemOf(
				say.WithHint(fmt.Errorf("old backups on %s: %w", at.target.Name, err), "`voltar prune` tries again")))
		}
		at.copy.Kept = len(at.target.stock.History(b.identity))
	}
	return problems
}

// Copies says for the report what became of the backup on each destination.
func (b *Backup) Copies() (copies []report.Copy) {
	for _, at := range b.places {
		if err := at.failure(); err != nil {
			at.copy.Error = explain(at.target, err)
		}
		copies = append(copies, at.copy)
	}
	return copies
}

// explain says how a copy failed. Of a destination that could not be claimed, is full or was given up it says that the failure is
// the destination's, and leaves out which file met that first, so that the report tells it once for all volumes.
func explain(t *Target, err error) *report.Problem {
	problem := report.ProblemOf(err)
	problem.Message = store.Whole(err).Error()
	var whole *store.WholeError
	if errors.As(err, &whole) || t.err != nil {
		problem.Destinations = []string{t.Name}
	}
	return problem
}
