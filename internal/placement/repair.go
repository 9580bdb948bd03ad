package placement

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/recipe"
	"voltar/internal/say"
	"voltar/internal/sign"
	"voltar/internal/store"
	"voltar/report"
)

// A backup that was found damaged on one destination, by a verification, a drill or a run, is repaired from another that has it
// whole. Only files that are not what the manifest says are replaced. Each is summed up on its way and appears whole or not at all,
// in the place of one that was lost already: whatever happens meanwhile, nothing that was good is touched. The manifest comes last,
// and the backup keeps its name.

// repairing is one backup while it is repaired.
type repairing struct {
	target, from *Target
	own, other   catalog.Backup // as the target has it, and as the other destination does
	text         []byte         // the other's manifest
	amended      *catalog.Amendment
	sharing      *copySharing
	progress     func(int64)
}

// Repaired says what of a backup was replaced.
type Repaired struct {
	From        string // destination
	Files       []string
	SizeBytes   int64 // of these
	SharedBytes int64 // of that, what shares its place
}

// damaged are the backups of the destination that something was found wrong with since they were made, the newest first.
func (t *Target) damaged(wanted func(catalog.Ref) bool) []catalog.Entry {
	list := slices.DeleteFunc(t.stock.Entries(wanted), func(e catalog.Entry) bool {
		return e.Damage == "" || e.Status != catalog.StatusComplete || e.IsAhead(t.run.Now())
	})
	slices.SortStableFunc(list, func(a, b catalog.Entry) int { return b.ID.Time.Compare(a.ID.Time) })
	return list
}

// repairAll repairs what is damaged on the destination and whole on another, until it is too late to begin with more.
func (t *Target) repairAll(
	ctx context.Context, others Targets, wanted func(catalog.Ref) bool, until time.Time,
) (caught []Caught, problems []report.Problem) {
	list := t.damaged(wanted)
	for i, e := range list {
		if t.run.Now().After(until) {
			t.note(fmt.Sprintf("yet to be repaired from other destinations: %d; the next run goes on, or `voltar copy`", len(list)-i))
			break
		}
		r, err := t.repair(ctx, others, e, func(int64) {})
		if len(r.Files) > 0 {
			t.caughtUp = append(t.caughtUp, report.CaughtUp{
				Backup: e.ID.String(), From: r.From, SizeBytes: r.SizeBytes, SharedBytes: r.SharedBytes, Repaired: r.Files,
			})
		}
		if len(r.Files) > 0 && err == nil {
			caught = append(caught, Caught{e.ID.String(), r.From, t.Name, catalog.Place(t.Store, e.Path())})
		}
		if err != nil {
			problem := report.ProblemOf(err)
			problem.Message = fmt.Sprintf("%s on %s could not be repaired: %s", e.ID, t.Name, strings.TrimSpace(problem.Message))
			problems = append(problems, *problem)
		}
		var alone aloneError
		if err != nil && !errors.As(err, &alone) {
			break // it would befall the rest as well
		}
	}
	return caught, problems
}

// repair repairs one backup from the first of the others that has it whole. The zero result without an error is of one that none has.
func (t *Target) repair(ctx context.Context, others Targets, e catalog.Entry, progress func(int64)) (all Repaired, err error) {
	for _, from := range others {
		if from == t || from.Err() != nil || from.stock == nil {
			continue
		}
		sound, ok := from.sound(e)
		if !ok || checkSameForm(t.Destination, e, sound) != nil {
			continue
		}
		t.run.Log.Info("repairing a damaged backup", "run", t.run.ID, "backup", e.ID.String(), "from", from.Name, "on", t.Name)
		var done Repaired
		done, err = t.repairFrom(ctx, from, e, sound, progress)
		all.From, all.Files = from.Name, append(all.Files, done.Files...)
		all.SizeBytes, all.SharedBytes = all.SizeBytes+done.SizeBytes, all.SharedBytes+done.SharedBytes
		var alone aloneError
		if err == nil || !errors.As(err, &alone) {
			return all, err
		}
	}
	return all, err
}

// sound returns the same backup where it is good.
func (t *Target) sound(e catalog.Entry) (catalog.Entry, bool) {
	for _, have := range t.stock.History(e.Identity) {
		if have.ID == e.ID && have.Run == e.Run && have.IsGood() {
			return have, true
		}
	}
	return catalog.Entry{}, false
}

// checkSameForm returns a *FormError unless files of one backup can take the place of those of another: where both are in the open, or
// encrypted for the same, or encrypted on the way for those who can read the rest.
func checkSameForm(to Destination, e, sound catalog.Entry) error {
	switch {
	case e.Encryption == nil && sound.Encryption == nil:
		return nil
	case e.Encryption == nil:
		return &FormError{Reason: fmt.Sprintf("it is encrypted there, and in the open on %s", to.Name)}
	case sound.Encryption != nil && sameKeys(e.Encryption.Recipients, sound.Encryption.Recipients):
		return nil
	case sound.Encryption == nil && sameKeys(e.Encryption.Recipients, keysOf(to)):
		return nil
	}
	return &FormError{Reason: fmt.Sprintf("on %s it is encrypted for others", to.Name)}
}

// repairFrom replaces what is damaged of a backup by what another destination has of it.
func (t *Target) repairFrom(
	ctx context.Context, from *Target, e, sound catalog.Entry, progress func(int64),
) (done Repaired, err error) {
	done.From = from.Name
	if ctx.Err() != nil {
		return done, fmt.Errorf("stopped before its turn: %w", context.Cause(ctx))
	}
	if err := t.run.unused(e.ID.Ref); err != nil {
		return done, aloneError{err}
	}
	lock, err := t.run.Locks.Lock(ctx, journal.ScopeDestination, t.Store.String()) // nobody removes it meanwhile
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	r := repairing{target: t, from: from, progress: progress}
	if r.own, err = e.Load(ctx, t.Store); err != nil {
		return done, aloneError{err}
	}
	if r.other, r.text, err = sound.LoadText(ctx, from.Store); err != nil {
		return done, aloneError{err}
	}
	if _, err := t.Store.Sweep(ctx, e.Path()); err != nil { // what a repair left that died
		return done, err
	}
	broken, err := r.broken(ctx)
	if err != nil {
		return done, err
	}
	if len(broken) == 0 {
		return done, t.foundSound(e, false)
	}
	r.sharing = t.sharingWith(ctx, from, r.other)
	if err := t.fits(ctx, sizeOf(broken), r.sharing); err != nil {
		return done, err
	}
	if r.amended, err = catalog.Amend(ctx, t.Store, r.own); err != nil {
		return done, aloneError{err}
	}
	var failed error
	for _, file := range broken {
		if err := r.replace(ctx, file); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s from %s: %w", file.Name, from.Name, err))
			if !isRotten(err) {
				break
			}
			r.markOther(err)
			continue
		}
		done.Files, done.SizeBytes = append(done.Files, file.Name), done.SizeBytes+file.SizeBytes
	}
	if len(done.Files) == 0 {
		return done, failed
	}
	done.SharedBytes = r.sharing.bytes()
	return done, errors.Join(failed, r.finish(ctx, e, failed == nil))
}

func sizeOf(files []catalog.File) (bytes int64) {
	for _, file := range files {
		bytes += file.SizeBytes
	}
	return bytes
}

// broken are the files that are not what the manifest says. All are read.
func (r *repairing) broken(ctx context.Context) (list []catalog.File, err error) {
	for _, file := range r.own.Manifest.Files {
		err := r.check(ctx, file)
		if err != nil && !isRotten(err) && !errors.Is(err, store.ErrNotExist) || ctx.Err() != nil {
			return nil, fmt.Errorf("check %s: %w", file.Name, errors.Join(err, context.Cause(ctx)))
		}
		if err != nil {
			list = append(list, file)
		}
	}
	return list, nil
}

func (r *repairing) check(ctx context.Context, file catalog.File) (err error) {
	in, err := r.own.OpenFile(ctx, r.target.Store, file.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return writeVerified(io.Discard, in, file, r.progress)
}

// replace replaces one file.
func (r *repairing) replace(ctx context.Context, file catalog.File) error {
	theirs, isThere := r.other.Manifest.File(file.Name)
	sums := r.own.Manifest.Names().Checksum()
	switch {
	case isThere && theirs == file:
		return r.copy(ctx, file)
	case file.Name == sums:
		return nil // it is written anew in the end
	case file.Name == catalog.RecipeName:
		text := recipe.Text(r.own.Manifest, recipe.Options{Signed: sign.Signs(r.target.Store)})
		return r.amended.Replace(ctx, file.Name, func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
	case !sameIndex(r.own.Manifest, r.other.Manifest):
		return aloneError{fmt.Errorf("its index was made again since, which %s does not have", r.from.Name)}
	case r.own.Manifest.Encryption != nil && r.other.Manifest.Encryption == nil:
		return r.seal(ctx, file.Name)
	case !isThere:
		return aloneError{fmt.Errorf("%s does not have it", r.from.Name)}
	}
	return r.copy(ctx, theirs)
}

// sameIndex tells whether the archives of both backups have the same indexes, as far as manifests say.
func sameIndex(a, b *catalog.Manifest) bool {
	return slices.EqualFunc(a.Extents, b.Extents, func(x, y catalog.Extent) bool {
		if x.Index == nil || y.Index == nil {
			return x.Name == y.Name && x.Index == nil && y.Index == nil
		}
		return x.Name == y.Name && x.Index.BlocksOffset == y.Index.BlocksOffset && x.Index.Rebuilt == y.Index.Rebuilt
	})
}

// copy takes a file as the other destination has it.
func (r *repairing) copy(ctx context.Context, file catalog.File) error {
	if err := copyFile(ctx, r.from.Store, r.amended, r.other, file, r.sharing, r.progress); err != nil {
		return err
	}
	return r.amended.Enter(file)
}

// seal encrypts a file on its way.
func (r *repairing) seal(ctx context.Context, name string) error {
	produce := func(w io.Writer) error { return r.plain(ctx, strings.TrimSuffix(name, catalog.AgeSuffix), w) }
	if name == r.own.Manifest.Encryption.Details {
		produce = r.details
	}
	var plainBytes int64
	err := r.amended.Replace(ctx, name, func(w io.Writer) (err error) {
		plainBytes, err = r.target.Recipients.Encrypt(w, produce)
		return err
	})
	r.amended.SetPlainSize(name, plainBytes)
	return err
}

// plain writes a file of the other destination, where it lies in the open.
func (r *repairing) plain(ctx context.Context, name string, w io.Writer) (err error) {
	file, isThere := r.other.Manifest.File(name)
	if !isThere {
		return aloneError{fmt.Errorf("%s does not have it", r.from.Name)}
	}
	in, err := r.other.OpenFile(ctx, r.from.Store, name)
	if err != nil {
		return aloneError{err}
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return writeVerified(w, in, file, r.progress)
}

// details writes what not everybody may read of the manifest.
func (r *repairing) details(w io.Writer) error {
	m, err := catalog.ParseWholeManifest(r.text)
	if err != nil {
		return aloneError{err}
	}
	_, text, err := seal(m, r.target.Recipients)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// markOther notes that what was to repair is damaged itself.
func (r *repairing) markOther(found error) {
	e, t := catalog.EntryOf(r.other), r.from
	t.stock.MarkDamaged(e, found.Error())
	if t.run.MarkDamaged == nil {
		return
	}
	if err := t.run.MarkDamaged(catalog.Place(t.Store, e.Path()), found.Error()); err != nil {
		say.Log(t.run.Log.Warn, err, "run", t.run.ID)
	}
}

// finish writes the manifest, and has the backup count as good again where all of it was replaced that was damaged.
func (r *repairing) finish(ctx context.Context, e catalog.Entry, whole bool) error {
	b, err := r.amended.Commit(ctx)
	if err != nil {
		return err
	}
	t := r.target
	b.Damage = e.Damage
	if whole {
		b.Damage = ""
	}
	t.stock.Remove(e)
	t.stock.Add(b)
	if !whole {
		return nil
	}
	return t.foundSound(e, true)
}

// foundSound has later runs know that all files of a backup are what its manifest says.
func (t *Target) foundSound(e catalog.Entry, replaced bool) error {
	if t.run.FoundSound == nil {
		return nil
	}
	return t.run.FoundSound(catalog.Place(t.Store, e.Path()), replaced)
}
