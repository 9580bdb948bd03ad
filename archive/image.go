package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ImageMemberBytes is how much of an extent each member of an image holds, but for the last.
const ImageMemberBytes = 4 << 20

// imageDamaged is how many unreadable ranges are listed, of all that are counted.
const imageDamaged = 1000

// Range is a part of an extent.
type Range struct {
	OffsetBytes int64
	LengthBytes int64
}

// ImageOptions say how WriteImage works; the zero value is good for one image alone.
type ImageOptions struct {
	Level      Level          // 0 means LevelDefault
	Pool       *Pool          // nil starts one for this image
	Previous   *Previous      // nil carries nothing over
	Made       Day            // of the image, for the list of its members
	Members    io.Writer      // takes the list of the members; nil makes none
	OnProgress func(Progress) // called after each member, from one goroutine at a time

	// Allocated yields the ranges that are in use, in ascending order and without overlap; all others are stored as
	// zeros and not read. An error ends the image. Nil means that all is in use. It is gone through once.
	Allocated iter.Seq2[Range, error]

	// Unchanged tells whether a range is known to hold what it held when the previous image was made. Members of such ranges are carried
	// over unread, while the previous image has them and they are not to be made anew. Nil knows of none.
	Unchanged func(Range) bool
}

// ImageStats is what WriteImage did.
type ImageStats struct {
	SizeBytes    int64 // of the extent
	ReadBytes    int64 // of it that were read, or tried
	ZeroBytes    int64 // in members of nothing but zeros
	UnreadBytes  int64 // in members that were carried over unread
	ArchiveBytes int64
	Members      int64
	Carried      Carried  // of Members and ArchiveBytes
	Damaged      []Damage // the first 1,000 unreadable ranges, adjoining ones as one
	DamagedCount int64
	DamagedBytes int64
}

// WriteImage stores sizeBytes of src as a sequence of gzip members, as docs/format.md describes it. What cannot be read
// is tried again in blocks of 4 KiB, and what cannot be read then is stored as zeros and listed as damage: that is no
// error. A source that is shorter than sizeBytes is damage too. An error leaves out unfinished and useless.
func WriteImage(
	ctx context.Context, src io.ReaderAt, sizeBytes int64, out io.Writer, opts ImageOptions,
) (ImageStats, error) {
	if err := opts.Level.check(); err != nil {
		return ImageStats{}, err
	}
	if sizeBytes < 0 {
		return ImageStats{}, fmt.Errorf("cannot store an image of %d bytes", sizeBytes)
	}
	if opts.Pool == nil {
		opts.Pool = NewPool(0)
		defer opts.Pool.Close()
	}
	w := &imageWriter{
		src: src, previous: opts.Previous, unchanged: opts.Unchanged,
		members: newMemberWriter(opts.Pool, memberOptions{opts.Level, opts.Previous, opts.Made}),
	}
	w.stats.SizeBytes = sizeBytes
	list := newMemberList(opts.Members, opts.Level) // of the writing goroutine until the end

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.collect(ctx, opts.Allocated) })
	g.Go(func() error {
		return w.members.writeMembers(ctx, out, func(m summedMember, _ []Entry) error {
			if err := list.add(m); err != nil {
				return err
			}
			if opts.OnProgress != nil {
				opts.OnProgress(Progress{ContentBytes: m.TarOffset + m.TarBytes, ArchiveBytes: list.total.ArchiveBytes})
			}
			return nil
		})
	})
	err := g.Wait()
	if err == nil {
		err = list.finish()
	}
	w.mu.Lock() // after an error a worker may still be reading
	stats := w.stats
	w.mu.Unlock()
	stats.ArchiveBytes, stats.Members, stats.Carried = list.total.ArchiveBytes, list.total.Members, w.members.carried
	if err != nil {
		return stats, fmt.Errorf("write image: %w", err)
	}
	return stats, nil
}

// imageWriter reads an extent into members.
type imageWriter struct {
	src       io.ReaderAt
	previous  *Previous
	unchanged func(Range) bool
	members   *memberWriter

	mu    sync.Mutex // of what workers touch that read a member after all
	stats ImageStats
}

// collect goes through the extent member by member.
func (w *imageWriter) collect(ctx context.Context, allocated iter.Seq2[Range, error]) error {
	size := w.stats.SizeBytes
	if allocated == nil {
		allocated = func(yield func(Range, error) bool) { yield(Range{0, size}, nil) }
	}
	next, stop := iter.Pull2(allocated)
	defer stop()
	ranges := &rangeReader{next: next, size: size}
	for offset := int64(0); offset < size; offset += ImageMemberBytes {
		length := min(ImageMemberBytes, size-offset)
		parts, err := ranges.within(offset, length)
		if err != nil {
			return err
		}
		if err := w.member(ctx, offset, int(length), parts); err != nil {
			return err
		}
	}
	return w.members.finish(ctx)
}

// member stores one member, of which parts are in use.
func (w *imageWriter) member(ctx context.Context, offset int64, length int, parts []Range) error {
	if len(parts) == 0 {
		w.count(func(s *ImageStats) { s.ZeroBytes += int64(length) })
		return w.members.allZeros(ctx, length)
	}
	if m, ok := w.previous.at(offset); ok && w.unchanged != nil && w.unchanged(Range{offset, int64(length)}) {
		w.count(func(s *ImageStats) { s.UnreadBytes += int64(length) })
		parts := slices.Clone(parts)
		return w.members.unread(ctx, length, m, func(buf []byte) error {
			w.count(func(s *ImageStats) { s.UnreadBytes -= int64(length) })
			return w.fill(ctx, buf, offset, parts)
		})
	}
	if err := w.members.begin(ctx); err != nil {
		return err
	}
	buf := w.members.room(length)
	if err := w.fill(ctx, buf, offset, parts); err != nil {
		return err
	}
	if isZero(buf) {
		w.count(func(s *ImageStats) { s.ZeroBytes += int64(length) })
		w.members.discard()
		return w.members.allZeros(ctx, length)
	}
	return w.members.end(ctx)
}

// fill reads the parts of the extent that lie in buf, which begins at an offset of it; the rest becomes zeros.
func (w *imageWriter) fill(ctx context.Context, buf []byte, offset int64, parts []Range) error {
	lost := losses{onRange: w.damage}
	done := 0
	for _, r := range parts {
		at := int(r.OffsetBytes - offset)
		clear(buf[done:at])
		done = at + int(r.LengthBytes)
		w.count(func(s *ImageStats) { s.ReadBytes += r.LengthBytes })
		if err := fill(ctx, w.members.pool.limit, w.read, buf[at:done], r.OffsetBytes, &lost); err != nil {
			return fmt.Errorf("read at %d: %w", r.OffsetBytes, err)
		}
	}
	clear(buf[done:])
	return nil
}

func (w *imageWriter) count(change func(*ImageStats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.stats)
}

// read adapts the source to what fill expects: at the end it may give data and io.EOF together.
func (w *imageWriter) read(p []byte, offset int64) (int, error) {
	n, err := w.src.ReadAt(p, offset)
	if n > 0 || errors.Is(err, io.EOF) {
		return n, nil
	}
	return n, err
}

// damage lists an unreadable range, joined to the last one where they adjoin.
func (w *imageWriter) damage(offset, length int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.stats
	s.DamagedBytes += length
	if n := len(s.Damaged); n > 0 && int64(n) == s.DamagedCount {
		if last := &s.Damaged[n-1]; last.OffsetBytes+last.LengthBytes == offset {
			last.LengthBytes += length
			return
		}
	}
	s.DamagedCount++
	if len(s.Damaged) == imageDamaged {
		return
	}
	reason := err.Error()
	if errors.Is(err, io.EOF) {
		reason = "the source ends before"
	}
	s.Damaged = append(s.Damaged, Damage{OffsetBytes: offset, LengthBytes: length, Reason: reason})
}

// isZero tells whether p is all zeros: it is when its first byte is, and each byte is equal to the one before it.
func isZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// rangeReader deals out ascending ranges by parts of the extent.
type rangeReader struct {
	next func() (Range, error, bool)
	size int64
	cur  Range // what is left of the last one
	end  int64 // of the last one
	over bool
	out  []Range
}

// within returns the ranges within a part of the extent; parts must be asked for in ascending order. What it returns
// is good until the next call.
func (r *rangeReader) within(offset, length int64) ([]Range, error) {
	r.out = r.out[:0]
	for limit := offset + length; ; {
		for r.cur.LengthBytes == 0 && !r.over {
			if err := r.advance(); err != nil {
				return nil, err
			}
		}
		if r.over || r.cur.OffsetBytes >= limit {
			return r.out, nil
		}
		n := min(r.cur.LengthBytes, limit-r.cur.OffsetBytes)
		r.out = append(r.out, Range{r.cur.OffsetBytes, n})
		r.cur.OffsetBytes, r.cur.LengthBytes = r.cur.OffsetBytes+n, r.cur.LengthBytes-n
	}
}

func (r *rangeReader) advance() error {
	next, err, more := r.next()
	switch {
	case !more:
		r.over = true
		return nil
	case err != nil:
		return fmt.Errorf("find out what is in use: %w", err)
	case next.OffsetBytes < r.end || next.LengthBytes < 0 || next.LengthBytes > r.size-next.OffsetBytes:
		return fmt.Errorf("cannot use the range of %d bytes at %d: it is out of order or beyond the extent of %d bytes",
			next.LengthBytes, next.OffsetBytes, r.size)
	}
	r.cur, r.end = next, next.OffsetBytes+next.LengthBytes
	return nil
}
