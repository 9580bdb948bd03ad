package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

const (
	// jobFileBytes is the largest file that is written beside others; larger ones are written as they are inflated.
	jobFileBytes = 1 << 20
	// jobsBytes bounds the data of files that wait to be written, jobsQueued their number.
	jobsBytes  = 16 << 20
	jobsQueued = 256
	// failuresKept bounds the failures that are listed, failuresBytes what their paths and reasons take; the rest is counted.
	failuresKept  = 100_000
	failuresBytes = 16 << 20
	progressEvery = 200 * time.Millisecond
)

// listBudget is the room of a list that damage, or whoever made an archive, could make long.
type listBudget struct{ entries, bytes int }

// take tells whether there is room for one more entry, of so many bytes.
func (b *listBudget) take(bytes int) bool {
	if b.entries >= failuresKept || b.bytes+bytes > failuresBytes {
		return false
	}
	b.entries++
	b.bytes += bytes
	return true
}

// ErrIncomplete is wrapped by the error of an extraction or a verification that went to its end and found faults.
var ErrIncomplete = errors.New("not all of the archive is good")

// Overwrite says what happens to what is in the way of an entry. Folders are never in the way of folders: they are kept
// and take over owner, mode, attributes and times; the folder that is extracted into only where Rebuild says so.
type Overwrite int

// What to do with something in the way. An archive that holds a path twice meets its own first entry.
const (
	OverwriteNever   Overwrite = iota // the entry fails
	OverwriteReplace                  // it is removed first; a folder only when it is empty
	OverwriteKeep                     // the entry is left out and counted
)

// Withheld is the shortfall of entries that had privileges which they were not given; see ExtractOptions.Privileges.
const Withheld = "privileges"

// ExtractOptions of Extract; the zero value restores everything into an empty folder of a host, but for what would have a
// say there.
type ExtractOptions struct {
	// Rebuild is for the root of a filesystem that is made again: Devices and Privileges, and the folder itself takes over
	// owner, mode, attributes and times of the archive's root. Otherwise it stays as it is, as whoever can enter it has the
	// files of a guest before him.
	Rebuild bool
	// Paths select entries with all that is below them; patterns of path.Match for each component, and "**" for any
	// number of components. All when empty. With an Index and a source with random access only the members that hold
	// them are read.
	Paths []string
	// Index is that of the archive: chattr flags, sockets and odd attributes are restored from it, lost entries are
	// named, and reading goes on exactly behind damage.
	Index *Index
	// Workers is how many small files are written at a time; 0 means one for each CPU, at most 4.
	Workers   int
	Overwrite Overwrite
	// KeepGoing goes on after failures and damage, and lists them all. Files whose data is partly lost are removed; without Rebuild,
	// what can be salvaged goes beside their names. It needs a Reader that was not read from before.
	KeepGoing bool
	// Devices makes device nodes. Without, they are left out and counted.
	Devices bool
	// Privileges restores set-user-id and set-group-id bits, capabilities and all else in the attributes of the system
	// (security.* and trusted.*). Without, they are left out and counted as Withheld.
	Privileges bool
	// NoOwner, NoXattrs, NoACLs and NoFlags leave those out. Otherwise what the system refuses for want of
	// privileges or support is counted as a shortfall.
	NoOwner, NoXattrs, NoACLs, NoFlags bool
	// OnProgress is called a few times a second, one call at a time.
	OnProgress func(ExtractStats)

	progressEvery time.Duration                              // at most how often OnProgress is called; 0 means a few times a second
	cloneRange    func(fd int, r *unix.FileCloneRange) error // nil means the kernel's; tests do without a filesystem that can
}

// Failure is one entry that was lost or could not be restored.
type Failure struct {
	Path string // empty when damage hit entries whose names are not known
	Err  error
	seq  int64
}

// Shortfall is a kind of thing that was not restored to some entries which are otherwise good.
type Shortfall struct {
	What  string // "owner", "xattr", "acl", "flags", "device", "time", "project", "existing", "damaged when backed up", Withheld
	Count int64
	Path  string // of the first
	Err   error  // of the first; may be nil
}

// ExtractStats says what an extraction did.
type ExtractStats struct {
	Files, Dirs, Symlinks, Hardlinks, Others int64 // made
	Bytes                                    int64 // of data written
	SharedBytes                              int64 // of Bytes, what shares the room of earlier data
	Damage                                   []MemberError
	Failures                                 []Failure // in the order of the archive
	FailuresOmitted                          int64     // beyond those listed
	Shortfalls                               []Shortfall
}

// Entries returns how many entries were made.
func (s *ExtractStats) Entries() int64 {
	return s.Files + s.Dirs + s.Symlinks + s.Hardlinks + s.Others
}

// Extract restores the archive that r reads into the folder root, which stays the caller's. It never leaves that folder:
// names are opened component by component and symbolic links are not followed, whether they come from the archive or
// were there before. Names that are absolute or hold ".." are failures.
//
// Without KeepGoing the error is that of the first entry, in archive order, that failed. With it, the error wraps
// ErrIncomplete when there are failures or damage, and statistics list them. Device nodes, chown and the like need
// privileges; see Shortfall. /proc must be mounted.
func Extract(ctx context.Context, r *Reader, root *os.Root, opts ExtractOptions) (ExtractStats, error) {
	dir, err := root.Open(".")
	if err != nil {
		return ExtractStats{}, fmt.Errorf("extract: %w", err)
	}
	defer dir.Close()
	x, err := newExtractor(ctx, r, dir, opts)
	if err != nil {
		return ExtractStats{}, fmt.Errorf("extract: %w", err)
	}
	defer x.plan.close()
	err = x.run()
	stats := x.snapshot()
	if err != nil {
		err = fmt.Errorf("extract: %w", err)
	}
	return stats, err
}

type extractor struct {
	ctx     context.Context
	r       *Reader
	t       *tarReader
	opts    ExtractOptions
	sel     *selection
	plan    *plan
	began   time.Time
	top     *folder
	stack   []*folder // from the root to the folder that is being filled
	above   []*tarEntry
	queue   chan *fileJob
	room    *semaphore.Weighted
	wg      sync.WaitGroup
	seq     int64 // of the current entry
	late    bool  // some entries are immutable or append-only
	told    time.Time
	writing int64 // bytes of the large file at hand that are written, for progress
	sharer  *sharer

	busy     bool            // with an entry: what is salvaged meanwhile waits
	waiting  [][]byte        // which is at most what one damaged member has: the rest of the entry that it ends
	salvaged map[string]bool // paths that were told to be lost already

	mu       sync.Mutex
	done     *sync.Cond // a job is done
	inFlight map[string]*fileJob
	stats    ExtractStats
	listed   listBudget // of the failures
	short    map[string]*Shortfall
	fatal    error // ends the run even when it keeps going
	leaving  int   // folders that are left, but wait for files in them to be written
}

func newExtractor(ctx context.Context, r *Reader, dir *os.File, opts ExtractOptions) (*extractor, error) {
	if opts.Workers <= 0 {
		opts.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if opts.Rebuild {
		opts.Devices, opts.Privileges = true, true
	}
	sel, err := newSelection(opts.Paths)
	if err != nil {
		return nil, err
	}
	if opts.KeepGoing {
		if r.started {
			return nil, errors.New("cannot keep going: the archive is being read already")
		}
		r.opts.KeepGoing, r.opts.Salvage = true, !opts.Rebuild
	}
	x := &extractor{ctx: ctx, r: r, opts: opts, sel: sel, began: time.Now().Add(-100 * time.Millisecond),
		queue: make(chan *fileJob, jobsQueued), room: semaphore.NewWeighted(jobsBytes),
		inFlight: make(map[string]*fileJob), short: make(map[string]*Shortfall)}
	x.done = sync.NewCond(&x.mu)
	x.sharer = &sharer{x: x}
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	x.top = &folder{path: rootPath, fd: newDirHandle(fd), inherits: hasDefaultACL(fd)}
	x.stack = []*folder{x.top}
	x.t = &tarReader{r: r, damaged: x.damaged, whole: sel.all() && r.opts.Members == nil}
	if r.opts.KeepGoing && r.opts.Salvage {
		x.t.salvage = x.salvage
	}
	if opts.KeepGoing {
		x.t.badEntry = func(err error) error { return x.fail("", err) }
	}
	return x, x.useIndex()
}

// useIndex plans which members to read and sets a cursor beside the archive.
func (x *extractor) useIndex() error {
	index := x.opts.Index
	if index == nil {
		return nil
	}
	entries := index.All(x.ctx)
	fresh := x.r.at != nil && !x.r.started && x.r.opts.Members == nil
	switch {
	case fresh && !x.sel.all():
		p, err := index.plan(x.ctx, x.sel, defaultLimits())
		if err != nil {
			return err
		}
		x.plan = p
		x.r.opts.Members = p.members
		entries = index.entriesOf(x.ctx, p.blocks)
	case fresh && x.opts.KeepGoing:
		members, err := index.Members(x.ctx)
		if err == nil {
			x.r.opts.Members = members
		} else if err := x.fail("", fmt.Errorf("index: %w", err)); err != nil {
			return err
		}
	}
	x.t.cursor = newCursor(entries, x.passed, func(err error) error { return x.fail("", err) })
	return nil
}

// run goes through the archive and waits for all that it began.
func (x *extractor) run() error {
	for range x.opts.Workers {
		x.wg.Go(func() {
			for j := range x.queue {
				x.work(j)
			}
		})
	}
	err := x.entries()
	if x.t.cursor != nil {
		if err == nil {
			err = x.t.cursor.finish()
		}
		x.t.cursor.stop()
	}
	close(x.queue)
	x.wg.Wait()
	for len(x.stack) > 0 {
		x.leave()
	}
	if err == nil && x.late && !x.opts.NoFlags {
		err = x.lateFlags()
	}
	x.top.fd.release()
	if e := x.firstFailure(); e != nil && !x.opts.KeepGoing {
		return e
	}
	if x.fatal != nil {
		return x.fatal
	}
	if err != nil {
		return err
	}
	if err := x.sel.unmatched(); err != nil {
		return err
	}
	if n := int64(len(x.stats.Failures)) + x.stats.FailuresOmitted; n > 0 || len(x.stats.Damage) > 0 {
		return fmt.Errorf("%w: %d failures, %d damaged members", ErrIncomplete, n, len(x.stats.Damage))
	}
	return nil
}

func (x *extractor) entries() error {
	for {
		if err := x.stopped(); err != nil {
			return err
		}
		e, err := x.t.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		x.seq++
		e.seq = x.seq
		x.busy = true
		err = x.entry(e)
		x.busy = false
		if err != nil {
			if err := x.fail(e.Path, err); err != nil {
				return err
			}
		}
		x.salvageWaiting()
		x.progress()
	}
}

// stopped returns why to go no further, if there is a reason.
func (x *extractor) stopped() error {
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fatal != nil {
		return x.fatal
	}
	if len(x.stats.Failures) > 0 && !x.opts.KeepGoing {
		return ErrIncomplete
	}
	return nil
}

// fail lists a failure and returns an error when the run has to end.
func (x *extractor) fail(path string, err error) error { return x.failAt(x.seq, path, err) }

func (x *extractor) failAt(seq int64, path string, err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.listed.take(len(path) + len(err.Error())) {
		x.stats.Failures = append(x.stats.Failures, Failure{Path: path, Err: err, seq: seq})
	} else {
		x.stats.FailuresOmitted++
	}
	wrapped := err
	if path != "" {
		wrapped = fmt.Errorf("%q: %w", path, err)
	}
	for _, end := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, end) && x.fatal == nil {
			x.fatal = wrapped
		}
	}
	if !x.opts.KeepGoing {
		return wrapped
	}
	return x.fatal
}

// firstFailure returns the failure of the earliest entry.
func (x *extractor) firstFailure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortStableFunc(x.stats.Failures, func(a, b Failure) int { return cmp.Compare(a.seq, b.seq) })
	if len(x.stats.Failures) == 0 {
		return nil
	}
	f := x.stats.Failures[0]
	if f.Path == "" {
		return f.Err
	}
	return fmt.Errorf("%q: %w", f.Path, f.Err)
}

func (x *extractor) damaged(d *MemberError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.stats.Damage) < failuresKept {
		x.stats.Damage = append(x.stats.Damage, *d)
	}
}

// shortfall counts something that an entry did not get.
func (x *extractor) shortfall(what, path string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.short[what]
	if s == nil {
		s = &Shortfall{What: what, Path: path, Err: err}
		x.short[what] = s
	}
	s.Count++
}

// snapshot returns the statistics as they are now.
func (x *extractor) snapshot() ExtractStats {
	x.mu.Lock()
	defer x.mu.Unlock()
	stats := x.stats
	stats.Failures = slices.Clone(stats.Failures)
	stats.Damage = slices.Clone(stats.Damage)
	for _, s := range x.short {
		stats.Shortfalls = append(stats.Shortfalls, *s)
	}
	slices.SortFunc(stats.Shortfalls, func(a, b Shortfall) int { return cmp.Compare(a.What, b.What) })
	return stats
}

func (x *extractor) progress() {
	if x.opts.OnProgress == nil || time.Since(x.told) < cmp.Or(x.opts.progressEvery, progressEvery) {
		return
	}
	x.told = time.Now()
	x.mu.Lock()
	stats := x.stats
	stats.Failures, stats.Damage = nil, nil
	x.mu.Unlock()
	stats.Bytes += x.writing
	x.opts.OnProgress(stats)
}

// count adds one to a number of the statistics.
func (x *extractor) count(n *int64, bytes int64) {
	x.mu.Lock()
	*n++
	x.stats.Bytes += bytes
	x.mu.Unlock()
}

// passed is told of entries in the index that the stream did not have. It makes sockets and lists lost entries.
func (x *extractor) passed(e Entry) error {
	if !x.sel.matches(e.Path) {
		return nil
	}
	if x.salvaged[e.Path] {
		delete(x.salvaged, e.Path)
		return nil
	}
	err := errLost
	if e.TarOffset < 0 && e.Type == TypeSocket {
		err = x.special(&tarEntry{Entry: e})
	}
	if err != nil {
		return x.fail(e.Path, err)
	}
	return nil
}

var errLost = errors.New("it is in a damaged part of the archive")

// entry restores one entry.
func (x *extractor) entry(e *tarEntry) error {
	if err := x.addFromIndex(e); err != nil {
		return err
	}
	var err error
	if e.Path, err = cleanPath(e.Path); err != nil {
		return err
	}
	if e.Type == TypeHardlink {
		if e.Linkname, err = cleanPath(e.Linkname); err != nil {
			return fmt.Errorf("cannot link: %w", err)
		}
	}
	if !x.sel.matches(e.Path) {
		as, err := x.plan.renamedTo(e.Path)
		if err != nil {
			return err
		}
		if as == "" {
			x.passOver(e)
			return nil
		}
		e.Path = as
	} else if done, err := x.linkedAlready(e); done || err != nil {
		return err
	}
	for _, note := range e.notes {
		x.shortfall("xattr", e.Path, errors.New("cannot restore: "+note))
	}
	if e.Damaged != "" {
		x.shortfall("damaged when backed up", e.Path, errors.New(e.Damaged))
	}
	switch e.Type {
	case TypeDir:
		return x.dir(e)
	case TypeFile:
		return x.file(e)
	case TypeSymlink:
		return x.symlink(e)
	case TypeHardlink:
		return x.hardlink(e)
	default:
		return x.special(e)
	}
}

// addFromIndex takes over what the index says of an entry.
func (x *extractor) addFromIndex(e *tarEntry) error {
	if x.t.cursor == nil || !e.exact {
		return nil
	}
	in, ok, err := x.t.cursor.take(e.TarOffset)
	if err != nil || !ok {
		return err
	}
	if path, err := cleanPath(e.Path); err == nil && path != in.Path {
		return fmt.Errorf("cannot use the index: it has %q here", in.Path)
	}
	e.Damaged, e.Shared, e.Accounting = in.Damaged, in.Shared, in.Accounting
	if !x.opts.NoFlags {
		e.Flags = in.Flags
		x.late = x.late || in.Flags&lateFlags != 0
	}
	for _, name := range sortedKeys(in.OddXattrs) {
		e.xattrs = append(e.xattrs, xattr{name: name, value: in.OddXattrs[name]})
	}
	return nil
}

// linkedAlready says whether a hard link was made in place of the entry that it names, and lets further ones name it.
func (x *extractor) linkedAlready(e *tarEntry) (bool, error) {
	if e.Type != TypeHardlink {
		return false, nil
	}
	as, err := x.plan.renamedTo(e.Linkname)
	if as == "" || err != nil {
		return false, err
	}
	e.Linkname = as
	return e.Linkname == e.Path, nil
}

// passOver remembers the folders above what may be selected.
func (x *extractor) passOver(e *tarEntry) {
	if e.Type != TypeDir {
		return
	}
	for n := len(x.above); n > 0 && !isBelow(e.Path, x.above[n-1].Path); n-- {
		x.above = x.above[:n-1]
	}
	x.above = append(x.above, e)
}
