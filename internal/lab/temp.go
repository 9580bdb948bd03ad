package lab

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// tempPrefix begins the name of every temporary folder of this package.
const tempPrefix = "voltar-machine-"

// tempGrace is how old a folder must be before it can pass for one that its process left: it is not locked in the same
// moment in which it is made.
const tempGrace = time.Minute

// tempFolder is a temporary folder that is locked for as long as its process lives, so that the next one to make such a
// folder can remove it when its own process was killed: go test does so to tests that run out of time.
type tempFolder struct {
	path string
	lock *os.File
}

func newTempFolder() (*tempFolder, error) {
	if err := removeAbandoned(os.TempDir(), time.Now()); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return nil, err
	}
	lock, locked, err := tryLockFolder(path)
	if err == nil && !locked {
		err = errors.New("cannot lock the new folder " + path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &tempFolder{path: path, lock: lock}, nil
}

// remove removes the folder with all that is in it.
func (f *tempFolder) remove() error { return errors.Join(os.RemoveAll(f.path), f.lock.Close()) }

// removeAbandoned removes the temporary folders whose process has ended without doing so. It leaves those of other
// users, and does not fail over one that cannot be removed.
func removeAbandoned(dir string, now time.Time) error {
	paths, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.ModTime().After(now.Add(-tempGrace)) ||
			info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		lock, locked, err := tryLockFolder(path)
		if err != nil || !locked {
			continue
		}
		_ = os.RemoveAll(path) // the next one tries again
		_ = lock.Close()
	}
	return nil
}

// tryLockFolder reports whether it got the lock of a folder, which ends when the file is closed.
func tryLockFolder(path string) (lock *os.File, locked bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, true, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	return nil, false, errors.Join(err, f.Close())
}
