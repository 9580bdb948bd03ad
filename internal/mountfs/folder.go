package mountfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/catalog"
)

// Names of what has none of its own.
const (
	filesName  = "files"  // an extent that is stored as files
	imageName  = "volume" // one that is stored as an image
	latestName = "latest"
)

// item is a folder, link or file that no guest made.
type item struct {
	name      string
	ino       uint64
	mode      uint32 // with its type
	sizeBytes int64
	mtime     time.Time
	make      func() fusefs.InodeEmbedder // a node of it; the kernel may forget one and ask for another
	tree      *extent                     // whose top it is; its attributes are those that the guest gave it
}

func (i *item) stable() fusefs.StableAttr {
	return fusefs.StableAttr{Mode: i.mode & syscall.S_IFMT, Ino: i.ino}
}

func (i *item) fill(out *fuse.Attr) {
	out.Mode, out.Nlink, out.Size, out.Blksize = i.mode, 1, uint64(i.sizeBytes), blockBytes
	out.Blocks = uint64(i.sizeBytes+511) / 512
	out.SetTimes(&i.mtime, &i.mtime, &i.mtime)
}

// folder is a folder that no guest made.
type folder struct {
	item
	load func() ([]item, error) // sorted by their names
}

// folderNode is a folder for the kernel.
type folderNode struct {
	fusefs.Inode
	readOnly
	fs *FS
	folder
}

func (f *FS) newFolder(name string, mtime time.Time, load func() ([]item, error)) folder {
	made := folder{item: item{name: name, ino: f.nextNumber(), mode: syscall.S_IFDIR | 0o555, mtime: mtime}, load: load}
	made.make = func() fusefs.InodeEmbedder { return &folderNode{fs: f, folder: made} }
	return made
}

func (f *FS) staticFolder(name string, mtime time.Time, items []item) folder {
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return f.newFolder(name, mtime, func() ([]item, error) { return items, nil })
}

// groupFolders makes VG/LV/TIME of backups.
func (f *FS) groupFolders(backups []Backup) folder {
	backups = slices.SortedFunc(slices.Values(backups), func(a, b Backup) int { return a.ID.Compare(b.ID) })
	volumes := map[string][]item{} // by group
	var newest time.Time
	for _, of := range slices.Collect(chunkBy(backups, func(b Backup) catalog.Ref { return b.ID.Ref })) {
		group, name, _ := strings.Cut(of[0].ID.Ref.String(), "/")
		volume := f.volumeFolder(name, of)
		volumes[group] = append(volumes[group], volume.item)
		if volume.mtime.After(newest) {
			newest = volume.mtime
		}
	}
	var groups []item
	for name, items := range volumes {
		groups = append(groups, f.staticFolder(name, newest, items).item)
	}
	return f.staticFolder("", newest, groups)
}

// chunkBy yields runs of what has the same key.
func chunkBy[T any, K comparable](list []T, key func(T) K) func(yield func([]T) bool) {
	return func(yield func([]T) bool) {
		for begin := 0; begin < len(list); {
			end := begin + 1
			for end < len(list) && key(list[end]) == key(list[begin]) {
				end++
			}
			if !yield(list[begin:end]) {
				return
			}
			begin = end
		}
	}
}

// volumeFolder has the backups of one volume, the oldest first, and a link to the newest good one.
func (f *FS) volumeFolder(name string, backups []Backup) folder {
	var items []item
	latest := ""
	for _, b := range backups {
		made := f.backupFolder(b)
		items = append(items, made.item)
		if b.Good {
			latest = made.name
		}
	}
	newest := backups[len(backups)-1].ID.Time
	if latest != "" {
		items = append(items, item{name: latestName, ino: f.nextNumber(), mode: syscall.S_IFLNK | 0o777, sizeBytes: int64(len(latest)),
			mtime: newest, make: func() fusefs.InodeEmbedder { return &linkNode{target: latest} }})
	}
	return f.staticFolder(name, newest, items)
}

// backupFolder is read when it is entered. An error is not kept.
func (f *FS) backupFolder(b Backup) folder {
	var mu sync.Mutex
	var loaded []item
	isLoaded := false
	return f.newFolder(catalog.FormatTime(b.ID.Time), b.ID.Time, func() (_ []item, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !isLoaded {
			var opened *browse.Backup
			if opened, err = b.Open(f.ctx); err == nil {
				loaded, err = f.contentOf(opened)
			}
			isLoaded = err == nil
		}
		return loaded, err
	})
}

// contentOf lays out what one backup holds. What is stored as neither files nor image is not shown.
func (f *FS) contentOf(b *browse.Backup) (items []item, err error) {
	for _, x := range b.Extents() {
		switch {
		case x.State == catalog.StateFiles:
			items = append(items, f.treeItem(b, x))
		case x.State == catalog.StateImage && x.Archive != "":
			items = append(items, f.imageItem(b, x))
		}
	}
	for _, d := range b.Dumps() {
		items = append(items, f.dumpItem(b, d))
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	for i, it := range items {
		if it.name == "." || it.name == ".." || strings.ContainsAny(it.name, "/\x00") || i > 0 && items[i-1].name == it.name {
			return nil, fmt.Errorf("%w: it holds something with the name %q, which cannot be shown", catalog.ErrDamaged, it.name)
		}
	}
	return items, nil
}

func (f *FS) treeItem(b *browse.Backup, x catalog.Extent) item {
	tree := f.newExtent(b, x)
	root := archive.Entry{Type: archive.TypeDir} // the first of the archive
	return item{name: cmp.Or(x.Name, filesName), ino: tree.ino(&root), mode: syscall.S_IFDIR | 0o555, mtime: b.ID().Time, tree: tree,
		make: func() fusefs.InodeEmbedder { return &node{x: tree, path: "."} }}
}

// tryIndexes opens the indexes of a backup's trees, so that a mount of one backup fails where there is nothing to see.
func tryIndexes(items []item) error {
	var errs []error
	for _, it := range items {
		if it.tree == nil {
			continue
		}
		_, release, err := it.tree.tree.acquire()
		if err == nil {
			release()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (n *folderNode) what() string { return "read the folder " + n.Path(nil) }

// Getattr implements fs.NodeGetattrer.
func (n *folderNode) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fill(&out.Attr)
	return 0
}

// Lookup implements fs.NodeLookuper.
func (n *folderNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	items, err := n.load()
	if err != nil {
		return nil, n.fs.failed(n.what(), err)
	}
	i, found := slices.BinarySearchFunc(items, name, func(it item, name string) int { return strings.Compare(it.name, name) })
	if !found {
		return nil, syscall.ENOENT
	}
	it := items[i]
	it.fill(&out.Attr)
	if it.tree != nil {
		if errno := it.tree.fillRoot(&out.Attr); errno != 0 {
			return nil, errno
		}
	}
	if child := n.GetChild(name); child != nil {
		return child, 0
	}
	return n.NewInode(ctx, it.make(), it.stable()), 0
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *folderNode) OpendirHandle(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	items, err := n.load()
	if err != nil {
		return nil, 0, n.fs.failed(n.what(), err)
	}
	list := []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR}, {Name: "..", Mode: syscall.S_IFDIR}}
	for _, it := range items {
		list = append(list, fuse.DirEntry{Name: it.name, Mode: it.mode, Ino: it.ino})
	}
	return fusefs.NewListDirStream(list), fuse.FOPEN_CACHE_DIR, 0
}

// linkNode is a symbolic link that no guest made.
type linkNode struct {
	fusefs.Inode
	readOnly
	target string
}

// Readlink implements fs.NodeReadlinker.
func (n *linkNode) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(n.target), 0 }

// Getattr implements fs.NodeGetattrer.
func (n *linkNode) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink, out.Size = syscall.S_IFLNK|0o777, 1, uint64(len(n.target))
	return 0
}

// fileNode is an image, or a dump.
type fileNode struct {
	fusefs.Inode
	readOnly
	fs *FS
	item
	what string
	open func() (reader, func(), error)
}

// reader reads a file at any offset.
type reader interface {
	io.ReaderAt
	// NextData and NextHole are as those of archive.RandomFile.
	NextData(offset int64) (int64, bool)
	NextHole(offset int64) (int64, bool)
}

func (f *FS) fileItem(name, what string, b *browse.Backup, sizeBytes int64, open func() (reader, func(), error)) item {
	it := item{name: name, ino: f.nextNumber(), mode: syscall.S_IFREG | 0o400, sizeBytes: sizeBytes, mtime: b.ID().Time}
	of := it
	it.make = func() fusefs.InodeEmbedder {
		return &fileNode{fs: f, item: of, what: fmt.Sprintf("read %s of %s", what, b.ID()), open: open}
	}
	return it
}

func (f *FS) imageItem(b *browse.Backup, x catalog.Extent) item {
	name := cmp.Or(x.Name, imageName) + ".img"
	image := &held[*browse.RandomImage]{fs: f, open: func() (*browse.RandomImage, error) {
		m, err := b.RandomImage(f.ctx, x, f.cache)
		if err == nil && m.ListErr != nil {
			f.log.Warn(fmt.Sprintf("the list of the members of %s of %s cannot be used: finding them takes longer", name, b.ID()),
				"err", m.ListErr)
		}
		return m, err
	}}
	return f.fileItem(name, name, b, x.SizeBytes, func() (reader, func(), error) {
		m, release, err := image.acquire()
		if err != nil {
			return nil, nil, err
		}
		return &imageReader{RandomFile: m.Open(), extent: x}, release, nil
	})
}

// imageReader reads an image, but for the ranges that could not be read when it was backed up.
type imageReader struct {
	*archive.RandomFile
	extent catalog.Extent
}

func (r *imageReader) ReadAt(p []byte, offset int64) (int, error) {
	var listed int64 // how far the list of damage goes
	for _, d := range r.extent.Damaged {
		if d.OffsetBytes < offset+int64(len(p)) && offset < d.OffsetBytes+d.LengthBytes {
			return 0, fmt.Errorf("bytes %d to %d could not be read when it was backed up: %s", d.OffsetBytes, d.OffsetBytes+d.LengthBytes, d.Reason)
		}
		listed = d.OffsetBytes + d.LengthBytes
	}
	if r.extent.DamagedCount > int64(len(r.extent.Damaged)) && offset+int64(len(p)) > listed {
		return 0, fmt.Errorf("%d ranges could not be read when it was backed up, and nothing tells where those behind byte %d are",
			r.extent.DamagedCount, listed)
	}
	return r.RandomFile.ReadAt(p, offset)
}

func (f *FS) dumpItem(b *browse.Backup, d catalog.Dump) item {
	name := d.Name + ".dump.gz"
	dump := &held[browse.File]{fs: f, open: func() (browse.File, error) { return b.OpenStored(f.ctx, d.File) }}
	sizeBytes := b.StoredBytes(d.File)
	return f.fileItem(name, name, b, sizeBytes, func() (reader, func(), error) {
		file, release, err := dump.acquire()
		if err != nil {
			return nil, nil, err
		}
		return wholeFile{file, sizeBytes}, release, nil
	})
}

// wholeFile is a file without holes.
type wholeFile struct {
	io.ReaderAt
	sizeBytes int64
}

// NextData implements reader.
func (w wholeFile) NextData(offset int64) (int64, bool) { return offset, offset < w.sizeBytes }

// NextHole implements reader.
func (w wholeFile) NextHole(offset int64) (int64, bool) { return w.sizeBytes, offset < w.sizeBytes }

// Getattr implements fs.NodeGetattrer.
func (n *fileNode) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fill(&out.Attr)
	return 0
}

// Open implements fs.NodeOpener.
func (n *fileNode) Open(_ context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	if errno := refuseWriting(flags); errno != 0 {
		return nil, 0, errno
	}
	r, release, err := n.open()
	if err != nil {
		return nil, 0, n.fs.failed(n.what, err)
	}
	failed := func(err error) syscall.Errno { return n.fs.failed(n.what, err) }
	return &fileHandle{r: r, failed: failed, release: release}, fuse.FOPEN_KEEP_CACHE, 0
}
