package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"

	"golang.org/x/sys/unix"

	"voltar/internal/fiemap"
)

// Some filesystems let files share their data: copies by reflink, and snapshots of btrfs. The tar stream has such data as
// often as there are files with it. The index says which ranges were the same blocks, so that they can be shared again.

// Shared is a range of a file that lies in the very same blocks as an earlier range, of the same file or of one before it in
// the archive.
type Shared struct {
	OffsetBytes     int64 // in the file
	LengthBytes     int64
	From            int64 // TarOffset of the entry that has the earlier range
	FromOffsetBytes int64 // of the earlier range in its file
}

const (
	// maxShared bounds the shared extents that are looked at in one file, and so its ranges in the index. What is beyond is
	// not shared again.
	maxShared = 4096
	// maxExtents bounds the extents of one file among which shared ones are looked for.
	maxExtents = 64 << 10
	// maxShareMap bounds what is remembered of earlier extents: about 20 MB.
	maxShareMap = 256 << 10
	// shareBucketBytes of the filesystem are looked up together.
	shareBucketBytes = 64 << 20
)

// physical is a part of a file, and where it lies on the filesystem.
type physical struct {
	offset, length int64
	at             int64
	packed         bool // compressed: at says where all of it begins
}

// canShare tells whether files on the filesystem that a file is on may share their data.
func canShare(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	return st.Type == unix.XFS_SUPER_MAGIC || st.Type == unix.BTRFS_SUPER_MAGIC
}

// sharedExtents lists the extents of an open file that others share, in their order and up to its size.
func sharedExtents(fd int, sizeBytes int64, list []physical) ([]physical, error) {
	looked := 0
	err := fiemap.Each(fd, sizeBytes, func(e fiemap.Extent) bool {
		if e.IsShared() {
			list = append(list, physical{offset: e.OffsetBytes, length: e.LengthBytes, at: e.AtBytes, packed: e.IsPacked()})
		}
		looked++
		return looked < maxExtents && len(list) < maxShared
	})
	return list, err
}

// mapsMore tells whether an open file has more than so many bytes of data, as far as the kernel can tell.
func mapsMore(ctx context.Context, fd int, sizeBytes, mostBytes int64) (bool, error) {
	mapped := int64(0)
	err := fiemap.Each(fd, sizeBytes, func(e fiemap.Extent) bool {
		if !e.IsUnwritten() {
			mapped += e.LengthBytes
		}
		return mapped <= mostBytes && ctx.Err() == nil
	})
	return mapped > mostBytes, err
}

// lookForShared notes what an open file shares. Where that cannot be told nothing is lost: its data are in the stream.
func (p *preparer) lookForShared(it *item) {
	if !p.walker.shares || it.entry.StoredBytes == 0 {
		return
	}
	var err error
	if it.shared, err = p.sys.shared(it.fd, it.entry.Path, it.entry.SizeBytes, it.shared[:0]); err != nil {
		p.walker.log.Debug("what a file shares is not known", "path", it.entry.Path, "err", err)
	}
}

// shareMap remembers where the shared extents of earlier files lie.
type shareMap struct {
	buckets map[int64][]place         // sorted, without overlaps; by where they lie
	packed  map[physical]sharedSource // compressed extents, by their place and length
	free    int                       // how many more are remembered
}

// place is a part of the filesystem that a file has.
type place struct {
	at, end int64
	of      sharedSource
}

type sharedSource struct{ from, offset int64 }

func newShareMap() *shareMap {
	return &shareMap{buckets: make(map[int64][]place), packed: make(map[physical]sharedSource), free: maxShareMap}
}

// add remembers the extents of the entry at from in the stream, and returns those ranges that an earlier entry has, or this
// one itself.
func (m *shareMap) add(from int64, extents []physical) []Shared {
	var out rangeList
	for _, x := range extents {
		if x.packed {
			m.addPacked(from, x, &out)
			continue
		}
		for x.length > 0 {
			bucket := x.at / shareBucketBytes
			part := x
			part.length = min(x.length, (bucket+1)*shareBucketBytes-x.at)
			m.addPart(bucket, from, part, &out)
			x.offset, x.at, x.length = x.offset+part.length, x.at+part.length, x.length-part.length
		}
	}
	return out
}

// addPart looks up a part of one bucket, and fills in between what is known.
func (m *shareMap) addPart(bucket, from int64, x physical, out *rangeList) {
	places := m.buckets[bucket]
	end := x.at + x.length
	i := sort.Search(len(places), func(i int) bool { return places[i].end > x.at })
	for at := x.at; at < end; i++ {
		offset := x.offset + at - x.at
		next := end
		if i < len(places) && places[i].at <= at {
			known := places[i]
			next = min(known.end, end)
			out.add(Shared{offset, next - at, known.of.from, known.of.offset + at - known.at})
		} else {
			if i < len(places) {
				next = min(places[i].at, end)
			}
			if m.free == 0 {
				i--
			} else {
				m.free--
				places = append(places, place{})
				copy(places[i+1:], places[i:])
				places[i] = place{at, next, sharedSource{from, offset}}
			}
		}
		at = next
	}
	m.buckets[bucket] = places
}

// addPacked looks up a compressed extent. It takes less room than its data, so that only a whole one is known by its place.
func (m *shareMap) addPacked(from int64, x physical, out *rangeList) {
	key := physical{at: x.at, length: x.length, packed: true}
	if of, known := m.packed[key]; known {
		out.add(Shared{x.offset, x.length, of.from, of.offset})
	} else if m.free > 0 {
		m.free--
		m.packed[key] = sharedSource{from, x.offset}
	}
}

// rangeList grows by ranges in their order, of which those that go on are joined.
type rangeList []Shared

func (l *rangeList) add(r Shared) {
	if n := len(*l); n > 0 {
		last := &(*l)[n-1]
		if last.From == r.From && last.OffsetBytes+last.LengthBytes == r.OffsetBytes &&
			last.FromOffsetBytes+last.LengthBytes == r.FromOffsetBytes {
			last.LengthBytes += r.LengthBytes
			return
		}
	}
	if len(*l) < maxShared {
		*l = append(*l, r)
	}
}

func sharedBytes(ranges []Shared) (n int64) {
	for _, r := range ranges {
		n += r.LengthBytes
	}
	return n
}

// noteShared enters in the index what a file, whose place in the stream is known, shares with earlier ones.
func (t *treeWriter) noteShared(it *item) {
	if len(it.shared) == 0 {
		return
	}
	if t.shares == nil {
		t.shares = newShareMap()
	}
	it.entry.Shared = t.shares.add(it.entry.TarOffset, it.shared)
	t.stats.SharedBytes += sharedBytes(it.entry.Shared)
}

// fileAt returns the path of the file whose entry begins at a byte of the tar stream. It reads one block, and those before it
// as long as they begin in the same member. The error wraps fs.ErrNotExist when there is no such file.
func (x *Index) fileAt(ctx context.Context, tarOffset int64, c *blockCache) (path string, err error) {
	last := sort.Search(len(x.blocks), func(i int) bool { return x.blocks[i].TarOffset > tarOffset }) - 1
	for i := last; i >= 0; i-- {
		files, err := c.block(ctx, x, i)
		if err != nil {
			return "", err
		}
		if path, ok := files[tarOffset]; ok {
			return path, nil
		}
		if x.blocks[i].TarOffset < x.blocks[last].TarOffset {
			break
		}
	}
	return "", fs.ErrNotExist
}

// blockCache keeps the files of a few blocks. It is for one goroutine at a time.
type blockCache struct {
	blocks [4]cachedBlock
	next   int // to be replaced
}

// cachedBlock has the paths of a block's files, by where they begin in the tar stream.
type cachedBlock struct {
	number int
	files  map[int64]string // nil where there is none as yet
}

func (c *blockCache) block(ctx context.Context, x *Index, i int) (map[int64]string, error) {
	for _, b := range c.blocks {
		if b.files != nil && b.number == i {
			return b.files, nil
		}
	}
	files := make(map[int64]string)
	for l, err := range x.lines(ctx, i) {
		if err != nil {
			return nil, err
		}
		if l.Kind == lineEntry && l.Entry.Type == TypeFile {
			files[l.Entry.TarOffset] = l.Entry.Path
		}
	}
	c.blocks[c.next] = cachedBlock{i, files}
	c.next = (c.next + 1) % len(c.blocks)
	return files, nil
}

// parseShared reads the ranges of an entry. What they claim is held against the data when they are used.
func parseShared(rows [][4]int64) ([]Shared, error) {
	if len(rows) > maxShared {
		return nil, fmt.Errorf("%d shared ranges, more than %d", len(rows), maxShared)
	}
	var list []Shared
	for _, r := range rows {
		if r[0] < 0 || r[1] <= 0 || r[2] < 0 || r[3] < 0 || r[0]+r[1] < 0 || r[3]+r[1] < 0 {
			return nil, errors.New("a shared range out of bounds")
		}
		list = append(list, Shared{r[0], r[1], r[2], r[3]})
	}
	return list, nil
}
