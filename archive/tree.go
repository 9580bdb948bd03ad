package archive

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// What the tar stream cannot hold, as counted in TreeStats.NotStored.
const (
	NotStoredSocket = "socket" // entries; they are in the index
	NotStoredFlags  = "flags"  // entries with chattr flags; they are in the index
	NotStoredXattr  = "xattr"  // attributes that tar cannot express; they are in the index
	NotStoredMount  = "mount"  // entries on which another filesystem is mounted, whose content is nowhere
	// NotStoredXattrSize counts attributes that are nowhere, as their entries have too much of them. All of an entry whose names
	// are more than the kernel lists count as one.
	NotStoredXattrSize = "xattr_size"
	// NotStoredProject counts entries with a project or a size of extents; both are in the index.
	NotStoredProject = "project"
)

// TreeOptions say how WriteTree works; the zero value is good for one archive alone.
type TreeOptions struct {
	Level      Level          // 0 means LevelDefault
	Pool       *Pool          // nil starts one for this archive
	Previous   *Previous      // nil carries nothing over
	Made       Day            // of the archive, for its index
	Exclude    *Matcher       // nil leaves out nothing
	Closed     []FolderID     // folders that are stored empty, whatever is in them
	OnProgress func(Progress) // called after each member, from one goroutine at a time
	Log        *slog.Logger   // nil discards
	// Limits of the tree and of what is made of it.
	Limits Limits
	// TempDir is where temporary files go when a tree is too much for memory; os.TempDir() when empty.
	TempDir string
	// Live says that the tree is in use while it is read: what changes meanwhile is listed as changed, and is no damage.
	Live bool

	sys      *system // nil means the host's; tests set faults
	openDirs int     // 0 means maxOpenDirs
}

// Progress is how far a writer is.
type Progress struct {
	Entries      int64
	ContentBytes int64 // of files, without holes; of images and streams, of the source
	ArchiveBytes int64 // written
}

// Damage is an entry, or a range of an image, that is not stored as it should be.
type Damage struct {
	Path        string // of a tree's entry
	OffsetBytes int64  // of an image's range
	LengthBytes int64
	Reason      string
}

// TreeStats is what WriteTree did.
type TreeStats struct {
	Entries      int64 // in the index, all kinds
	Files        int64 // regular ones, hard links to them not counted again
	Dirs         int64
	ContentBytes int64 // data of files, without holes
	SharedBytes  int64 // of ContentBytes, what lies where earlier data do: it takes no room of its own when it is shared again
	TarBytes     int64 // of the tar stream
	ArchiveBytes int64 // of the archive
	IndexBytes   int64
	Members      int64
	Carried      Carried // of Members and ArchiveBytes

	IndexBlocksOffset int64 // of the index's last gzip member, which lists its blocks

	ExcludedEntries int64
	ExcludedBytes   int64      // of files, without holes
	Closed          []FolderID // those of TreeOptions.Closed that were met

	LongPaths    int64            // entries in the tar stream that no program can make by one path, or by one path link to; see LongPathBytes
	NotStored    map[string]int64 // by the NotStored names
	Damaged      []Damage         // the first, as many as Limits allow
	DamagedCount int64
	Changed      []Damage // of a live tree, what changed while it was read; bounded as Damaged
	ChangedCount int64
}

// FolderID tells a folder from every other one, whatever its path is.
type FolderID struct{ key inodeKey }

// IdentifyFolder returns the ID of a folder that is there.
func IdentifyFolder(path string) (FolderID, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO, &st); err != nil {
		return FolderID{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return FolderID{keyOf(&st)}, nil
}

// OnOneFilesystem tells whether two folders lie on one filesystem.
func (f FolderID) OnOneFilesystem(g FolderID) bool {
	return f.key.devMajor == g.key.devMajor && f.key.devMinor == g.key.devMinor
}

// WriteTree archives the tree whose root is the open folder root: the archive to out, its index to index, both as
// docs/format.md describes them. It reads in root's tree and on its mount only, and leaves root open.
//
// Entries that cannot be read as they should are damage, listed in the stats, and no error: the archive is then
// well-formed without them, or with zeros in their place. An error (of writing, of memory, or the cause of ctx) leaves
// out and index unfinished and useless; it wraps a *LimitError when the tree is beyond a bound. A Write of out or index that
// hangs is the caller's to interrupt.
func WriteTree(ctx context.Context, root *os.File, out, index io.Writer, opts TreeOptions) (TreeStats, error) {
	if err := opts.Level.check(); err != nil {
		return TreeStats{}, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Pool == nil {
		opts.Pool = NewPool(0)
		defer opts.Pool.Close()
	}
	if opts.sys == nil {
		opts.sys = hostSystem()
	}
	if opts.openDirs == 0 {
		opts.openDirs = maxOpenDirs
	}
	opts.Limits = opts.Limits.withDefaults()
	if d := opts.Limits.Duration; d > 0 {
		var cancel context.CancelFunc
		seconds := int64(d.Seconds())
		ctx, cancel = context.WithTimeoutCause(ctx, d, &LimitError{What: LimitDuration, Limit: seconds, Got: seconds})
		defer cancel()
	}
	conn, err := root.SyscallConn()
	if err != nil {
		return TreeStats{}, fmt.Errorf("cannot use the root of the tree: %w", err)
	}
	var stats TreeStats
	if controlErr := conn.Control(func(fd uintptr) {
		stats, err = writeTree(ctx, int(fd), out, index, opts)
	}); controlErr != nil {
		return TreeStats{}, fmt.Errorf("cannot use the root of the tree: %w", controlErr)
	}
	if err != nil {
		return stats, fmt.Errorf("archive tree: %w", err)
	}
	return stats, nil
}

func writeTree(ctx context.Context, rootFD int, out, index io.Writer, opts TreeOptions) (TreeStats, error) {
	temp := &spill{dir: cmp.Or(opts.TempDir, os.TempDir()), limit: opts.Limits.SpillBytes}
	w := &walker{
		names: nameStack{spill: temp, budget: opts.Limits.NameBytes},
		sys:   opts.sys, exclude: opts.Exclude, closed: opts.Closed, log: opts.Log, openDirs: opts.openDirs, limits: &opts.Limits,
		free: make(chan *item, itemsAhead), prep: make(chan *item, itemsAhead), order: make(chan *item, itemsAhead),
	}
	w.shares = opts.sys.canShare(rootFD)
	w.attrs.limits = &opts.Limits
	items := newItems()
	for _, it := range items {
		w.free <- it
	}
	t := &treeWriter{
		sys: opts.sys, walker: w, limits: &opts.Limits, members: newMemberWriter(opts.Pool, memberOptions{opts.Level, opts.Previous, opts.Made}),
		links: newLinkTable(temp, opts.Limits.LinkBytes), live: opts.Live,
		onProgress: opts.OnProgress, indexWriter: newIndexWriter(index, &opts.Limits),
	}
	defer t.links.close()
	t.indexWriter.encoder(opts.Level)
	t.stats.NotStored = make(map[string]int64)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.walk(ctx, rootFD) })
	for range readers {
		p := &preparer{sys: opts.sys, limit: opts.Pool.limit, walker: w}
		p.attrs = attrReader{limits: &opts.Limits}
		g.Go(func() error { return p.run(ctx) })
	}
	g.Go(func() error { return t.collect(ctx) })
	g.Go(func() error { return t.members.writeMembers(ctx, out, t.written) })
	err := g.Wait()
	for _, it := range items {
		it.release() // what an error left
	}
	if err != nil {
		return t.stats, err
	}
	blocksOffset, err := t.indexWriter.finish()
	if err != nil {
		return t.stats, err
	}
	t.stats.TarBytes = t.indexWriter.total.TarBytes
	t.stats.ArchiveBytes = t.indexWriter.total.ArchiveBytes
	t.stats.Members, t.stats.Carried = t.indexWriter.total.Members, t.members.carried
	t.stats.IndexBlocksOffset, t.stats.IndexBytes = blocksOffset, t.indexWriter.offset
	t.stats.ExcludedEntries, t.stats.ExcludedBytes = w.excludedEntries, w.excludedBytes
	t.stats.Closed = w.met
	return t.stats, nil
}

// treeWriter turns entries into the tar stream, in their order.
type treeWriter struct {
	sys     *system
	limits  *Limits
	walker  *walker
	members *memberWriter
	shares  *shareMap  // nil while nothing was shared
	links   *linkTable // of inodes with further names to come
	stats   TreeStats
	head    []byte // of the entry at hand
	sparse  []byte // map of the entry at hand

	live        bool // what changes while it is read is no damage
	listedBytes int  // of the lists of entries in stats

	onProgress  func(Progress)
	indexWriter *indexWriter
	entries     atomic.Int64 // for progress
	content     atomic.Int64
}

// firstName is the entry that holds the data of an inode with several names.
type firstName struct {
	path      string
	tarOffset int64
	left      uint32 // names that have not come yet
}

// collect adds the entries of the walk and then the end of the stream.
func (t *treeWriter) collect(ctx context.Context) error {
	for {
		select {
		case it, more := <-t.walker.order:
			if !more {
				return t.finish(ctx)
			}
			select {
			case <-it.ready:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := t.add(ctx, it); err != nil {
				return err
			}
			it.release()
			t.walker.free <- it // there is room for all of them
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finish ends the stream with two blocks of zeros in a member of their own.
func (t *treeWriter) finish(ctx context.Context) error {
	if ctx.Err() != nil { // the walk may have ended early
		return context.Cause(ctx)
	}
	if err := t.members.begin(ctx); err != nil {
		return err
	}
	t.members.zeros(2 * tarBlockBytes)
	return t.members.finish(ctx)
}

// add stores one entry.
func (t *treeWriter) add(ctx context.Context, it *item) error {
	e := &it.entry
	if it.failed != nil {
		if t.live && changedMeanwhile(it.failed) {
			t.list(&t.stats.Changed, &t.stats.ChangedCount, e.Path, it.failed.Error())
		} else {
			t.list(&t.stats.Damaged, &t.stats.DamagedCount, e.Path, it.failed.Error())
		}
		return nil //nolint:nilerr // one entry is not stored, which is listed; the archive goes on
	}
	e.Flags, e.OddXattrs, e.Accounting = it.attrs.flags, it.attrs.odd, it.attrs.accounting
	switch {
	case it.mounted:
		t.stats.NotStored[NotStoredMount]++
	case e.Type == TypeSocket:
		t.stats.NotStored[NotStoredSocket]++
	}
	var err error
	if e.Type == TypeSocket || it.mounted && e.Type != TypeDir {
		e.TarOffset, e.SizeBytes, e.StoredBytes = -1, 0, 0
		if !t.fitsIndex(e) {
			err = t.members.begin(ctx)
		}
	} else {
		err = t.store(ctx, it)
	}
	if err != nil {
		return fmt.Errorf("store %q: %w", e.Path, err)
	}
	t.note(it)
	return nil
}

// note counts an entry that is stored and puts it into the index.
func (t *treeWriter) note(it *item) {
	e := &it.entry
	if e.Flags != 0 {
		t.stats.NotStored[NotStoredFlags]++
	}
	if e.Accounting != (Accounting{}) {
		t.stats.NotStored[NotStoredProject]++
	}
	if n := len(e.OddXattrs); n > 0 {
		t.stats.NotStored[NotStoredXattr] += int64(n)
	}
	if n := it.attrs.tooLarge; n > 0 && e.Type != TypeHardlink {
		t.stats.NotStored[NotStoredXattrSize] += n
	}
	if e.TarOffset >= 0 && (len(e.Path) >= LongPathBytes || e.Type == TypeHardlink && len(e.Linkname) >= LongPathBytes) {
		t.stats.LongPaths++
	}
	switch e.Type {
	case TypeFile:
		t.stats.Files++
	case TypeDir:
		t.stats.Dirs++
	}
	t.stats.Entries++
	t.stats.ContentBytes += e.StoredBytes
	t.entries.Store(t.stats.Entries)
	t.content.Store(t.stats.ContentBytes)
	switch {
	case len(it.changed) == 0:
	case t.live:
		t.list(&t.stats.Changed, &t.stats.ChangedCount, e.Path, strings.Join(it.changed, "; "))
	default: // nothing changes on a snapshot
		it.damaged = append(it.damaged, it.changed...)
	}
	if len(it.damaged) > 0 {
		e.Damaged = strings.Join(it.damaged, "; ")
		t.list(&t.stats.Damaged, &t.stats.DamagedCount, e.Path, e.Damaged)
	}
	t.members.cur.entries = append(t.members.cur.entries, *e)
	t.members.cur.indexBytes += indexCost(e)
}

// indexCost is what an entry takes in the index, or near enough.
func indexCost(e *Entry) int {
	const otherFieldsBytes, sharedRangeBytes = 300, 80
	n := otherFieldsBytes + len(e.Path) + len(e.Linkname) + sharedRangeBytes*len(e.Shared)
	for name, value := range e.OddXattrs {
		n += len(name) + len(value)
	}
	return n
}

// fitsIndex tells whether the index can take one more entry for the open member. What it needs is held in memory until the
// member is written.
func (t *treeWriter) fitsIndex(e *Entry) bool {
	return t.members.cur.indexBytes+indexCost(e) <= t.limits.MemberIndexBytes
}

// list counts an entry that is not stored as it should be, and enters it in its list while there is room.
func (t *treeWriter) list(list *[]Damage, count *int64, path, reason string) {
	*count++
	t.listedBytes += len(path) + len(reason)
	if len(*list) < t.limits.Damaged && t.listedBytes <= t.limits.DamagedBytes {
		*list = append(*list, Damage{Path: path, Reason: reason})
	}
}

// store writes headers and data of an entry.
func (t *treeWriter) store(ctx context.Context, it *item) error {
	e := &it.entry
	h := tarHeader{
		name: e.Path, link: e.Linkname, mode: e.Mode, uid: e.UID, gid: e.GID, mtime: e.MTime,
		devMajor: e.DevMajor, devMinor: e.DevMinor,
		aclAccess: it.attrs.aclAccess, aclDefault: it.attrs.aclDefault, xattrs: it.attrs.xattrs,
	}
	if err := t.resolveLink(it, &h); err != nil {
		return err
	}
	e.HasAttrs = h.aclAccess != "" || h.aclDefault != "" || len(h.xattrs) > 0
	t.sparse = t.sparse[:0]
	switch e.Type {
	case TypeFile:
		h.flag = flagFile
		if it.sparse {
			t.sparse = appendSparseMap(t.sparse, it.segments, e.SizeBytes)
			h.sparse, h.realSize = true, e.SizeBytes
		}
		h.size = int64(len(t.sparse)) + e.StoredBytes
	case TypeHardlink:
		h.flag, h.link = flagHardlink, e.Linkname
	case TypeDir:
		h.flag, h.name = flagDir, e.Path+"/"
	case TypeSymlink:
		h.flag = flagSymlink
	case TypeChar:
		h.flag = flagChar
	case TypeBlock:
		h.flag = flagBlock
	case TypeFIFO:
		h.flag = flagFIFO
	default:
		return fmt.Errorf("cannot store an entry of type %q", e.Type)
	}
	t.head = appendTarHeader(t.head[:0], &h)
	if len(t.head) > PAXMaxBytes {
		return &LimitError{What: LimitHeaderBytes, Limit: PAXMaxBytes, Got: int64(len(t.head)), Path: e.Path}
	}
	e.TarBytes = int64(len(t.head)) + h.size + padding(h.size)
	if most := t.limits.StreamBytes; most > 0 && max(e.StoredBytes, e.TarBytes) > most-t.members.pos { // TarBytes may have overflowed
		return &LimitError{What: LimitStreamBytes, Limit: most, Got: max(e.StoredBytes, t.members.pos+e.TarBytes), Path: e.Path}
	}
	if err := t.place(ctx, e, h.size); err != nil {
		return err
	}
	e.TarOffset = t.members.pos
	if err := t.rememberLink(it); err != nil {
		return err
	}
	t.members.write(t.head)
	if e.Type == TypeFile {
		t.noteShared(it)
		return t.storeData(ctx, it, h.size)
	}
	return nil
}

// place begins a new member where the rules of docs/format.md want one.
func (t *treeWriter) place(ctx context.Context, e *Entry, dataBytes int64) error {
	n := int64(t.members.length())
	if n > 0 && dataBytes <= FileMemberBytes && n+e.TarBytes <= MemberMaxBytes && t.fitsIndex(e) &&
		(n < MemberCutBytes || pathHash(e.Path)%MemberCutBytes >= uint64(e.TarBytes)) {
		return nil
	}
	return t.members.begin(ctx)
}

func pathHash(path string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, path) // cannot fail
	return h.Sum64()
}

// resolveLink makes an entry whose inode is stored already a hard link.
func (t *treeWriter) resolveLink(it *item, h *tarHeader) error {
	if it.st.Nlink < 2 || it.entry.Type == TypeDir {
		return nil
	}
	first, ok, err := t.links.take(keyOf(&it.st))
	if err != nil || !ok {
		return err
	}
	e := &it.entry
	e.Type, e.Linkname, e.DataOffset = TypeHardlink, first.path, first.tarOffset
	e.SizeBytes, e.StoredBytes, e.DevMajor, e.DevMinor = 0, 0, 0, 0
	// The inode's attributes came with its first name.
	h.aclAccess, h.aclDefault, h.xattrs = "", "", nil
	e.Flags, e.OddXattrs, e.Accounting = 0, nil, Accounting{}
	it.closeFile()
	return nil
}

// rememberLink keeps the entry that holds the data of an inode until its last name has come.
func (t *treeWriter) rememberLink(it *item) error {
	if it.st.Nlink < 2 || it.entry.Type == TypeDir || it.entry.Type == TypeHardlink {
		return nil
	}
	return t.links.put(keyOf(&it.st), firstName{it.entry.Path, it.entry.TarOffset, it.st.Nlink - 1})
}

// storeData writes what follows the header of a file: the map of a sparse file, the data, zeros up to the next block.
func (t *treeWriter) storeData(ctx context.Context, it *item, dataBytes int64) error {
	t.members.write(t.sparse)
	if it.loaded {
		t.members.write(it.data)
	} else if err := t.streamData(ctx, it); err != nil {
		return err
	}
	t.members.zeros(int(padding(dataBytes)))
	return nil
}

// streamData reads a file into members, beginning a new one after each FileMemberBytes of it.
func (t *treeWriter) streamData(ctx context.Context, it *item) error {
	left := int64(FileMemberBytes - len(t.sparse))
	return it.readData(ctx, t.sys, t.members.pool.limit, func(n int64) ([]byte, error) {
		if left <= 0 {
			if err := t.members.begin(ctx); err != nil {
				return nil, err
			}
			left = FileMemberBytes
		}
		n = min(n, left)
		left -= n
		t.content.Add(n)
		return t.members.room(int(n)), nil
	})
}

// written is told of each member that is in the archive.
func (t *treeWriter) written(m summedMember, entries []Entry) error {
	if err := t.indexWriter.member(m, entries); err != nil {
		return err
	}
	if t.onProgress != nil {
		t.onProgress(Progress{
			Entries: t.entries.Load(), ContentBytes: t.content.Load(), ArchiveBytes: m.Offset + m.LengthBytes,
		})
	}
	return nil
}
