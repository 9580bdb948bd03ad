package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
)

// Bounds of what is read into memory whole. What is written keeps to them.
const (
	// MaxManifestBytes bounds a manifest: Encode refuses what would be longer, and readers refuse what is.
	MaxManifestBytes = 64 << 20
	maxMarkerBytes   = 64 << 10
)

// Backup is one backup that stands.
type Backup struct {
	Host      string // the folder's
	ID        ID
	Manifest  *Manifest // never nil
	SizeBytes int64     // of all files, the manifest included
	Damage    string    // what is known to be wrong with it, by Filter.Damage or by a look at its files; empty for nothing
	// ManifestSum is of the manifest's text, as it was read or written.
	ManifestSum [sha256.Size]byte
}

// IsGood tells whether the backup lacks nothing, as far as is known. Those that it belongs with are not looked at.
func (b Backup) IsGood() bool { return b.Manifest.Status == StatusComplete && b.Damage == "" }

// Path is the key of the backup's folder.
func (b Backup) Path() string { return b.ID.Path(b.Host) }

// Place says where a folder of a store is, for people and as the key of Filter.Damage: "/backups/host/vg/lv/TIME".
func Place(s store.Store, folder string) string { return s.String() + "/" + folder }

// Identity tells which history the backup belongs to.
func (b Backup) Identity() Identity { return b.Manifest.Source.Identity() }

// OpenFile opens a file of a backup by its name in the manifest. One whose size is not the manifest's is refused.
func (b Backup) OpenFile(ctx context.Context, s store.Store, name string) (store.Reader, error) {
	r, err := b.OpenStored(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if err := b.CheckSize(name, r.SizeBytes()); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s of %s: %w", name, b.ID, err), r.Close())
	}
	return r, nil
}

// OpenStored opens a file of a backup by its name in the manifest, whatever its size: for those who look what is left
// of a damaged one.
func (b Backup) OpenStored(ctx context.Context, s store.Store, name string) (store.Reader, error) {
	if _, ok := b.Manifest.File(name); !ok {
		return nil, fmt.Errorf("open %s of %s: cannot find it in the manifest", name, b.ID)
	}
	r, err := s.Open(ctx, path.Join(b.Path(), name))
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", name, b.ID, err)
	}
	return r, nil
}

// checkHeld looks whether every file of a backup is among the objects of its folder, in its size. The error wraps
// ErrDamaged when one is not.
func (b Backup) checkHeld(objects []store.Object) error {
	held := map[string]int64{}
	for _, o := range objects {
		held[o.Key] = o.SizeBytes
	}
	for _, file := range b.Manifest.Files {
		size, ok := held[path.Join(b.Path(), file.Name)]
		switch {
		case !ok:
			return fmt.Errorf("%w: %s is missing", ErrDamaged, file.Name)
		case size != file.SizeBytes:
			return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrDamaged, file.Name, size, file.SizeBytes)
		}
	}
	return nil
}

// CheckSize compares the size of a file as the store has it with the manifest. The error wraps ErrDamaged.
func (b Backup) CheckSize(name string, sizeBytes int64) error {
	file, ok := b.Manifest.File(name)
	if ok && file.SizeBytes == sizeBytes {
		return nil
	}
	return fmt.Errorf("%w: it holds %d bytes, and %d by the manifest", ErrDamaged, sizeBytes, file.SizeBytes)
}

// CheckPlainSize compares the size of an encrypted file, decrypted, with the manifest. The error wraps ErrDamaged.
func (b Backup) CheckPlainSize(name string, sizeBytes int64) error {
	file, ok := b.Manifest.File(name)
	if ok && file.PlainSizeBytes == sizeBytes {
		return nil
	}
	return fmt.Errorf("%w: it holds %d bytes, decrypted, and %d by the manifest", ErrDamaged, sizeBytes, file.PlainSizeBytes)
}

// longestWait is how long a backup waits for a second of which a store holds nothing. Two runs of one host take a few; whoever
// may write to the store could take the night.
const longestWait = 2 * time.Minute

// FreeTime returns the first second from at on of which no store holds anything for the source, and waits until that
// second has come, so that no backup is dated in the future. A store that does not answer, or in which the next two minutes are
// taken, has its error in failed, at its place; the others decide.
func FreeTime(
	ctx context.Context, stores []store.Store, host string, ref Ref, at time.Time,
) (_ time.Time, failed []error) {
	type answer struct {
		names []string
		err   error
	}
	start := at.UTC().Truncate(time.Second)
	answers := AskAll(stores, func(s store.Store) (a answer) {
		a.names, a.err = s.Folders(ctx, path.Join(host, ref.String()))
		if a.err == nil && firstFree(start, a.names).Sub(start) > longestWait {
			a.err = say.WithHint(errors.New("there is a folder for each second of the next two minutes"), "this program makes no such: "+
				"look who may write there, and remove them")
		}
		return a
	})
	var taken [][]string // of those that decide
	failed = make([]error, len(stores))
	for i, a := range answers {
		if a.err != nil {
			failed[i] = fmt.Errorf("look for a free time of %s in %s: %w", ref, stores[i], a.err)
			continue
		}
		taken = append(taken, a.names)
	}
	t := firstFree(start, slices.Concat(taken...))
	if t.After(at) {
		select {
		case <-time.After(time.Until(t)):
		case <-ctx.Done():
		}
	}
	return t, failed
}

// firstFree returns the first second from start on that is not among the names of folders.
func firstFree(start time.Time, folders []string) time.Time {
	taken := map[string]bool{}
	for _, name := range folders {
		taken[name] = true
	}
	for taken[FormatTime(start)] {
		start = start.Add(time.Second)
	}
	return start
}

// Draft is a backup that is being written. It becomes one with Commit. Its methods are safe for concurrent use, but for
// Commit and Abort, which come after all writers have ended.
type Draft struct {
	store store.Store
	host  string
	id    ID
	tags  map[string]string
	mark  []byte // the claim's content

	mu      sync.Mutex
	written map[string]bool // the keys that were begun
	stands  bool
	free    bool // the claim is gone
}

// Begin claims the folder of a backup for a run, and begins the backup there; see FreeTime. The caller journals the path first.
// The error wraps ErrTaken when another run has the folder, or there is something in it, and ErrNames when the store has
// another name for it. The tags go with every object, where the store can keep them. The caller must Commit it, and Abort
// it in any case: a claim that Commit could not remove goes then.
func Begin(ctx context.Context, s store.Store, host string, id ID, run string, tags map[string]string) (*Draft, error) {
	if err := errors.Join(CheckHost(host), id.Ref.Check(), checkTime(id.Time)); err != nil {
		return nil, fmt.Errorf("begin backup %s: %w", id, err)
	}
	d := &Draft{store: s, host: host, id: id, tags: maps.Clone(tags), written: map[string]bool{}}
	if err := d.claim(ctx, run); err != nil {
		return nil, fmt.Errorf("begin backup %s in %s: %w", id, s, err)
	}
	return d, nil
}

// Path is the key of the backup's folder.
func (d *Draft) Path() string { return d.id.Path(d.host) }

func (d *Draft) key(name string) string { return path.Join(d.Path(), name) }

// Create begins a file of the backup. opts.Tags are added to those of the draft.
func (d *Draft) Create(ctx context.Context, name string, opts store.PutOptions) (store.Writer, error) {
	if err := CheckFileName(name); err != nil {
		return nil, fmt.Errorf("create a file of %s: %w", d.id, err)
	}
	if name == ManifestName || name == SignatureName || name == ClaimName {
		return nil, fmt.Errorf("create a file of %s: cannot take %s, which is written by itself", d.id, name)
	}
	tags := maps.Clone(d.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, opts.Tags)
	opts.Tags = tags
	d.begun(d.key(name))
	return d.store.Create(ctx, d.key(name), opts)
}

// begun notes a key that Abort is to remove.
func (d *Draft) begun(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written[key] = true
}

// Commit writes the manifest, and so makes the backup. The store must hold exactly the files that the manifest lists,
// each of its size, and this draft's claim. A store that locks objects locks them now, and the manifest as it is written.
// After an error there is no backup.
func (d *Draft) Commit(ctx context.Context, m *Manifest) (Backup, error) {
	data, err := m.Encode()
	if err != nil {
		return Backup{}, err
	}
	return d.commit(ctx, m, data)
}

// commit writes the manifest, whose text is given, when the store holds what it says.
func (d *Draft) commit(ctx context.Context, m *Manifest, text []byte) (Backup, error) {
	if m.ID().Compare(d.id) != 0 {
		return Backup{}, fmt.Errorf("commit backup %s: cannot take the manifest of %s", d.id, m.ID())
	}
	if err := d.compare(ctx, m); err != nil {
		return Backup{}, fmt.Errorf("commit backup %s in %s: %w", d.id, d.store, err)
	}
	until := lockEnd(d.store, time.Now())
	if err := lockFiles(ctx, d.store, d.Path(), m.Files, until); err != nil {
		return Backup{}, fmt.Errorf("commit backup %s in %s: %w", d.id, d.store, err)
	}
	opts := store.PutOptions{Tags: d.tags, LockUntil: until}
	d.begun(d.key(ManifestName))
	d.begun(d.key(SignatureName))
	if err := writeFirst(ctx, d.store, d.key(ManifestName), text, opts); err != nil {
		return Backup{}, fmt.Errorf("commit backup %s in %s: %w", d.id, d.store, err)
	}
	d.stands = true
	d.free = d.letGo(ctx) == nil // otherwise Abort tries again, and says why it cannot
	return Backup{
		Host: d.host, ID: d.id, Manifest: m, SizeBytes: m.FileBytes() + int64(len(text)), ManifestSum: sha256.Sum256(text),
	}, nil
}

// compare looks whether the store holds what the manifest says, no less and no more.
func (d *Draft) compare(ctx context.Context, m *Manifest) error {
	objects, err := d.store.List(ctx, d.Path())
	if err != nil {
		return err
	}
	held := map[string]int64{}
	for _, o := range objects {
		held[o.Key] = o.SizeBytes
	}
	var errs []error
	if size, ok := held[d.key(ClaimName)]; !ok || size != int64(len(d.mark)) {
		errs = append(errs, errors.New("the claim of this run is gone: somebody else has been in the folder"))
	}
	delete(held, d.key(ClaimName))
	for _, file := range m.Files {
		key := d.key(file.Name)
		size, ok := held[key]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %w", key, store.ErrNotExist))
		} else if size != file.SizeBytes {
			errs = append(errs, fmt.Errorf("%s holds %d bytes, and %d were sent", key, size, file.SizeBytes))
		}
		delete(held, key)
	}
	for _, key := range slices.Sorted(maps.Keys(held)) {
		errs = append(errs, fmt.Errorf("%s is not in the manifest", key))
	}
	return errors.Join(errs...)
}

// Abort lets the folder go. Without a Commit that succeeded all goes that this draft has written, even a manifest whose
// Commit failed; what others have put there stays, and so does everything when the claim is no longer this draft's. A
// second Abort does nothing.
func (d *Draft) Abort(ctx context.Context) error {
	if d.free {
		return nil
	}
	if err := d.letGo(ctx); err != nil {
		return fmt.Errorf("end backup %s in %s: %w", d.id, d.store, err)
	}
	return nil
}

func (d *Draft) letGo(ctx context.Context) error {
	mine, err := d.isMine(ctx)
	if err != nil || !mine {
		return err
	}
	if d.stands {
		if err := d.store.Delete(ctx, d.key(ClaimName)); !errors.Is(err, store.ErrLocked) {
			return err
		}
		return nil // a bucket that holds every object holds the claim, too
	}
	objects, err := d.store.List(ctx, d.Path())
	if err != nil {
		return err
	}
	d.mu.Lock()
	unlisted := maps.Clone(d.written) // and still there, where the store shows them under other names
	d.mu.Unlock()
	objects = slices.DeleteFunc(objects, func(o store.Object) bool { return o.Key != d.key(ClaimName) && !unlisted[o.Key] })
	unlisted[d.key(ClaimName)] = true
	for _, o := range objects {
		delete(unlisted, o.Key)
	}
	claim := unlisted[d.key(ClaimName)]
	delete(unlisted, d.key(ClaimName))
	for key := range unlisted {
		if err := d.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	if _, err = remove(ctx, d.store, d.Path(), objects); err == nil && claim {
		err = d.store.Delete(ctx, d.key(ClaimName))
	}
	return err
}

// Delete removes a backup, the manifest first: from then on there is none. It can be called again for what an earlier
// call left. The caller journals the path first, so that after a crash the rest is swept. A store that locks objects
// is asked before anything goes. The path is that of a backup's folder, as Backup.Path has it; no other is taken.
func Delete(ctx context.Context, s store.Store, folder string) (freedBytes int64, err error) {
	if _, _, err := ParsePath(folder); err != nil {
		return 0, fmt.Errorf("delete a backup: %w", err)
	}
	freedBytes, err = removeAll(ctx, s, folder)
	if err != nil {
		return freedBytes, fmt.Errorf("delete %s in %s: %w", folder, s, err)
	}
	return freedBytes, nil
}

func checkDelete(ctx context.Context, s store.Store, objects []store.Object) error {
	checker, isChecker := store.As[store.DeleteChecker](s)
	if !isChecker {
		return nil
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return checker.CheckDelete(ctx, keys)
}

// SweepUnfinished removes what a dead run left in the folder of a backup that it was writing or deleting. A backup that
// stands after all, because the run died between its commit and its journal, is left alone but for the claim: stands is
// true then. So it is of a folder that another run has claimed, where nothing is removed. The caller knows from the dead
// run's journal that it writes there no more.
func SweepUnfinished(ctx context.Context, s store.Store, folder, run string) (stands bool, freedBytes int64, err error) {
	if _, _, err := ParsePath(folder); err != nil {
		return false, 0, fmt.Errorf("sweep a backup: %w", err)
	}
	stands, freedBytes, err = sweepUnfinished(ctx, s, folder, run)
	if err != nil {
		return stands, freedBytes, fmt.Errorf("sweep %s in %s: %w", folder, s, err)
	}
	return stands, freedBytes, nil
}

func sweepUnfinished(ctx context.Context, s store.Store, folder, run string) (stands bool, freedBytes int64, err error) {
	by, err := claimant(ctx, s, folder)
	if err != nil {
		return false, 0, err
	}
	if by != "" && by != run {
		return true, 0, nil
	}
	_, err = s.Stat(ctx, path.Join(folder, ManifestName))
	switch {
	case errors.Is(err, store.ErrNotExist):
		freedBytes, err = removeAll(ctx, s, folder)
		return false, freedBytes, err
	case err != nil:
		return false, 0, err
	}
	freedBytes, err = s.Sweep(ctx, folder)
	if err == nil {
		err = s.Delete(ctx, path.Join(folder, ClaimName))
	}
	if errors.Is(err, store.ErrLocked) {
		err = nil // as in Draft.Abort
	}
	return true, freedBytes, err
}

// removeAll empties the folder of one backup.
func removeAll(ctx context.Context, s store.Store, folder string) (freedBytes int64, err error) {
	objects, err := s.List(ctx, folder)
	if err != nil {
		return 0, err
	}
	return remove(ctx, s, folder, objects)
}

// remove removes objects of the folder of one backup, and what unfinished writers left there: the manifest first, without
// which nothing else goes, and the claim last, until which the folder is this run's.
func remove(ctx context.Context, s store.Store, folder string, objects []store.Object) (freedBytes int64, err error) {
	manifest, claim := path.Join(folder, ManifestName), path.Join(folder, ClaimName)
	rank := map[string]int{manifest: -1, claim: 1}
	slices.SortStableFunc(objects, func(a, b store.Object) int { return rank[a.Key] - rank[b.Key] })
	if err := checkDelete(ctx, s, objects); err != nil {
		return 0, err
	}
	claimed := len(objects) > 0 && objects[len(objects)-1].Key == claim
	if claimed {
		objects = objects[:len(objects)-1]
	}
	var errs []error
	for _, o := range objects {
		if err := s.Delete(ctx, o.Key); err != nil {
			if o.Key == manifest {
				return 0, err
			}
			errs = append(errs, err)
			continue
		}
		freedBytes += o.SizeBytes
	}
	swept, err := s.Sweep(ctx, folder)
	err = errors.Join(append(errs, err)...)
	if claimed && err == nil {
		err = s.Delete(ctx, claim)
	}
	return freedBytes + swept, err
}

// read reads a small object whole, and says how large it is.
func read(ctx context.Context, s store.Store, key string, maxBytes int64) (_ []byte, sizeBytes int64, err error) {
	data, sizeBytes, _, err := readMarked(ctx, s, key, maxBytes)
	return data, sizeBytes, err
}

// readMarked is read, and says by which marks a listing shows what was read; none where the store does not tell.
func readMarked(
	ctx context.Context, s store.Store, key string, maxBytes int64,
) (data []byte, sizeBytes int64, marks []string, err error) {
	r, err := s.Open(ctx, key)
	if err != nil {
		return nil, 0, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.SizeBytes() > maxBytes {
		return nil, 0, nil, fmt.Errorf("%w: it holds %s, more than any that voltar writes", ErrDamaged, say.Size(r.SizeBytes()))
	}
	text := bytes.NewBuffer(make([]byte, 0, r.SizeBytes()+bytes.MinRead))
	if _, err := text.ReadFrom(io.LimitReader(r, maxBytes)); err != nil {
		return nil, 0, nil, err
	}
	if m, ok := r.(store.Marked); ok {
		marks = m.Marks()
	}
	return text.Bytes(), r.SizeBytes(), marks, nil
}

// write writes a small object whole.
func write(ctx context.Context, s store.Store, key string, data []byte, opts store.PutOptions) error {
	opts.MaxBytes, opts.Tags = int64(len(data)), maps.Clone(opts.Tags)
	w, err := s.Create(ctx, key, opts)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Commit(ctx)
	return err
}
