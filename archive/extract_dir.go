package archive

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// foldersOpen is how many folders of the way down are kept open. Deeper trees close the upper ones and walk again.
const foldersOpen = 64

// folder is one that is being filled. Its owner, mode, attributes and times come when it is left and all files in it are
// written: they could lock out, be inherited by, or be changed through what is still to come.
type folder struct {
	path, name string
	fd         *dirHandle // nil while parked
	meta       *tarEntry  // to be given to it; nil leaves it as it is
	seq        int64      // of meta
	before     *unix.Stat_t
	inherits   bool // has a default ACL, which new entries get without being asked

	// Under extractor.mu.
	pending int
	left    bool
}

// current returns the folder that is being filled.
func (x *extractor) current() *folder { return x.stack[len(x.stack)-1] }

// enter makes the folder at path the current one, leaving others. Folders that are missing are made.
func (x *extractor) enter(path string) (*folder, error) {
	for x.current().path != rootPath && x.current().path != path && !isBelow(path, x.current().path) {
		x.leave()
	}
	for x.current().path != path {
		name, _, _ := strings.Cut(below(path, x.current().path), "/")
		if err := x.descend(name, nil); err != nil {
			return nil, err
		}
	}
	f := x.current()
	return f, x.reopen(len(x.stack) - 1)
}

// descend opens or makes the folder name in the current one. An entry of it, if there is one, is given to it when left.
func (x *extractor) descend(name string, e *tarEntry) error {
	parent := x.current()
	if err := x.reopen(len(x.stack) - 1); err != nil {
		return err
	}
	path := name
	if parent.path != rootPath {
		path = parent.path + "/" + name
	}
	f := &folder{path: path, name: name, inherits: parent.inherits}
	x.await(path)
	fd, err := openFolder(parent.fd.fd, name)
	switch {
	case err == nil:
		if f.before, err = x.opened(f, fd); err != nil {
			_ = unix.Close(fd)
			return err
		}
	case errors.Is(err, unix.ENOENT):
		fd, err = x.makeFolder(parent, name, f)
	case e != nil && x.opts.Overwrite == OverwriteReplace && (err == unix.ENOTDIR || err == unix.ELOOP):
		if err = unix.Unlinkat(parent.fd.fd, name, 0); err == nil {
			fd, err = x.makeFolder(parent, name, f)
		}
	case err == unix.ENOTDIR || err == unix.ELOOP:
		err = fmt.Errorf("cannot use %q: it is no folder, or a symbolic link, which is not followed", path)
	}
	if err != nil {
		return err
	}
	f.fd = newDirHandle(fd)
	if e == nil && f.before == nil {
		e = x.unselected(path)
	}
	if e != nil {
		f.meta, f.seq, f.before = e, x.seq, nil
	}
	x.stack = append(x.stack, f)
	x.park()
	return nil
}

// openFolder opens a folder without following a link.
func openFolder(parent int, name string) (int, error) {
	return retryInt(func() (int, error) {
		return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func retryInt(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// opened looks at a folder that was there. One that this extraction has left before gets its times and mode back in the
// end; and when it must not be written to, it may until then.
func (x *extractor) opened(f *folder, fd int) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	f.inherits = hasDefaultACL(fd)
	if st.Ctim.Nano() < x.began.UnixNano() {
		return nil, nil
	}
	x.awaitFolders() // it may be among those that are yet to get their times
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&0o700 != 0o700 {
		if err := unix.Fchmod(fd, st.Mode&0o7777|0o700); err != nil {
			return nil, err
		}
	}
	return &st, nil
}

// makeFolder makes a folder that only its owner can use as yet.
func (x *extractor) makeFolder(parent *folder, name string, f *folder) (int, error) {
	if err := unix.Mkdirat(parent.fd.fd, name, 0o700); err != nil {
		return 0, err
	}
	fd, err := openFolder(parent.fd.fd, name)
	if err != nil {
		return 0, err
	}
	if parent.inherits {
		if err := dropACLs(fd); err != nil {
			_ = unix.Close(fd)
			return 0, err
		}
		f.inherits = false
	}
	return fd, nil
}

// unselected returns what a folder gets that has to be made for what is in it: what the archive says, where that is
// known, and mode 0755 otherwise.
func (x *extractor) unselected(path string) *tarEntry {
	if x.plan != nil {
		// Without an entry, or when the index cannot be read there, the folder gets default permissions.
		if e, _, err := x.opts.Index.find(x.ctx, path); err == nil && e.Type == TypeDir {
			e.Flags &^= lateFlags
			if x.opts.NoFlags {
				e.Flags = 0
			}
			return &tarEntry{Entry: e}
		}
	}
	for _, e := range x.above {
		if e.Path == path {
			return e
		}
	}
	return &tarEntry{Entry: Entry{Path: path, Type: TypeDir, Mode: 0o755}, notes: []string{implicit}}
}

// implicit marks an entry that the archive does not have: it has no owner and no times.
const implicit = "implicit"

func (e *tarEntry) isImplicit() bool { return len(e.notes) == 1 && e.notes[0] == implicit }

// park closes the uppermost open folder when too many are open.
func (x *extractor) park() {
	i := len(x.stack) - foldersOpen
	if i <= 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for ; i > 0 && x.stack[i].fd != nil; i-- {
		if x.stack[i].pending == 0 {
			x.stack[i].fd.release()
			x.stack[i].fd = nil
		}
	}
}

// reopen opens a parked folder of the stack again, and those just above it, which are likely to come next.
func (x *extractor) reopen(i int) error {
	if x.stack[i].fd != nil {
		return nil
	}
	from := i
	for x.stack[from].fd == nil {
		from--
	}
	at := x.stack[from].fd.hold()
	for j := from + 1; j <= i; j++ {
		f := x.stack[j]
		fd, err := openFolder(at.fd, f.name)
		at.release()
		if err != nil {
			return fmt.Errorf("folder %q: %w", f.path, err)
		}
		at = newDirHandle(fd)
		if j > i-foldersOpen/2 {
			f.fd = at.hold()
		}
	}
	at.release()
	return nil
}

// leave ends the filling of the current folder.
func (x *extractor) leave() {
	i := len(x.stack) - 1
	f := x.stack[i]
	err := x.reopen(i)
	x.stack = x.stack[:i]
	if err != nil {
		_ = x.failAt(f.seq, f.path, err) // stopped() ends the run
		return
	}
	x.mu.Lock()
	f.left = true
	now := f.pending == 0
	if !now {
		x.leaving++
	}
	x.mu.Unlock()
	if now {
		x.finish(f)
	}
}

// awaitFolders waits until every folder that was left has got what it was to get.
func (x *extractor) awaitFolders() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.leaving > 0 {
		x.done.Wait()
	}
}

// finish gives a folder what it was to get. Nothing is written into it any more.
func (x *extractor) finish(f *folder) {
	var err error
	switch {
	case f.meta != nil:
		err = x.finishFolder(f)
	case f.before != nil:
		err = giveBack(f)
	}
	if err != nil {
		_ = x.failAt(f.seq, f.path, err) // stopped() ends the run
	}
	if f != x.top {
		f.fd.release()
	}
}

func giveBack(f *folder) error {
	if f.before.Mode&0o700 != 0o700 {
		if err := unix.Fchmod(f.fd.fd, f.before.Mode&0o7777); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, f.before.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(f.fd.fd), times, 0)
}

// dir restores a folder.
func (x *extractor) dir(e *tarEntry) error {
	if e.Path == rootPath {
		if _, err := x.enter(rootPath); err != nil {
			return err
		}
		if x.opts.Rebuild {
			x.top.meta, x.top.seq = e, x.seq
		}
		x.count(&x.stats.Dirs, 0)
		return nil
	}
	parent, name := splitPath(e.Path)
	if x.onStack(e) {
		x.count(&x.stats.Dirs, 0)
		return nil
	}
	if _, err := x.enter(parent); err != nil {
		return err
	}
	if err := x.descend(name, e); err != nil {
		return err
	}
	x.count(&x.stats.Dirs, 0)
	return nil
}

// onStack gives an entry to its folder when that is being filled already.
func (x *extractor) onStack(e *tarEntry) bool {
	for _, f := range x.stack {
		if f.path == e.Path {
			f.meta, f.seq, f.before = e, x.seq, nil
			return true
		}
	}
	return false
}

// openPath opens a folder by its path, for something that is not written into it now.
func (x *extractor) openPath(path string) (*dirHandle, error) {
	from := len(x.stack) - 1
	for from > 0 && (x.stack[from].fd == nil || x.stack[from].path != path && !isBelow(path, x.stack[from].path)) {
		from--
	}
	at := x.stack[from].fd.hold()
	if x.stack[from].path == path {
		return at, nil
	}
	for name := range strings.SplitSeq(below(path, x.stack[from].path), "/") {
		fd, err := openFolder(at.fd, name)
		at.release()
		if err != nil {
			return nil, err
		}
		at = newDirHandle(fd)
	}
	return at, nil
}
