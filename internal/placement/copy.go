package placement

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
)

// Backups are copied from one destination to another as they are: every file byte for byte, with the sums of the
// manifest looked after on the way, then the manifest through the gate that a run's own goes through. What is stored in
// the open is encrypted on its way to a destination that wants it so.

// CopyOptions say what Copy makes up, and how.
type CopyOptions struct {
	// Pick chooses among what the source holds; nil takes all.
	Pick     func(*catalog.Stock) ([]catalog.Entry, error)
	DryRun   bool
	Progress Progress // nil tells nobody
}

// Progress is told how copies go on.
type Progress interface {
	VolumeStarted(name string, sizeBytes int64)
	VolumeRead(name string, bytes int64) // since the last call
	VolumeEnded(result report.Volume)
}

// CopyState is what became of one backup.
type CopyState string

// States of a copy.
const (
	CopyDone    CopyState = "copied"
	CopyMissing CopyState = "missing" // of a dry run: it would be copied
	CopyThere   CopyState = "there"   // before
	CopyDamaged CopyState = "damaged" // there; of a dry run: it would be repaired
	CopyMended  CopyState = "repaired"
	CopyLeft    CopyState = "left" // because retention of the destination would remove it, with the reason
	CopyFailed  CopyState = "failed"
)

// CopyLine is one backup and what became of it.
type CopyLine struct {
	Backup    string `json:"backup"`
	From      string `json:"from"`
	To        string `json:"to"`
	SizeBytes int64  `json:"size"`
	// SharedBytes is what of a copy lies where an earlier backup has it, and takes no room of its own.
	SharedBytes int64     `json:"shared"`
	State       CopyState `json:"state"`
	Reason      string    `json:"reason,omitempty"`
	Hint        string    `json:"hint,omitempty"` // of one that failed: what to do next
}

// Copy makes up what one destination lacks of another, the newest backups first, as far as the retention of the one that
// lacks it keeps it. It goes on while a run works; only one copies to a destination at a time, and has CopyLock. The error is
// why nothing could be done; what failed by itself is in its line.
func Copy(ctx context.Context, run *Run, from, to Destination, opts CopyOptions) (lines []CopyLine, err error) {
	source, target, err := openCopy(ctx, run, from, to, opts.DryRun)
	if err != nil {
		return nil, err
	}
	picked := source.stock.Entries(nil)
	if opts.Pick != nil {
		if picked, err = opts.Pick(source.stock); err != nil {
			return nil, err
		}
	}
	steps, err := target.planCopy(ctx, picked)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		lines = append(lines, doStep(ctx, source, target, s, opts))
	}
	return append(lines, unreadableLines(source, target, opts)...), nil
}

// doStep copies one backup where that is to be done, and says what became of it.
func doStep(ctx context.Context, source, target *Target, s copyStep, opts CopyOptions) CopyLine {
	line := CopyLine{
		Backup: s.backup.ID.String(), From: source.Name, To: target.Name, SizeBytes: s.backup.SizeBytes, State: s.state, Reason: s.reason,
	}
	if s.state == CopyDamaged && !opts.DryRun {
		return mendShown(ctx, source, target, s.backup, line)
	}
	if s.state != CopyMissing {
		return line
	}
	err := checkForm(target.Destination, s.backup.Encryption)
	if err == nil && !opts.DryRun {
		line.State = CopyDone
		line.SharedBytes, err = copyShown(ctx, source, target, s.backup, opts.Progress)
	}
	if err != nil {
		problem := report.ProblemOf(err)
		line.State, line.Reason, line.Hint = CopyFailed, problem.Message, problem.Hint
	}
	return line
}

// mendShown repairs a backup that is there and damaged.
func mendShown(ctx context.Context, source, target *Target, sound catalog.Entry, line CopyLine) CopyLine {
	at := slices.IndexFunc(target.damaged(nil), func(e catalog.Entry) bool { return e.ID == sound.ID })
	e := target.damaged(nil)[at]
	err := checkSameForm(target.Destination, e, sound)
	var r Repaired
	if err == nil {
		r, err = target.repairFrom(ctx, source, e, sound, func(int64) {})
	}
	line.SizeBytes, line.SharedBytes, line.Reason = r.SizeBytes, r.SharedBytes, strings.Join(r.Files, ", ")
	switch {
	case err != nil:
		problem := report.ProblemOf(err)
		line.State, line.Reason, line.Hint = CopyFailed, "it is damaged there: "+problem.Message, problem.Hint
	case len(r.Files) > 0:
		line.State = CopyMended
	default:
		line.Reason = "all its files are what its manifest says: " + e.Damage
	}
	return line
}

// copyShown copies a backup and tells the one who watches.
func copyShown(ctx context.Context, source, target *Target, b catalog.Entry, progress Progress) (sharedBytes int64, err error) {
	if progress == nil {
		return target.copyFrom(ctx, source, b, func(int64) {})
	}
	now := target.run.Now
	shown := report.Volume{Name: b.ID.String(), StoredBytes: b.SizeBytes, Status: report.VolumeOK, Started: now().UTC()}
	progress.VolumeStarted(shown.Name, b.SizeBytes)
	sharedBytes, err = target.copyFrom(ctx, source, b, func(bytes int64) { progress.VolumeRead(shown.Name, bytes) })
	if shown.Ended = now().UTC(); err != nil {
		shown.Status, shown.Error = report.VolumeFailed, report.ProblemOf(err)
	}
	progress.VolumeEnded(shown)
	return sharedBytes, err
}

// unreadableLines tell of what nobody can copy, where everything was to be.
func unreadableLines(source, target *Target, opts CopyOptions) (lines []CopyLine) {
	if opts.Pick != nil {
		return nil
	}
	for _, u := range source.stock.Unreadable {
		lines = append(lines, CopyLine{
			Backup: u.ID.String(), From: source.Name, To: target.Name, State: CopyFailed,
			Reason: fmt.Sprintf("its manifest cannot be read: %v", u.Err),
		})
	}
	return lines
}

// CopyLock names the lock of whoever copies to a destination.
func CopyLock(to Destination) string { return "copy to " + to.Store.String() }

// openCopy reads what both ends hold. The source comes first: what a run finishes in between is then there on both.
func openCopy(ctx context.Context, run *Run, from, to Destination, dryRun bool) (source, target *Target, err error) {
	if source, err = Look(ctx, run, from); err != nil {
		return nil, nil, catalog.At(from.Name, err)
	}
	if dryRun {
		target, err = Look(ctx, run, to)
	} else {
		target = claim(ctx, run, to)
		err = target.err
	}
	if err != nil {
		return nil, nil, catalog.At(to.Name, err)
	}
	return source, target, nil
}

// copyStep is one backup and what is to be done with it.
type copyStep struct {
	backup catalog.Entry
	state  CopyState // missing, there or left
	reason string
}

// planCopy decides on each backup whether the destination lacks it and would keep it, the newest first.
func (t *Target) planCopy(ctx context.Context, backups []catalog.Entry) (steps []copyStep, err error) {
	lacking := map[catalog.Identity][]catalog.Entry{}
	for _, b := range backups {
		if !t.stock.Holds(b) {
			lacking[b.Identity] = append(lacking[b.Identity], b)
		}
	}
	condemned := map[string]string{} // what the policy would remove if it were there, and why
	if !keep.IsEmpty(t.Policy) {
		for source, entries := range lacking {
			verdicts, err := t.run.Keeper().Decide(ctx, t.Kept(), source, entries...)
			if err != nil {
				return nil, err
			}
			for _, v := range verdicts.Condemned() {
				condemned[v.Entry.ID.String()] = v.Reason
			}
		}
	}
	for _, b := range backups {
		s := copyStep{backup: b, state: CopyMissing}
		reason, goes := condemned[b.ID.String()]
		switch {
		case t.stock.WhyUnreadable(b.ID) != nil:
			s.state = CopyFailed
			s.reason = fmt.Sprintf("what is in its place cannot be read: %v", t.stock.WhyUnreadable(b.ID))
		case t.canMend(b):
			s.state = CopyDamaged
		case t.stock.Holds(b):
			s.state = CopyThere
		case goes:
			s.state, s.reason = CopyLeft, reason
		}
		steps = append(steps, s)
	}
	slices.SortStableFunc(steps, func(a, b copyStep) int { return b.backup.ID.Time.Compare(a.backup.ID.Time) })
	return steps, nil
}

// canMend tells whether a backup is damaged on the destination that is good where it was looked at.
func (t *Target) canMend(sound catalog.Entry) bool {
	return sound.IsGood() && slices.ContainsFunc(t.damaged(nil), func(e catalog.Entry) bool {
		return e.ID == sound.ID && e.Identity == sound.Identity && e.Run == sound.Run
	})
}

// FormError tells that a backup cannot be copied, because it is encrypted and would have to be so in another way.
type FormError struct{ Reason string }

func (e *FormError) Error() string { return "cannot copy it: " + e.Reason }

// checkForm returns a *FormError unless a backup can be copied to a destination: as it is, where both are encrypted for
// the same or not at all, or encrypted on the way. Nothing can be decrypted here, and what is for some must not be lost
// to them.
func checkForm(to Destination, e *catalog.Encryption) error {
	if e == nil || sameKeys(e.Recipients, keysOf(to)) {
		return nil
	}
	wants := "is not encrypted"
	if keys := keysOf(to); len(keys) > 0 {
		wants = "is encrypted to " + strings.Join(keys, ", ")
	}
	return &FormError{Reason: fmt.Sprintf("it is encrypted to %s, and %s %s",
		strings.Join(e.Recipients, ", "), to.Name, wants)}
}

// keysOf returns for whom a destination is encrypted; none for one that is not.
func keysOf(d Destination) []string {
	if d.Recipients == nil {
		return nil
	}
	return d.Recipients.Keys()
}

// sameKeys compares without regard to the order.
func sameKeys(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// aloneError is a failure that concerns one backup: what is copied cannot be read, or its place is taken. It says nothing
// of the destination, and of other backups.
type aloneError struct{ error }

func (e aloneError) Unwrap() error { return e.error }

// copyFrom copies one backup to the destination, and returns what of it shares its place there. Whatever fails, nothing of it stays
// behind; what cannot be removed stays in the journal.
func (t *Target) copyFrom(ctx context.Context, from *Target, e catalog.Entry, progress func(int64)) (sharedBytes int64, err error) {
	if ctx.Err() != nil {
		return 0, fmt.Errorf("stopped before its turn: %w", context.Cause(ctx))
	}
	if err := errors.Join(checkForm(t.Destination, e.Encryption), t.run.unused(e.ID.Ref)); err != nil {
		return 0, aloneError{err}
	}
	b, text, err := e.LoadText(ctx, from.Store)
	if err != nil {
		return 0, aloneError{err}
	}
	sharing := t.sharingWith(ctx, from, b)
	if err := t.fits(ctx, b.SizeBytes, sharing); err != nil {
		return 0, err
	}
	at := &place{target: t}
	out := &Output{ID: b.ID, run: t.run, places: []*place{at}}
	defer func() { err = errors.Join(err, closeCopy(ctx, out)) }()
	if err := out.beginAt(ctx, at, b.Manifest.Run); err != nil {
		if errors.Is(err, catalog.ErrTaken) {
			err = aloneError{say.WithHint(fmt.Errorf("%w, without a manifest", err),
				fmt.Sprintf("if nothing is writing there, remove %s/%s", t.Store, b.Path()))}
		}
		return 0, err
	}
	one := out.branches[0]
	if one.encrypts() && b.Manifest.Encryption == nil {
		return 0, sealCopy(ctx, from.Store, one, b, text, progress)
	}
	for _, file := range b.Manifest.Files {
		if err := copyFile(ctx, from.Store, one.draft, b, file, sharing, progress); err != nil {
			return 0, err
		}
	}
	copied, err := one.draft.CommitText(ctx, text)
	if err != nil {
		return 0, err
	}
	one.stands = true
	t.stock.Add(copied)
	return sharing.bytes(), nil
}

// sealCopy encrypts a backup on its way to a destination. Files, sums, recipe and manifest become what a run would have
// written there; what the manifest says of the backup itself stays.
func sealCopy(ctx context.Context, from store.Store, to *branch, b catalog.Backup, text []byte, progress func(int64)) error {
	m, err := catalog.ParseWholeManifest(text)
	if err == nil {
		err = checkDescribed(m)
	}
	if err != nil {
		return aloneError{err}
	}
	out := to.alone()
	made := []string{m.Names().Checksum(), catalog.RecipeName} // anew
	for _, file := range m.Files {
		if slices.Contains(made, file.Name) {
			continue
		}
		if err := sealFile(ctx, from, out, b, file, progress); err != nil {
			return fmt.Errorf("copy %s: %w", file.Name, err)
		}
	}
	_, err = to.publish(ctx, *m)
	return err
}

// sealFile encrypts one file on its way.
func sealFile(ctx context.Context, from store.Store, out *Output, b catalog.Backup, file catalog.File, progress func(int64)) (err error) {
	r, err := b.OpenFile(ctx, from, file.Name)
	if err != nil {
		return aloneError{err}
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = out.Write(ctx, file.Name, file.SizeBytes, func(w io.Writer) error { return writeVerified(w, r, file, progress) })
	return err
}

// checkDescribed wants a manifest, which others may have written to the store, to have all that a recipe is made of.
func checkDescribed(m *catalog.Manifest) error {
	for _, x := range m.Extents {
		if m.Source.Kind == catalog.SourceVolume && x.Filesystem == nil && (x.State == catalog.StateFiles || x.State == catalog.StateSwap) {
			return fmt.Errorf("%w: its manifest does not say which filesystem extent %q has", catalog.ErrDamaged, x.Name)
		}
	}
	return nil
}

// closeCopy removes what was written without a manifest, in a context that outlives the cancellation of ctx.
func closeCopy(ctx context.Context, out *Output) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), owned.ReleaseTimeout)
	defer cancel()
	return out.Close(ctx)
}

// unused wants nobody to be at work on a volume: until a run has let go of it, it may still remove what it wrote to a
// destination that dropped out, at the very place of the copy. Later runs write elsewhere.
func (r *Run) unused(ref catalog.Ref) error {
	return r.Locks.Look(journal.ScopeVolume, ref.String())
}

// fits looks whether there is room for so much on the destination, less what is shared, as far as that can be known.
func (t *Target) fits(ctx context.Context, sizeBytes int64, sharing *copySharing) error {
	usage, err := t.Store.Usage(ctx)
	if err != nil || usage.FreeBytes < 0 || usage.FreeBytes >= sizeBytes {
		return err
	}
	common, err := sharing.commonBytes(ctx)
	if err != nil {
		t.run.Log.Warn("what a copy shares is not known", "run", t.run.ID, "destination", t.Name, "err", err)
	}
	if sizeBytes -= common; usage.FreeBytes < sizeBytes {
		return say.WithHint(&store.WholeError{Err: fmt.Errorf("%w: %s free, and it takes %s",
			store.ErrNoSpace, say.Size(usage.FreeBytes), say.Size(sizeBytes))},
			"make space, or keep fewer backups; `voltar prune` removes what the policy no longer keeps")
	}
	return nil
}

// copyBufferBytes is how much is read at a time.
const copyBufferBytes = 1 << 20

// creator is a backup that is being written, or amended.
type creator interface {
	Create(ctx context.Context, name string, opts store.PutOptions) (store.Writer, error)
}

// copyFile stores one file of a backup. It appears only when its size and sums are those of the manifest.
func copyFile(ctx context.Context, from store.Store, to creator, b catalog.Backup, file catalog.File,
	sharing *copySharing, progress func(int64)) (err error) {
	r, err := b.OpenFile(ctx, from, file.Name)
	if err != nil {
		return aloneError{err}
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := to.Create(ctx, file.Name, store.PutOptions{MaxBytes: file.SizeBytes})
	if err != nil {
		return fmt.Errorf("create %s: %w", file.Name, err)
	}
	defer func() { err = errors.Join(err, w.Abort()) }()
	out, closeShared := sharing.writer(ctx, file.Name, w)
	defer func() { err = errors.Join(err, closeShared()) }()
	if err := writeVerified(out, r, file, progress); err != nil {
		return fmt.Errorf("copy %s: %w", file.Name, err)
	}
	if tagger, ok := w.(store.TagWriter); ok {
		tagger.SetTag("sha1", file.SHA1)
	}
	object, err := w.Commit(ctx)
	if err == nil && object.SizeBytes != file.SizeBytes {
		err = fmt.Errorf("the store holds %d bytes where %d were sent", object.SizeBytes, file.SizeBytes)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", file.Name, err)
	}
	return nil
}

// writeVerified writes a file of a backup to w. It ends without an error only when size and sums are those of the
// manifest.
func writeVerified(w io.Writer, r io.Reader, file catalog.File, progress func(int64)) error {
	sums := archive.NewSums()
	defer sums.Sum() // ends its goroutine
	if err := pump(w, sums, r, progress); err != nil {
		return err
	}
	got := sums.Sum()
	if got.SizeBytes != file.SizeBytes || got.SHA1 != file.SHA1 || got.SHA256 != file.SHA256 {
		return aloneError{say.WithHint(fmt.Errorf("%w: it does not have the size and sums of the manifest", catalog.ErrDamaged),
			"`voltar verify` says what is lost")}
	}
	return nil
}

// pump writes everything of r to w, and sums it up. It tells failures to read from failures to write.
func pump(w io.Writer, sums *archive.Sums, r io.Reader, progress func(int64)) error {
	buffer := make([]byte, copyBufferBytes)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := sums.Write(buffer[:n]); err != nil {
				return err
			}
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
			progress(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return aloneError{err}
		}
	}
}
