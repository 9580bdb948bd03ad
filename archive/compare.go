package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// CompareOptions of Compare. The zero value compares everything.
type CompareOptions struct {
	// NoOwner, NoXattrs, NoACLs and NoFlags leave out what the filesystem of the tree cannot have.
	NoOwner, NoXattrs, NoACLs, NoFlags bool
	// OnProgress is called with the bytes of data that were compared since the last call.
	OnProgress func(bytes int64)
}

// Comparison says in what a tree is not what an archive holds. Its list of differences is bounded as that of failures is.
type Comparison struct {
	Entries     int64 // that were compared
	Bytes       int64 // of data
	Differences []Failure
	Omitted     int64 // differences beyond those listed

	listed listBudget
}

// Same says whether nothing differs.
func (c *Comparison) Same() bool { return len(c.Differences) == 0 && c.Omitted == 0 }

func (c *Comparison) differ(path, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if c.listed.take(len(path) + len(err.Error())) {
		c.Differences = append(c.Differences, Failure{Path: path, Err: err})
	} else {
		c.Omitted++
	}
}

// Compare compares the archive that r reads, from its beginning, with the tree below root, which stays the caller's and which nobody
// changes meanwhile. Every entry must be there with its type, mode, owner, times, device numbers, links, attributes, ACLs,
// chattr flags, projects and every byte of its data, holes as zeros; and nothing else may be there. It follows no symbolic links. The
// index must say of each entry what the archive does, and where each member lies. The error is that of an archive, an index or a tree
// that cannot be read; what differs is in the result.
func Compare(ctx context.Context, r *Reader, index *Index, root *os.Root, opts CompareOptions) (_ Comparison, err error) {
	c := &comparer{ctx: ctx, index: index, root: root, opts: opts, attrs: attrReader{limits: defaultLimits()}}
	defer func() {
		for len(c.folders) > 0 {
			err = errors.Join(err, c.leave())
		}
		if err != nil {
			err = fmt.Errorf("compare: %w", err)
		}
	}()
	c.firsts = firstNames{newPathTable(defaultLimits())}
	defer c.firsts.close()
	if err := c.audit(); err != nil {
		return c.result, err
	}
	r.began = c.began
	c.t = &tarReader{r: r, damaged: func(*MemberError) {}, whole: true}
	broken := func(err error) error { return fmt.Errorf("index: %w", err) }
	c.t.cursor = newCursor(index.All(ctx), c.passed, broken)
	defer c.t.cursor.stop()
	err = c.run()
	return c.result, err
}

type comparer struct {
	ctx     context.Context
	t       *tarReader
	index   *Index
	root    *os.Root
	opts    CompareOptions
	attrs   attrReader
	folders []*comparedFolder // from the root to the one that is at hand
	members []Member          // of the index, that were not met yet; nil where they cannot be used, which was told
	firsts  firstNames
	result  Comparison
}

// comparedFolder is a folder of the tree. Entries come in the order of its names, so what they pass over is not in the archive.
type comparedFolder struct {
	path  string
	dir   *os.File
	names []string // that no entry was met of, in order
}

func (c *comparer) run() error {
	for {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		e, err := c.t.next()
		if err == io.EOF {
			if n := len(c.members); n > 0 {
				c.result.differ(rootPath, "the index has %s that the archive does not have", say.Counted(n, "member"))
			}
			return c.t.cursor.finish()
		}
		if err != nil {
			return err
		}
		in, found, err := c.t.cursor.take(e.TarOffset)
		if err != nil {
			return err
		}
		if e.Path, err = cleanPath(e.Path); err != nil {
			return err
		}
		if err := c.indexed(e, in, found); err != nil {
			return err
		}
		e.Flags, e.Accounting = in.Flags, in.Accounting
		for _, name := range slices.Sorted(maps.Keys(in.OddXattrs)) {
			e.xattrs = append(e.xattrs, xattr{name, in.OddXattrs[name]})
		}
		if err := c.entry(e); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
	}
}

// audit looks for what cannot be in the index by itself.
func (c *comparer) audit() (err error) {
	var unreadable []error
	c.members, err = c.index.audit(c.ctx, func(path string, err error) {
		var broken *IndexError
		if errors.As(err, &broken) {
			unreadable = append(unreadable, fmt.Errorf("index: %w", err))
		} else {
			c.result.differ(cmp.Or(path, rootPath), "index: %w", err)
		}
	})
	return errors.Join(err, errors.Join(unreadable...))
}

// began is told of each member of the archive.
func (c *comparer) began(m Member) {
	if c.members == nil {
		return
	}
	if len(c.members) == 0 || c.members[0] != m {
		c.result.differ(rootPath, "the member at byte %d is not where the index says", m.Offset)
		c.members = nil
		return
	}
	c.members = c.members[1:]
}

// indexed compares what the archive says of an entry with what the index does.
func (c *comparer) indexed(e *tarEntry, in Entry, found bool) error {
	if !found {
		c.result.differ(e.Path, "the index does not have it")
		return nil
	}
	if what := difference(e, e.Path, in, c.index.total); what != "" {
		c.result.differ(e.Path, "its %s in the index is another one than in the archive", what)
	}
	if e.Type != TypeHardlink {
		return nil
	}
	leads, err := c.firsts.leads(in)
	if !leads && err == nil {
		c.result.differ(e.Path, "%w", errLeadsElsewhere)
	}
	return err
}

// passed is told of what the index has and the stream has not: sockets.
func (c *comparer) passed(e Entry) error {
	if e.TarOffset >= 0 {
		c.result.differ(e.Path, "the index has it, and the archive does not")
		return nil
	}
	return c.entry(&tarEntry{Entry: e})
}

// entry compares one entry.
func (c *comparer) entry(e *tarEntry) error {
	c.result.Entries++
	if e.Path == rootPath {
		dir, err := c.root.Open(rootPath)
		if err != nil {
			return err
		}
		return c.folder(dir, e)
	}
	parent, name := splitPath(e.Path)
	f, err := c.in(parent)
	if err != nil {
		return err
	}
	if f == nil || !f.meet(name, &c.result) {
		c.result.differ(e.Path, "it is missing")
		return nil
	}
	switch e.Type {
	case TypeDir, TypeFile:
		return c.opened(f, name, e)
	case TypeHardlink:
		return c.hardlink(e)
	default:
		return c.node(f, name, e)
	}
}

// in returns the folder of the tree with a path, which the entries before have led to; nil for one that is missing. It leaves the folders
// that no further entry is in.
func (c *comparer) in(path string) (*comparedFolder, error) {
	for len(c.folders) > 0 {
		last := c.folders[len(c.folders)-1]
		if last.path == path {
			return last, nil
		}
		if last.path == rootPath || isBelow(path, last.path) {
			return nil, nil
		}
		if err := c.leave(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// leave ends the folder at hand: what is left of its names is not in the archive.
func (c *comparer) leave() error {
	f := c.folders[len(c.folders)-1]
	c.folders = c.folders[:len(c.folders)-1]
	f.surplus(len(f.names), &c.result)
	return f.dir.Close()
}

// meet goes to a name of the folder, and says whether it is there.
func (f *comparedFolder) meet(name string, result *Comparison) bool {
	at, found := slices.BinarySearch(f.names, name)
	f.surplus(at, result)
	if found {
		f.names = f.names[1:]
	}
	return found
}

// surplus passes over the first so many names.
func (f *comparedFolder) surplus(count int, result *Comparison) {
	for _, name := range f.names[:count] {
		path := name
		if f.path != rootPath {
			path = f.path + "/" + name
		}
		result.differ(path, "the archive does not have it")
	}
	f.names = f.names[count:]
}

// opened compares a file or a folder.
func (c *comparer) opened(f *comparedFolder, name string, e *tarEntry) error {
	fd := int(f.dir.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; e.Type == TypeFile && kind != unix.S_IFREG || e.Type == TypeDir && kind != unix.S_IFDIR {
		c.result.differ(e.Path, "it is of another type")
		return nil
	}
	opened, err := openBeneath(fd, name, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(opened), e.Path)
	if e.Type == TypeDir {
		return c.folder(file, e)
	}
	defer file.Close()
	if err := c.meta(opened, "", e); err != nil {
		return err
	}
	return c.data(file, e)
}

// folder compares a folder and takes it up; it closes dir in the end.
func (c *comparer) folder(dir *os.File, e *tarEntry) error {
	names, err := dir.Readdirnames(-1)
	if err == nil {
		err = c.meta(int(dir.Fd()), "", e)
	}
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	slices.Sort(names)
	c.folders = append(c.folders, &comparedFolder{e.Path, dir, names})
	return nil
}

// node compares what is not opened: links, devices, FIFOs and sockets.
func (c *comparer) node(f *comparedFolder, name string, e *tarEntry) error {
	fd := int(f.dir.Fd())
	if err := c.meta(fd, name, e); err != nil || e.Type != TypeSymlink {
		return err
	}
	target, err := readLink(fd, name)
	if errors.Is(err, unix.EINVAL) { // no link, which was told
		return nil
	}
	if err == nil && target != e.Linkname {
		c.result.differ(e.Path, "it links to %q, not to %q", target, e.Linkname)
	}
	return err
}

// hardlink compares the file that two names are of.
func (c *comparer) hardlink(e *tarEntry) error {
	target, err := cleanPath(e.Linkname)
	if err != nil {
		return err
	}
	first, err := c.root.Lstat(target)
	if errors.Is(err, os.ErrNotExist) {
		c.result.differ(e.Path, "%q, of which it is another name, is missing", e.Linkname)
		return nil
	}
	if err != nil {
		return err
	}
	second, err := c.root.Lstat(e.Path)
	if err == nil && !os.SameFile(first, second) {
		c.result.differ(e.Path, "it is not the same file as %q", e.Linkname)
	}
	return err
}

// meta compares everything but data of name in a folder, or of an open file or folder itself where name is empty.
func (c *comparer) meta(fd int, name string, e *tarEntry) error {
	var st unix.Statx_t
	err := ignoringEINTR(func() error {
		return unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	})
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		if err := c.firsts.note(e, e.Path); err != nil {
			return err
		}
	}
	var it item
	it.setStat(&st)
	have, differ := &it.entry, func(format string, args ...any) { c.result.differ(e.Path, format, args...) }
	if have.Type != e.Type {
		differ("it is of another type")
		return nil
	}
	if have.Mode != e.Mode && e.Type != TypeSymlink {
		differ("its mode is %04o, not %04o", have.Mode, e.Mode)
	}
	if !c.opts.NoOwner && (have.UID != e.UID || have.GID != e.GID) {
		differ("it belongs to %d:%d, not to %d:%d", have.UID, have.GID, e.UID, e.GID)
	}
	if !have.MTime.Equal(e.MTime) {
		differ("it was modified at %s, not at %s", have.MTime.Format(timeShown), e.MTime.UTC().Format(timeShown))
	}
	if have.SizeBytes != e.SizeBytes {
		differ("it has %d bytes, not %d", have.SizeBytes, e.SizeBytes)
	}
	if have.DevMajor != e.DevMajor || have.DevMinor != e.DevMinor {
		differ("it is the device %d:%d, not %d:%d", have.DevMajor, have.DevMinor, e.DevMajor, e.DevMinor)
	}
	return c.attributes(fd, name, e)
}

const timeShown = "2006-01-02 15:04:05.999999999"

// attributes compares extended attributes, ACLs, flags and accounting.
func (c *comparer) attributes(fd int, name string, e *tarEntry) error {
	var have attributes
	var err error
	if name == "" {
		have, err = c.attrs.ofFile(fd)
	} else {
		have, err = c.attrs.ofName(fd, name)
	}
	if err != nil {
		return err
	}
	if !c.opts.NoXattrs {
		c.xattrs(have, e)
	}
	if !c.opts.NoACLs && (have.aclAccess != e.aclAccess || have.aclDefault != e.aclDefault) {
		c.result.differ(e.Path, "its ACL is another one")
	}
	if name != "" { // of what cannot be opened nothing more is known
		return nil
	}
	if want := e.Flags & settableFlags; !c.opts.NoFlags && have.flags&settableFlags != want {
		c.result.differ(e.Path, "its flags are %#x, not %#x", have.flags&settableFlags, want)
	}
	if have.accounting != e.Accounting {
		c.result.differ(e.Path, "its project or extent size is another one")
	}
	return nil
}

// xattrs compares extended attributes. What a host with SELinux adds to files without a context is its own.
func (c *comparer) xattrs(have attributes, e *tarEntry) {
	got, want := maps.Clone(have.odd), map[string][]byte{}
	if got == nil {
		got = map[string][]byte{}
	}
	for _, a := range have.xattrs {
		got[a.name] = a.value
	}
	for _, a := range e.xattrs {
		want[a.name] = a.value
	}
	if _, labelled := want[selinuxName]; !labelled {
		delete(got, selinuxName)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, found := got[name]; !found || !bytes.Equal(value, want[name]) {
			c.result.differ(e.Path, "its attribute %q is missing or another one", name)
		}
		delete(got, name)
	}
	if more := slices.Sorted(maps.Keys(got)); len(more) > 0 {
		c.result.differ(e.Path, "it has attributes that the archive does not have: %s", strings.Join(more, ", "))
	}
}

const selinuxName = "security.selinux"

// data compares the data of a file, and that its holes read as zeros.
func (c *comparer) data(file *os.File, e *tarEntry) error {
	pieces := e.pieces
	if pieces == nil {
		pieces = []segment{{0, e.SizeBytes}}
	}
	place := &pieceWriter{pieces: pieces}
	differs := false
	for {
		want, err := c.t.data(readPieceBytes)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		c.result.Bytes += int64(len(want))
		if c.opts.OnProgress != nil {
			c.opts.OnProgress(int64(len(want)))
		}
		for len(want) > 0 && !differs {
			at, n, err := place.place(int64(len(want)))
			if err != nil {
				return err
			}
			same, err := sameAt(file, at, want[:n])
			if err != nil {
				return err
			}
			if differs = !same; differs {
				c.result.differ(e.Path, "its data differs between bytes %d and %d", at, at+n)
			}
			want = want[n:]
		}
	}
	if differs {
		return nil
	}
	return c.holes(file, e)
}

// sameAt says whether a file has some data at an offset.
func sameAt(file *os.File, offset int64, want []byte) (bool, error) {
	have := make([]byte, min(len(want), compareBytes))
	for len(want) > 0 {
		n, err := file.ReadAt(have[:min(len(want), len(have))], offset)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 || !bytes.Equal(have[:n], want[:n]) {
			return false, nil
		}
		want, offset = want[n:], offset+int64(n)
	}
	return true, nil
}

// compareBytes is how much of a file is read at a time.
const compareBytes = 256 << 10

// holes compares what the archive has no data for. Only what the tree has data for is read.
func (c *comparer) holes(file *os.File, e *tarEntry) error {
	if e.pieces == nil {
		return nil
	}
	from := int64(0)
	for _, p := range append(slices.Clone(e.pieces), segment{offset: e.SizeBytes}) {
		for from < p.offset {
			at, err := unix.Seek(int(file.Fd()), from, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) || err == nil && at >= p.offset {
				break
			}
			if err != nil {
				return err
			}
			n := min(p.offset-at, compareBytes)
			same, err := sameAt(file, at, make([]byte, min(n, max(e.SizeBytes-at, 0))))
			if err != nil {
				return err
			}
			if !same {
				c.result.differ(e.Path, "it has data at byte %d, where the archive has a hole", at)
				return nil
			}
			from = at + n
		}
		from = max(from, p.offset+p.length)
	}
	return nil
}
