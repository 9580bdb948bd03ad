package archive

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// spill makes temporary files for what is too much for memory, and bounds what they take together. It is safe for
// concurrent use, its files are not.
type spill struct {
	dir   string
	limit int64
	used  atomic.Int64
	room  func(dir string) (freeBytes, totalBytes int64, err error) // nil for what the filesystem says
}

// What others write to the filesystem of temporary files, such as records of what a run owns, must go on: so much of it
// stays free.
const (
	reserveFraction = 16
	maxReserveBytes = 256 << 20
)

// roomEveryBytes is how much temporary files grow between two looks at the room.
const roomEveryBytes = 1 << 20

// checkRoom refuses files that together take so much. What they take counts as if it was still to be written: they have
// holes.
func (s *spill) checkRoom(used int64) error {
	room := s.room
	if room == nil {
		room = roomIn
	}
	free, total, err := room(s.dir)
	if err != nil {
		return fmt.Errorf("cannot tell how much space %s has: %w", s.dir, err)
	}
	if free-used < min(total/reserveFraction, maxReserveBytes) {
		return s.noRoom(used)
	}
	return nil
}

func (s *spill) noRoom(used int64) error {
	return &LimitError{What: LimitSpillBytes + ", for which " + s.dir + " has no space", Limit: used, Got: used}
}

func roomIn(dir string) (freeBytes, totalBytes int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, 0, err
	}
	return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
}

// spillFile is a temporary file without a name: it is gone when it is closed, or with the process.
type spillFile struct {
	*os.File
	spill *spill
	bytes int64 // that count towards the limit
}

func (s *spill) create() (*spillFile, error) {
	fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &spillFile{File: os.NewFile(uintptr(fd), s.dir), spill: s}, nil
	}
	file, err := os.CreateTemp(s.dir, ".spill-*") // not every filesystem makes files without names
	if err != nil {
		return nil, fmt.Errorf("cannot make a temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a temporary file: %w", err), file.Close())
	}
	return &spillFile{File: file, spill: s}, nil
}

// close gives back what the file takes.
func (f *spillFile) close() {
	f.spill.used.Add(-f.bytes)
	_ = f.Close() // nobody needs what is in it
}

// writeAt writes all of p, which makes the file at least as long as it then is.
func (f *spillFile) writeAt(p []byte, offset int64) error {
	if grown := offset + int64(len(p)) - f.bytes; grown > 0 {
		used := f.spill.used.Add(grown)
		if used > f.spill.limit {
			f.spill.used.Add(-grown)
			return &LimitError{What: LimitSpillBytes, Limit: f.spill.limit, Got: used}
		}
		if used/roomEveryBytes != (used-grown)/roomEveryBytes {
			if err := f.spill.checkRoom(used); err != nil {
				f.spill.used.Add(-grown)
				return err
			}
		}
		f.bytes += grown
	}
	_, err := f.WriteAt(p, offset)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return f.spill.noRoom(f.spill.used.Load())
	}
	if err != nil {
		return fmt.Errorf("cannot write a temporary file: %w", err)
	}
	return nil
}

// readAt fills p, with zeros where the file has not been written.
func (f *spillFile) readAt(p []byte, offset int64) error {
	n, err := f.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if size := f.bytes; offset+int64(n) >= size {
		clear(p[n:])
		return nil
	}
	return fmt.Errorf("cannot read a temporary file: %w", unexpected(err))
}

// truncate ends the file at a length that it has.
func (f *spillFile) truncate(length int64) error {
	if length >= f.bytes {
		return nil
	}
	if err := f.Truncate(length); err != nil {
		return fmt.Errorf("cannot shorten a temporary file: %w", err)
	}
	f.spill.used.Add(length - f.bytes)
	f.bytes = length
	return nil
}
