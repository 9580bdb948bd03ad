package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// RandomLinks is how many hard links of one archive are counted, in 8 bytes each. With more, no entry has any by Links.
const RandomLinks = 4 << 20

// RandomTree reads an archive at any place: names by its index, attributes and data by the members that hold them, all through a
// Cache. It is safe for concurrent use if both sources are.
type RandomTree struct {
	index *Index
	src   io.ReaderAt
	cache *Cache

	linksOnce sync.Once
	links     []int64 // what hard links name, by its offset in the tar stream, sorted
}

// NewRandomTree returns a tree of an index and the archive src, which may be opened when it is first read. The caller closes it, and
// then the sources.
func NewRandomTree(index *Index, src io.ReaderAt, cache *Cache) *RandomTree {
	cached := *index
	cached.cache = cache
	return &RandomTree{index: &cached, src: src, cache: cache}
}

// Close lets go of what the cache has of the tree.
func (t *RandomTree) Close() {
	t.cache.drop(t)
	t.cache.drop(t.index)
}

// ErrNoEntry says that an archive has no entry of a path. No error of reading the index wraps it, as it may fs.ErrNotExist.
var ErrNoEntry = errors.New("there is no such entry")

// Entry returns the entry of a path, as the index has it, or ErrNoEntry.
func (t *RandomTree) Entry(ctx context.Context, path string) (Entry, error) {
	e, _, err := t.index.findText(ctx, path)
	switch {
	case err == fs.ErrNotExist: //nolint:errorlint // which findText returns as it is
		return Entry{}, ErrNoEntry
	case err != nil:
		return Entry{}, fmt.Errorf("find %q: %w", path, err)
	}
	return e, nil
}

// List yields the entries of a folder, as Index.List does.
func (t *RandomTree) List(ctx context.Context, dir string) iter.Seq2[Entry, error] {
	return t.index.List(ctx, dir, false)
}

// Inode returns the entry that has what an entry is a name of: of a hard link the one that it names, of any other itself.
func (t *RandomTree) Inode(ctx context.Context, e Entry) (Entry, error) {
	if e.Type != TypeHardlink {
		return e, nil
	}
	target, err := t.Entry(ctx, e.Linkname)
	if err != nil && err != ErrNoEntry {
		return Entry{}, err
	}
	if err := e.leadsTo(target); err != nil {
		return Entry{}, err
	}
	return target, nil
}

// Links returns how many names an entry has that is no hard link itself. The first call goes through the whole index.
func (t *RandomTree) Links(ctx context.Context, e Entry) int {
	t.linksOnce.Do(func() { t.links, _ = t.index.hardLinks(ctx) })
	first, _ := slices.BinarySearch(t.links, e.TarOffset)
	n := 1
	for _, offset := range t.links[first:] {
		if offset != e.TarOffset {
			break
		}
		n++
	}
	return n
}

// hardLinks returns the offsets in the tar stream of what hard links name, sorted; none and false where there are more than RandomLinks.
// The names in a block that cannot be read are not found either, and not counted.
func (x *Index) hardLinks(ctx context.Context) (_ []int64, all bool) {
	var mu sync.Mutex
	var offsets []int64
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range x.blocks {
		group.Go(func() error {
			text, err := x.readBlock(ctx, i)
			if err != nil {
				return nil //nolint:nilerr // whoever asks for what is in it gets the error
			}
			found := hardLinksIn(text)
			mu.Lock()
			defer mu.Unlock()
			if len(offsets) <= RandomLinks {
				offsets = append(offsets, found...)
			}
			return nil
		})
	}
	_ = group.Wait() // no call returns an error
	if len(offsets) > RandomLinks {
		return nil, false
	}
	slices.Sort(offsets)
	return offsets, true
}

// hardLinksIn returns what the hard links in a block name. A quote within a name is escaped, so what is looked for is never part of one.
func hardLinksIn(text []byte) (offsets []int64) {
	for {
		at := bytes.Index(text, []byte(`,"type":"h"`))
		if at < 0 {
			return offsets
		}
		line := text[bytes.LastIndexByte(text[:at], '\n')+1:]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			text, line = line[end:], line[:end]
		} else {
			text = nil
		}
		if e, err := parseEntry(line); err == nil && e.Type == TypeHardlink {
			offsets = append(offsets, e.DataOffset)
		}
	}
}

// MayHaveAttributes tells whether an entry that is no hard link itself can have extended attributes or ACLs, as the index has it.
func (t *RandomTree) MayHaveAttributes(e Entry) bool {
	return len(e.OddXattrs) > 0 || t.mayHaveInStream(e)
}

func (t *RandomTree) mayHaveInStream(e Entry) bool {
	return !e.isPlain() && (e.HasAttrs || !t.index.total.TellsAttrs)
}

// Attributes returns the extended attributes of an entry that is no hard link itself, with POSIX ACLs in the form of the kernel. It
// reads the entry's headers where there can be any.
func (t *RandomTree) Attributes(ctx context.Context, e Entry) (map[string][]byte, error) {
	all := map[string][]byte{}
	if t.mayHaveInStream(e) {
		head, _, err := t.head(ctx, e)
		if err != nil {
			return nil, err
		}
		for _, x := range head.xattrs {
			all[x.name] = x.value
		}
		for name, text := range map[string]string{aclAccessName: head.aclAccess, aclDefaultName: head.aclDefault} {
			if text == "" {
				continue
			}
			if all[name], err = parseACL(text); err != nil {
				return nil, fmt.Errorf("read the attributes of %q: %w", e.Path, err)
			}
		}
	}
	for name, value := range e.OddXattrs {
		all[name] = value
	}
	return all, nil
}

// isPlain tells whether an entry takes so little room in the tar stream that it has no header beside the one that all have.
func (e *Entry) isPlain() bool {
	return e.TarOffset < 0 || e.TarBytes == tarBlockBytes+e.StoredBytes+padding(e.StoredBytes)
}

// head reads the headers of an entry that is no hard link, and returns where its data begins in the tar stream.
func (t *RandomTree) head(ctx context.Context, e Entry) (*tarEntry, *placedMembers, error) {
	fail := func(err error) (*tarEntry, *placedMembers, error) {
		return nil, nil, fmt.Errorf("open %q: %w", e.Path, err)
	}
	_, members, err := t.index.find(ctx, e.Path)
	if err != nil {
		return fail(err)
	}
	if len(members) == 0 || e.TarOffset < members[0].TarOffset {
		return fail(errors.New("cannot find its first member"))
	}
	r := newReader(ctx, ReaderOptions{Members: members, Workers: 1})
	r.load = t.member
	defer r.cancel()
	tr := &tarReader{r: r}
	head, err := fileAt(tr, e.TarOffset)
	if err != nil {
		return fail(err)
	}
	path, err := cleanPath(head.Path)
	if err != nil || path != e.Path || head.Type != e.Type || head.SizeBytes != e.SizeBytes || head.StoredBytes != e.StoredBytes {
		return fail(fmt.Errorf("cannot use the index: %q, %d bytes, is at byte %d", head.Path, head.SizeBytes, e.TarOffset))
	}
	return head, &placedMembers{members: members, dataOffset: r.offset}, nil
}

// member returns what a member inflates to.
func (t *RandomTree) member(m Member) ([]byte, error) {
	return t.cache.get(cacheKey{t, m.Offset}, m.LengthBytes+m.TarBytes, memberLoader(t.src, m))
}

// Open opens a file. Entry is no hard link itself.
func (t *RandomTree) Open(ctx context.Context, e Entry) (*RandomFile, error) {
	if e.Type != TypeFile {
		return nil, fmt.Errorf("open %q: cannot read an entry of type %q as a file", e.Path, e.Type)
	}
	head, at, err := t.head(ctx, e)
	if err != nil {
		return nil, err
	}
	f := &RandomFile{sizeBytes: head.SizeBytes, src: t.src, cache: t.cache, of: t, member: at.find}
	offset := at.dataOffset
	for _, p := range wholePieces(head) {
		if p.length > 0 { // one of nothing marks the end of a file that ends in a hole
			f.pieces = append(f.pieces, placedPiece{p, offset})
			offset += p.length
		}
	}
	return f, nil
}

// placedMembers are the members that hold an entry.
type placedMembers struct {
	members    []Member
	dataOffset int64 // of the entry's data in the tar stream
}

func (p *placedMembers) find(offset int64) (Member, error) {
	i, _ := slices.BinarySearchFunc(p.members, offset, func(m Member, offset int64) int {
		if m.TarOffset+m.TarBytes <= offset {
			return -1
		}
		return 1
	})
	if i == len(p.members) || p.members[i].TarOffset > offset {
		return Member{}, fmt.Errorf("cannot find byte %d of the stream: a member is missing", offset)
	}
	return p.members[i], nil
}

// placedPiece is a piece of a file and where it lies in the stream.
type placedPiece struct {
	segment
	streamOffset int64
}

// RandomFile reads a file of an archive, or an image, at any offset. It is safe for concurrent use.
type RandomFile struct {
	sizeBytes int64
	pieces    []placedPiece // apart, in order; what lies between are holes
	src       io.ReaderAt
	cache     *Cache
	of        any
	member    func(streamOffset int64) (Member, error)
	next      atomic.Int64 // where the member begins in the stream that a reader in sequence comes to next
}

// SizeBytes is the apparent size.
func (f *RandomFile) SizeBytes() int64 { return f.sizeBytes }

// ReadAt implements io.ReaderAt. Holes read as zeros. Of a member that is damaged it gives nothing, and the error is a *MemberError.
func (f *RandomFile) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, errors.New("cannot read before the beginning")
	}
	for n < len(p) {
		if offset+int64(n) >= f.sizeBytes {
			return n, io.EOF
		}
		got, err := f.readSome(p[n:min(int64(len(p)), f.sizeBytes-offset)], offset+int64(n))
		if err != nil {
			return n, err
		}
		n += got
	}
	return n, nil
}

// readSome reads what lies in one hole, or in one member.
func (f *RandomFile) readSome(p []byte, offset int64) (int, error) {
	i := f.pieceBehind(offset)
	if i == len(f.pieces) || f.pieces[i].offset > offset {
		end := f.sizeBytes
		if i < len(f.pieces) {
			end = f.pieces[i].offset
		}
		p = p[:min(int64(len(p)), end-offset)]
		clear(p)
		return len(p), nil
	}
	piece := f.pieces[i]
	at := piece.streamOffset + offset - piece.offset
	m, err := f.member(at)
	if err != nil {
		return 0, err
	}
	data, err := f.cache.get(cacheKey{f.of, m.Offset}, m.LengthBytes+m.TarBytes, memberLoader(f.src, m))
	if err != nil {
		return 0, err
	}
	f.readAhead(m, piece)
	return copy(p[:min(int64(len(p)), piece.offset+piece.length-offset)], data[at-m.TarOffset:]), nil
}

// readAhead begins to read the next member for whoever goes from member to member.
func (f *RandomFile) readAhead(m Member, piece placedPiece) {
	end := m.TarOffset + m.TarBytes
	if before := f.next.Swap(end); before != m.TarOffset || end >= piece.streamOffset+piece.length {
		return
	}
	if next, err := f.member(end); err == nil {
		f.cache.prefetch(cacheKey{f.of, next.Offset}, next.LengthBytes+next.TarBytes, memberLoader(f.src, next))
	}
}

// pieceBehind is the first piece that ends behind an offset.
func (f *RandomFile) pieceBehind(offset int64) int {
	i, _ := slices.BinarySearchFunc(f.pieces, offset, func(p placedPiece, offset int64) int {
		if p.offset+p.length <= offset {
			return -1
		}
		return 1
	})
	return i
}

// NextData returns the first offset from offset on that is in no hole; ok is false where none follows.
func (f *RandomFile) NextData(offset int64) (_ int64, ok bool) {
	i := f.pieceBehind(offset)
	if i == len(f.pieces) || offset >= f.sizeBytes {
		return 0, false
	}
	return max(offset, f.pieces[i].offset), true
}

// NextHole returns the first offset from offset on that is in a hole, the end of the file being one; ok is false behind the end.
func (f *RandomFile) NextHole(offset int64) (_ int64, ok bool) {
	if offset >= f.sizeBytes {
		return 0, false
	}
	for i := f.pieceBehind(offset); i < len(f.pieces) && f.pieces[i].offset <= offset; i++ {
		offset = f.pieces[i].offset + f.pieces[i].length
	}
	return offset, true
}

var inflaters = sync.Pool{New: func() any { return &inflater{} }}

// memberLoader reads and inflates a member. What is wrong with it is a *MemberError, and an error of src is not.
func memberLoader(src io.ReaderAt, m Member) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		damaged := func(err error) error {
			return &MemberError{Offset: m.Offset, LengthBytes: m.LengthBytes, TarOffset: m.TarOffset, TarBytes: m.TarBytes, Err: err}
		}
		if m.LengthBytes <= 0 || m.LengthBytes > memberLimitBytes || m.TarBytes < 0 || m.TarBytes > memberLimitBytes {
			return nil, damaged(fmt.Errorf("cannot read a member of %d bytes alone", max(m.LengthBytes, m.TarBytes)))
		}
		stored := make([]byte, m.LengthBytes)
		if n, err := src.ReadAt(stored, m.Offset); n < len(stored) {
			if err == nil || err == io.EOF {
				err = damaged(io.ErrUnexpectedEOF)
			}
			return nil, err
		}
		header, err := parseMemberHeader(stored)
		if err != nil {
			return nil, damaged(err)
		}
		inf := inflaters.Get().(*inflater)
		data, err := inf.member(stored, header, m.TarBytes)
		inf.src.Reset(nil) // which would keep the member
		inflaters.Put(inf)
		if err != nil {
			return nil, damaged(err)
		}
		return data, nil
	}
}

// loadNext gives the next member of a Reader that is given them one by one, instead of reading ahead.
func (r *Reader) loadNext() *future {
	if len(r.opts.Members) == 0 {
		return readyFuture(io.EOF)
	}
	m := r.opts.Members[0]
	r.opts.Members = r.opts.Members[1:]
	data, err := r.load(m)
	f := readyFuture(err)
	f.offset, f.tarOffset, f.declared, f.first, f.data = m.Offset, m.TarOffset, m.TarBytes, true, data
	return f
}

// RandomImage reads an image at any offset, through a Cache. It is safe for concurrent use if its source is.
type RandomImage struct {
	src         io.ReaderAt
	storedBytes int64
	sizeBytes   int64
	cache       *Cache

	mu      sync.Mutex
	offsets []int64 // of members in the file, as far as they are known, and where the last of them ends
}

// OpenRandomImage opens the image of an extent of sizeBytes that takes storedBytes in src. list is the list of its members, nil
// where there is none: then it goes from header to header, as far as it is read. The caller closes it, and then src.
func OpenRandomImage(src io.ReaderAt, storedBytes, sizeBytes int64, list io.Reader, cache *Cache) (*RandomImage, error) {
	m := &RandomImage{src: src, storedBytes: storedBytes, sizeBytes: sizeBytes, cache: cache, offsets: []int64{0}}
	if list == nil {
		return m, nil
	}
	lengths, err := readMemberList(list, storedBytes)
	if err != nil {
		return nil, fmt.Errorf("read the list of its members: %w", err)
	}
	for _, length := range lengths {
		m.offsets = append(m.offsets, m.offsets[len(m.offsets)-1]+length)
	}
	if want := (sizeBytes + ImageMemberBytes - 1) / ImageMemberBytes; int64(len(lengths)) != want {
		return nil, fmt.Errorf("the list of its members has %d, should have %d", len(lengths), want)
	}
	return m, nil
}

// Close lets go of what the cache has of the image.
func (m *RandomImage) Close() { m.cache.drop(m) }

// Open opens the image for one reader.
func (m *RandomImage) Open() *RandomFile {
	return &RandomFile{sizeBytes: m.sizeBytes, pieces: []placedPiece{{segment{0, m.sizeBytes}, 0}}, src: m.src, cache: m.cache, of: m,
		member: m.member}
}

// member returns the member that holds a byte of the image.
func (m *RandomImage) member(offset int64) (Member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := offset / ImageMemberBytes
	for int64(len(m.offsets)) < i+2 {
		at := m.offsets[len(m.offsets)-1]
		var head [memberHeadBytes]byte
		if n, err := m.src.ReadAt(head[:], at); n < len(head) {
			return Member{}, fmt.Errorf("cannot read the header at byte %d: %w", at, unexpected(err))
		}
		header, err := parseMemberHeader(head[:])
		if err == nil && !header.declares {
			err = errors.New("it does not declare its length")
		}
		if err == nil && header.storedBytes > m.storedBytes-at {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Member{}, &MemberError{Offset: at, LengthBytes: -1, TarOffset: -1, TarBytes: -1, Err: err}
		}
		m.offsets = append(m.offsets, at+header.storedBytes)
	}
	begin := i * ImageMemberBytes
	return Member{Offset: m.offsets[i], LengthBytes: m.offsets[i+1] - m.offsets[i], TarOffset: begin,
		TarBytes: min(ImageMemberBytes, m.sizeBytes-begin)}, nil
}

// readMemberList reads the list of an image's members and returns how long each is, as it is stored.
func readMemberList(list io.Reader, storedBytes int64) (lengths []int64, err error) {
	var offset int64
	err = eachMemberLine(list, func(l *previousLine) error {
		switch {
		case l.Member != nil:
			m := l.Member.Member
			if m.Offset != offset || m.LengthBytes <= 0 || m.LengthBytes > memberLimitBytes ||
				m.TarOffset != int64(len(lengths))*ImageMemberBytes || m.LengthBytes > storedBytes-offset {
				return fmt.Errorf("the member at byte %d is out of order", m.Offset)
			}
			offset += m.LengthBytes
			lengths = append(lengths, m.LengthBytes)
		case l.Total != nil && offset != storedBytes:
			return fmt.Errorf("they end at byte %d of %d", offset, storedBytes)
		}
		return nil
	})
	return lengths, err
}
