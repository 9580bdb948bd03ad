package placement

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/report"
)

// catchUpTime is for how long a run begins to copy what its destinations lack; the rest is left to the next one. What
// the night itself is for must not wait for a destination that has everything to make up.
const catchUpTime = 6 * time.Hour

// Caught is a backup that was made up.
type Caught struct {
	Backup   string // its ID
	From, To string // destinations
	Path     string // where it stands now
}

// CatchUp makes up what destinations lack because they failed or were away, and repairs what is damaged there, from those that
// have it: of the sources that are wanted. It comes after the volumes, whose backups stand by then; what fails here is a problem for
// the report, and tried again by the next run.
func (ts Targets) CatchUp(ctx context.Context, wanted func(catalog.Ref) bool) (caught []Caught, problems []report.Problem) {
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, t := range ts {
		if t.CatchUp && t.Err() == nil && len(ts) > 1 && ctx.Err() == nil {
			group.Go(func() {
				own, failed := t.catchUp(ctx, ts, wanted)
				mu.Lock()
				defer mu.Unlock()
				caught, problems = append(caught, own...), append(problems, failed...)
			})
		}
	}
	group.Wait()
	return caught, problems
}

// catchUp makes up what one destination lacks of the others.
func (t *Target) catchUp(
	ctx context.Context, others Targets, wanted func(catalog.Ref) bool,
) (caught []Caught, problems []report.Problem) {
	lock, err := t.run.Locks.TryLock(journal.ScopeConfig, CopyLock(t.Destination))
	var held *journal.HeldError
	if errors.As(err, &held) {
		t.note("what it lacks is not made up tonight: " + held.Error())
		return nil, nil
	}
	if err != nil {
		return nil, []report.Problem{t.behind(nil, err)}
	}
	defer func() {
		if err := lock.Unlock(); err != nil {
			problems = append(problems, t.behind(nil, err))
		}
	}()
	began := t.run.Now()
	for _, from := range others {
		if from == t || from.Err() != nil {
			continue
		}
		some, err := t.catchUpFrom(ctx, from, wanted, began.Add(catchUpTime))
		caught = append(caught, some...)
		if err != nil {
			return caught, []report.Problem{t.behind(from, err)}
		}
	}
	mended, problems := t.repairAll(ctx, others, wanted, began.Add(catchUpTime))
	return append(caught, mended...), problems
}

// catchUpFrom makes up what one destination lacks of another, until it is too late to begin with more. A failure that
// concerns one backup alone does not keep it from the rest; any other would befall the rest as well.
func (t *Target) catchUpFrom(
	ctx context.Context, from *Target, wanted func(catalog.Ref) bool, until time.Time,
) (caught []Caught, err error) {
	lacking, err := t.lacking(ctx, from.stock.Entries(wanted))
	if err != nil {
		return nil, err
	}
	var first error
	failed, refused := 0, map[string]int{}
	for i, b := range lacking {
		var form *FormError
		if err := checkForm(t.Destination, b.Encryption); errors.As(err, &form) {
			refused[form.Reason]++
			continue
		}
		if t.run.Now().After(until) {
			t.note(fmt.Sprintf("yet to be made up from %s: %d; the next run goes on, or `voltar copy`",
				from.Name, len(lacking)-i))
			break
		}
		var alone aloneError
		err := t.catchUpBackup(ctx, from, b)
		switch {
		case err == nil:
			caught = append(caught, Caught{b.ID.String(), from.Name, t.Name, catalog.Place(t.Store, b.Path())})
		case errors.As(err, &alone):
			first = cmp.Or(first, err)
			failed++
		default:
			return caught, err
		}
	}
	for reason, count := range refused {
		t.note(fmt.Sprintf("not made up from %s: %d, which cannot be copied: %s",
			from.Name, count, reason))
	}
	if failed > 1 {
		return caught, fmt.Errorf("%d backups failed, the first of them %w", failed, first)
	}
	return caught, first
}

// lacking returns what the destination lacks of some backups and would keep, the newest first. Where nothing is ever
// pruned that is what is newer than the good ones that it had before tonight: one that is new does not get all of the
// past by itself.
func (t *Target) lacking(ctx context.Context, backups []catalog.Entry) (lacking []catalog.Entry, err error) {
	steps, err := t.planCopy(ctx, backups)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if s.state == CopyMissing && (!keep.IsEmpty(t.Policy) || t.isBehind(s.backup, t.run.ID)) {
			lacking = append(lacking, s.backup)
		}
	}
	return lacking, nil
}

// catchUpBackup copies one backup and enters it in the report of the destination.
func (t *Target) catchUpBackup(ctx context.Context, from *Target, b catalog.Entry) error {
	t.run.Log.Info("copying what a destination lacks", "run", t.run.ID, "backup", b.ID.String(), "from", from.Name, "to", t.Name,
		"size", say.Size(b.SizeBytes))
	shared, err := t.copyFrom(ctx, from, b, func(int64) {})
	if err != nil {
		return fmt.Errorf("%s: %w", b.ID, err)
	}
	t.caughtUp = append(t.caughtUp, report.CaughtUp{Backup: b.ID.String(), From: from.Name, SizeBytes: b.SizeBytes, SharedBytes: shared})
	return nil
}

// behind says what could not be made up.
func (t *Target) behind(from *Target, err error) report.Problem {
	problem := report.ProblemOf(err)
	hint := "the next run tries again"
	if from != nil {
		hint += fmt.Sprintf(", or `voltar copy --all --from %s --to %s`", from.Name, t.Name)
	}
	if problem.Hint != "" {
		hint = problem.Hint + "\n" + hint
	}
	return report.Problem{
		Message: fmt.Sprintf("what %s lacks could not all be made up: %s", t.Name, strings.TrimSpace(problem.Message)), Hint: hint,
	}
}

// isBehind tells whether a backup is newer than all good ones that the destination had of the source before tonight.
func (t *Target) isBehind(b catalog.Entry, tonight string) bool {
	for _, held := range t.stock.History(b.Identity) {
		if held.Run != tonight && held.Status == catalog.StatusComplete && !held.IsAhead(t.run.Now()) {
			return b.ID.Time.After(held.ID.Time)
		}
	}
	return b.Run == tonight
}
