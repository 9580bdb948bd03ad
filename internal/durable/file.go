package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CreateOptions tune a file that is being written.
type CreateOptions struct {
	// Tag becomes part of the temporary name, so that people see whose it is: a run's ID. It must be fit for a file name.
	Tag string
	// Stream is for large files: what was written goes to the disk while more is being written, and then leaves the
	// page cache. So the fsync at the end takes no minutes, and a backup does not push the host's own data out of memory.
	Stream bool
	// Exclusive has Commit fail, with an error that wraps fs.ErrExist, when something has the name by then. Of any number
	// who try at once, one succeeds.
	Exclusive bool
}

// File is a file that is being written. Under its own name it appears with Commit; until then it has a temporary name
// in the same folder. It is not safe for concurrent use.
type File struct {
	fs      *FS
	file    *os.File
	path    string
	temp    string
	existed bool  // something had the name when this file was begun
	alone   bool  // it may replace nothing
	size    int64 // bytes written
	modTime time.Time
	behind  *writeBehind
	apart   bool  // it could not share with another file
	err     error // of an earlier step: the file can no longer be committed
	done    bool
}

var errDone = errors.New("the file is already committed or aborted")

// Create begins a file that will have exactly the permissions given, whatever the umask, where the file system has
// permissions. The caller must Commit or Abort it.
func (f *FS) Create(path string, perm fs.FileMode, opts CreateOptions) (*File, error) {
	_, err := f.lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	existed := err == nil
	temp := tempPath(path, opts.Tag)
	file, err := f.open(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	created := &File{fs: f, file: file, path: path, temp: temp, existed: existed && !opts.Exclusive, alone: opts.Exclusive}
	if err := restoreMode(file, perm); err != nil {
		return nil, errors.Join(err, created.Abort())
	}
	if opts.Stream {
		created.behind = &writeBehind{file: file}
	}
	return created, nil
}

// restoreMode gives back what the umask took. A file that has more than was asked for lies on a file system without
// permissions of its own, such as FAT: there chmod does nothing, or is refused by some drivers.
func restoreMode(file *os.File, perm fs.FileMode) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()|perm == info.Mode().Perm() {
		return nil
	}
	return file.Chmod(perm)
}

// Size returns the number of bytes written.
func (f *File) Size() int64 { return f.size }

// ModTime returns the modification time that the file was committed with.
func (f *File) ModTime() time.Time { return f.modTime }

// Write appends to the file. After an error the file cannot be committed.
func (f *File) Write(data []byte) (int, error) {
	if f.done {
		return 0, fmt.Errorf("cannot write %s: %w", f.path, errDone)
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.fs.write(f.file, f.temp, data, f.size)
	f.size += int64(n)
	if err == nil && f.behind != nil {
		// An error of writing back is told once, here or by fsync: it must not get lost.
		err = f.behind.advance(f.size)
	}
	f.err = err
	return n, err
}

// Share is Write for data that another file of the filesystem holds at an offset. Where the filesystem can, both share the blocks
// from then on: whole blocks of it alone, on XFS and btrfs. Elsewhere, or once that failed, the data is written.
func (f *File) Share(data []byte, with *os.File, offset int64) (isShared bool, err error) {
	if f.done || f.err != nil || f.apart || len(data) == 0 {
		_, err = f.Write(data)
		return false, err
	}
	if err := f.clone(with, offset, int64(len(data))); err != nil {
		f.apart = true
		_, err = f.Write(data) // which tells what is wrong with the disk, if that was it
		return false, err
	}
	f.size += int64(len(data))
	return true, nil
}

// Shares tells whether files of a filesystem are made to share their blocks, by its type as statfs has it. ZFS can, but lost data in
// 2023; of network filesystems nothing is known.
func Shares(filesystem int64) bool {
	return filesystem == unix.XFS_SUPER_MAGIC || filesystem == unix.BTRFS_SUPER_MAGIC
}

// clone has the end of the file share length bytes of another.
func (f *File) clone(with *os.File, offset, length int64) error {
	to, err := f.file.SyscallConn()
	if err != nil {
		return err
	}
	from, err := with.SyscallConn()
	if err != nil {
		return err
	}
	var fromErr, cloneErr error
	var filesystem unix.Statfs_t
	toErr := to.Control(func(fd uintptr) {
		if cloneErr = unix.Fstatfs(int(fd), &filesystem); cloneErr != nil {
			return
		}
		if !Shares(filesystem.Type) {
			cloneErr = errors.ErrUnsupported
			return
		}
		fromErr = from.Control(func(source uintptr) {
			cloneErr = unix.IoctlFileCloneRange(int(fd), &unix.FileCloneRange{
				Src_fd: int64(source), Src_offset: uint64(offset), Src_length: uint64(length), Dest_offset: uint64(f.size),
			})
		})
	})
	return errors.Join(toErr, fromErr, cloneErr)
}

// Commit makes the file appear under its name, durably. After an error the temporary file is gone and the name holds
// what it held before, with one exception: when the folder's fsync fails and an earlier file was replaced, the new one
// stays, as the old one cannot be had back. Either way the caller must not count on it. A second Commit, or one after
// Abort, is an error.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("cannot commit %s: %w", f.path, errDone)
	}
	if f.err != nil {
		return errors.Join(f.err, f.Abort())
	}
	if err := f.fs.sync(f.file, f.temp); err != nil {
		return errors.Join(err, f.Abort())
	}
	if err := f.settle(); err != nil {
		return errors.Join(err, f.Abort())
	}
	f.done = true
	if err := f.fs.closeFile(f.file, f.temp); err != nil {
		return errors.Join(err, f.fs.removeIfThere(f.temp))
	}
	appear := f.fs.rename
	if f.alone {
		appear = f.fs.renameAlone
	}
	if err := appear(f.temp, f.path); err != nil {
		return errors.Join(err, f.fs.removeIfThere(f.temp))
	}
	if err := f.fs.syncDir(filepath.Dir(f.path)); err != nil {
		if f.existed {
			return err
		}
		return errors.Join(err, f.fs.removeIfThere(f.path))
	}
	return nil
}

// settle looks at what the file system made of the bytes.
func (f *File) settle() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != f.size {
		return fmt.Errorf("cannot commit %s: it holds %d bytes of the %d written", f.path, info.Size(), f.size)
	}
	f.modTime = info.ModTime()
	return nil
}

// Abort throws the file away. After Commit or another Abort it does nothing. A temporary file that somebody else has
// removed is no error.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	return errors.Join(f.fs.closeFile(f.file, f.temp), f.fs.removeIfThere(f.temp))
}

func (f *FS) removeIfThere(path string) error {
	err := f.remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// windowBytes is how much a stream writes before the kernel is asked to start on it. At most two windows are dirty.
const windowBytes = 16 << 20

// writeBehind keeps the dirty part of a growing file small, with sync_file_range(2): it starts writing each window
// when it is full, and waits for the window before it.
type writeBehind struct {
	file    *os.File
	started int64 // everything before was handed to the disk
	waited  int64 // everything before has arrived there
}

func (w *writeBehind) advance(size int64) error {
	if size-w.started < windowBytes {
		return nil
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var rangeErr error
	err = conn.Control(func(fd uintptr) { rangeErr = w.flush(int(fd), size) })
	return errors.Join(err, rangeErr)
}

func (w *writeBehind) flush(fd int, size int64) error {
	if err := syncRange(fd, w.started, size, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return err
	}
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if w.started > w.waited {
		if err := syncRange(fd, w.waited, w.started, wait); err != nil {
			return err
		}
		// Advice only: a file system that does not take it loses nothing.
		_ = unix.Fadvise(fd, w.waited, w.started-w.waited, unix.FADV_DONTNEED)
	}
	w.waited, w.started = w.started, size
	return nil
}

// syncRange tolerates file systems that cannot do it (fsync still follows), and nothing else: an I/O error that it
// reports is not reported again by fsync.
func syncRange(fd int, from, to int64, flags int) error {
	err := unix.SyncFileRange(fd, from, to-from, flags)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.ESPIPE):
		return nil
	default:
		return fmt.Errorf("cannot write back: %w", err)
	}
}
