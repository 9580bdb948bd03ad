// Package safedir knows which paths of the host no other user has a hand in. It opens folders for files that come from a
// stranger: what a guest's disk held, its set-user-id programs and its secrets with it, must be out of reach of the host's
// other users, and none of these may lead root's writing elsewhere by exchanging a folder or a symbolic link on the way. And it
// reads files whose word is taken, as ssh does with StrictModes.
package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// ErrUntrusted is wrapped by the error of a folder or file that another user has a hand in.
var ErrUntrusted = errors.New("another user could exchange it")

// linksFollowed bounds the symbolic links on the way to a folder, as the kernel does.
const linksFollowed = 40

// Open opens the folder at path and makes what is missing of it, for its owner alone. A folder that is there keeps its mode; it
// has to be the caller's. The way to it may lead through folders and symbolic links of root and of the caller, as long as nobody else can
// write to these. The error wraps ErrUntrusted otherwise, and nothing is made.
func Open(path string) (*os.Root, error) {
	w, err := walkToFolder(path)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for _, name := range w.missing {
		if err := unix.Mkdirat(w.fd, name, 0o700); err != nil {
			return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(w.at, name), Err: err}
		}
		if err := w.descend(name); err != nil {
			return nil, err
		}
	}
	if err := w.checkOwn(); err != nil {
		return nil, err
	}
	return os.OpenRoot("/proc/self/fd/" + strconv.Itoa(w.fd))
}

// Check returns the error that Open would. It makes nothing.
func Check(path string) error {
	w, err := walkToFolder(path)
	if err != nil {
		return err
	}
	defer w.close()
	if len(w.missing) > 0 {
		return nil
	}
	return w.checkOwn()
}

// walkToFolder is walk for a folder that a person named.
func walkToFolder(path string) (*walker, error) {
	w, err := walk(path, toFolder)
	if errors.Is(err, unix.ENOTDIR) {
		err = say.WithHint(err, "name a folder, or one that is not there yet")
	}
	return w, err
}

// ReadFile reads the file at path. It has to belong to root or the caller, and nobody else, no group either, may write to it
// or to a folder on the way to it: the error wraps ErrUntrusted otherwise. A file may lie in a folder as /tmp, where names
// that are there cannot be exchanged. A pipe without a name, such as a shell makes for its "<(command)", is read as it is.
func ReadFile(path string) ([]byte, error) {
	nameless, err := isNameless(path)
	if err != nil {
		return nil, err
	}
	if nameless {
		return os.ReadFile(path)
	}
	w, err := walk(path, toFile)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if len(w.missing) > 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if w.st.Mode&unix.S_IFMT == unix.S_IFIFO { // there may never be anybody who writes into it
		return nil, fmt.Errorf("cannot read %s: it is a pipe, and no file", path)
	}
	content, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(w.fd))
	var failure *fs.PathError
	if errors.As(err, &failure) {
		failure.Path = path
	}
	return content, err
}

// isNameless tells whether a path leads to a pipe that is in no folder.
func isNameless(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // it was not written to
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Type == unix.PIPEFS_MAGIC, nil
}

// goal is what a way leads to.
type goal int

const (
	toFolder goal = iota
	toFile
)

// walker is on the way to a folder or a file.
type walker struct {
	goal    goal
	fd      int    // of the folder that it has come to, or of the file
	at      string // its path, without symbolic links
	st      unix.Stat_t
	owners  []uint32 // who may have a hand in what is on the way
	closed  bool     // nobody else gets to where it is: a folder above lets none in
	shared  bool     // others may put names of their own into the folder, but not exchange those that are there
	missing []string // components that are yet to be made
}

// walk goes as far as folders are there, and to the file where that is the goal.
func walk(path string, goal goal) (_ *walker, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w := &walker{goal: goal, fd: -1}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.toRoot(); err != nil {
		return nil, err
	}
	links := 0
	for rest := split(path); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		var st unix.Stat_t
		err := unix.Fstatat(w.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == unix.ENOENT:
			w.missing = append([]string{name}, rest...)
			return w, w.checkMissing()
		case err != nil:
			return nil, &fs.PathError{Op: "stat", Path: filepath.Join(w.at, name), Err: err}
		case st.Mode&unix.S_IFMT != unix.S_IFLNK && st.Mode&unix.S_IFMT != unix.S_IFDIR && goal == toFile && len(rest) == 0:
			return w, w.arrive(name)
		case st.Mode&unix.S_IFMT != unix.S_IFLNK:
			if err := w.descend(name); err != nil {
				return nil, err
			}
			continue
		}
		if links++; links > linksFollowed {
			return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		if err := w.checkOwner(filepath.Join(w.at, name), "symbolic link", &st); err != nil {
			return nil, err
		}
		target, err := w.readLink(name)
		if err != nil {
			return nil, err
		}
		if filepath.IsAbs(target) {
			if err := w.toRoot(); err != nil {
				return nil, err
			}
		}
		rest = append(split(target), rest...)
	}
	return w, nil
}

// split returns the components of a path. A ".." is kept, as a link may stand before it.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func (w *walker) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd) // it was not written to
		w.fd = -1
	}
}

// toRoot begins at the root folder. Its owner can exchange everything and has to be trusted, also where a user namespace shows
// root by another number.
func (w *walker) toRoot() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	w.close()
	w.fd, w.at, w.closed, w.shared = fd, "/", false, false
	if err := unix.Fstat(fd, &w.st); err != nil {
		return &fs.PathError{Op: "stat", Path: "/", Err: err}
	}
	w.owners = []uint32{0, uint32(os.Geteuid()), w.st.Uid}
	return w.checkWritable()
}

// descend goes on to a folder in the one that was come to.
func (w *walker) descend(name string) error {
	path := filepath.Join(w.at, name)
	fd, err := unix.Openat(w.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	w.close()
	w.fd = fd
	if err := unix.Fstat(fd, &w.st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := w.checkOwner(path, "folder", &w.st); err != nil {
		return err
	}
	if name == ".." { // may lead out of the folder that lets nobody else in; that one says so again if it does not
		w.closed = false
	}
	w.at = path
	return w.checkWritable()
}

// arrive takes the file that is the end of the way.
func (w *walker) arrive(name string) error {
	path := filepath.Join(w.at, name)
	fd, err := unix.Openat(w.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	w.close()
	w.fd, w.at = fd, path
	if err := unix.Fstat(fd, &w.st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := w.checkOwner(path, "file", &w.st); err != nil {
		return err
	}
	mode := w.st.Mode
	if mode&unix.S_IFMT != unix.S_IFCHR && mode&0o022 != 0 { // what is written to /dev/null is not what it holds
		return w.untrusted("chmod go-w "+path, "others can write to the file %s (mode %04o)", path, mode&0o7777)
	}
	return nil
}

func (w *walker) readLink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.fd, name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: filepath.Join(w.at, name), Err: err}
	}
	return string(buf[:n]), nil
}

// checkOwner looks at who owns something in the folder that was come to.
func (w *walker) checkOwner(path, what string, st *unix.Stat_t) error {
	trusted := w.owners
	if w.shared { // whoever is nobody in a user namespace may be anybody
		trusted = trusted[:2]
	}
	for _, uid := range trusted {
		if st.Uid == uid {
			return nil
		}
	}
	return w.untrusted("chown root "+path, "the %s %s belongs to the user with the number %d", what, path, st.Uid)
}

// checkWritable looks at whether others can write to the folder that was come to.
func (w *walker) checkWritable() error {
	mode := w.st.Mode
	others := mode & 0o003
	if !w.trustsGroup() {
		others |= mode & 0o030 >> 3
	}
	w.closed = w.closed || others&1 == 0
	writable := others&2 != 0 && !w.closed
	w.shared = writable && mode&unix.S_ISVTX != 0
	if writable && !w.shared {
		return w.untrusted("chmod go-w "+w.at, "others can write to the folder %s (mode %04o)", w.at, mode&0o7777)
	}
	return nil
}

// trustsGroup says that the group of a folder is nobody else than those who are trusted anyway. With an ACL the bits of the group
// are those of all whom it names. Where a file is read, no group is trusted: its commands run as who reads it.
func (w *walker) trustsGroup() bool {
	if w.goal == toFile {
		return false
	}
	if w.st.Gid != 0 && (os.Geteuid() == 0 || w.st.Gid != uint32(os.Getegid())) {
		return false
	}
	n, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(w.fd), "system.posix_acl_access", nil)
	return err != nil || n == 0
}

// checkMissing looks at the names that are to be made: one that leads back would leave what was looked at.
func (w *walker) checkMissing() error {
	for _, name := range w.missing {
		if name == ".." {
			return &fs.PathError{Op: "open", Path: filepath.Join(w.at, w.missing[0]), Err: fs.ErrNotExist}
		}
	}
	return nil
}

// checkOwn looks at the folder that the way has led to.
func (w *walker) checkOwn() error {
	switch {
	case w.st.Uid != uint32(os.Geteuid()):
		return w.untrusted("", "the folder %s belongs to the user with the number %d", w.at, w.st.Uid)
	case w.shared:
		return w.untrusted("", "others can write to the folder %s (mode %04o)", w.at, w.st.Mode&0o7777)
	}
	return nil
}

// untrusted is the error of a path that another user has a hand in. The remedy is for who reads a file; a folder for guests' files can
// as well be another one.
func (w *walker) untrusted(remedy, format string, args ...any) error {
	what := fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrUntrusted)
	if w.goal == toFile {
		return say.WithHint(what, remedy)
	}
	return say.WithHint(fmt.Errorf("cannot use that folder: %w", what),
		"give a folder that is yours alone on all of its way, or one that does not exist yet: it is made for you alone")
}
