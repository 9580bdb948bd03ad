// Package keep decides which backups stay on a destination and removes the others: by the policy of the destination
// (Retain, MakeRoom, Prune), because a person says so (Forget of what is no longer there, ForgetNamed of single backups), or
// because their volume is gone for long enough (Gone). What stays is held where the store locks (Renew).
// Package retention has the rules of a policy, and package catalog what a destination holds.
//
// Whatever asks for it, nothing goes on account of what is not there: before a policy removes anything, the files of the
// backups that it counts as good are looked after in the store.
package keep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
	"voltar/retention"
)

// retainTimeout bounds what the retention of one source may take on one destination.
const retainTimeout = 30 * time.Minute

// Destination is a store, the policy for it, and what it holds of this host.
type Destination struct {
	Name   string
	Store  store.Store
	Policy retention.Policy // the zero policy removes nothing
	Stock  *catalog.Stock
}

// Keeper works for one run. It is safe for concurrent use.
type Keeper struct {
	MachineID string // of this host
	Now       func() time.Time
	Locks     *journal.Locks // these two are for removing; where nothing is, they may be nil
	Owner     *owned.Owner
	OnSource  func(done, of int) // told how many sources Prune or Forget is through with; nil for nobody
}

// Verdict is what becomes of one backup, and why.
type Verdict struct {
	Entry  catalog.Entry
	Keep   bool
	Reason string

	with []catalog.Entry // those that are to go with it, as they were made at one moment
}

// Verdicts are those on all backups of one source, the newest first.
type Verdicts struct {
	List []Verdict
	// Lacking are backups that do not count, as their files are not what their manifests say. It is known where
	// something is to be removed.
	Lacking []catalog.Entry
}

// Condemned returns the verdicts on what goes, the oldest first.
func (v Verdicts) Condemned() []Verdict {
	condemned := slices.DeleteFunc(slices.Clone(v.List), func(v Verdict) bool { return v.Keep })
	slices.Reverse(condemned)
	return condemned
}

// Decide applies the policy of a destination to the backups of a source, and to others as if they stood there as well. An
// empty policy is an error that wraps retention.ErrEmptyPolicy. Where something is to go, backups that turn out to lack
// files are marked as damaged in the stock, for a dry run as well: it changes what is known, and nothing in the store.
func (k *Keeper) Decide(ctx context.Context, d Destination, source catalog.Identity, others ...catalog.Entry) (Verdicts, error) {
	verdicts, err := k.apply(d, source, others)
	if err != nil || len(verdicts.Condemned()) == 0 {
		return verdicts, err
	}
	lacking, err := d.Stock.MarkLacking(ctx, d.Store, source)
	if err != nil || len(lacking) == 0 {
		return verdicts, err
	}
	// The marks make another decision of it.
	verdicts, err = k.apply(d, source, others)
	verdicts.Lacking = lacking
	return verdicts, err
}

// apply decides on what is in the stock.
func (k *Keeper) apply(d Destination, source catalog.Identity, others []catalog.Entry) (Verdicts, error) {
	byID := map[string]catalog.Entry{}
	var backups []retention.Backup
	for _, e := range append(slices.Clone(d.Stock.History(source)), others...) {
		id := e.ID.String()
		byID[id] = e
		backups = append(backups, retention.Backup{ID: id, Time: e.ID.Time, Complete: e.IsGood(), Foreign: e.MachineID != k.MachineID})
	}
	decisions, err := retention.Apply(k.Now(), time.Local, backups, d.Policy)
	if err != nil {
		return Verdicts{}, err
	}
	var verdicts Verdicts
	for _, decision := range decisions {
		verdicts.List = append(verdicts.List, Verdict{Entry: byID[decision.Backup.ID], Keep: decision.Keep, Reason: decision.Reason})
	}
	return verdicts, nil
}

// Result is what retention did.
type Result struct {
	Removed  []report.Removed
	Held     []Held
	Warnings []report.Problem
}

// Held is a backup that the policy no longer keeps, and the store does.
type Held struct {
	ID    string
	Until time.Time // zero where the store does not say
}

// Retain removes what the policy does not keep of a source.
func (k *Keeper) Retain(ctx context.Context, d Destination, source catalog.Identity) (result Result, err error) {
	if IsEmpty(d.Policy) || ctx.Err() != nil {
		return result, nil
	}
	ctx, cancel := context.WithTimeout(ctx, retainTimeout)
	defer cancel()
	return k.removeByPolicy(ctx, d, source)
}

func (k *Keeper) removeByPolicy(ctx context.Context, d Destination, source catalog.Identity) (result Result, err error) {
	verdicts, err := k.Decide(ctx, d, source)
	if err != nil {
		return result, err
	}
	for _, e := range verdicts.Lacking {
		result.Warnings = append(result.Warnings, warnLacking(d, e))
	}
	outcomes, err := k.remove(ctx, d, verdicts.Condemned())
	for _, o := range outcomes {
		if o.removed != nil {
			result.Removed = append(result.Removed, *o.removed)
		}
		if o.held != nil {
			result.Held = append(result.Held, *o.held)
		}
	}
	return result, err
}

// warnLacking says that a backup is none any more.
func warnLacking(d Destination, e catalog.Entry) report.Problem {
	return report.Problem{
		Message: fmt.Sprintf("%s on %s is not whole: %s. No older backup goes on its account", e.ID, d.Name, e.Damage),
		Hint:    "who removed or changed its files? `voltar verify` says what is left of it",
	}
}

// MakeRoom looks whether so much fits on a destination. Where it does not, the backups of the source that the policy
// condemns without counting tonight's go before it instead of after; the last good one always stays.
func (k *Keeper) MakeRoom(ctx context.Context, d Destination, source catalog.Identity, sizeBytes int64) (result Result, err error) {
	usage, err := d.Store.Usage(ctx)
	if err != nil || usage.FreeBytes < 0 || usage.FreeBytes >= sizeBytes {
		return result, err
	}
	if !IsEmpty(d.Policy) {
		if result, err = k.removeByPolicy(ctx, d, source); err != nil {
			return result, err
		}
		if usage, err = d.Store.Usage(ctx); err != nil {
			return result, err
		}
	}
	if usage.FreeBytes < sizeBytes {
		return result, say.WithHint(&store.WholeError{Err: fmt.Errorf("%w: %s free, and by the last backup it needs %s", store.ErrNoSpace,
			say.Size(usage.FreeBytes), say.Size(sizeBytes))}, "make space, or keep fewer backups")
	}
	return result, nil
}

// outcome is what came of removing one backup.
type outcome struct {
	verdict Verdict
	removed *report.Removed // nil when it stays
	held    *Held           // why it stays, when that is as it should be
	partly  bool            // its manifest is gone, and other files stay
}

// remove removes backups under the destination's lock. What cannot be removed does not keep it from the rest; it is in the
// error as well, unless the store holds it, which is as it should be.
func (k *Keeper) remove(ctx context.Context, d Destination, condemned []Verdict) (outcomes []outcome, err error) {
	if len(condemned) == 0 {
		return nil, nil
	}
	lock, err := k.Locks.Lock(ctx, journal.ScopeDestination, d.Store.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	var all []error
	freed, err := Frees(ctx, d, condemned)
	if err != nil {
		all = append(all, err)
	}
	for i, v := range condemned {
		o := outcome{verdict: v}
		var err error
		if o.removed, o.held, err = k.removeOne(ctx, d, v); err != nil {
			all = append(all, fmt.Errorf("remove %s: %w", v.Entry.ID, err))
			o.partly = errors.Is(err, errPartly)
		}
		if o.removed != nil && freed != nil {
			o.removed.FreedBytes = freed[i]
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, errors.Join(all...)
}

// Frees tells what the removal of each of some backups of one source frees, one after the other, where that is less than their
// sizes: where backups share their place. Elsewhere, and where it cannot be told, it is nil.
func Frees(ctx context.Context, d Destination, condemned []Verdict) ([]int64, error) {
	var going, staying []catalog.Entry
	goes := map[string]bool{}
	for _, v := range condemned {
		going, goes[v.Entry.ID.String()] = append(going, v.Entry), true
	}
	if len(going) == 0 || going[0].Identity == "" { // of one that cannot be read nobody knows what else there is of its source
		return nil, nil
	}
	for _, e := range d.Stock.History(going[0].Identity) {
		if !goes[e.ID.String()] {
			staying = append(staying, e)
		}
	}
	freed, ok, err := catalog.FreedBytes(ctx, d.Store, going, staying)
	if !ok || err != nil {
		return nil, err
	}
	return freed, nil
}

// errPartly is wrapped by the error of a removal that left files of what is no backup any more.
var errPartly = errors.New("it is no backup any more, but some of its files stay")

// removeOne deletes one backup. It is in the journal before, so that a crash in between leaves nothing that nobody owns.
func (k *Keeper) removeOne(ctx context.Context, d Destination, v Verdict) (*report.Removed, *Held, error) {
	e := v.Entry
	settled, err := k.Owner.Folder(d.Store, e.Path())
	if err != nil {
		return nil, nil, err
	}
	freed, err := catalog.Delete(ctx, d.Store, e.Path())
	if errors.Is(err, store.ErrLocked) && freed == 0 {
		held := &Held{ID: e.ID.String()}
		var locked *store.LockedError
		if errors.As(err, &locked) {
			held.Until = locked.Until
		}
		return nil, held, settled(ctx)
	}
	if err != nil && freed > 0 { // the manifest goes first
		d.Stock.Remove(e)
		err = say.WithHint(fmt.Errorf("%w: %w", errPartly, err), "`voltar cleanup` removes the rest")
	}
	if err != nil {
		return nil, nil, err
	}
	d.Stock.Remove(e)
	return &report.Removed{Path: catalog.Place(d.Store, e.Path()), Reason: v.Reason, FreedBytes: freed}, nil, settled(ctx)
}

// IsEmpty tells whether a policy removes nothing because it says nothing.
func IsEmpty(p retention.Policy) bool { return errors.Is(p.Validate(), retention.ErrEmptyPolicy) }
