// Package durable writes files that are there whole after a power cut, or not at all: a temporary name, fsync, rename,
// fsync of the folder. It is the one place of voltar through which such writes go, and so the one seam where tests
// inject write faults.
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Op names one step of a durable write.
type Op string

// The steps that a Fault is asked about.
const (
	OpCreate   Op = "create"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "fsync"
	OpClose    Op = "close"
	OpRename   Op = "rename"
	OpSyncDir  Op = "fsync folder"
	OpMkdir    Op = "mkdir"
	OpRemove   Op = "remove"
)

// Fault is asked before each step, with the path as the step knows it (the temporary one, until the rename). An error
// that it returns becomes the step's, and the step is not done, with two exceptions that mirror real disks: a write
// stores the first half of its bytes, and a close closes. It may be called from several goroutines at once.
type Fault func(op Op, path string) error

// FS writes durably, either to paths of the host or below one folder that it cannot leave. The nil *FS is the host's
// file system. It holds no state and is safe for concurrent use.
type FS struct {
	root  *os.Root // nil: paths are the host's
	fault Fault    // nil: none
}

// Host returns an FS for paths of the host. A nil fault is that of production.
func Host(fault Fault) *FS {
	return &FS{fault: fault}
}

// In returns an FS for paths relative to a folder. No path and no symbolic link leads out of it. The caller keeps
// ownership of root. A nil fault is that of production.
func In(root *os.Root, fault Fault) *FS {
	return &FS{root: root, fault: fault}
}

// WriteFile writes a whole file on the host; see FS.WriteFile.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return (*FS)(nil).WriteFile(path, data, perm)
}

// MkdirAll makes a folder of the host; see FS.MkdirAll.
func MkdirAll(path string, perm fs.FileMode) error {
	return (*FS)(nil).MkdirAll(path, perm)
}

// Rename renames a file of the host; see FS.Rename.
func Rename(oldPath, newPath string) error {
	return (*FS)(nil).Rename(oldPath, newPath)
}

// Remove removes a file of the host; see FS.Remove.
func Remove(path string) error {
	return (*FS)(nil).Remove(path)
}

// WriteFile makes path hold data, with the permissions given (see Create). After an error, whatever path held before is
// there still (but see File.Commit for a failed fsync of the folder).
func (f *FS) WriteFile(path string, data []byte, perm fs.FileMode) error {
	file, err := f.Create(path, perm, CreateOptions{})
	if err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return errors.Join(err, file.Abort())
	}
	return file.Commit()
}

// MkdirAll makes a folder and those above it that are missing, and fsyncs the parent of each that it made. One that is
// there keeps its permissions.
func (f *FS) MkdirAll(path string, perm fs.FileMode) error {
	info, err := f.stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("cannot make folder %s: there is something else of that name", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := f.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := f.mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.syncDir(parent)
}

// Rename gives a file another name in the same folder, replacing what has it, and fsyncs the folder.
func (f *FS) Rename(oldPath, newPath string) error {
	if err := f.rename(oldPath, newPath); err != nil {
		return err
	}
	return f.syncDir(filepath.Dir(newPath))
}

// Remove removes a file or an empty folder, and fsyncs the folder that held it. What is not there is an error that
// wraps fs.ErrNotExist.
func (f *FS) Remove(path string) error {
	if err := f.remove(path); err != nil {
		return err
	}
	return f.syncDir(filepath.Dir(path))
}

// tempMark is in the name of every file that is not committed yet.
const tempMark = ".voltar-tmp-"

// maxNameBytes is NAME_MAX of every Linux file system that matters.
const maxNameBytes = 255

// IsTemp reports whether a base name is that of a file that was begun and neither committed nor aborted.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, tempMark)
}

// tempPath returns a name in the folder of path that nobody else has: ".NAME.voltar-tmp-TAG-RANDOM".
func tempPath(path, tag string) string {
	random := make([]byte, 6)
	rand.Read(random) // never fails, as its documentation promises
	if tag != "" {
		tag += "-"
	}
	suffix := tempMark + tag + hex.EncodeToString(random)
	name := filepath.Base(path)
	name = name[:min(len(name), maxNameBytes-1-len(suffix))]
	return filepath.Join(filepath.Dir(path), "."+name+suffix)
}

// check asks the fault, and dresses its answer as the system would.
func (f *FS) check(op Op, path string) error {
	if f == nil || f.fault == nil {
		return nil
	}
	if err := f.fault(op, path); err != nil {
		return &fs.PathError{Op: string(op), Path: path, Err: err}
	}
	return nil
}

func (f *FS) inRoot() bool { return f != nil && f.root != nil }

func (f *FS) stat(path string) (fs.FileInfo, error) {
	if f.inRoot() {
		return f.root.Stat(path)
	}
	return os.Stat(path)
}

func (f *FS) lstat(path string) (fs.FileInfo, error) {
	if f.inRoot() {
		return f.root.Lstat(path)
	}
	return os.Lstat(path)
}

func (f *FS) open(path string, flag int, perm fs.FileMode) (*os.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.check(OpCreate, path); err != nil {
			return nil, err
		}
	}
	if f.inRoot() {
		return f.root.OpenFile(path, flag, perm)
	}
	return os.OpenFile(path, flag, perm)
}

func (f *FS) mkdir(path string, perm fs.FileMode) error {
	if err := f.check(OpMkdir, path); err != nil {
		return err
	}
	if f.inRoot() {
		return f.root.Mkdir(path, perm)
	}
	return os.Mkdir(path, perm)
}

func (f *FS) rename(oldPath, newPath string) error {
	if err := f.check(OpRename, oldPath); err != nil {
		return err
	}
	if f.inRoot() {
		return f.root.Rename(oldPath, newPath)
	}
	return os.Rename(oldPath, newPath)
}

// renameAlone gives a file another name in the same folder unless something has that name. Where the file system cannot do
// that in one step (NFS, some of FUSE), an empty file takes the name first, which a power cut may leave.
func (f *FS) renameAlone(oldPath, newPath string) error {
	if err := f.check(OpRename, oldPath); err != nil {
		return err
	}
	err := f.renameNoReplace(oldPath, newPath)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return f.renameReserved(oldPath, newPath)
}

func (f *FS) renameNoReplace(oldPath, newPath string) error {
	dir, err := f.open(filepath.Dir(newPath), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	conn, err := dir.SyscallConn()
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	var renameErr error
	err = conn.Control(func(fd uintptr) {
		renameErr = unix.Renameat2(int(fd), filepath.Base(oldPath), int(fd), filepath.Base(newPath), unix.RENAME_NOREPLACE)
	})
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	if renameErr != nil {
		return &os.LinkError{Op: "rename", Old: oldPath, New: newPath, Err: renameErr}
	}
	return nil
}

// renameReserved takes the name with a file that is made only where there is none, and replaces that.
func (f *FS) renameReserved(oldPath, newPath string) error {
	reserved, err := f.open(newPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := reserved.Close(); err != nil {
		return errors.Join(err, f.removeIfThere(newPath))
	}
	if err := f.rename(oldPath, newPath); err != nil {
		return errors.Join(err, f.removeIfThere(newPath))
	}
	return nil
}

func (f *FS) remove(path string) error {
	if err := f.check(OpRemove, path); err != nil {
		return err
	}
	if f.inRoot() {
		return f.root.Remove(path)
	}
	return os.Remove(path)
}

// syncDir is content with a file system that cannot do it: on SMB and some FUSE file systems fsync of a folder is
// EINVAL, and there is nothing else to be done for its names.
func (f *FS) syncDir(path string) error {
	err := f.check(OpSyncDir, path)
	if err == nil {
		err = f.syncOpened(path)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func (f *FS) syncOpened(path string) error {
	dir, err := f.open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// write, sync and closeFile are the steps on an open file, each behind the fault of its own.

func (f *FS) write(file *os.File, path string, data []byte, offset int64) (int, error) {
	if err := f.check(OpWrite, path); err != nil {
		n, writeErr := file.WriteAt(data[:len(data)/2], offset)
		return n, errors.Join(err, writeErr)
	}
	return file.WriteAt(data, offset)
}

func (f *FS) sync(file *os.File, path string) error {
	if err := f.check(OpSync, path); err != nil {
		return err
	}
	return file.Sync()
}

func (f *FS) closeFile(file *os.File, path string) error {
	err := f.check(OpClose, path)
	return errors.Join(err, file.Close())
}
