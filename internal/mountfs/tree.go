package mountfs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

// blockBytes is what programs are told to read at a time.
const blockBytes = 128 << 10

// extent is an extent that is stored as files.
type extent struct {
	fs     *FS
	id     catalog.ID
	name   string
	number uint64
	tree   held[*browse.RandomTree]
}

func (f *FS) newExtent(b *browse.Backup, x catalog.Extent) *extent {
	return &extent{fs: f, id: b.ID(), name: x.Name, number: f.nextNumber(), tree: held[*browse.RandomTree]{fs: f,
		open: func() (*browse.RandomTree, error) { return b.RandomTree(f.ctx, x, f.cache) }}}
}

// failed is as FS has it, for a path in the extent.
func (x *extent) failed(doing, path string, err error) syscall.Errno {
	place := "/"
	if path != "." {
		place += path
	}
	if x.name != "" {
		place = x.name + ":" + place
	}
	return x.fs.failed(fmt.Sprintf("%s %s of %s", doing, place, x.id), err)
}

// ino is the inode number of an entry: the place in the tar stream of what it names, which no other entry of the extent has. A socket
// is not in the stream, and has one of its path.
func (x *extent) ino(e *archive.Entry) uint64 {
	const socket = 1 << (extentBits - 1)
	offset := e.TarOffset
	if e.Type == archive.TypeHardlink {
		offset = e.DataOffset
	}
	if offset < 0 {
		sum := fnv.New64a()
		_, _ = io.WriteString(sum, e.Path) // never fails
		return x.number<<extentBits | socket | sum.Sum64()&(socket-1)
	}
	return x.number<<extentBits | uint64(offset)/512&(socket-1) + 1
}

var typeBits = map[archive.EntryType]uint32{
	archive.TypeFile: syscall.S_IFREG, archive.TypeDir: syscall.S_IFDIR, archive.TypeSymlink: syscall.S_IFLNK,
	archive.TypeChar: syscall.S_IFCHR, archive.TypeBlock: syscall.S_IFBLK, archive.TypeFIFO: syscall.S_IFIFO,
	archive.TypeSocket: syscall.S_IFSOCK, archive.TypeHardlink: syscall.S_IFREG,
}

// node is something that a guest made.
type node struct {
	fusefs.Inode
	readOnly
	x    *extent
	path string // of the entry, which is no hard link
	bare bool   // it has no extended attributes and ACLs, which programs ask for of all that they list
}

// fillRoot gives the attributes of the top of the extent.
func (x *extent) fillRoot(out *fuse.Attr) syscall.Errno {
	tree, release, err := x.tree.acquire()
	if err != nil {
		return x.failed("look into", ".", err)
	}
	defer release()
	e, err := tree.Entry(x.fs.ctx, ".")
	if err != nil {
		return x.failed("find", ".", err)
	}
	x.fill(tree, e, out)
	return 0
}

// child makes the node of an entry in the folder n.
func (n *node) child(ctx context.Context, tree *browse.RandomTree, e archive.Entry, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	x := n.x
	target, err := tree.Inode(x.fs.ctx, e)
	if err == nil && typeBits[target.Type] == 0 {
		err = fmt.Errorf("it is of the unknown type %q: a newer voltar is needed", target.Type)
	}
	if err != nil {
		return nil, x.failed("find", e.Path, err)
	}
	x.fill(tree, target, &out.Attr)
	stable := fusefs.StableAttr{Mode: typeBits[target.Type], Ino: x.ino(&target)}
	return n.NewInode(ctx, &node{x: x, path: target.Path, bare: !tree.MayHaveAttributes(target)}, stable), 0
}

// fill gives the attributes of an entry that is no hard link. Nothing keeps the time of the last access, and how many names a folder
// has: both are as they may be for any file system.
func (x *extent) fill(tree *browse.RandomTree, e archive.Entry, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Blksize = x.ino(&e), typeBits[e.Type]|e.Mode&0o7777, 1, blockBytes
	if e.Type != archive.TypeDir {
		out.Nlink = uint32(tree.Links(x.fs.ctx, e))
	}
	out.Owner = fuse.Owner{Uid: e.UID, Gid: e.GID}
	out.Size, out.Blocks = uint64(e.SizeBytes), uint64(e.StoredBytes+511)/512
	if e.Type == archive.TypeSymlink {
		out.Size = uint64(len(e.Linkname))
	}
	if e.Type == archive.TypeChar || e.Type == archive.TypeBlock {
		out.Rdev = uint32(unix.Mkdev(e.DevMajor, e.DevMinor))
	}
	out.Mtime, out.Mtimensec = uint64(e.MTime.Unix()), uint32(e.MTime.Nanosecond())
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = uint64(e.CTime.Unix()), uint32(e.CTime.Nanosecond())
}

// entry finds the node's entry again; the caller calls release when it is done with the tree.
func (n *node) entry() (tree *browse.RandomTree, e archive.Entry, release func(), errno syscall.Errno) {
	tree, release, err := n.x.tree.acquire()
	if err != nil {
		return nil, e, nil, n.x.failed("look into", n.path, err)
	}
	if e, err = tree.Entry(n.x.fs.ctx, n.path); err != nil {
		release()
		return nil, e, nil, n.x.failed("find", n.path, err)
	}
	return tree, e, release, 0
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	tree, e, release, errno := n.entry()
	if errno != 0 {
		return errno
	}
	defer release()
	n.x.fill(tree, e, &out.Attr)
	return 0
}

// Lookup implements fs.NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	tree, release, err := n.x.tree.acquire()
	if err != nil {
		return nil, n.x.failed("look into", n.path, err)
	}
	defer release()
	at := path.Join(n.path, name)
	e, err := tree.Entry(n.x.fs.ctx, at)
	if errors.Is(err, archive.ErrNoEntry) {
		return nil, syscall.ENOENT
	}
	if err != nil {
		return nil, n.x.failed("find", at, err)
	}
	return n.child(ctx, tree, e, out)
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	tree, release, err := n.x.tree.acquire()
	if err != nil {
		return nil, 0, n.x.failed("look into", n.path, err)
	}
	d := &dirHandle{n: n, tree: tree, release: release}
	d.rewind()
	return d, fuse.FOPEN_CACHE_DIR, 0
}

// Readlink implements fs.NodeReadlinker.
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	_, e, release, errno := n.entry()
	if errno != 0 {
		return nil, errno
	}
	defer release()
	return []byte(e.Linkname), 0
}

// attributes reads the extended attributes.
func (n *node) attributes() (map[string][]byte, syscall.Errno) {
	if n.bare {
		return nil, 0
	}
	tree, e, release, errno := n.entry()
	if errno != 0 {
		return nil, errno
	}
	defer release()
	all, err := tree.Attributes(n.x.fs.ctx, e)
	if err != nil {
		return nil, n.x.failed("read the attributes of", n.path, err)
	}
	return all, 0
}

// Getxattr implements fs.NodeGetxattrer.
func (n *node) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	all, errno := n.attributes()
	if errno != 0 {
		return 0, errno
	}
	value, ok := all[name]
	if !ok {
		return 0, syscall.ENODATA
	}
	return give(dest, value)
}

// Listxattr implements fs.NodeListxattrer.
func (n *node) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	all, errno := n.attributes()
	if errno != 0 {
		return 0, errno
	}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return give(dest, list)
}

// give hands out a value, or tells how much room it takes.
func give(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

// Open implements fs.NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	if errno := refuseWriting(flags); errno != 0 {
		return nil, 0, errno
	}
	tree, e, release, errno := n.entry()
	if errno != 0 {
		return nil, 0, errno
	}
	f, err := openFile(n.x.fs.ctx, tree, e)
	if err != nil {
		release()
		return nil, 0, n.x.failed("read", n.path, err)
	}
	failed := func(err error) syscall.Errno { return n.x.failed("read", n.path, err) }
	return &fileHandle{r: f, failed: failed, release: release}, fuse.FOPEN_KEEP_CACHE, 0
}

// openFile opens a file. One that was damaged when it was backed up is refused: the archive has zeros in it.
func openFile(ctx context.Context, tree *browse.RandomTree, e archive.Entry) (*archive.RandomFile, error) {
	if e.Damaged != "" {
		return nil, say.WithHint(fmt.Errorf("it was damaged when it was backed up: %s", e.Damaged), "`voltar cat` gives what there is of it")
	}
	return tree.Open(ctx, e)
}

// maxNameBytes is the longest name that FUSE takes. FAT has longer ones than most filesystems: 255 characters.
const maxNameBytes = 1024

// dirHandle lists a folder, one block of the index after the other. go-fuse calls it from one goroutine at a time.
type dirHandle struct {
	n       *node
	tree    *browse.RandomTree
	release func()

	next func() (archive.Entry, error, bool)
	stop func()
	at   uint64        // how many were given
	last archive.Entry // the one that was given last
}

func (d *dirHandle) rewind() {
	d.next, d.stop = iter.Pull2(d.tree.List(d.n.x.fs.ctx, d.n.path))
	d.at = 0
}

// Readdirent implements fs.FileReaddirenter.
func (d *dirHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if d.at < 2 { // whose numbers the kernel knows itself
		d.at++
		return &fuse.DirEntry{Name: []string{".", ".."}[d.at-1], Mode: syscall.S_IFDIR, Off: d.at}, 0
	}
	e, err, ok := d.next()
	switch {
	case err != nil:
		return nil, d.n.x.failed("list", d.n.path, err)
	case !ok:
		return nil, 0
	}
	name := path.Base(e.Path)
	if len(name) > maxNameBytes || strings.ContainsRune(name, 0) || name == "." || name == ".." { // which would end the list, and say nothing
		return nil, d.n.x.failed("list", d.n.path, fmt.Errorf("cannot use the index: %.40q… is no name that a file can have", name))
	}
	d.at++
	d.last = e
	mode := typeBits[e.Type]
	if e.Type == archive.TypeHardlink { // of any type but a folder's
		if target, err := d.tree.Inode(d.n.x.fs.ctx, e); err == nil {
			mode = typeBits[target.Type]
		}
	}
	return &fuse.DirEntry{Name: name, Mode: mode, Ino: d.n.x.ino(&e), Off: d.at}, 0
}

// Lookup implements fs.FileLookuper: it need not find again what was just listed.
func (d *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if path.Base(d.last.Path) != name {
		return d.n.Lookup(ctx, name, out)
	}
	return d.n.child(ctx, d.tree, d.last, out)
}

// Seekdir implements fs.FileSeekdirer.
func (d *dirHandle) Seekdir(ctx context.Context, offset uint64) syscall.Errno {
	d.stop()
	d.rewind()
	for d.at < offset {
		if e, errno := d.Readdirent(ctx); errno != 0 || e == nil {
			return errno
		}
	}
	return 0
}

// Releasedir implements fs.FileReleasedirer.
func (d *dirHandle) Releasedir(context.Context, uint32) {
	d.stop()
	d.release()
}

// fileHandle is a file that is open.
type fileHandle struct {
	r       reader
	failed  func(error) syscall.Errno
	release func()
}

// Read implements fs.FileReader.
func (h *fileHandle) Read(_ context.Context, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.r.ReadAt(dest, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.failed(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Lseek implements fs.FileLseeker.
func (h *fileHandle) Lseek(_ context.Context, offset uint64, whence uint32) (uint64, syscall.Errno) {
	next := h.r.NextData
	switch whence {
	case unix.SEEK_DATA:
	case unix.SEEK_HOLE:
		next = h.r.NextHole
	default:
		return 0, syscall.EINVAL
	}
	if to, ok := next(int64(offset)); ok {
		return uint64(to), 0
	}
	return 0, syscall.ENXIO
}

// Release implements fs.FileReleaser.
func (h *fileHandle) Release(context.Context) syscall.Errno {
	h.release()
	return 0
}

// readOnly answers what would change something.
type readOnly struct{}

// Access implements fs.NodeAccesser: the kernel lets nobody in but who mounted it.
func (readOnly) Access(_ context.Context, mask uint32) syscall.Errno {
	if mask&unix.W_OK != 0 {
		return syscall.EROFS
	}
	return 0
}

func refuseWriting(flags uint32) syscall.Errno {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return syscall.EROFS
	}
	return 0
}
