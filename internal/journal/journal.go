// Package journal keeps what a run owns on the host and in its destinations, so that a later start can remove exactly
// that after a crash; and the locks that keep runs apart.
//
// A journal is STATE/journal/RUNID.jsonl, locked (flock) while its run lives. Each line is a JSON object
// {"crc32c":"…","record":{…}}, fsynced before the next step is taken. The first record begins the journal; then come,
// for each thing, "intend" before it is made, "made" with what identifies it, and "gone". Nothing in it is a secret.
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/durable"
)

// DefaultDir is where the journals of a production host are.
const DefaultDir = "/var/lib/voltar/journal"

const (
	suffix        = ".jsonl"
	damagedSuffix = ".damaged"
)

// Options say where the journals are; the zero value is that of a production host.
type Options struct {
	Dir    string      // "" means DefaultDir
	FS     *durable.FS // nil means the host's
	BootID string      // "" means the kernel's
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.BootID == "" {
		data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return o, fmt.Errorf("read the boot ID: %w", err)
		}
		o.BootID = strings.TrimSpace(string(data))
	}
	return o, nil
}

// Run is the journal of a living run. It is safe for concurrent use.
type Run struct {
	journal
}

// Begin starts the journal of a run. Info.Run is required (NewRunID); PID and BootID are filled in when they are zero.
// The journal stays locked until Close.
func Begin(opts Options, info Info) (*Run, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := ParseRunID(info.Run); err != nil {
		return nil, err
	}
	info.BootID = cmp.Or(info.BootID, opts.BootID)
	info.PID = cmp.Or(info.PID, os.Getpid())
	if err := opts.FS.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("begin journal %s: %w", info.Run, err)
	}
	run, err := begin(opts, info)
	if err != nil {
		return nil, fmt.Errorf("begin journal %s: %w", info.Run, err)
	}
	return run, nil
}

// begin writes the first record under a hidden name and shows the journal when it is locked and whole, so that nobody
// takes it for the journal of a dead run in between.
func begin(opts Options, info Info) (_ *Run, err error) {
	path := filepath.Join(opts.Dir, info.Run+suffix)
	hidden := filepath.Join(opts.Dir, "."+info.Run+suffix)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("cannot use %s: it is there already", path), err)
	}
	file, err := openHidden(opts, hidden)
	if err != nil {
		return nil, err
	}
	shown := hidden
	defer func() {
		if err != nil {
			err = errors.Join(err, opts.FS.Remove(shown), file.Close())
		}
	}()
	line, err := encode(record{Op: opBegin, Format: Format, Info: &info})
	if err != nil {
		return nil, err
	}
	if err := file.Append(line); err != nil {
		return nil, err
	}
	if err := opts.FS.Rename(hidden, path); err != nil {
		if _, statErr := os.Lstat(path); statErr == nil {
			shown = path // the name is there, only the fsync of the folder failed
		}
		return nil, err
	}
	return &Run{journal{fs: opts.FS, path: path, info: info, file: file, ledger: ledger{info: info}}}, nil
}

// openHidden makes the hidden file of a Begin and locks it. Meanwhile the folder is locked, so that whoever holds its lock
// and finds such a file without one knows that its run is dead.
func openHidden(opts Options, path string) (_ *durable.Appender, err error) {
	folder, err := os.Open(opts.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }() // and with that its lock
	if err := awaitFlock(folder); err != nil {
		return nil, err
	}
	file, err := opts.FS.OpenAppend(path, 0o600)
	if err != nil {
		return nil, errors.Join(err, ignoreNotExist(opts.FS.Remove(path)))
	}
	if taken, err := flock(file.File()); err != nil || !taken {
		return nil, errors.Join(fmt.Errorf("cannot lock %s", path), err, opts.FS.Remove(path), file.Close())
	}
	return file, nil
}

// Intend records that a thing is about to be made. Only when it returns nil may the caller make it.
func (r *Run) Intend(thing Thing) (ID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.ledger.last + 1
	if err := r.append(record{Op: opIntend, ID: id, Thing: &thing}); err != nil {
		return 0, fmt.Errorf("journal the intent to make a %s: %w", thing.Kind, err)
	}
	return id, nil
}

// Made records that a thing is there, and what identifies it. After an error the thing stands in the journal as
// intended, and a recovery finds it by that.
func (r *Run) Made(id ID, facts Facts) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.append(record{Op: opMade, ID: id, Facts: &facts}); err != nil {
		return fmt.Errorf("journal that thing %d was made: %w", id, err)
	}
	return nil
}

// Gone records that a thing is no longer there, or was never made.
func (r *Run) Gone(id ID) error {
	return r.gone(id)
}

// DeadRun is the journal of a run that no longer lives. It is locked against other recoveries until Close or Discard.
// It is safe for concurrent use.
type DeadRun struct {
	journal
	rebooted bool
}

// Rebooted reports whether the host was started anew since: then maps, mounts, freezes and loop devices are gone, and
// device numbers mean nothing.
func (d *DeadRun) Rebooted() bool { return d.rebooted }

// Done records that a thing is no longer there.
func (d *DeadRun) Done(id ID) error {
	return d.gone(id)
}

// Discard removes the journal whatever it still names, and ends the lock.
func (d *DeadRun) Discard() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove()
}

// Damaged is a journal that cannot be trusted. What its run owned must be looked for by a person.
type Damaged struct {
	Path string // where it is now
	Err  error  // what is wrong with it; nil when it was set aside by an earlier start
}

// Found is what Dead found.
type Found struct {
	Runs    []*DeadRun // oldest first
	Damaged []Damaged
	// Unknown are journals that a newer voltar wrote. They stay where they are.
	Unknown []string
}

// Dead takes the journals of all runs that no longer live, and sets those aside that are damaged (RUNID.jsonl.damaged).
// Journals of living runs, and those that another recovery holds, are passed over. One that cannot be read does not
// hide the others: Found is valid beside an error. The caller must close each run that was found.
func Dead(opts Options) (*Found, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return &Found{}, err
	}
	entries, err := os.ReadDir(opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Found{}, nil
	}
	if err != nil {
		return &Found{}, fmt.Errorf("look for journals: %w", err)
	}
	found := &Found{}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(opts.Dir, name)
		switch {
		case !entry.Type().IsRegular():
		case strings.HasSuffix(name, suffix+damagedSuffix):
			found.Damaged = append(found.Damaged, Damaged{Path: path})
		case strings.HasSuffix(name, suffix):
			take := found.take
			if strings.HasPrefix(name, ".") {
				take = removeBegun
			}
			if err := take(opts, path); err != nil {
				errs = append(errs, fmt.Errorf("take journal %s: %w", path, err))
			}
		}
	}
	slices.SortFunc(found.Runs, func(a, b *DeadRun) int { return strings.Compare(a.Info().Run, b.Info().Run) })
	return found, errors.Join(errs...)
}

// A run that is killed while it starts a command leaves a process that has its open files, the journal's lock with them, until that
// command begins.
const (
	heirTime = 5 * time.Second
	heirPoll = 20 * time.Millisecond
)

// isOrphaned tells whether the process is gone that a journal is of.
func isOrphaned(path string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	ledger, _, err := parse(data)
	return err == nil && errors.Is(unix.Kill(ledger.info.PID, 0), unix.ESRCH)
}

// take adds the journal at path to what was found, if its run is dead.
func (f *Found) take(opts Options, path string) error {
	file, err := opts.FS.ReopenAppend(path)
	if err != nil {
		return ignoreNotExist(err) // its run has just ended
	}
	taken, err := flock(file.File())
	for deadline := time.Now().Add(heirTime); err == nil && !taken && isOrphaned(path) && time.Now().Before(deadline); {
		time.Sleep(heirPoll)
		taken, err = flock(file.File())
	}
	if err != nil || !taken {
		return errors.Join(err, file.Close())
	}
	if !stillAt(file.File(), path) {
		return file.Close()
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	ledger, validBytes, err := parse(data)
	if err == nil && ledger.info.Run+suffix != filepath.Base(path) {
		err = fmt.Errorf("it is of run %s, not what its name says", ledger.info.Run)
	}
	if errors.Is(err, errFormat) {
		f.Unknown = append(f.Unknown, path)
		return file.Close()
	}
	if err != nil {
		aside := path + damagedSuffix
		f.Damaged = append(f.Damaged, Damaged{Path: aside, Err: err})
		return errors.Join(opts.FS.Rename(path, aside), file.Close())
	}
	if validBytes < len(data) {
		if err := file.Truncate(int64(validBytes)); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	f.Runs = append(f.Runs, &DeadRun{
		journal:  journal{fs: opts.FS, path: path, info: ledger.info, file: file, ledger: *ledger},
		rebooted: ledger.info.BootID != opts.BootID,
	})
	return nil
}

// removeBegun removes what a run that died inside Begin left: it had made nothing. One that is inside just now has the
// folder's lock, or that of its file.
func removeBegun(opts Options, path string) (err error) {
	folder, err := os.Open(opts.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	if taken, err := flock(folder); err != nil || !taken {
		return err
	}
	file, err := opts.FS.ReopenAppend(path)
	if err != nil {
		return ignoreNotExist(err) // it was shown meanwhile
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if taken, err := flock(file.File()); err != nil || !taken {
		return err
	}
	return ignoreNotExist(opts.FS.Remove(path))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// journal is a journal that this process holds locked, of a run that lives or of one that is dead.
type journal struct {
	fs   *durable.FS
	path string
	info Info

	mu     sync.Mutex // guards what follows
	file   *durable.Appender
	ledger ledger
	closed bool
}

// Info tells whose journal it is.
func (j *journal) Info() Info { return j.info }

// Path is where the journal is.
func (j *journal) Path() string { return j.path }

// Outstanding lists what is not gone, the last made first: the order in which to undo it.
func (j *journal) Outstanding() []Owned {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.outstanding()
}

// Close ends the lock. The journal's file is removed when all that it names is gone; otherwise it stays for the next
// start. A second Close does nothing.
func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.ledger.owned) == 0 {
		return j.remove()
	}
	if j.closed {
		return nil
	}
	j.closed = true
	return j.file.Close()
}

func (j *journal) remove() error {
	if j.closed {
		return nil
	}
	j.closed = true
	// Removed while it is locked: nobody can take it for a dead run's in between.
	return errors.Join(ignoreNotExist(j.fs.Remove(j.path)), j.file.Close())
}

func (j *journal) gone(id ID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.append(record{Op: opGone, ID: id}); err != nil {
		return fmt.Errorf("journal that thing %d is gone: %w", id, err)
	}
	return nil
}

// append writes a record and takes it into the ledger. One that makes no sense is not written. The mutex is held.
func (j *journal) append(r record) error {
	if j.closed {
		return fmt.Errorf("cannot write to %s: it is closed", j.path)
	}
	after := ledger{info: j.ledger.info, last: j.ledger.last, owned: slices.Clone(j.ledger.owned)}
	if err := after.apply(r); err != nil {
		return err
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := j.file.Append(line); err != nil {
		return err
	}
	j.ledger = after
	return nil
}
