// Package backup is a run: it chooses volumes, backs each up, applies retention and says what became of everything.
//
// The way of one volume is six stages, each in a file, each handing on a value of its own:
//
//	admit.go     place in the queue, lock, room, hooks             admitted
//	snapshot.go  the guest held still, lvcreate, the guest goes on  snapshotted
//	survey.go    what lies on the snapshot, which watch.go watches  surveyed
//	archive.go   every extent to every destination                 archived
//	publish.go   the manifest: from here on there is a backup
//	retain.go    everything is let go of, and the policy applied
//
// last.go has the snapshot that is left until the next night instead of being removed, where a thin volume wants that.
//
// account.go has what each of them writes to: the line of the report, and what is to be let go of.
// unit.go leads volumes that are snapshotted at one moment along it. Directories, dumps and streams (sources.go, dumps.go) come
// in at archived, and snapshots for other tools (kept.go) leave at snapshotted.
//
// Around it: run.go (from lock to report), plan.go (which volumes, and why not the rest), cancel.go (who ends one of them), and
// the packages extent (what lies on a volume, and how it gets into a backup), placement (the destinations), quiet (what is held
// still around snapshots) and owned (what a run has on the host, and what dead runs left of theirs).
package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/guests"
	"voltar/internal/journal"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/probe"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/report"
)

var (
	// ErrUsage is wrapped by the error of a request that cannot be understood: a volume that is not there, a pattern.
	ErrUsage = errors.New("cannot do that")
	// ErrNothing is returned by a run for which no volume was selected.
	ErrNothing = errors.New("no volume is selected")
)

// nothingHint is what to do when nothing is selected.
const nothingHint = "`voltar volumes` says which rule leaves each out"

// Options of an Engine.
type Options struct {
	Host       catalog.Host // as manifests and markers name it
	Version    string       // of the program, for manifests and the report
	ConfigPath string       // for the report and the lock; "" without a file
	RunDir     string

	Limits
	Select   Select
	Snapshot SnapshotOptions
	Settings func(lvm.Volume) Settings // what the configuration says of one volume
	// FindGuests finds whose each volume is; nil looks for nobody.
	FindGuests   func(context.Context, lvm.Inventory) (guests.Found, []lvm.Trouble)
	Destinations []placement.Destination
	Groups       []Group
	GuestUnits   GuestUnits
	Hooks        []quiesce.Hook // of the run as a whole
	Sources      Sources

	VanishedKeep time.Duration                           // after its last backup, those of a volume that is gone end; 0 keeps them
	Damage       map[string]string                       // what was found wrong with backups since, as in catalog.Filter
	Known        *catalog.Known                          // what manifests said that were read before, as in catalog.Filter
	Written      *catalog.Written                        // as placement.Run has it
	MarkDamaged  func(place, what string) error          // as placement.Run has it
	FoundSound   func(place string, replaced bool) error // likewise
	// Fresh is how old compressed data may be that is carried over from the previous backup, in whole days; less than one carries
	// nothing over.
	Fresh time.Duration
}

// Limits bound a run.
type Limits struct {
	Parallel int // volumes at a time
	// MaxDuration bounds one volume or other source from its turn on, and MaxRunDuration all of a run; 0 sets no bound.
	MaxDuration, MaxRunDuration time.Duration
}

// Select says which volumes a run without arguments takes. Patterns match as Match says.
type Select struct {
	VolumeGroups, Include, Exclude []string
	IncludeTags, ExcludeTags       []string
	ActivateInactive               bool
	SharedSingleWriter             bool // take shared and foreign VGs all the same
	Match                          func(pattern string, v lvm.Volume) bool
	MatchGroup                     func(pattern, vg string) bool
}

// SnapshotOptions bound the room of snapshots. Percentages are of 100.
type SnapshotOptions struct {
	KeepFreeBytes       int64
	ExtendAtPercent     float64
	ExtendByPercent     float64
	PollInterval        time.Duration
	ThinDataPercent     float64
	ThinMetadataPercent float64
}

// Settings are what one volume is backed up with.
type Settings struct {
	As           extent.As
	Exclude      []string
	Level        archive.Level
	SnapshotSize lvm.SizePolicy
	KeepLast     bool   // of a thin volume: its snapshot is set aside until the next night
	Group        string // consistency group; "" for none
	Freeze       []quiesce.Freeze
	Hooks        []quiesce.Hook
	Dumps        []Dump // kept beside the volume
}

// Deps are the long-lived objects that a run works with. All are safe for concurrent use.
type Deps struct {
	*owned.Host
	Prober   *probe.Prober
	Mounts   *mount.Mounter
	Quieter  *quiesce.Quieter
	Pool     *archive.Pool
	Progress Progress
	OnSource func(done, of int) // how many sources of a destination Prune or Forget is through with; nil for nobody
	Now      func() time.Time
}

// Progress is told how a run goes on. Its methods may be called from many goroutines at once.
type Progress interface {
	RunStarted(id string)
	VolumeStarted(name string, sizeBytes int64)
	VolumeRead(name string, bytes int64) // data read since the last call
	VolumeEnded(result report.Volume)
}

// Engine runs backups.
type Engine struct {
	Deps
	opts  Options
	space *lvm.Allocator
}

// New returns an Engine.
func New(deps Deps, opts Options) *Engine {
	keepFree := func(lvm.VG) int64 { return opts.Snapshot.KeepFreeBytes }
	return &Engine{Deps: deps, opts: opts, space: deps.LVM.NewAllocator(keepFree)}
}

// Run backs up the volumes that the patterns name, or those that the configuration selects. The report is complete
// even where the error is not nil; the error then says why the run as a whole came to nothing. Without a report the run
// did not begin: another run holds the lock.
func (e *Engine) Run(ctx context.Context, patterns []string) (_ *report.Run, err error) {
	r, err := e.begin(ctx, "run")
	var held *journal.HeldError
	switch {
	case errors.As(err, &held):
		return nil, say.WithHint(err, "wait until it has ended; `journalctl -fu voltar` shows a run of the timer, and "+
			"`voltar cancel VOLUME` takes one volume out of it")
	case err != nil:
		// A night without a backup and without a word of it would be the worst.
		none := e.opts.newReport("run", e.Now())
		none.Named = patterns
		return (&record{log: e.Log, report: none}).finish(e.Now(), nil, err), err
	}
	r.report.Named = patterns
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	defer r.listen()()
	r.recover(ctx)
	err = r.work(ctx, patterns)
	return r.finish(ctx, err), err
}

// work does what a run is for.
func (r *run) work(ctx context.Context, patterns []string) error {
	chosen, err := r.choose(ctx, patterns)
	if err != nil {
		return err
	}
	if chosen.noLVM {
		r.warn("there is no LVM on this host: only directories and dumps are backed up", "install lvm2 if there should be volumes")
	}
	r.note(chosen.plan)
	if len(patterns) == 0 {
		r.noteMissingGroups(chosen.plan.VGs)
	}
	r.report.PlannedVolumes += len(chosen.sources)
	if r.report.PlannedVolumes == 0 {
		return say.WithHint(ErrNothing, nothingHint)
	}
	whole := len(patterns) == 0
	if !whole {
		r.placing.Wanted = chosen.refs()
	}
	r.placing.RestoredAs = restoredAs(chosen.plan.Inventory)
	if err := r.open(ctx); err != nil {
		return err
	}
	if chosen.looked {
		r.rememberPlaces(ctx, chosen.plan.Inventory)
	}
	defer r.endHooks(ctx)
	defer r.renewLocks(ctx) // whatever came of the backups, and while what the first hooks set up stands
	if err := r.runHooks(ctx, quiesce.PhaseBefore); err != nil {
		return err
	}
	if r.definitions, err = readDefinitions(r.StateDir); err != nil {
		r.warnOf(fmt.Errorf("tell whether definitions of guests have changed: %w", err))
	}
	r.backUpAll(ctx, chosen)
	if err := r.definitions.save(); err != nil {
		r.warnOf(fmt.Errorf("remember the definitions of guests: %w", err))
	}
	r.catchUp(ctx, patterns)
	if chosen.looked && whole { // which alone knows all backups
		r.dropOrphans(ctx, chosen.plan)
		r.retainGone(ctx, chosen.plan)
	}
	return nil
}
