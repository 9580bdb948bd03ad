package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/report"
)

// account is what becomes of one source of a run: its line of the report, and what it holds and has to let go of at its end.
// Every stage writes to it; what a stage hands on is a value of its own.
type account struct {
	run    *run
	source catalog.Source // as it was before anything was done
	scope  *cancelScope
	placed *placement.Backup // on every destination

	held     owned.Stack         // lock, activation, snapshot, output
	remains  []string            // what it could not let go of
	extents  []*extent.Extent    // one that is all of a volume, until that was surveyed
	device   string              // of its snapshot, once it stands: from then on it is not skipped any more
	previous *placement.Previous // that it carries over from; nil for none
	failure  error
	line     report.Volume
}

func (r *run) newAccount(ctx context.Context, source catalog.Source) *account {
	name, lv := source.Ref().String(), ""
	if source.Kind == catalog.SourceVolume {
		lv = source.Name
	}
	a := &account{
		run: r, source: source, scope: newScope(ctx, name, lv, source.Guest), placed: r.targets.For(r.placing, source),
		extents: extent.Whole(source),
		line:    report.Volume{Name: name, Guest: guestLine(source.Guest), SizeBytes: source.SizeBytes, PreviousStoredBytes: -1},
	}
	r.roster.add(a)
	return a
}

// guestLine is whose disk a volume is, as the report has it.
func guestLine(g *catalog.Guest) *report.Guest {
	if g == nil {
		return nil
	}
	return &report.Guest{ID: g.ID, Name: g.Name, Kind: g.Kind, Disk: g.Disk}
}

func (a *account) name() string { return a.line.Name }

func (a *account) warn(message, hint string) {
	a.run.Log.Warn(message, "run", a.run.id, "volume", a.name())
	a.line.Warnings = append(a.line.Warnings, report.Problem{Message: message, Hint: hint})
}

// warnOf warns of an error, with its own hints.
func (a *account) warnOf(err error) { a.warnAll([]report.Problem{*report.ProblemOf(err)}) }

func (a *account) warnAll(problems []report.Problem) {
	for _, p := range problems {
		a.warn(p.Message, p.Hint)
	}
}

// fail records why the source failed; the first cause counts.
func (a *account) fail(err error) {
	if errors.Is(err, errCancelled) {
		err = errCancelled // whatever it ended
	}
	if over := a.scope.overtime(); err != nil && over != nil {
		err = over
	}
	if err != nil && a.failure == nil {
		a.failure = err
	}
}

// begin begins what is done for the source alone. It fails where the run was stopped before.
func (a *account) begin(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("the run was stopped before its turn: %w", context.Cause(ctx))
	}
	if a.run.Progress != nil {
		a.run.Progress.VolumeStarted(a.name(), a.line.SizeBytes)
	}
	return nil
}

// lockPatience is how long a source waits for whoever holds it: a copy looks in for a moment only.
const lockPatience = time.Second

// prepare keeps other runs from the source and makes room for its backup, before there is anything that would wait for that.
func (a *account) prepare(ctx context.Context) error {
	waiting, cancel := context.WithTimeoutCause(ctx, lockPatience, errors.New("it was waited for"))
	defer cancel()
	lock, err := a.run.locks.Lock(waiting, journal.ScopeVolume, a.name())
	if err != nil {
		return err
	}
	a.held.Push(func(context.Context) error { return lock.Unlock() })
	problems, err := a.placed.Prepare(ctx)
	a.line.PreviousStoredBytes = a.placed.LastBytes()
	a.warnAll(problems)
	return err
}

// files begins the backup of what was the source's at a time, and says how its files are made. They close with the account.
func (a *account) files(ctx context.Context, at time.Time, level archive.Level, exclude *archive.Matcher) (*extent.Files, error) {
	out, err := a.placed.Begin(ctx, at)
	a.held.Push(out.Close)
	made := archive.DayOf(out.ID.Time)
	a.previous = a.placed.Previous(made, placement.DaysOf(a.run.opts.Fresh))
	return &extent.Files{
		Out: out, Names: catalog.NamesOf(a.source.Ref(), false), Level: level, Exclude: exclude, Pool: a.run.Pool,
		OnProgress: a.progress(), TempDir: a.run.StateDir, Made: made, Previous: a.previous,
	}, err
}

// progress passes on how much was read since the last call.
func (a *account) progress() func(archive.Progress) {
	if a.run.Progress == nil {
		return func(archive.Progress) {}
	}
	var before int64
	return func(p archive.Progress) {
		read := p.ContentBytes - before
		if read < 0 {
			read = p.ContentBytes // the next archive has begun
		}
		before = p.ContentBytes
		a.run.Progress.VolumeRead(a.name(), read)
	}
}

// finish hands in the result.
func (a *account) finish(ctx context.Context) {
	l := &a.line
	l.Ended = a.run.Now().UTC()
	l.Status = a.status(ctx)
	if l.Status != report.VolumeOK && l.Status != report.VolumePartial {
		l.LastGood = a.run.targets.LastGood(ctx, a.source.Ref(), l.Backup)
	}
	if a.failure != nil {
		l.Error = a.explainFailure()
		l.Entries, l.ReadBytes, l.DamagedCount, l.DamagedFiles = 0, 0, 0, nil
		extent.Describe(l, extent.Failed(a.extents, l.Error.Message))
	}
	a.run.hand(*l)
}

// explainFailure says why the source failed, and of one that a person stopped how it is backed up after all.
func (a *account) explainFailure() *report.Problem {
	problem := report.ProblemOf(a.failure)
	if errors.Is(a.failure, errCancelled) {
		problem.Hint = "`voltar run " + a.name() + "` backs it up"
	}
	if errors.Is(a.failure, placement.ErrNone) {
		for _, c := range a.line.Copies {
			problem.Destinations = append(problem.Destinations, c.Destination)
		}
	}
	return problem
}

// status sums up what became of the source.
func (a *account) status(ctx context.Context) report.VolumeStatus {
	switch {
	case a.failure != nil && ctx.Err() != nil && a.device == "":
		return report.VolumeSkipped
	case a.failure != nil:
		return report.VolumeFailed
	case a.line.DamagedCount > 0:
		return report.VolumeDamaged
	}
	for _, c := range a.line.Copies {
		if c.Error != nil {
			return report.VolumePartial
		}
	}
	return report.VolumeOK
}
