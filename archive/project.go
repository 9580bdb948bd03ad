package archive

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accounting is what ioctl_fsgetxattr(2) says of a file or folder beside its flags: whose quota it counts to, and how XFS gives
// it room.
type Accounting struct {
	Project            uint32
	ExtentBytes        uint32 // hint for the size of its extents, or of those that are made in the folder
	CopyOnWriteExtents uint32 // the same for extents that are written while they are shared, in bytes
}

// fsxattr is the kernel's struct, of linux/fs.h.
type fsxattr struct {
	flags, extentBytes, extents, project, copyOnWriteExtents uint32
	_                                                        [8]byte
}

const (
	ioctlFSGetXattr = 0x801c581f // FS_IOC_FSGETXATTR
	ioctlFSSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR

	fsxExtentSize        = 0x800   // of files
	fsxExtentSizeInherit = 0x1000  // of folders
	fsxCopyOnWriteExtent = 0x10000 // of both
)

func fsxIoctl(fd int, request uintptr, x *fsxattr) error {
	return ignoringEINTR(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x))); errno != 0 {
			return errno
		}
		return nil
	})
}

// accountingOf reads it of an open file or folder; most filesystems have none.
func accountingOf(fd int) Accounting {
	var x fsxattr
	if err := fsxIoctl(fd, ioctlFSGetXattr, &x); err != nil {
		return Accounting{}
	}
	a := Accounting{Project: x.project}
	if x.flags&(fsxExtentSize|fsxExtentSizeInherit) != 0 {
		a.ExtentBytes = x.extentBytes
	}
	if x.flags&fsxCopyOnWriteExtent != 0 {
		a.CopyOnWriteExtents = x.copyOnWriteExtents
	}
	return a
}

// setAccounting gives it to something new. The size of extents can be set only while there are none.
func (x *extractor) setAccounting(fd int, e *tarEntry) {
	want := e.Accounting
	if want == (Accounting{}) || x.opts.NoFlags {
		return
	}
	var have fsxattr
	err := fsxIoctl(fd, ioctlFSGetXattr, &have)
	if err == nil {
		have.project = want.Project
		if want.ExtentBytes > 0 {
			have.extentBytes = want.ExtentBytes
			have.flags |= fsxExtentSize
			if e.Type == TypeDir {
				have.flags = have.flags&^fsxExtentSize | fsxExtentSizeInherit
			}
		}
		if want.CopyOnWriteExtents > 0 {
			have.copyOnWriteExtents = want.CopyOnWriteExtents
			have.flags |= fsxCopyOnWriteExtent
		}
		err = fsxIoctl(fd, ioctlFSSetXattr, &have)
	}
	if err != nil {
		x.shortfall("project", e.Path, fmt.Errorf("cannot set project %d and the size of extents: %w", want.Project, err))
	}
}
