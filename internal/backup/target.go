package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/journal"
	"voltar/internal/store"
	"voltar/report"
	"voltar/retention"
)

// target is a destination during a run: whether it can be written to, and what it holds of this host. The listing is
// read once; what the run adds and removes is kept up to date in it.
type target struct {
	Destination
	run *run
	err error // why nothing can be written to it

	mu         sync.Mutex
	backups    []catalog.Backup
	unfinished []catalog.Unfinished
	unreadable []catalog.Unreadable
	caughtUp   []report.CaughtUp // made up from other destinations
	notes      []string
}

// openTarget claims the host's folder on a destination and reads what is there.
func (r *run) openTarget(ctx context.Context, d Destination) *target {
	t := &target{Destination: d, run: r}
	if t.err = catalog.Claim(ctx, d.Store, r.us(), r.Now()); t.err != nil {
		return t
	}
	listing, err := catalog.List(ctx, d.Store, r.opts.Host, catalog.Filter{Damage: r.opts.Damage, Now: r.Now()})
	if err != nil {
		t.err = err
		return t
	}
	t.backups, t.unfinished, t.unreadable = listing.Backups, listing.Unfinished, listing.Unreadable
	return t
}

// out returns why nothing can be written to the destination: it could not be claimed, or was given up since. Nil while it
// can.
func (t *target) out() error {
	if patient, ok := store.As[interface{ Down() error }](t.Store); ok && patient.Down() != nil {
		return patient.Down()
	}
	return t.err
}

// unfinishedNote is on a destination that was given up while something was written to it.
const unfinishedNote = "what was begun there and has no manifest is removed by the next run that it answers to"

// note says something of the destination in the report, once.
func (t *target) note(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

func (t *target) add(b catalog.Backup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backups = append(t.backups, b)
}

func (t *target) forget(id catalog.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backups = slices.DeleteFunc(t.backups, func(b catalog.Backup) bool { return b.ID == id })
}

// histories returns the backups by what they are of.
func (t *target) histories() []catalog.History {
	t.mu.Lock()
	defer t.mu.Unlock()
	return catalog.Histories(t.backups)
}

// history returns the backups of one source, the newest first.
func (t *target) history(identity catalog.Identity) []catalog.Backup {
	for _, h := range t.histories() {
		if h.Identity == identity {
			return h.Backups
		}
	}
	return nil
}

// describe is the destination's part of the report.
func (t *target) describe(ctx context.Context) report.Destination {
	d := report.Destination{Name: t.Name, Where: t.Store.String(), TotalBytes: -1, FreeBytes: -1}
	if err := t.out(); err != nil {
		d.Error = explainCopy(err)
	}
	if t.err != nil {
		d.BackupBytes = -1
		return d
	}
	for _, b := range t.backups {
		d.BackupBytes += b.SizeBytes
	}
	for _, u := range t.unfinished {
		d.Notes = append(d.Notes, fmt.Sprintf("%s is unfinished: no manifest; it is no backup, and no dead run of this host owns it", u.Path))
	}
	if ahead := t.ahead(); len(ahead) > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("dated ahead of this host's clock, and counted for nothing: %s; is the clock right? "+
			"Remove the folder of what is of no use", someOf(ahead)))
	}
	for _, u := range t.unreadable {
		d.Notes = append(d.Notes, fmt.Sprintf("%s cannot be read and is kept: %v", u.Path, u.Err))
	}
	if noter, ok := store.As[store.Noter](t.Store); ok {
		d.Notes = append(d.Notes, noter.Notes()...)
	}
	d.CaughtUp, d.Notes = t.caughtUp, append(d.Notes, t.notes...)
	usage, err := t.Store.Usage(ctx)
	if errors.Is(err, store.ErrDown) {
		return d // its error says so
	}
	if err != nil {
		d.Notes = append(d.Notes, fmt.Sprintf("how much room there is cannot be told: %v", err))
		return d
	}
	d.TotalBytes, d.FreeBytes = usage.TotalBytes, usage.FreeBytes
	return d
}

// ahead returns the names of the backups that are dated ahead.
func (t *target) ahead() (names []string) {
	for _, b := range t.backups {
		if clock.IsAhead(b.ID.Time, t.run.Now()) {
			names = append(names, b.ID.String())
		}
	}
	return names
}

// someOf writes a list for a report, and not more of it than is read there.
func someOf(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// remove deletes one backup, under the destination's lock and in the journal, so that a crash in between leaves
// nothing that nobody owns.
func (t *target) remove(ctx context.Context, b catalog.Backup, reason string) (report.Removed, error) {
	record, err := t.run.journal.Intend(journal.Thing{Kind: journal.KindBackup, Destination: t.Store.String(), Path: b.Path()})
	if err != nil {
		return report.Removed{}, err
	}
	freed, err := catalog.Delete(ctx, t.Store, b.Path())
	if err != nil {
		return report.Removed{}, err
	}
	t.forget(b.ID)
	removed := report.Removed{Path: catalog.Place(t.Store, b.Path()), Reason: reason, FreedBytes: freed}
	return removed, t.run.journal.Gone(record)
}

// prune removes what decisions condemn, and returns what went.
func (t *target) prune(ctx context.Context, backups []catalog.Backup,
	decisions []retention.Decision) (removed []report.Removed, err error) {
	byID := map[string]catalog.Backup{}
	for _, b := range backups {
		byID[b.ID.String()] = b
	}
	if !slices.ContainsFunc(decisions, func(d retention.Decision) bool { return !d.Keep }) {
		return nil, nil
	}
	lock, err := t.run.locks.Lock(ctx, journal.ScopeDestination, t.Store.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	var all []error
	for _, d := range decisions {
		if d.Keep {
			continue
		}
		gone, err := t.remove(ctx, byID[d.Backup.ID], d.Reason)
		switch {
		case err == nil:
			removed = append(removed, gone)
		case errors.Is(err, store.ErrLocked):
			all = append(all, fmt.Errorf("%s stays, as its store holds it: %w", d.Backup.ID, err))
		default:
			all = append(all, fmt.Errorf("remove %s: %w", d.Backup.ID, err))
		}
	}
	return removed, errors.Join(all...)
}

// forRetention is what a decision needs to know of backups.
func forRetention(backups []catalog.Backup) []retention.Backup {
	var list []retention.Backup
	for _, b := range backups {
		list = append(list, retention.Backup{
			ID: b.ID.String(), Time: b.ID.Time, Complete: b.IsGood(),
		})
	}
	return list
}

// isZero tells whether a policy prunes nothing because it says nothing.
func isZero(p retention.Policy) bool { return errors.Is(p.Validate(), retention.ErrEmptyPolicy) }

// pruneTimeout bounds what one volume's retention may take on one destination.
const pruneTimeout = 30 * time.Minute
