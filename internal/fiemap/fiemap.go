// Package fiemap asks the kernel where the data of a file lie, by FS_IOC_FIEMAP (linux/fiemap.h).
package fiemap

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Extent is a part of a file that lies in one piece.
type Extent struct {
	OffsetBytes int64 // in the file
	AtBytes     int64 // where it lies on the filesystem's device; meaningless where it is placeless
	LengthBytes int64 // not beyond the end of the file
	flags       uint32
}

// Flags of the kernel's.
const (
	flagLast      = 0x1
	flagEncoded   = 0x8
	flagUnwritten = 0x800
	flagShared    = 0x2000
	// An extent with one of these has no place that others could share: unknown, not yet allocated, encrypted, not aligned
	// (in an inode, or packed with others), unwritten.
	flagsPlaceless = 0x2 | 0x4 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
)

// IsShared tells whether other files, or other parts of this one, have the extent as well.
func (e Extent) IsShared() bool { return e.flags&flagShared != 0 && e.flags&flagsPlaceless == 0 }

// IsPacked tells whether the filesystem has compressed the extent: AtBytes says where all of it begins.
func (e Extent) IsPacked() bool { return e.flags&flagEncoded != 0 }

// IsUnwritten tells whether the extent reads as a hole.
func (e Extent) IsUnwritten() bool { return e.flags&flagUnwritten != 0 }

// request and extent are the kernel's.
type request struct {
	start, length                         uint64
	flags, mapped, extentCount, reserved0 uint32
	extents                               [128]extent
}

type extent struct {
	logical, physical, length uint64
	reserved0                 [2]uint64
	flags                     uint32
	reserved1                 [3]uint32
}

const ioctlFiemap = 0xc020660b // FS_IOC_FIEMAP

// Each visits the extents of an open file in their order and up to its size, until visit says that it is enough. The kernel is
// asked for some at a time, so that the caller can stop: a seek for the next hole goes through all of them at once.
func Each(fd int, sizeBytes int64, visit func(e Extent) bool) error {
	var r request
	for at := uint64(0); at < uint64(sizeBytes); {
		r.start, r.length, r.extentCount, r.mapped = at, uint64(sizeBytes)-at, uint32(len(r.extents)), 0
		if err := r.ask(fd); err != nil {
			return fmt.Errorf("cannot tell where its data lie: %w", err)
		}
		if r.mapped == 0 || r.mapped > uint32(len(r.extents)) {
			return nil
		}
		for _, e := range r.extents[:r.mapped] {
			if e.logical+e.length <= at || e.logical >= uint64(sizeBytes) { // a kernel that does not go on would never end
				return nil
			}
			at = e.logical + e.length
			told := Extent{
				OffsetBytes: int64(e.logical), AtBytes: int64(e.physical), flags: e.flags,
				LengthBytes: int64(min(e.length, uint64(sizeBytes)-e.logical)),
			}
			if !visit(told) || e.flags&flagLast != 0 {
				return nil
			}
		}
	}
	return nil
}

func (r *request) ask(fd int) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlFiemap, uintptr(unsafe.Pointer(r)))
		switch {
		case errno == 0:
			return nil
		case !errors.Is(errno, unix.EINTR):
			return errno
		}
	}
}
