// Package drill tries backups: it restores one to a scratch file that nobody sees, checks its filesystems, compares everything in
// them with the backup, and gives the file up. What a drill finds is kept in the history, as what a verification finds is.
package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/history"
	"voltar/internal/restore"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// Command is that of drills in the history.
const Command = history.DrillCommand

// Options of a Driller.
type Options struct {
	Folder      string        // for scratch files; nobody else can enter it
	MaxBytes    int64         // of data that one drill writes; 0 sets no limit
	MaxDuration time.Duration // of one drill; 0 sets no limit
	Decrypt     browse.DecryptFunc
	// MarkDamaged remembers of a backup, which has the place, that its files are not what was stored.
	MarkDamaged func(place, what string) error
	Now         func() time.Time
}

// Driller tries backups.
type Driller struct {
	Engine *restore.Engine
	Options
}

// Candidate is a backup that can be tried.
type Candidate struct {
	catalog.Entry
	On    catalog.Destination
	Tried time.Time // when a backup of the volume was last tried; zero for never
}

// Candidates are the newest good backup of each volume, that which has waited longest for a drill first: those of volumes that none was
// ever tried of, then by the time of the last one, good or not. Of a backup that several destinations have, the one that stands
// later among them is tried: it is the one that is read more seldom.
func Candidates(on []catalog.Destination, found []catalog.Listed, runs []report.Run, now time.Time) []Candidate {
	tried := map[string]time.Time{}
	for _, run := range history.OfCommand(runs, Command) {
		for _, v := range run.Volumes {
			if v.Ended.After(tried[v.Name]) {
				tried[v.Name] = v.Ended
			}
		}
	}
	newest := map[catalog.Ref]Candidate{}
	for i, l := range found {
		if l.Err != nil {
			continue
		}
		for _, e := range l.Backups {
			ref := e.ID.Ref
			if ref.Kind == catalog.SourceVolume && e.IsGood() && !clock.IsAhead(e.ID.Time, now) && !e.ID.Time.Before(newest[ref].ID.Time) {
				newest[ref] = Candidate{e, on[i], tried[ref.String()]}
			}
		}
	}
	var list []Candidate
	for _, c := range newest {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Candidate) int {
		return cmp.Or(a.Tried.Compare(b.Tried), cmp.Compare(a.ID.Ref.String(), b.ID.Ref.String()))
	})
	return list
}

// Try tries a backup and describes how that went. The error is of one that was not tried: restore.ErrTooLarge where it does not fit,
// restore.ErrHost where something else than the backup was in the way, or the end of ctx. Anything else that goes wrong is in the result.
func (d *Driller) Try(ctx context.Context, b catalog.Backup, on catalog.Destination) (report.Volume, error) {
	parent := ctx
	started := d.Now().UTC()
	if d.MaxDuration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.MaxDuration,
			fmt.Errorf("it took longer than %s, which max_duration allows", report.FormatDuration(d.MaxDuration)))
		defer cancel()
	}
	request := restore.Request{
		Backup: b, Store: on.Store, Destination: on.Name, Decrypt: d.Decrypt,
		Target: restore.Target{Kind: restore.ToScratch, Path: d.Folder, MaxBytes: d.MaxBytes},
	}
	result, err := d.restore(ctx, request)
	if err := notTried(parent, err); err != nil {
		return report.Volume{}, err
	}
	if result == nil {
		result = &restore.Result{Status: restore.StatusUntouched, Checked: []string{}}
	}
	err = errors.Join(err, NoteDamage(request, err, d.MarkDamaged))
	result.Started, result.Ended = started, d.Now().UTC()
	return Record(request, on, result, err), nil
}

// notTried is the error of a drill that says nothing of the backup, or nil.
func notTried(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, restore.ErrSums) || errors.Is(err, restore.ErrDiffers):
		return nil
	case ctx.Err() != nil: // what it came to names a symptom
		return context.Cause(ctx)
	case errors.Is(err, restore.ErrTooLarge) || errors.Is(err, restore.ErrHost):
		return err
	case errors.Is(err, store.ErrDown) || errors.Is(err, store.ErrUnreachable):
		return fmt.Errorf("%w: %w", restore.ErrHost, err)
	}
	return nil
}

// restore restores a backup to a scratch file and compares it.
func (d *Driller) restore(ctx context.Context, request restore.Request) (*restore.Result, error) {
	plan, err := d.Engine.Plan(ctx, request)
	if err != nil {
		return nil, err
	}
	result, err := d.Engine.Run(ctx, plan)
	return result, errors.Join(err, plan.Close())
}

// NoteDamage remembers that a backup that was brought back, or was to be, is damaged, if that is what went wrong.
func NoteDamage(request restore.Request, err error, mark func(place, what string) error) error {
	if !errors.Is(err, restore.ErrSums) {
		return nil
	}
	what, _, _ := strings.Cut(err.Error(), "\n")
	return mark(catalog.Place(request.Store, request.Backup.Path()), what)
}

// Record describes for the history how a backup was brought back, by a drill or for use. err is what went wrong.
func Record(request restore.Request, on catalog.Destination, result *restore.Result, err error) report.Volume {
	b, source := request.Backup, request.Backup.Manifest.Source
	v := report.Volume{
		Name: b.ID.Ref.String(), Backup: b.ID.String(), Started: result.Started, Ended: result.Ended, SizeBytes: source.SizeBytes,
		StoredBytes: b.SizeBytes, PreviousStoredBytes: b.SizeBytes,
		Restore: &report.Restore{
			To: string(request.Target.Kind), Seconds: result.Seconds, StoredBytes: b.SizeBytes, WrittenBytes: result.Bytes,
			Checked: result.Checked, Part: !request.IsWhole(),
		},
	}
	if g := source.Guest; g != nil {
		v.Guest = &report.Guest{ID: g.ID, Name: g.Name, Kind: g.Kind, Disk: g.Disk}
	}
	for _, x := range b.Manifest.Extents {
		v.Entries += x.Entries
	}
	copied := report.Copy{Destination: on.Name, Path: catalog.Place(on.Store, b.Path())}
	switch {
	case errors.Is(err, restore.ErrSums) || errors.Is(err, restore.ErrDiffers):
		v.Status, copied.Error = report.VolumeDamaged, report.ProblemOf(err)
		copied.Error.Hint = fmt.Sprintf("`voltar verify --full %s` names what is lost; `voltar list %s` shows the older backups", b.ID, b.ID.Ref)
	case result.Status == restore.StatusLosses:
		v.Status, copied.Error = report.VolumeFailed, &report.Problem{
			Message: fmt.Sprintf("it was restored with losses: %s", say.Listed(result.Losses, shownLosses)),
			Hint:    fmt.Sprintf("`voltar list %s` shows the other backups", b.ID.Ref),
		}
	case err != nil && (result.Status != restore.StatusRestored || request.Target.Kind == restore.ToScratch):
		v.Status, copied.Error = report.VolumeFailed, report.ProblemOf(err)
	default:
		v.Status = report.VolumeOK
		if request.IsWhole() {
			v.LastRestored = v.Ended
		}
		if err != nil { // of what came after the restore
			v.Warnings = report.ProblemsOf(err)
		}
	}
	v.Copies = []report.Copy{copied}
	return v
}

// shownLosses is how much of what was lost a record names.
const shownLosses = 3
