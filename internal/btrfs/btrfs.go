// Package btrfs knows the subvolumes of a mounted btrfs: it lists them, and makes them again on a new filesystem. It
// speaks to the kernel by the requests of include/uapi/linux/btrfs.h and reads items of its trees as
// include/uapi/linux/btrfs_tree.h describes them. What a guest wrote into those trees is not trusted.
package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// Subvolume is a tree of files of its own within a filesystem. The top, which has no name, is none.
type Subvolume struct {
	Path     string // beneath the top of the filesystem, without a slash at either end; may hold any byte but NUL
	ID       uint64
	ReadOnly bool
	Default  bool // it is what a mount without options shows
}

// Requests, and what their arguments are made of.
const (
	iocForgetDev     = 0x50009405 // _IOW(0x94, 5, 4096 bytes)
	iocSubvolCreate  = 0x5000940e // _IOW(0x94, 14, 4096 bytes)
	iocTreeSearch    = 0xd0009411 // _IOWR(0x94, 17, 4096 bytes)
	iocInoLookup     = 0xd0009412 // _IOWR(0x94, 18, 4096 bytes)
	iocDefaultSubvol = 0x40089413 // _IOW(0x94, 19, 8 bytes)
	iocSpaceInfo     = 0xc0109414 // _IOWR(0x94, 20, 16 bytes), followed by the list
	iocSubvolSetFlag = 0x4008941a // _IOW(0x94, 26, 8 bytes)

	argumentBytes     = 4096
	searchKeyBytes    = 104
	searchHeaderBytes = 32
	nameOffset        = 8  // in the arguments that name a device or a subvolume
	lookupNameOffset  = 16 // in those of iocInoLookup
	maxNameBytes      = 255
	readOnlyFlag      = 1 << 1 // of iocSubvolSetFlag
)

// Trees, objects and items.
const (
	rootTree        = 1
	rootTreeDir     = 6   // object of the tree of roots that names the default
	firstSubvolume  = 256 // also the inode of each subvolume's root directory
	lastSubvolume   = ^uint64(0) - 255
	topSubvolume    = 5
	dirItem         = 84
	rootItem        = 132
	rootBackref     = 144
	rootFlagsOffset = 208 // in a root item
	rootReadOnly    = 1 << 0

	// MaxSubvolumes is how many are listed; a filesystem with more is refused.
	MaxSubvolumes = 100_000
	// MaxPathBytes bounds the paths of all that List returns, together: they go into the manifest.
	MaxPathBytes = 8 << 20
	maxDepth     = 1000
)

// errOdd is wrapped by the error of a tree that makes no sense.
var errOdd = errors.New("the filesystem's list of subvolumes makes no sense")

// item is one item of a tree.
type item struct {
	object, offset uint64
	kind           uint32
	data           []byte
}

// List returns the subvolumes of the filesystem whose top is open as root, by path: parents come before what lies in
// them. It needs CAP_SYS_ADMIN.
func List(root *os.File) ([]Subvolume, error) {
	list, err := readList(root)
	if err != nil {
		return nil, fmt.Errorf("list subvolumes: %w", err)
	}
	return list, nil
}

// link is where a subvolume hangs in another.
type link struct {
	parent, dir uint64
	name        string
}

func readList(root *os.File) ([]Subvolume, error) {
	links := map[uint64]link{}
	flags := map[uint64]uint64{}
	var odd error
	err := search(root, firstSubvolume, lastSubvolume, rootItem, rootBackref, func(i item) error {
		switch {
		case i.kind == rootItem && len(i.data) >= rootFlagsOffset+8:
			flags[i.object] = binary.LittleEndian.Uint64(i.data[rootFlagsOffset:])
		case i.kind == rootBackref:
			l, err := parseBackref(i)
			if err != nil {
				return err
			}
			links[i.object] = l
		}
		if len(links) > MaxSubvolumes || len(flags) > 2*MaxSubvolumes {
			return fmt.Errorf("cannot list more than %d", MaxSubvolumes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defaultID := uint64(topSubvolume)
	err = search(root, rootTreeDir, rootTreeDir, dirItem, dirItem, func(i item) error {
		if id, ok := parseDefault(i.data); ok {
			defaultID = id
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	paths := pathFinder{links: links, known: map[uint64]string{topSubvolume: ""}, dir: func(tree, inode uint64) (string, error) {
		return lookup(root, tree, inode)
	}}
	var list []Subvolume
	pathBytes := 0
	for id := range links {
		where, err := paths.find(id, 0)
		if pathBytes += len(where); err == nil && pathBytes > MaxPathBytes {
			return nil, fmt.Errorf("cannot list paths of more than %s together", say.Size(MaxPathBytes))
		}
		if err != nil {
			odd = errors.Join(odd, err)
			break
		}
		list = append(list, Subvolume{Path: where, ID: id, ReadOnly: flags[id]&rootReadOnly != 0, Default: id == defaultID})
	}
	slices.SortFunc(list, func(a, b Subvolume) int { return strings.Compare(a.Path, b.Path) })
	return list, odd
}

// parseBackref reads struct btrfs_root_ref: directory, sequence, length of the name, name.
func parseBackref(i item) (link, error) {
	const head = 18
	if len(i.data) < head {
		return link{}, fmt.Errorf("%w: a reference of %d bytes", errOdd, len(i.data))
	}
	n := int(binary.LittleEndian.Uint16(i.data[16:]))
	if len(i.data) < head+n {
		return link{}, fmt.Errorf("%w: a name of %d bytes", errOdd, n)
	}
	name := string(i.data[head : head+n])
	if err := checkName(name); err != nil {
		return link{}, err
	}
	return link{parent: i.offset, dir: binary.LittleEndian.Uint64(i.data), name: name}, nil
}

// parseDefault reads struct btrfs_dir_item: key, transaction, lengths of data and name, type, name.
func parseDefault(data []byte) (id uint64, ok bool) {
	const head = 30
	const name = "default"
	if len(data) < head+len(name) || int(binary.LittleEndian.Uint16(data[27:])) != len(name) ||
		string(data[head:head+len(name)]) != name {
		return 0, false
	}
	return binary.LittleEndian.Uint64(data), true
}

// checkName refuses what cannot be the name of a file.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxNameBytes || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: the name %.300q", errOdd, name)
	}
	return nil
}

// pathFinder puts paths together.
type pathFinder struct {
	links map[uint64]link
	known map[uint64]string
	dir   func(tree, inode uint64) (string, error) // path of a folder within its subvolume
}

func (f *pathFinder) find(id uint64, depth int) (string, error) {
	if p, ok := f.known[id]; ok {
		return p, nil
	}
	l, ok := f.links[id]
	if !ok || depth > maxDepth {
		return "", fmt.Errorf("%w: subvolume %d hangs nowhere", errOdd, id)
	}
	parent, err := f.find(l.parent, depth+1)
	if err != nil {
		return "", err
	}
	dir, err := f.dir(l.parent, l.dir)
	if err != nil {
		return "", err
	}
	p := path.Join(parent, dir, l.name)
	f.known[id] = p
	return p, nil
}

// lookup returns the path of a folder within its subvolume.
func lookup(root *os.File, tree, inode uint64) (string, error) {
	if inode == firstSubvolume {
		return "", nil
	}
	argument := make([]byte, argumentBytes)
	binary.NativeEndian.PutUint64(argument, tree)
	binary.NativeEndian.PutUint64(argument[8:], inode)
	if err := ioctl(root, iocInoLookup, argument); err != nil {
		return "", fmt.Errorf("cannot find folder %d of subvolume %d: %w", inode, tree, err)
	}
	name, _, _ := bytes.Cut(argument[lookupNameOffset:], []byte{0})
	dir := strings.TrimSuffix(string(name), "/")
	for part := range strings.SplitSeq(dir, "/") {
		if err := checkName(part); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// search goes through the items of the tree of roots between two objects.
func search(root *os.File, first, last uint64, firstKind, lastKind uint32, take func(item) error) error {
	key := item{object: first, kind: firstKind}
	for {
		argument := make([]byte, argumentBytes)
		for i, n := range []uint64{rootTree, key.object, last, key.offset, ^uint64(0), 0, ^uint64(0)} {
			binary.NativeEndian.PutUint64(argument[8*i:], n)
		}
		binary.NativeEndian.PutUint32(argument[56:], key.kind)
		binary.NativeEndian.PutUint32(argument[60:], lastKind)
		binary.NativeEndian.PutUint32(argument[64:], argumentBytes)
		if err := ioctl(root, iocTreeSearch, argument); err != nil {
			return fmt.Errorf("cannot search the tree of roots: %w", err)
		}
		count := binary.NativeEndian.Uint32(argument[64:])
		if count == 0 {
			return nil
		}
		rest := argument[searchKeyBytes:]
		for range count {
			if len(rest) < searchHeaderBytes {
				return fmt.Errorf("%w: an answer of %d items", errOdd, count)
			}
			i := item{object: binary.NativeEndian.Uint64(rest[8:]), offset: binary.NativeEndian.Uint64(rest[16:]),
				kind: binary.NativeEndian.Uint32(rest[24:])}
			n := uint64(binary.NativeEndian.Uint32(rest[28:]))
			rest = rest[searchHeaderBytes:]
			if n > uint64(len(rest)) {
				return fmt.Errorf("%w: an item of %d bytes", errOdd, n)
			}
			i.data, rest = rest[:n], rest[n:]
			// The range is one of keys as a whole, so that kinds between the two come along.
			if i.kind >= firstKind && i.kind <= lastKind {
				if err := take(i); err != nil {
					return err
				}
			}
			key = i
		}
		if key.next(); key.object > last {
			return nil
		}
	}
}

// next makes of a key the one behind it.
func (i *item) next() {
	if i.offset++; i.offset != 0 {
		return
	}
	if i.kind++; i.kind <= 255 {
		return
	}
	i.kind = 0
	i.object++
}

// Make makes subvolumes on a new filesystem whose top is open as root, in the order in which List gives them, with the
// folders that lead to them. What the files beneath are is up to the caller, who calls Finish in the end.
func Make(root *os.Root, list []Subvolume) error {
	for _, s := range list {
		if err := makeOne(root, s.Path); err != nil {
			return fmt.Errorf("make subvolume %q: %w", s.Path, err)
		}
	}
	return nil
}

func makeOne(root *os.Root, where string) error {
	for part := range strings.SplitSeq(where, "/") {
		if err := checkName(part); err != nil {
			return err
		}
	}
	dir, name := path.Dir(where), path.Base(where)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	parent, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	argument := make([]byte, argumentBytes)
	copy(argument[nameOffset:], name)
	if err := ioctl(parent, iocSubvolCreate, argument); err != nil {
		return fmt.Errorf("cannot make it: %w", err)
	}
	return nil
}

// Finish makes subvolumes read-only that were so, and the default what it was, once their files are there. Those are
// lists that Make was given.
func Finish(root *os.Root, list []Subvolume) error {
	for _, s := range list {
		if !s.ReadOnly && !s.Default {
			continue
		}
		if err := finishOne(root, s); err != nil {
			return fmt.Errorf("finish subvolume %q: %w", s.Path, err)
		}
	}
	return nil
}

func finishOne(root *os.Root, s Subvolume) error {
	dir, err := root.Open(s.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if s.Default {
		argument := make([]byte, argumentBytes)
		binary.NativeEndian.PutUint64(argument[8:], firstSubvolume) // of the subvolume that dir is in
		if err := ioctl(dir, iocInoLookup, argument); err != nil {
			return fmt.Errorf("cannot find its number: %w", err)
		}
		if err := ioctl(dir, iocDefaultSubvol, argument[:8]); err != nil {
			return fmt.Errorf("cannot make it the default: %w", err)
		}
	}
	if s.ReadOnly {
		flags := make([]byte, 8)
		binary.NativeEndian.PutUint64(flags, readOnlyFlag)
		if err := ioctl(dir, iocSubvolSetFlag, flags); err != nil {
			return fmt.Errorf("cannot make it read-only: %w", err)
		}
	}
	return nil
}

// Mounted tells whether this host has the filesystem of a UUID mounted, from whichever device.
func Mounted(uuid string) (bool, error) {
	_, err := os.Stat(path.Join("/sys/fs/btrfs", path.Base(uuid)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Forget makes the kernel forget a device that it has seen as part of a filesystem: it goes on taking it for that one
// after the device is gone, and refuses another copy of the filesystem that is older. One that it does not know is no error.
func Forget(device string) error {
	if len(device) >= argumentBytes-nameOffset {
		return fmt.Errorf("cannot have the kernel forget %.100q: it is too long", device)
	}
	control, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	argument := make([]byte, argumentBytes)
	copy(argument[nameOffset:], device)
	if err := ioctl(control, iocForgetDev, argument); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot have the kernel forget the btrfs on %s: %w", device, err)
	}
	return nil
}

func ioctl(file *os.File, request uintptr, argument []byte) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&argument[0])))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
