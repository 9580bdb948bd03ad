package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

const (
	itemsAhead    = 64        // entries between the walk and the archive
	prefetchBytes = 128 << 10 // files up to this are read ahead of their turn
	readers       = 4         // goroutines that read ahead
	maxOpenDirs   = 128       // of the folders on the way down; those above are closed and opened again
	direntBytes   = 64 << 10  // of one getdents call
	adviseBytes   = 4 << 20   // of a larger file: the kernel is asked to begin reading
)

// item is one entry on its way from the walk to the archive. Items are used again and again; there are itemsAhead.
type item struct {
	entry Entry
	name  string
	dir   *dirHandle // that it is in, held while it is needed
	st    unix.Statx_t
	attrs attributes

	fd       int       // of a file that is not loaded; -1 otherwise
	segments []segment // of a file
	sparse   bool
	data     []byte // of a file that is loaded
	loaded   bool
	shared   []physical // of a file: what it shares with others
	damaged  []string   // why data or attributes are not what they should be
	changed  []string   // what happened to it while it was read
	mounted  bool       // something else is mounted on it
	failed   error      // it could not be looked at, and is not stored

	ready chan struct{} // receives one value when all of the above is filled in
}

func newItems() []*item {
	items := make([]*item, itemsAhead)
	for i := range items {
		items[i] = &item{fd: -1, ready: make(chan struct{}, 1)}
	}
	return items
}

// release gives back what the item holds, and makes it ready for its next use.
func (it *item) release() {
	it.closeFile()
	if it.dir != nil {
		it.dir.release()
	}
	*it = item{fd: -1, data: it.data[:0], shared: it.shared[:0], ready: it.ready}
}

func (it *item) closeFile() {
	if it.fd >= 0 {
		_ = unix.Close(it.fd) // only read from: there is nothing that closing could lose
		it.fd = -1
	}
}

// inodeKey tells inodes apart, those of btrfs subvolumes too.
type inodeKey struct {
	devMajor, devMinor uint32
	inode              uint64
}

func keyOf(st *unix.Statx_t) inodeKey {
	return inodeKey{st.Dev_major, st.Dev_minor, st.Ino}
}

// frame is one folder on the way from the root to where the walk is.
type frame struct {
	dir      *dirHandle // nil while it is closed because the walk is deep below
	key      inodeKey
	pathLen  int // of the walk's path up to here
	names    nameList
	last     string // the name that was visited last
	excluded bool   // what is below is counted, not stored
}

// excludedMost is where bytes that are left out are no longer counted: what a hostile filesystem says of its files has no end.
const excludedMost = 1 << 59

// walker goes through a tree in the order of archives. It never leaves the tree: names are looked up in open folders,
// links are not followed, and what is mounted on the tree is passed over.
type walker struct {
	sys      *system
	exclude  *Matcher
	closed   []FolderID
	log      *slog.Logger
	openDirs int
	shares   bool // files of this filesystem may share their data
	limits   *Limits

	free  chan *item // not in use
	prep  chan *item // for the readers
	order chan *item // for the archive

	root  unix.Statx_t
	stack []*frame
	path  []byte // of the folder on top of the stack, then of the entry in it
	attrs attrReader
	buf   []byte
	some  []dirent // of one getdents call
	names nameStack
	visit func(path []byte, inode uint64) error // of what is not stored; nil for nobody

	entries int64 // names found

	excludedEntries, excludedBytes int64      // bytes up to excludedMost
	met                            []FolderID // of closed
}

// walk sends all entries of the tree to order, those that the readers complete also to prep, and closes both.
func (w *walker) walk(ctx context.Context, rootFD int) error {
	defer close(w.order)
	defer close(w.prep)
	defer w.closeAll()

	fd, err := openBeneath(rootFD, ".", unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("cannot open the root of the tree: %w", err)
	}
	dir := newDirHandle(fd)
	if w.root, err = w.sys.statx(fd, "", unix.AT_EMPTY_PATH, rootPath); err != nil {
		dir.release()
		return fmt.Errorf("cannot look at the root of the tree: %w", err)
	}
	w.path = append(w.path[:0], rootPath...)
	if err := w.enter(ctx, dir, &w.root); err != nil {
		return err
	}
	w.path = w.path[:0]
	w.stack[0].pathLen = 0
	for len(w.stack) > 0 {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) closeAll() {
	for _, f := range w.stack {
		if f.dir != nil {
			f.dir.release()
		}
	}
	w.stack = nil
	w.names.close()
}

// step goes on to the next name of the folder on top of the stack, or leaves the folder.
func (w *walker) step(ctx context.Context) error {
	top := w.stack[len(w.stack)-1]
	d, more, err := w.names.pop(&top.names)
	if err != nil {
		return err
	}
	if !more {
		return w.leave()
	}
	twice := d.name == top.last
	top.last = d.name
	w.path = w.path[:top.pathLen]
	if len(w.path) > 0 {
		w.path = append(w.path, '/')
	}
	w.path = append(w.path, d.name...)

	if top.excluded {
		return w.count(ctx, top.dir, d.name)
	}
	if twice {
		return w.sendFailed(ctx, errors.New("its folder has the name a second time: what that leads to cannot be reached"))
	}
	if most := w.limits.PathBytes; len(w.path) > most {
		return w.beyond(LimitPathBytes, int64(most), int64(len(w.path)))
	}
	isDir := d.kind == unix.DT_DIR
	var st unix.Statx_t
	if isDir || d.kind == unix.DT_UNKNOWN {
		if st, err = w.sys.statx(top.dir.fd, d.name, 0, string(w.path)); err != nil {
			return w.sendFailed(ctx, fmt.Errorf("cannot look at it: %w", err))
		}
		isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	if pattern, out := w.exclude.Match(string(w.path), isDir); out {
		w.log.Debug("left out", "path", string(w.path), "pattern", pattern)
		return w.count(ctx, top.dir, d.name)
	}
	if isDir {
		if most := w.limits.Depth; len(w.stack) > most {
			return w.beyond(LimitDepth, int64(most), int64(len(w.stack)))
		}
		return w.descend(ctx, top.dir, d.name, &st)
	}
	it, err := w.take(ctx)
	if err != nil {
		return err
	}
	it.name, it.dir, it.entry.Path = d.name, top.dir.hold(), string(w.path)
	if err := w.send(ctx, w.order, it); err != nil {
		return err
	}
	return w.send(ctx, w.prep, it)
}

// beyond is the error that the entry at path is beyond a bound.
func (w *walker) beyond(what string, limit, got int64) error {
	return &LimitError{What: what, Limit: limit, Got: got, Path: string(w.path)}
}

// descend stores a folder and makes it the top of the stack.
func (w *walker) descend(ctx context.Context, parent *dirHandle, name string, st *unix.Statx_t) error {
	if w.isMount(st) {
		return w.sendMounted(ctx, st)
	}
	if id := (FolderID{keyOf(st)}); slices.Contains(w.closed, id) {
		w.met = append(w.met, id)
		return w.sendReady(ctx, func(it *item) { it.setStat(st) })
	}
	fd, err := openBeneath(parent.fd, name, unix.O_DIRECTORY)
	switch {
	case isFatal(err):
		return fmt.Errorf("open %q: %w", w.path, err)
	case err != nil:
		return w.sendUnlisted(ctx, st, fmt.Errorf("the folder cannot be opened, and nothing in it is stored: %w", err))
	}
	dir := newDirHandle(fd)
	opened, err := w.sys.statx(fd, "", unix.AT_EMPTY_PATH, string(w.path))
	if err == nil && keyOf(&opened) != keyOf(st) {
		err = &changeError{"it became another folder while it was read"}
	}
	if err != nil {
		dir.release()
		if isFatal(err) {
			return fmt.Errorf("look at %q: %w", w.path, err)
		}
		return w.sendFailed(ctx, fmt.Errorf("cannot look at it: %w", err))
	}
	return w.enter(ctx, dir, &opened)
}

// enter sends the entry of an open folder and pushes it. It owns dir.
func (w *walker) enter(ctx context.Context, dir *dirHandle, st *unix.Statx_t) error {
	f := &frame{dir: dir, key: keyOf(st), pathLen: len(w.path)}
	w.stack = append(w.stack, f)
	it, err := w.take(ctx)
	if err != nil {
		return err
	}
	it.entry.Path = string(w.path)
	it.setStat(st)
	if it.attrs, err = w.attrs.ofFile(dir.fd); err != nil {
		if isFatal(err) {
			return fmt.Errorf("read attributes of %q: %w", w.path, err)
		}
		it.damaged = append(it.damaged, err.Error())
	}
	f.names, err = w.list(ctx, dir.fd)
	if err != nil {
		if isFatal(err) || ctx.Err() != nil {
			return fmt.Errorf("list %q: %w", w.path, err)
		}
		it.damaged = append(it.damaged, fmt.Sprintf("the folder cannot be listed, and something in it may be missing: %v", err))
	}
	it.ready <- struct{}{}
	if err := w.send(ctx, w.order, it); err != nil {
		return err
	}
	w.park()
	return nil
}

// park closes a folder far above, so that depth does not use up descriptors. The root stays open.
func (w *walker) park() {
	if i := len(w.stack) - 1 - w.openDirs; i > 0 && w.stack[i].dir != nil {
		w.stack[i].dir.release()
		w.stack[i].dir = nil
	}
}

// leave pops the folder on top of the stack, and opens the one above again if it had been closed.
func (w *walker) leave() error {
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	defer top.dir.release()
	if err := w.names.drop(&top.names); err != nil {
		return err
	}
	if len(w.stack) == 0 {
		return nil
	}
	parent := w.stack[len(w.stack)-1]
	if parent.dir != nil {
		return nil
	}
	// A folder that hangs in several others has one of them above it.
	if err := w.reopen(parent, func() (int, error) { return openBeneath(top.dir.fd, "..", unix.O_DIRECTORY) }); err == nil {
		return nil
	}
	if err := w.reopen(parent, func() (int, error) { return w.openFromRoot(w.path[:parent.pathLen]) }); err != nil {
		return fmt.Errorf("go back to %q: %w", w.path[:parent.pathLen], err)
	}
	return nil
}

// reopen opens a folder of the stack again that had been closed.
func (w *walker) reopen(f *frame, open func() (int, error)) error {
	fd, err := open()
	if err != nil {
		return err
	}
	st, err := w.sys.statx(fd, "", unix.AT_EMPTY_PATH, string(w.path[:f.pathLen]))
	if err == nil && keyOf(&st) != f.key {
		err = errors.New("the folder was moved while it was read")
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	f.dir = newDirHandle(fd)
	return nil
}

// openFromRoot opens a folder by its path, name by name.
func (w *walker) openFromRoot(path []byte) (int, error) {
	at := w.stack[0].dir.fd
	for name := range bytes.SplitSeq(path, []byte("/")) {
		fd, err := openBeneath(at, string(name), unix.O_DIRECTORY)
		if at != w.stack[0].dir.fd {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = fd
	}
	return at, nil
}

// list reads the names in a folder, sorted. With an error of the folder's own it returns those that it got.
func (w *walker) list(ctx context.Context, fd int) (nameList, error) {
	if w.buf == nil {
		w.buf = make([]byte, direntBytes)
	}
	names := w.names.begin()
	var failed error
	for {
		if ctx.Err() != nil {
			return nameList{}, context.Cause(ctx)
		}
		var n int
		if n, failed = w.sys.getdents(fd, string(w.path), w.buf); failed != nil || n == 0 {
			break
		}
		var some []dirent
		some, failed = parseDirents(w.some[:0], w.buf[:n])
		w.some = some
		w.entries += int64(len(some))
		if most := w.limits.Entries; most > 0 && w.entries > most {
			return nameList{}, w.beyond(LimitEntries, most, w.entries)
		}
		if err := names.add(some); err != nil {
			return nameList{}, &ownTrouble{err}
		}
		if failed != nil {
			break
		}
	}
	list, err := names.finish()
	if err != nil {
		return nameList{}, &ownTrouble{err}
	}
	return list, failed
}

// count counts an excluded entry, and goes into it when it is a folder.
func (w *walker) count(ctx context.Context, parent *dirHandle, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.excludedEntries++
	st, err := w.sys.statx(parent.fd, name, 0, string(w.path))
	if err != nil {
		return w.uncounted(err)
	}
	if w.visit != nil {
		if err := w.visit(w.path, st.Ino); err != nil {
			return err
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		w.excludedBytes = min(w.excludedBytes+int64(min(st.Size, min(st.Blocks, excludedMost/512)*512, excludedMost)), excludedMost)
		return nil
	case unix.S_IFDIR:
	default:
		return nil
	}
	if w.isMount(&st) {
		return nil
	}
	if len(w.path) > w.limits.PathBytes || len(w.stack) > w.limits.Depth {
		w.log.Debug("what is excluded is not counted this deep", "path", string(w.path))
		return nil
	}
	return w.enterExcluded(ctx, parent.fd, name, &st)
}

// enterExcluded goes into a folder of which nothing is stored.
func (w *walker) enterExcluded(ctx context.Context, parentFD int, name string, st *unix.Statx_t) error {
	fd, err := openBeneath(parentFD, name, unix.O_DIRECTORY)
	if err != nil {
		return w.uncounted(err)
	}
	f := &frame{dir: newDirHandle(fd), key: keyOf(st), pathLen: len(w.path), excluded: true}
	w.stack = append(w.stack, f)
	if f.names, err = w.list(ctx, fd); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return w.uncounted(err)
	}
	w.park()
	return nil
}

// uncounted passes over errors in what is excluded: nobody wants it.
func (w *walker) uncounted(err error) error {
	if isFatal(err) {
		return fmt.Errorf("count %q: %w", w.path, err)
	}
	w.log.Debug("cannot count what is excluded", "path", string(w.path), "err", err)
	return nil
}

// isMount tells whether an entry belongs to another mount than the root does. Older kernels do not tell mounts; there
// another device is taken for one, and so are subvolumes of btrfs.
func (w *walker) isMount(st *unix.Statx_t) bool {
	if w.root.Mask&st.Mask&unix.STATX_MNT_ID != 0 {
		return st.Mnt_id != w.root.Mnt_id
	}
	return st.Dev_major != w.root.Dev_major || st.Dev_minor != w.root.Dev_minor
}

// take waits for an item to use.
func (w *walker) take(ctx context.Context) (*item, error) {
	select {
	case it := <-w.free:
		return it, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (w *walker) send(ctx context.Context, to chan<- *item, it *item) error {
	select {
	case to <- it:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sendFailed lists the entry at path as one that is not stored.
func (w *walker) sendFailed(ctx context.Context, failed error) error {
	if isFatal(failed) {
		return fmt.Errorf("%q: %w", w.path, failed)
	}
	return w.sendReady(ctx, func(it *item) { it.failed = failed })
}

// sendMounted stores a folder that something else is mounted on, without what is in it.
func (w *walker) sendMounted(ctx context.Context, st *unix.Statx_t) error {
	w.log.Warn("another filesystem is mounted there and is not stored", "path", string(w.path))
	return w.sendReady(ctx, func(it *item) {
		it.setStat(st)
		it.mounted = true
	})
}

// sendUnlisted stores a folder that cannot be opened.
func (w *walker) sendUnlisted(ctx context.Context, st *unix.Statx_t, failed error) error {
	return w.sendReady(ctx, func(it *item) {
		it.setStat(st)
		if changedMeanwhile(failed) {
			it.changed = append(it.changed, failed.Error())
		} else {
			it.damaged = append(it.damaged, failed.Error())
		}
	})
}

func (w *walker) sendReady(ctx context.Context, fill func(*item)) error {
	it, err := w.take(ctx)
	if err != nil {
		return err
	}
	it.entry.Path = string(w.path)
	fill(it)
	it.ready <- struct{}{}
	return w.send(ctx, w.order, it)
}

// setStat takes over what statx said.
func (it *item) setStat(st *unix.Statx_t) {
	it.st = *st
	e := &it.entry
	e.Mode = uint32(st.Mode) & 0o7777
	e.UID, e.GID, e.Inode = st.Uid, st.Gid, st.Ino
	e.MTime = time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)).UTC()
	e.CTime = time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)).UTC()
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.SizeBytes = TypeFile, int64(st.Size)
	case unix.S_IFDIR:
		e.Type = TypeDir
	case unix.S_IFLNK:
		e.Type = TypeSymlink
	case unix.S_IFCHR:
		e.Type, e.DevMajor, e.DevMinor = TypeChar, st.Rdev_major, st.Rdev_minor
	case unix.S_IFBLK:
		e.Type, e.DevMajor, e.DevMinor = TypeBlock, st.Rdev_major, st.Rdev_minor
	case unix.S_IFIFO:
		e.Type = TypeFIFO
	case unix.S_IFSOCK:
		e.Type = TypeSocket
	}
}

// preparer completes items that the walk sent: what they are, their attributes, and the data of small files.
type preparer struct {
	sys    *system
	limit  *readLimit
	walker *walker // for what is fixed before the first item comes
	attrs  attrReader
}

// run completes items until there are no more.
func (p *preparer) run(ctx context.Context) error {
	for {
		select {
		case it, more := <-p.walker.prep:
			if !more {
				return nil
			}
			if err := p.prepare(ctx, it); err != nil {
				return fmt.Errorf("read %q: %w", it.entry.Path, err)
			}
			it.ready <- struct{}{}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// prepare completes one item. What is wrong with the entry is in the item; an error ends the archive.
func (p *preparer) prepare(ctx context.Context, it *item) error {
	err := p.look(ctx, it)
	if isFatal(err) || ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	it.failed = err
	return nil
}

func (p *preparer) look(ctx context.Context, it *item) error {
	st, err := p.sys.statx(it.dir.fd, it.name, 0, it.entry.Path)
	if err != nil {
		return fmt.Errorf("cannot look at it: %w", err)
	}
	it.setStat(&st)
	if p.walker.isMount(&st) {
		it.mounted = true
		return nil
	}
	switch it.entry.Type {
	case TypeFile:
		return p.openFile(ctx, it)
	case TypeDir:
		return &changeError{"it became a folder while the tree was read"}
	case TypeSymlink:
		if it.entry.Linkname, err = readLink(it.dir.fd, it.name); err != nil {
			return fmt.Errorf("cannot read the link: %w", err)
		}
	}
	it.attrs, err = p.attrs.ofName(it.dir.fd, it.name)
	return it.noteAttributes(err)
}

// noteAttributes lists attributes that could not be read as damage of their entry.
func (it *item) noteAttributes(err error) error {
	if err == nil || isFatal(err) {
		return err
	}
	it.damaged = append(it.damaged, err.Error())
	return nil
}

func (p *preparer) openFile(ctx context.Context, it *item) (err error) {
	if it.fd, err = openBeneath(it.dir.fd, it.name, 0); err != nil {
		return fmt.Errorf("cannot open it: %w", err)
	}
	it.attrs, err = p.attrs.ofFile(it.fd)
	if err := it.noteAttributes(err); err != nil {
		return err
	}
	size := it.entry.SizeBytes
	it.segments = []segment{{0, size}}
	if it.st.Blocks*512 < it.st.Size && !p.isBeyond(ctx, it) {
		if it.segments, err = dataSegments(ctx, it.fd, size, p.attrs.limits.SparsePieces); err != nil {
			return err
		}
		it.sparse = len(it.segments) != 1 || it.segments[0].length != size
	}
	it.entry.StoredBytes = storedBytes(it.segments)
	p.lookForShared(it)
	if it.st.Nlink > 1 {
		return nil // which of the names has the data is known when it is its turn
	}
	if it.entry.StoredBytes > prefetchBytes {
		_ = unix.Fadvise(it.fd, 0, min(size, adviseBytes), unix.FADV_WILLNEED) // help if it can
		return nil
	}
	return p.load(ctx, it)
}

// isBeyond tells whether a file has more data than its tree may have. Its holes do not matter then, and looking for them can
// cost hours that nothing interrupts: the kernel goes through all blocks of a file up to the next hole, of which there can be
// a thousand million in the space of a few.
func (p *preparer) isBeyond(ctx context.Context, it *item) bool {
	most := p.attrs.limits.StreamBytes
	if most <= 0 || it.entry.SizeBytes <= most {
		return false
	}
	beyond, err := p.sys.mapsMore(ctx, it.fd, it.entry.Path, it.entry.SizeBytes, most)
	if err != nil {
		p.walker.log.Debug("how much data a file has is not known", "path", it.entry.Path, "err", err)
	}
	return beyond
}

func storedBytes(segments []segment) (n int64) {
	for _, s := range segments {
		n += s.length
	}
	return n
}

// load reads the data of a small file.
func (p *preparer) load(ctx context.Context, it *item) error {
	it.data = grow(it.data[:0], int(it.entry.StoredBytes))
	rest := it.data
	err := it.readData(ctx, p.sys, p.limit, func(n int64) ([]byte, error) {
		var part []byte
		part, rest = rest[:n:n], rest[n:]
		return part, nil
	})
	it.loaded = true
	return err
}

// readData reads the data of an open file into the room that is given for each part, notes what could not be read or
// changed meanwhile, and closes the file. Room for n bytes may be less than n, but not nothing.
func (it *item) readData(
	ctx context.Context, sys *system, limit *readLimit, room func(n int64) ([]byte, error),
) error {
	var lost losses
	read := func(p []byte, offset int64) (int, error) { return sys.pread(it.fd, it.entry.Path, p, offset) }
	for _, s := range it.segments {
		for s.length > 0 {
			part, err := room(s.length)
			if err != nil {
				return err
			}
			if err := fill(ctx, limit, read, part, s.offset, &lost); err != nil {
				return err
			}
			s.offset, s.length = s.offset+int64(len(part)), s.length-int64(len(part))
		}
	}
	after, err := sys.statx(it.fd, "", unix.AT_EMPTY_PATH, it.entry.Path)
	it.closeFile()
	if err != nil {
		it.damaged = append(it.damaged, fmt.Sprintf("cannot look at it after reading: %v", err))
	} else if change := it.changeTo(&after); change != "" {
		it.changed = append(it.changed, change)
	}
	switch reason := lost.reason(); {
	case reason == "":
	case lost.isEnd() && len(it.changed) > 0: // it was cut
		it.changed = append([]string{reason}, it.changed...)
	default:
		it.damaged = append([]string{reason}, it.damaged...)
	}
	return nil
}

// changeTo says what happened to a file that looks so after it was read; "" when nothing did.
func (it *item) changeTo(after *unix.Statx_t) string {
	switch {
	case keyOf(after) != keyOf(&it.st):
		return "another file took its place while the tree was read"
	case after.Size != it.st.Size:
		return fmt.Sprintf("changed size from %s to %s while it was read", say.Size(int64(it.st.Size)), say.Size(int64(after.Size)))
	case after.Mtime != it.st.Mtime || after.Ctime != it.st.Ctime:
		return "changed while it was read"
	}
	return ""
}

// changeError is an entry that became something else while the tree was read.
type changeError struct{ reason string }

func (e *changeError) Error() string { return e.reason }

// changedMeanwhile tells an entry that was removed or exchanged since its folder was listed from one that cannot be read.
func changedMeanwhile(err error) bool {
	var change *changeError
	return errors.As(err, &change) || errors.Is(err, unix.ENOENT)
}
