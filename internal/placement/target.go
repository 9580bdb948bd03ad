package placement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// Target is a destination during a run: whether it can be written to, and what it holds of this host. The stock is read
// once; what the run adds and removes is kept up to date in it.
type Target struct {
	Destination
	run   *Run
	err   error          // why nothing can be written to it
	stock *catalog.Stock // nil where it could not be read

	mu       sync.Mutex
	caughtUp []report.CaughtUp // made up from other destinations
	notes    []string
	held     map[string]time.Time // what the policy no longer keeps and the store does, and until when
}

// Targets are the destinations of a run, in the order of the configuration.
type Targets []*Target

// Open claims the destinations for a run, all at once: one that does not answer costs its patience, and several cost no more.
// A run goes on while one of them can be written to; otherwise the error says why none can.
func Open(ctx context.Context, run *Run, destinations []Destination) (Targets, error) {
	ts := Targets(catalog.AskAll(destinations, func(d Destination) *Target { return claim(ctx, run, d) }))
	var all []error
	for _, t := range ts {
		if t.err != nil {
			all = append(all, catalog.At(t.Name, t.err))
		}
	}
	switch {
	case len(ts) == 0:
		return ts, ErrNone
	case len(all) < len(ts):
		for _, err := range all { // which end nothing, and the report tells at the end
			say.Log(run.Log.Error, err, "run", run.ID)
		}
		return ts, nil
	}
	return ts, &unreachableError{errors.Join(all...), ts}
}

// unreachableError is that of a run none of whose destinations can be written to.
type unreachableError struct {
	error
	targets Targets
}

func (e *unreachableError) Unwrap() error { return e.error }

// Unreachable returns the names of the destinations where an error is only that none of them could be written to.
func Unreachable(err error) (names []string) {
	var unreachable *unreachableError
	if !errors.As(err, &unreachable) {
		return nil
	}
	for _, t := range unreachable.targets {
		names = append(names, t.Name)
	}
	return names
}

// claim claims the host's folder on a destination and reads what is there.
func claim(ctx context.Context, run *Run, d Destination) *Target {
	t := &Target{Destination: d, run: run}
	if t.err = catalog.Claim(ctx, d.Store, run.Host, run.Now()); t.err == nil {
		wanted := run.Wanted
		if catalog.Locks(d.Store) { // whose locks are renewed, of all that stays
			wanted = nil
		}
		t.stock, t.err = readStock(ctx, run, d, wanted)
	}
	return t
}

// Look reads what a destination holds of this host, without claiming it.
func Look(ctx context.Context, run *Run, d Destination) (*Target, error) {
	if err := catalog.CheckOwner(ctx, d.Store, run.Host); err != nil {
		return nil, err
	}
	stock, err := readStock(ctx, run, d, run.Wanted)
	return &Target{Destination: d, run: run, stock: stock}, err
}

func readStock(ctx context.Context, run *Run, d Destination, wanted func(catalog.Ref) bool) (*catalog.Stock, error) {
	return catalog.ReadStock(ctx, d.Store, run.Host.Name, catalog.Filter{
		Match: wanted, Damage: run.Damage, Now: run.Now(), Known: run.Known, RestoredAs: run.RestoredAs,
	})
}

// Kept is the destination as package keep has it.
func (t *Target) Kept() keep.Destination {
	return keep.Destination{Name: t.Name, Store: t.Store, Policy: t.Policy, Stock: t.stock}
}

// Err returns why nothing can be written to the destination: it could not be claimed, or was given up since. Nil while it
// can.
func (t *Target) Err() error {
	if patient, ok := store.As[interface{ Down() error }](t.Store); ok && patient.Down() != nil {
		return patient.Down()
	}
	return t.err
}

// lastComplete returns the newest backup of a source on the destination that lacked nothing when it was made. Of one that
// is being made nothing is there yet.
func (t *Target) lastComplete(source catalog.Identity) (_ catalog.Entry, ok bool) {
	for _, e := range t.stock.History(source) {
		if e.Status == catalog.StatusComplete && !e.IsAhead(t.run.Now()) {
			return e, true
		}
	}
	return catalog.Entry{}, false
}

// LastGood returns when the newest good backup of a source is of, by its name: a volume that was restored is another to LVM.
// It is the zero time when there is none, and nil when no destination could tell. A backup that lacks files is not good, where
// the destination can be asked, and the one that is named does not count.
func (ts Targets) LastGood(ctx context.Context, ref catalog.Ref, but string) *time.Time {
	var newest *time.Time
	for _, t := range ts {
		if t.err != nil {
			continue
		}
		if err := t.markLacking(ctx, ref); err != nil && ctx.Err() == nil { // a run that is stopped asks nobody any more
			t.run.Log.Warn("files of earlier backups are not looked at", "run", t.run.ID, "destination", t.Name, "err", err)
		}
		if newest == nil {
			newest = &time.Time{}
		}
		for _, e := range t.stock.Entries(ofRef(ref)) {
			if e.ID.String() != but && e.IsGood() && !e.IsAhead(t.run.Now()) && e.ID.Time.After(*newest) {
				newest = &e.ID.Time
			}
		}
	}
	return newest
}

// markLacking marks the backups of a source that lack files.
func (t *Target) markLacking(ctx context.Context, ref catalog.Ref) error {
	seen := map[catalog.Identity]bool{}
	for _, e := range t.stock.Entries(ofRef(ref)) {
		if seen[e.Identity] {
			continue
		}
		seen[e.Identity] = true
		if _, err := t.stock.MarkLacking(ctx, t.Store, e.Identity); err != nil {
			return err
		}
	}
	return nil
}

func ofRef(ref catalog.Ref) func(catalog.Ref) bool {
	return func(r catalog.Ref) bool { return r == ref }
}

// hold notes what the store holds, for one line in the report.
func (t *Target) hold(list []keep.Held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range list {
		if t.held == nil {
			t.held = map[string]time.Time{}
		}
		t.held[h.ID] = h.Until
	}
}

// heldNote says how many backups stay longer than the policy keeps them.
func (t *Target) heldNote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.held) == 0 {
		return ""
	}
	var last time.Time
	for _, until := range t.held {
		if until.After(last) {
			last = until
		}
	}
	text := fmt.Sprintf("%d backups that the policy no longer keeps are kept by object lock", len(t.held))
	if len(t.held) == 1 {
		text = "1 backup that the policy no longer keeps is kept by object lock"
	}
	if !last.IsZero() {
		text += ", the last until " + last.UTC().Format(time.DateOnly)
	}
	return text
}

// unfinishedNote is on a destination that was given up while something was written to it.
const unfinishedNote = "what was begun there and has no manifest is removed by the next run that it answers to"

// note says something of the destination in the report, once.
func (t *Target) note(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// Describe is the destination's part of the report.
func (t *Target) Describe(ctx context.Context) report.Destination {
	d := report.Destination{Name: t.Name, Where: t.Store.String(), TotalBytes: -1, FreeBytes: -1}
	if err := t.Err(); err != nil {
		d.Error = explain(t, err)
	}
	if t.err != nil {
		d.BackupBytes = -1
		return d
	}
	d.BackupBytes = t.stock.SizeBytes()
	if t.stock.IsPart {
		d.BackupBytes = -1
	}
	for _, u := range t.stock.Unfinished {
		d.Notes = append(d.Notes, fmt.Sprintf("%s is unfinished: no manifest; it is no backup, and no dead run of this host owns it", u.Path))
	}
	d.Notes = append(d.Notes, t.oddNotes()...)
	for _, u := range t.stock.Unreadable {
		d.Notes = append(d.Notes, fmt.Sprintf("%s cannot be read and is kept: %v", u.Path, u.Err))
	}
	if noter, ok := store.As[store.Noter](t.Store); ok {
		d.Notes = append(d.Notes, noter.Notes()...)
	}
	d.CaughtUp, d.Notes = t.caughtUp, append(d.Notes, t.notes...)
	if note := t.heldNote(); note != "" {
		d.Notes = append(d.Notes, note)
	}
	usage, err := t.Store.Usage(ctx)
	var whole *store.WholeError
	switch {
	case errors.Is(err, store.ErrDown):
		return d // its error says so
	case errors.As(err, &whole): // what was written there may be nowhere
		d.Error = explain(t, err)
		return d
	case err != nil:
		d.Notes = append(d.Notes, fmt.Sprintf("how much space there is cannot be told: %v", err))
		return d
	}
	d.TotalBytes, d.FreeBytes = usage.TotalBytes, usage.FreeBytes
	return d
}

// oddNotes tell of backups that count for nothing.
func (t *Target) oddNotes() (notes []string) {
	var ahead, foreign []string
	for _, e := range t.stock.Entries(nil) {
		if e.IsAhead(t.run.Now()) {
			ahead = append(ahead, e.ID.String())
		}
		if e.MachineID != t.run.Host.MachineID {
			foreign = append(foreign, e.ID.String())
		}
	}
	if len(ahead) > 0 {
		notes = append(notes, fmt.Sprintf("dated ahead of this host's clock, and counted for nothing: %s; is the clock right? "+
			"Remove the folder of what is of no use", someOf(ahead)))
	}
	if len(foreign) > 0 {
		notes = append(notes, fmt.Sprintf("made by another machine under this host's name: %s; they take no place of this machine's backups, "+
			"and go as those come", someOf(foreign)))
	}
	return notes
}

// someOf writes a list for a report, and not more of it than is read there.
func someOf(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
