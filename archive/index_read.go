package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/flate"

	"voltar/internal/say"
)

// Index reads the index of an archive: what is in it and where. It reads the list of blocks when it is opened, and then
// only those blocks that a question needs. It is safe for concurrent use when its source is.
type Index struct {
	src    io.ReaderAt
	blocks []Block
	total  indexTotal
	end    int64  // of the blocks
	cache  *Cache // of blocks; nil keeps none
}

// OpenIndex reads the list of blocks of the index in the sizeBytes of src. blocksOffset is where that list begins, as
// the manifest says; -1 makes OpenIndex look for it, which reads the header of every block.
func OpenIndex(ctx context.Context, src io.ReaderAt, sizeBytes, blocksOffset int64) (*Index, error) {
	x := &Index{src: src}
	if blocksOffset < 0 {
		var err error
		if blocksOffset, err = lastMember(ctx, src, sizeBytes); err != nil {
			return nil, fmt.Errorf("open index: %w", err)
		}
	}
	if blocksOffset >= sizeBytes {
		return nil, fmt.Errorf("open index: cannot find the list of blocks at byte %d of %d", blocksOffset, sizeBytes)
	}
	x.end = blocksOffset
	text, err := readMember(ctx, src, blocksOffset, sizeBytes-blocksOffset, IndexListMaxBytes)
	if err != nil {
		return nil, fmt.Errorf("open index: list of blocks at byte %d: %w", blocksOffset, err)
	}
	if err := x.readBlocks(text); err != nil {
		return nil, fmt.Errorf("open index: list of blocks at byte %d: %w", blocksOffset, err)
	}
	return x, nil
}

// lastMember steps through the members of src by their headers and returns the offset of the last.
func lastMember(ctx context.Context, src io.ReaderAt, sizeBytes int64) (int64, error) {
	head := make([]byte, memberHeadBytes)
	for offset := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if n, err := src.ReadAt(head, offset); n < len(head) {
			return 0, fmt.Errorf("cannot read the header at byte %d: %w", offset, unexpected(err))
		}
		header, err := parseMemberHeader(head)
		if err == nil && header.storedBytes < memberLeastBytes {
			err = errors.New("does not declare its length")
		}
		if err != nil {
			return 0, fmt.Errorf("cannot read the header at byte %d: %w", offset, err)
		}
		next := offset + header.storedBytes
		if next == sizeBytes {
			return offset, nil
		}
		if next > sizeBytes {
			return 0, fmt.Errorf("cannot read the member at byte %d: %w", offset, io.ErrUnexpectedEOF)
		}
		offset = next
	}
}

// readMember reads and inflates the one gzip member of lengthBytes at offset.
func readMember(ctx context.Context, src io.ReaderAt, offset, lengthBytes, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if lengthBytes < gzipFixedBytes+gzipTrailerBytes || lengthBytes > limit+limit/1000+1<<10 { // where nothing shrinks
		return nil, fmt.Errorf("cannot read a member of %d bytes", lengthBytes)
	}
	stored := make([]byte, lengthBytes)
	if n, err := src.ReadAt(stored, offset); n < len(stored) {
		return nil, unexpected(err)
	}
	header, err := parseMemberHeader(stored)
	if err != nil {
		return nil, unexpected(err)
	}
	var inf inflater
	if header.declares {
		return inf.member(stored, header, header.tarBytes)
	}
	// Its length is found by inflating twice, so that nothing is held beyond the limit.
	if len(stored) < header.lengthBytes {
		return nil, io.ErrUnexpectedEOF
	}
	n, err := io.Copy(io.Discard, io.LimitReader(flate.NewReader(bytes.NewReader(stored[header.lengthBytes:])), limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: more than %s", ErrExpansion, say.Size(limit))
	}
	return inf.member(stored, header, n)
}

func (x *Index) readBlocks(text []byte) error {
	var named, totalled bool
	var offset int64
	for line := range bytes.Lines(text) {
		l, err := parseLine(line)
		if err != nil {
			return err
		}
		switch l.Kind {
		case lineFormat:
			if err := checkIndexFormat(l.Format); err != nil {
				return err
			}
			named = true
		case lineBlock:
			if l.Block.Offset != offset {
				return fmt.Errorf("cannot use a block at byte %d: it should be at %d", l.Block.Offset, offset)
			}
			offset += l.Block.LengthBytes
			if n := len(x.blocks); n > 0 && ComparePaths(x.blocks[n-1].FirstPath, l.Block.FirstPath) >= 0 {
				return fmt.Errorf("cannot use the block at byte %d: out of order", l.Block.Offset)
			}
			x.blocks = append(x.blocks, l.Block)
		case lineTotal:
			x.total = l.Total
			totalled = true
		}
	}
	if !named || !totalled || offset != x.end {
		return errors.New("cannot use it: incomplete")
	}
	return nil
}

func checkIndexFormat(format string) error {
	if format == IndexFormat {
		return nil
	}
	return fmt.Errorf("cannot read an index of format %q, only %q; a newer voltar is needed", format, IndexFormat)
}

// Entries returns how many entries the index says that it has.
func (x *Index) Entries() int64 { return x.total.Entries }

// TarBytes returns the length of the archive's tar stream.
func (x *Index) TarBytes() int64 { return x.total.TarBytes }

// ArchiveBytes returns the length of the archive.
func (x *Index) ArchiveBytes() int64 { return x.total.ArchiveBytes }

// Blocks returns where the blocks lie. The caller must not change them.
func (x *Index) Blocks() []Block { return x.blocks }

// block returns one block, inflated.
func (x *Index) block(ctx context.Context, i int) ([]byte, error) {
	if x.cache == nil {
		return x.readBlock(ctx, i)
	}
	// How much it inflates to is not known before: one that is as long as allowed takes half of what loads may hold.
	return x.cache.get(cacheKey{x, x.blocks[i].Offset}, cacheLoadBytes/2, func(ctx context.Context) ([]byte, error) {
		return x.readBlock(ctx, i)
	})
}

// IndexError is a block of an index that cannot be read.
type IndexError struct {
	Offset int64
	Err    error
}

func (e *IndexError) Error() string {
	return fmt.Sprintf("index block at byte %d: %v", e.Offset, e.Err)
}

func (e *IndexError) Unwrap() error { return e.Err }

// readBlock inflates one block.
func (x *Index) readBlock(ctx context.Context, i int) ([]byte, error) {
	b := x.blocks[i]
	text, err := readMember(ctx, x.src, b.Offset, b.LengthBytes, IndexBlockMaxBytes)
	if err != nil {
		return nil, &IndexError{b.Offset, fmt.Errorf("first entry %q: %w", b.FirstPath, err)}
	}
	return text, nil
}

// lines parses the lines of one block. What it yields with an error ends it.
func (x *Index) lines(ctx context.Context, i int) iter.Seq2[indexLine, error] {
	return func(yield func(indexLine, error) bool) {
		text, err := x.block(ctx, i)
		if err != nil {
			yield(indexLine{}, err)
			return
		}
		entries := 0
		for line := range bytes.Lines(text) {
			l, err := parseLine(line)
			if err == nil && l.Kind == lineFormat {
				err = checkIndexFormat(l.Format)
			}
			if l.Kind == lineEntry {
				entries++
			}
			if err != nil {
				err = &IndexError{x.blocks[i].Offset, err}
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
		if want := x.blocks[i].Entries; entries != want {
			yield(indexLine{}, &IndexError{x.blocks[i].Offset, fmt.Errorf("has %d entries, should be %d", entries, want)})
		}
	}
}

// blockOf returns the block that holds path, if any does.
func (x *Index) blockOf(path string) int {
	i, exact := slices.BinarySearchFunc(x.blocks, path, func(b Block, path string) int {
		return ComparePaths(b.FirstPath, path)
	})
	if !exact {
		i--
	}
	return i
}

// Find returns the entry of path and the archive members that hold its data, which for a hard link are those of the entry
// that it names. It reads one block, and one more for a hard link. The error wraps fs.ErrNotExist when there is no such
// entry.
func (x *Index) Find(ctx context.Context, path string) (Entry, []Member, error) {
	entry, members, err := x.find(ctx, path)
	if err == nil && entry.Type == TypeHardlink {
		var target Entry
		if target, members, err = x.find(ctx, entry.Linkname); err == nil {
			err = entry.leadsTo(target)
		}
	}
	if err != nil {
		return Entry{}, nil, fmt.Errorf("find %q: %w", path, err)
	}
	return entry, members, nil
}

// leadsTo returns an error unless target, which is zero where there is none, can be what a hard link names.
func (e *Entry) leadsTo(target Entry) error {
	if target.Type == "" || target.Type == TypeHardlink || target.Type == TypeDir || target.TarOffset != e.DataOffset {
		return fmt.Errorf("cannot use the index: hard link %q to %q leads elsewhere", e.Path, e.Linkname)
	}
	return nil
}

func (x *Index) find(ctx context.Context, path string) (Entry, []Member, error) {
	entry, text, err := x.findText(ctx, path)
	if err != nil {
		return Entry{}, nil, err
	}
	members, err := membersOf(text, entry)
	return entry, members, err
}

// findText returns the entry of path and the block that has it.
func (x *Index) findText(ctx context.Context, path string) (Entry, []byte, error) {
	path, err := cleanPath(path)
	if err != nil {
		return Entry{}, nil, err
	}
	i := x.blockOf(path)
	if i < 0 {
		return Entry{}, nil, fs.ErrNotExist
	}
	text, err := x.block(ctx, i)
	if err != nil {
		return Entry{}, nil, err
	}
	entry, err := findLine(text, path)
	return entry, text, err
}

// findLine finds the line of an entry. Its beginning is compared first, as voltar would write it, and lines are parsed
// only when nothing matched.
func findLine(text []byte, path string) (Entry, error) {
	begin := append(appendBytesField([]byte{'{'}, "path", path), ',')
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, begin) {
			return parseEntry(line)
		}
	}
	for line := range bytes.Lines(text) {
		if l, err := parseLine(line); err != nil {
			return Entry{}, err
		} else if l.Kind == lineEntry && l.Entry.Path == path {
			return l.Entry, nil
		}
	}
	return Entry{}, fs.ErrNotExist
}

// membersOf returns the members in a block that overlap an entry.
func membersOf(text []byte, e Entry) ([]Member, error) {
	if e.TarOffset < 0 {
		return nil, nil
	}
	var members []Member
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(`{"member"`)) {
			continue
		}
		l, err := parseLine(line)
		if err != nil {
			return nil, err
		}
		if m := l.Member; m.TarOffset < e.TarOffset+e.TarBytes && m.TarOffset+m.TarBytes > e.TarOffset {
			members = append(members, m)
		}
	}
	end := e.TarOffset
	for _, m := range members {
		if m.TarOffset > end {
			break
		}
		end = m.TarOffset + m.TarBytes
	}
	if end < e.TarOffset+e.TarBytes || len(members) == 0 {
		return nil, fmt.Errorf("cannot use the index: members of %q are missing", e.Path)
	}
	return members, nil
}

// All yields every entry, in archive order. A block that cannot be read yields its error, and the next block follows.
func (x *Index) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i := range x.blocks {
			if !x.yieldBlock(ctx, i, yield) {
				return
			}
		}
	}
}

func (x *Index) yieldBlock(ctx context.Context, i int, yield func(Entry, error) bool) bool {
	for l, err := range x.lines(ctx, i) {
		if err == nil && l.Kind != lineEntry {
			continue
		}
		if !yield(l.Entry, err) {
			return false
		}
	}
	return true
}

// List yields what is below the folder dir ("." is the root), in archive order: all of it when recursive, otherwise its
// own entries alone. It reads only blocks that can hold some. Of a path that is no folder it yields nothing.
func (x *Index) List(ctx context.Context, dir string, recursive bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		dir, err := cleanPath(dir)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for i := max(0, x.blockOf(dir)); i < len(x.blocks); i++ {
			first := x.blocks[i].FirstPath
			if !isBelow(first, dir) && ComparePaths(first, dir) > 0 {
				return
			}
			if !recursive && i+1 < len(x.blocks) && x.onlyDeeper(i, dir) {
				continue
			}
			if !x.yieldBlock(ctx, i, func(e Entry, err error) bool {
				if err == nil && (!isBelow(e.Path, dir) || !recursive && strings.Contains(below(e.Path, dir), "/")) {
					return true
				}
				return yield(e, err)
			}) {
				return
			}
		}
	}
}

// onlyDeeper says whether all that a block holds is inside of one folder in dir.
func (x *Index) onlyDeeper(i int, dir string) bool {
	first, next := x.blocks[i].FirstPath, x.blocks[i+1].FirstPath
	if !isBelow(first, dir) || !isBelow(next, dir) {
		return false
	}
	child, rest, deeper := strings.Cut(below(first, dir), "/")
	nextChild, _, nextDeeper := strings.Cut(below(next, dir), "/")
	return deeper && rest != "" && nextDeeper && child == nextChild
}

// isBelow says whether path is inside of the folder dir.
func isBelow(path, dir string) bool {
	if dir == "." {
		return path != "."
	}
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// below returns path, which is inside of dir, relative to it.
func below(path, dir string) string {
	if dir == "." {
		return path
	}
	return path[len(dir)+1:]
}

// Members returns all members of the archive, in order. It reads the whole index. What lies in a block that cannot be
// read is left out, and the error says so.
func (x *Index) Members(ctx context.Context) ([]Member, error) {
	var members []Member
	var errs []error
	for i := range x.blocks {
		text, err := x.block(ctx, i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for line := range bytes.Lines(text) {
			if !bytes.HasPrefix(line, []byte(`{"member"`)) {
				continue
			}
			l, err := parseLine(line)
			if err != nil {
				errs = append(errs, err)
				break
			}
			members = append(members, l.Member)
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Offset, b.Offset) })
	members = slices.Compact(members)
	if len(errs) == 0 {
		if err := coverArchive(members, x.total); err != nil {
			errs = append(errs, err)
		}
	}
	return members, errors.Join(errs...)
}

// coverArchive holds the members of an index against its total: they must cover the archive and its stream.
func coverArchive(members []Member, total indexTotal) error {
	var offset, tarOffset int64
	for _, m := range members {
		if m.Offset != offset || m.TarOffset != tarOffset {
			return fmt.Errorf("cannot use the index: no member at byte %d", offset)
		}
		offset, tarOffset = offset+m.LengthBytes, tarOffset+m.TarBytes
	}
	if offset != total.ArchiveBytes || tarOffset != total.TarBytes || int64(len(members)) != total.Members {
		return errors.New("cannot use the index: its members are not as many as its last line says")
	}
	return nil
}

// audit goes through all of the index and tells of what cannot be, whatever the archive is: of entries that are out of order or not
// where the one before them ends, of members that do not cover the archive or stand behind what lies in them, and of lines that tell of
// blocks and totals what these are not. It returns the members, none if they cannot be used; the error is that of ctx.
func (x *Index) audit(ctx context.Context, find func(path string, err error)) ([]Member, error) {
	a := auditor{good: true}
	a.find = func(path string, err error) {
		a.good = false
		find(path, err)
	}
	for i := range x.blocks {
		a.inBlock, a.entriesInBlock = nil, 0
		for l, err := range x.lines(ctx, i) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			switch {
			case err != nil:
				a.find("", err)
			case l.Kind == lineMember:
				a.member(l.Member, x.blocks[i])
			case l.Kind == lineEntry:
				a.entry(l.Entry, x.blocks[i])
			}
		}
	}
	if a.entries != x.total.Entries {
		a.find("", fmt.Errorf("it has %d entries, its last line says %d", a.entries, x.total.Entries))
	}
	slices.SortFunc(a.members, func(a, b Member) int { return cmp.Compare(a.Offset, b.Offset) })
	members := slices.Compact(a.members)
	if !a.good {
		return nil, nil
	}
	if err := coverArchive(members, x.total); err != nil {
		find("", err)
		return nil, nil
	}
	return members, nil
}

type auditor struct {
	find    func(path string, err error)
	good    bool // nothing was found
	members []Member
	entries int64
	before  string // the last path
	end     int64  // of the last entry in the tar stream

	inBlock        *Member // what the members of the block cover in the tar stream so far
	entriesInBlock int
}

func (a *auditor) member(m Member, b Block) {
	if a.inBlock == nil {
		if m.TarOffset != b.TarOffset {
			a.find("", fmt.Errorf("the block at byte %d begins with the member at byte %d of the tar stream, its line says %d",
				b.Offset, m.TarOffset, b.TarOffset))
		}
		a.inBlock = &m
	} else if m.TarOffset == a.inBlock.TarOffset+a.inBlock.TarBytes {
		a.inBlock.TarBytes += m.TarBytes
	}
	a.members = append(a.members, m)
}

func (a *auditor) entry(e Entry, b Block) {
	a.entries++
	a.entriesInBlock++
	if a.entriesInBlock == 1 && e.Path != b.FirstPath {
		a.find(e.Path, fmt.Errorf("is the first of its block, whose line says %q", b.FirstPath))
	}
	if a.entries > 1 && ComparePaths(a.before, e.Path) >= 0 {
		a.find(e.Path, errors.New("is out of order"))
	}
	a.before = e.Path
	if e.TarOffset < 0 {
		return
	}
	if in := a.inBlock; in == nil || e.TarOffset < in.TarOffset || e.TarOffset+e.TarBytes > in.TarOffset+in.TarBytes {
		a.find(e.Path, errors.New("stands before the members that hold it"))
	}
	if e.TarOffset != a.end && a.good {
		a.find(e.Path, fmt.Errorf("is at byte %d of the tar stream, should be at %d", e.TarOffset, a.end))
	}
	a.end = e.TarOffset + e.TarBytes
}

// firstNames are entries that hard links name, by their paths in the archive.
type firstNames struct{ *pathTable }

// note remembers an entry; of folders and hard links there are no hard links.
func (f firstNames) note(e *tarEntry, path string) error {
	if e.Type == TypeDir || e.Type == TypeHardlink {
		return nil
	}
	return f.put(path, "", e.TarOffset)
}

var errLeadsElsewhere = errors.New("the hard link leads elsewhere by the index than in the archive")

// leads tells whether a hard link of the index leads to where the entry is that it names.
func (f firstNames) leads(in Entry) (bool, error) {
	_, offset, known, err := f.get(in.Linkname)
	return known && offset == in.DataOffset, err
}

// cursor goes through an index beside the archive.
type cursor struct {
	next   func() (Entry, error, bool)
	stop   func()
	cur    Entry
	have   bool
	moved  bool                // cur is where the cursor is; before the first entry, and when cur was taken, it goes on first
	end    int64               // where the last entry passed ends in the stream
	passed func(e Entry) error // called for each entry that is passed over; a socket has TarOffset -1
	failed func(err error) error
}

// newCursor returns a cursor before the first of entries. The caller calls stop in the end.
func newCursor(entries iter.Seq2[Entry, error], passed func(Entry) error, failed func(error) error) *cursor {
	c := &cursor{passed: passed, failed: failed}
	c.next, c.stop = iter.Pull2(entries)
	return c
}

// advance drops the current entry and goes to the next one that is in the stream.
func (c *cursor) advance() error {
	for {
		e, err, ok := c.next()
		c.cur, c.have = e, ok
		if !ok {
			return nil
		}
		if err != nil {
			if err := c.failed(err); err != nil {
				return err
			}
			continue
		}
		if e.TarOffset >= 0 {
			c.end = e.TarOffset + e.TarBytes
			return nil
		}
		if err := c.passed(e); err != nil {
			return err
		}
	}
}

// seek goes to the first entry that begins at offset in the tar stream or behind it, and says whether there is one.
func (c *cursor) seek(offset int64) (Entry, bool, error) {
	if !c.moved {
		c.moved = true
		if err := c.advance(); err != nil {
			return Entry{}, false, err
		}
	}
	for c.have && c.cur.TarOffset < offset {
		e := c.cur
		if err := c.passed(e); err != nil {
			return Entry{}, false, err
		}
		if err := c.advance(); err != nil {
			return Entry{}, false, err
		}
	}
	return c.cur, c.have, nil
}

// take returns the entry that begins just at offset. What comes behind it is passed over when more is asked for, so that it
// meets a caller who is done with this one.
func (c *cursor) take(offset int64) (Entry, bool, error) {
	e, ok, err := c.seek(offset)
	if err != nil || !ok || e.TarOffset != offset {
		return Entry{}, false, err
	}
	c.moved = false
	return e, true, nil
}

// finish passes over all that is left.
func (c *cursor) finish() error {
	_, _, err := c.seek(math.MaxInt64)
	return err
}
