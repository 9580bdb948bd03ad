package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system is what a walk asks of the kernel where it can fail in ways that a test cannot bring about otherwise. Paths
// are those of the entries, for tests to choose by.
type system struct {
	statx    func(dirFD int, name string, flags int, path string) (unix.Statx_t, error)
	getdents func(fd int, path string, buf []byte) (int, error)
	pread    func(fd int, path string, p []byte, offset int64) (int, error)
	canShare func(fd int) bool
	shared   func(fd int, path string, sizeBytes int64, list []physical) ([]physical, error)
	mapsMore func(ctx context.Context, fd int, path string, sizeBytes, mostBytes int64) (bool, error)
}

// hostSystem is the kernel itself.
func hostSystem() *system {
	return &system{
		statx: func(dirFD int, name string, flags int, _ string) (st unix.Statx_t, err error) {
			err = ignoringEINTR(func() error {
				return unix.Statx(dirFD, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
					unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
			})
			return st, err
		},
		getdents: func(fd int, _ string, buf []byte) (n int, err error) {
			err = ignoringEINTR(func() error { n, err = unix.Getdents(fd, buf); return err })
			return n, err
		},
		pread: func(fd int, _ string, p []byte, offset int64) (n int, err error) {
			err = ignoringEINTR(func() error { n, err = unix.Pread(fd, p, offset); return err })
			return n, err
		},
		canShare: canShare,
		shared: func(fd int, _ string, sizeBytes int64, list []physical) ([]physical, error) {
			return sharedExtents(fd, sizeBytes, list)
		},
		mapsMore: func(ctx context.Context, fd int, _ string, sizeBytes, mostBytes int64) (bool, error) {
			return mapsMore(ctx, fd, sizeBytes, mostBytes)
		},
	}
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openBeneath opens one name of a folder for reading. It follows no link and waits for nothing, and leaves the access
// time alone where it may.
func openBeneath(dirFD int, name string, flags int) (fd int, err error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	err = ignoringEINTR(func() error { fd, err = unix.Openat(dirFD, name, flags|unix.O_NOATIME, 0); return err })
	if errors.Is(err, unix.EPERM) {
		err = ignoringEINTR(func() error { fd, err = unix.Openat(dirFD, name, flags, 0); return err })
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

func readLink(dirFD int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirFD, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// isFatal tells errors that are this process's own trouble, and bounds, from those of the tree: they end the whole archive.
func isFatal(err error) bool {
	var limit *LimitError
	var own *ownTrouble
	return errors.As(err, &limit) || errors.As(err, &own) ||
		errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// ownTrouble is an error of what a walk needs for itself.
type ownTrouble struct{ error }

func (e *ownTrouble) Unwrap() error { return e.error }

// dirent is one name of a folder.
type dirent struct {
	name string
	kind uint8 // unix.DT_…, DT_UNKNOWN where the filesystem does not say
}

// parseDirents adds the entries in buf, which getdents64 filled, without "." and "..".
func parseDirents(names []dirent, buf []byte) ([]dirent, error) {
	const nameOffset = 19 // after d_ino, d_off, d_reclen and d_type of struct linux_dirent64
	for len(buf) > 0 {
		if len(buf) < nameOffset {
			return names, errors.New("cannot read a folder's entries: cut short")
		}
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length < nameOffset || length > len(buf) {
			return names, fmt.Errorf("cannot read a folder's entries: one of %d bytes", length)
		}
		name, _, _ := strings.Cut(string(buf[nameOffset:length]), "\x00")
		if name != "" && name != "." && name != ".." {
			names = append(names, dirent{name: name, kind: buf[18]})
		}
		buf = buf[length:]
	}
	return names, nil
}

// attributes are the extended attributes of an entry, and its flags.
type attributes struct {
	aclAccess, aclDefault string
	xattrs                []xattr           // for the tar stream, sorted by name
	odd                   map[string][]byte // for the index
	tooLarge              int64             // how many are in neither
	accounting            Accounting
	flags                 uint32

	tarBytes, oddBytes int
}

// chattrFlags are the flags that chattr sets and lsattr shows; others, like that of extents, are the filesystem's own.
const chattrFlags = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | // s u c S i a d A
	0x4000 | 0x8000 | 0x10000 | 0x20000 | // j t D T
	0x800 | 0x100000 | 0x800000 | 0x2000000 | 0x20000000 | 0x40000000 // E V C x P F

// attrReader reads the attributes of entries. It is for one goroutine at a time.
type attrReader struct {
	limits *Limits
	names  [64 << 10]byte // the most that the kernel gives
	value  [64 << 10]byte
}

// ofFile reads those of an open file or folder.
func (r *attrReader) ofFile(fd int) (attributes, error) {
	a, err := r.read(
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
	if flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err == nil {
		a.flags = flags & chattrFlags
	} // others have no flags
	a.accounting = accountingOf(fd)
	return a, err
}

// ofName reads those of a symbolic link, device, FIFO or socket, which cannot be opened without consequences.
func (r *attrReader) ofName(dirFD int, name string) (attributes, error) {
	path := "/proc/self/fd/" + strconv.Itoa(dirFD) + "/" + name
	return r.read(
		func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

func (r *attrReader) read(
	list func([]byte) (int, error), get func(string, []byte) (int, error),
) (attributes, error) {
	var a attributes
	names, err := r.list(list)
	unlisted := errors.Is(err, unix.E2BIG)
	switch {
	case unlisted:
		names = privilegedNames
	case err != nil:
		return a, fmt.Errorf("cannot list extended attributes: %w", err)
	}
	var failed error
	for _, name := range names {
		if a.tooLarge > 0 { // nor is what follows read: it may be gigabytes
			a.tooLarge++
			continue
		}
		n, err := get(name, r.value[:])
		switch {
		case errors.Is(err, unix.ENODATA), unlisted && errors.Is(err, unix.EOPNOTSUPP): // gone meanwhile, or not for us to see
			continue
		case err != nil:
			failed = fmt.Errorf("cannot read extended attribute %q: %w", name, err)
			continue
		}
		a.add(name, r.value[:n], r.limits)
	}
	if unlisted {
		a.tooLarge++ // nobody knows how many
	}
	return a, failed
}

// privilegedNames are of attributes that have a say in who may do what. They are asked for where the names of all are more
// than the kernel lists (XATTR_LIST_MAX), which any user can bring about. Sorted.
var privilegedNames = []string{"security.capability", "security.selinux", aclAccessName, aclDefaultName}

// list returns the names of all attributes, sorted.
func (r *attrReader) list(list func([]byte) (int, error)) ([]string, error) {
	n, err := list(r.names[:])
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(r.names[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return slices.Compact(names), nil
}

// add puts an attribute where it belongs. They come sorted by name.
func (a *attributes) add(name string, value []byte, limits *Limits) {
	if name == xfsACLAccessName || name == xfsACLDefaultName {
		return
	}
	if name == aclAccessName || name == aclDefaultName {
		if text, err := aclText(value); err == nil {
			if name == aclAccessName {
				a.aclAccess = text
			} else {
				a.aclDefault = text
			}
			return
		}
	}
	const recordBytes = 24 // of a pax record beside name and value, or more
	cost := len(name) + len(value) + recordBytes
	expressible := !strings.Contains(name, "=") && !strings.HasPrefix(name, "system.")
	switch {
	case expressible && a.tarBytes+cost <= limits.AttributeBytes:
		a.tarBytes += cost
		a.xattrs = append(a.xattrs, xattr{name, append([]byte{}, value...)})
	case a.oddBytes+cost <= limits.OddAttributeBytes:
		a.oddBytes += cost
		if a.odd == nil {
			a.odd = make(map[string][]byte)
		}
		a.odd[name] = append([]byte{}, value...)
	default:
		a.tooLarge++
	}
}
