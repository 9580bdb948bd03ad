package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"voltar/internal/durable"
	"voltar/internal/say"
	"voltar/internal/store"
)

// folder is the store's folder while it is open. Nothing leads out of it.
type folder struct {
	root  *os.Root
	files *durable.FS
}

// folder returns the folder, which is opened as soon as it is there. While it is missing, the error wraps fs.ErrNotExist. To open it
// may hang, and nothing waits for that: it is done outside of the lock, and of several who open it at once the first counts.
func (s *Store) folder() (*folder, error) {
	if f, err := s.publish(nil); f != nil || err != nil {
		return f, err
	}
	root, err := s.openRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, &store.WholeError{Err: s.withNextStep(err)}
	}
	mine := &folder{root, durable.In(root, s.fault)}
	f, err := s.publish(mine)
	if f != mine {
		err = errors.Join(err, root.Close())
	}
	return f, err
}

func (s *Store) openRoot() (*os.Root, error) {
	if _, err := s.checkPlace(); err != nil {
		return nil, err
	}
	return os.OpenRoot(s.path)
}

// publish returns the folder that is open: an earlier one, or that which is offered, or nil.
func (s *Store) publish(offered *folder) (*folder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return nil, fs.ErrClosed
	}
	if s.opened == nil {
		s.opened = offered
	}
	return s.opened, nil
}

// toWrite returns the folder, or makes it, when it lies where it is to lie just now.
func (s *Store) toWrite() (*folder, error) {
	f, err := s.folder()
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.Host(s.fault).MkdirAll(s.path, dirPerm); err == nil {
			f, err = s.folder()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkSame(f); err != nil {
		return nil, &store.WholeError{Err: s.withNextStep(err)}
	}
	return f, nil
}

// checkPlace refuses when the required mountpoint is none, or the folder does not lie below it. It returns the folder or, while it
// is missing, the nearest one above it that is there.
func (s *Store) checkPlace() (there string, err error) {
	if err := s.checkMount(); err != nil {
		return "", err
	}
	if there, err = nearest(s.path); err != nil {
		return "", err
	}
	return there, s.checkBelowMount(there)
}

// nearest returns the folder of a path or, where that is missing, the nearest one above it that is there. What is no folder is in the
// way. A symbolic link that leads nowhere is an error: it may lead to a disk that is not mounted.
func nearest(path string) (string, error) {
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return path, nil
		case err == nil:
			return "", say.WithHint(fmt.Errorf("%s is no folder", path),
				"move it out of the way, or correct the path of the destination in the configuration")
		case !isNotExist(err):
			return "", err
		}
		link, err := os.Lstat(path)
		switch {
		case err != nil:
			path = filepath.Dir(path)
		case link.Mode()&fs.ModeSymlink != 0:
			return "", say.WithHint(fmt.Errorf("%s is a symbolic link to what is not there", path), "mount or make what it leads to")
		} // else somebody has made it meanwhile, as other writers of the same run do
	}
}

// checkMount refuses when the required mountpoint is none.
func (s *Store) checkMount() error {
	if s.requireMount == "" {
		return nil
	}
	mounted, err := s.host.mounted(s.requireMount)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look whether %s is mounted: %w", s.requireMount, err)
	}
	if !mounted {
		return say.WithHint(fmt.Errorf("%s is %w", s.requireMount, ErrNotMounted), mountHint(s.host.root, s.requireMount))
	}
	return nil
}

// mountHint says how a mountpoint that is required gets its disk: by itself where the host is told what belongs there.
func mountHint(root, point string) string {
	points, err := hostMounts(root)
	if source := points[filepath.Clean(point)]; err == nil && source != "" {
		return fmt.Sprintf("`mount %s`: what belongs there is in %s", point, source)
	}
	return "mount its disk; if it is not meant to be a mountpoint, require_mount in the configuration names another, or \"none\""
}

// checkBelowMount refuses a folder that lies elsewhere than the mount that is to protect it.
func (s *Store) checkBelowMount(there string) error {
	if s.requireMount == "" {
		return nil
	}
	there, err := filepath.EvalSymlinks(there)
	if err != nil {
		return err
	}
	mount, err := filepath.EvalSymlinks(s.requireMount)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(mount, there); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("cannot require the mount %s for a folder that does not lie below it", s.requireMount)
	}
	return nil
}

// checkSame refuses when the path no longer leads to the folder that was opened: its disk was unmounted, or another one
// was mounted over it.
func (s *Store) checkSame(f *folder) error {
	if err := s.checkMount(); err != nil {
		return err
	}
	opened, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	there, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !os.SameFile(opened, there) {
		return say.WithHint(fmt.Errorf("%s %w", s.path, ErrMoved), "mount it, or move it back: the next run copies what is missing there")
	}
	return nil
}

// lstat describes what has a name in the folder.
func (s *Store) lstat(name string) (fs.FileInfo, error) {
	f, err := s.folder()
	if err != nil {
		return nil, err
	}
	return f.root.Lstat(name)
}

// openFolder opens a folder in the folder, which the caller must close.
func (s *Store) openFolder(name string) (*os.Root, error) {
	f, err := s.folder()
	if err != nil {
		return nil, err
	}
	return f.root.OpenRoot(name)
}

// remove removes a file or an empty folder.
func (s *Store) remove(name string) error {
	f, err := s.folder()
	if err != nil {
		return err
	}
	return f.files.Remove(name)
}

// statfs describes the filesystem that the folder lies on, or is to lie on. A folder that is no longer where it was has none.
func (s *Store) statfs() (stat unix.Statfs_t, err error) {
	f, err := s.folder()
	if errors.Is(err, fs.ErrNotExist) {
		there, err := s.checkPlace()
		if err == nil {
			err = unix.Statfs(there, &stat)
		}
		return stat, err
	}
	if err != nil {
		return stat, err
	}
	if err := s.checkSame(f); err != nil {
		return stat, &store.WholeError{Err: s.withNextStep(err)}
	}
	dir, err := f.root.Open(".")
	if err != nil {
		return stat, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	conn, err := dir.SyscallConn()
	if err != nil {
		return stat, err
	}
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstatfs(int(fd), &stat) }); err != nil {
		return stat, err
	}
	if statErr != nil {
		return stat, fmt.Errorf("cannot statfs: %w", statErr)
	}
	return stat, nil
}

// Pending says that the folder is not there yet; see store.Pending.
func (s *Store) Pending(context.Context) string {
	if _, err := s.folder(); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return "the folder " + s.path + " is not there yet: the first run makes it"
}

// checkCanMake refuses when this user may not make the folder.
func (s *Store) checkCanMake() error {
	there, err := s.checkPlace()
	if err != nil {
		return err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, there, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("it is not there yet, and cannot be made in %s: %w", there, err)
	}
	return nil
}

// Place tells the folder from every other one, however their paths are spelled: by its inode or, while it is missing, by that of the
// nearest one above it that is there.
func (s *Store) Place(context.Context) (string, error) {
	there, err := s.checkPlace()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(there)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("cannot tell the inode of %s", there)
	}
	below, err := filepath.Rel(there, s.path)
	return fmt.Sprintf("%d:%d/%s", stat.Dev, stat.Ino, below), err
}

// withNextStep says what to do where the folder is read-only or this user may not write there.
func (s *Store) withNextStep(err error) error {
	isReadOnly, isForbidden := errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission)
	if !isReadOnly && !isForbidden {
		return err
	}
	there, nearestErr := nearest(s.path)
	if nearestErr != nil {
		there = s.path
	}
	switch {
	case isReadOnly:
		return say.WithHint(err, "it is mounted read-only: if the kernel made it so, its log (`dmesg`) says why; if not, "+
			"`mount -o remount,rw $(findmnt -no TARGET -T "+there+")`")
	case os.Geteuid() != 0:
		return say.WithHint(err, "run it as root, or as a user who may use "+there)
	}
	return say.WithHint(err, "not even root may: a share that takes root for nobody (NFS's root_squash), or a folder that is immutable "+
		"(`lsattr -d "+there+"`)")
}
