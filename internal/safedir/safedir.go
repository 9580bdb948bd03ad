// Package safedir opens folders of the host for files that come from a stranger. What a guest's disk held, its set-user-id
// programs and its secrets with it, must be out of reach of the host's other users, and none of these may lead root's
// writing elsewhere by exchanging a folder or a symbolic link on the way.
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

// ErrUntrusted is wrapped by the error of a folder that another user has a hand in.
var ErrUntrusted = errors.New("another user could exchange it")

// linksFollowed bounds the symbolic links on the way to a folder, as the kernel does.
const linksFollowed = 40

// Open opens the folder at path and makes what is missing of it, for its owner alone. A folder that is there keeps its mode; it
// has to be the caller's. The way to it may lead through folders and symbolic links of root and of the caller, as long as nobody else can
// write to these. The error wraps ErrUntrusted otherwise, and nothing is made.
func Open(path string) (*os.Root, error) {
	w, err := walk(path)
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
	w, err := walk(path)
	if err != nil {
		return err
	}
	defer w.close()
	if len(w.missing) > 0 {
		return nil
	}
	return w.checkOwn()
}

// walker is on the way to a folder.
type walker struct {
	fd      int    // of the folder that it has come to
	at      string // its path, without symbolic links
	st      unix.Stat_t
	owners  []uint32 // who may have a hand in what is on the way
	closed  bool     // nobody else gets below a folder on the way, whatever its mode
	shared  bool     // others may put names of their own into the folder, but not exchange those that are there
	missing []string // components that are yet to be made
}

// walk goes as far as folders are there.
func walk(path string) (_ *walker, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w := &walker{fd: -1}
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
	w.at = path
	return w.checkWritable()
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
	return untrusted("the %s %s belongs to the user with the number %d", what, path, st.Uid)
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
		return untrusted("others can write to the folder %s (mode %04o)", w.at, mode&0o7777)
	}
	return nil
}

// trustsGroup says that the group of a folder is nobody else than those who are trusted anyway. With an ACL the bits of the group
// are those of all whom it names.
func (w *walker) trustsGroup() bool {
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
		return untrusted("the folder %s belongs to the user with the number %d", w.at, w.st.Uid)
	case w.shared:
		return untrusted("others can write to the folder %s (mode %04o)", w.at, w.st.Mode&0o7777)
	}
	return nil
}

func untrusted(format string, args ...any) error {
	return say.WithHint(fmt.Errorf("cannot use that folder: %s: %w", fmt.Sprintf(format, args...), ErrUntrusted),
		"give a folder that is yours alone on all of its way, or one that does not exist yet: it is made for you alone")
}
