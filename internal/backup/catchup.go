package backup

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

// inCatchUp says which sources a run catches up on: those that were named, or all, those that are gone included.
func (r *run) inCatchUp(patterns []string) func(catalog.Ref) bool {
	if len(patterns) == 0 {
		return func(catalog.Ref) bool { return true }
	}
	named := map[string]bool{}
	for _, v := range r.report.Volumes {
		named[v.Name] = true
	}
	return func(ref catalog.Ref) bool { return named[ref.String()] }
}

// catchUp makes up what destinations lack because they failed or were away, from those that have it. It comes after the
// volumes, whose backups stand by then; what fails here is reported, and tried again by the next run.
func (r *run) catchUp(ctx context.Context, wanted func(catalog.Ref) bool) {
	var group sync.WaitGroup
	for _, t := range r.targets {
		if t.CatchUp && t.out() == nil && len(r.targets) > 1 && ctx.Err() == nil {
			group.Go(func() { r.catchUpOn(ctx, t, wanted) })
		}
	}
	group.Wait()
}

// catchUpOn makes up what one destination lacks.
func (r *run) catchUpOn(ctx context.Context, to *target, wanted func(catalog.Ref) bool) {
	lock, err := r.locks.TryLock(journal.ScopeConfig, copyLock(to.Destination))
	var held *journal.HeldError
	if errors.As(err, &held) {
		to.note("what it lacks is not made up tonight: " + held.Error())
		return
	}
	if err != nil {
		r.warnCatchUp(to, nil, err)
		return
	}
	defer func() {
		if err := lock.Unlock(); err != nil {
			r.warnCatchUp(to, nil, err)
		}
	}()
	began := r.Now()
	for _, from := range r.targets {
		if from == to || from.out() != nil {
			continue
		}
		if err := r.catchUpFrom(ctx, from, to, wanted, began.Add(catchUpTime)); err != nil {
			r.warnCatchUp(to, from, err)
			return
		}
	}
}

// catchUpFrom makes up what one destination lacks of another, until it is too late to begin with more. A failure that
// concerns one backup alone does not keep it from the rest; any other would befall the rest as well.
func (r *run) catchUpFrom(ctx context.Context, from, to *target, wanted func(catalog.Ref) bool, until time.Time) error {
	lacking, err := r.lackingOn(ctx, to, from.stock.Entries(wanted))
	if err != nil {
		return err
	}
	var first error
	failed, refused := 0, map[string]int{}
	for i, b := range lacking {
		var form *FormError
		if err := checkForm(to.Destination, b.Encryption); errors.As(err, &form) {
			refused[form.Reason]++
			continue
		}
		if r.Now().After(until) {
			to.note(fmt.Sprintf("yet to be made up from %s: %d; the next run goes on, or `voltar copy`",
				from.Name, len(lacking)-i))
			break
		}
		err := r.catchUpBackup(ctx, from, to, b)
		var alone aloneError
		if err != nil && !errors.As(err, &alone) {
			return err
		}
		if err != nil {
			first = cmp.Or(first, err)
			failed++
		}
	}
	for reason, count := range refused {
		to.note(fmt.Sprintf("not made up from %s: %d, which cannot be copied: %s",
			from.Name, count, reason))
	}
	if failed > 1 {
		return fmt.Errorf("%d backups failed, the first of them %w", failed, first)
	}
	return first
}

// lackingOn returns what a destination lacks of some backups and would keep, the newest first. Where nothing is ever
// pruned that is what is newer than the good ones that it had before tonight: one that is new does not get all of the
// past by itself.
func (r *run) lackingOn(ctx context.Context, to *target, backups []catalog.Entry) (lacking []catalog.Entry, err error) {
	steps, err := r.planCopy(ctx, backups, to)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if s.state == CopyMissing && (!keep.IsEmpty(to.Policy) || to.isBehind(s.backup, r.id)) {
			lacking = append(lacking, s.backup)
		}
	}
	return lacking, nil
}

// catchUpBackup copies one backup and enters it in the report.
func (r *run) catchUpBackup(ctx context.Context, from, to *target, b catalog.Entry) error {
	r.Log.Info("copying what a destination lacks", "run", r.id, "backup", b.ID.String(), "from", from.Name, "to", to.Name,
		"size", say.Size(b.SizeBytes))
	if err := r.copyBackup(ctx, from, to, b, func(int64) {}); err != nil {
		return fmt.Errorf("%s: %w", b.ID, err)
	}
	to.caughtUp = append(to.caughtUp, report.CaughtUp{Backup: b.ID.String(), From: from.Name, SizeBytes: b.SizeBytes})
	r.mend(from, to, b)
	return nil
}

// mend says in the result of a volume that tonight's backup stands after all on a destination on which it had failed.
func (r *run) mend(from, to *target, b catalog.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.report.Volumes {
		v := &r.report.Volumes[i]
		if v.Backup != b.ID.String() {
			continue
		}
		whole := true
		for j := range v.Copies {
			c := &v.Copies[j]
			if c.Destination == to.Name && c.Error != nil {
				v.Warnings = append(v.Warnings, report.Problem{
					Message: fmt.Sprintf("on %s it failed at first (%s), and was copied from %s", to.Name, c.Error.Message, from.Name),
					Hint:    c.Error.Hint,
				})
				c.Error, c.Path = nil, catalog.Place(to.Store, b.Path())
			}
			whole = whole && c.Error == nil
		}
		if whole && v.Status == report.VolumePartial {
			v.Status = report.VolumeOK
		}
	}
}

// warnCatchUp reports what could not be made up.
func (r *run) warnCatchUp(to, from *target, err error) {
	problem := report.ProblemOf(err)
	hint := "the next run tries again"
	if from != nil {
		hint += fmt.Sprintf(", or `voltar copy --all --from %s --to %s`", from.Name, to.Name)
	}
	if problem.Hint != "" {
		hint = problem.Hint + "\n" + hint
	}
	r.warn(fmt.Sprintf("what %s lacks could not all be made up: %s", to.Name, strings.TrimSpace(problem.Message)), hint)
}

// isBehind tells whether a backup is newer than all good ones that the destination had of the source before tonight.
func (t *target) isBehind(b catalog.Entry, tonight string) bool {
	for _, held := range t.stock.History(b.Identity) {
		if held.Run != tonight && held.Status == catalog.StatusComplete && !held.IsAhead(t.run.Now()) {
			return b.ID.Time.After(held.ID.Time)
		}
	}
	return b.Run == tonight
}
