package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

const (
	retryBytes  = 4096      // what is read at once around a read error
	maxRead     = 1 << 20   // what is read at once otherwise
	minJoinHole = 128 << 10 // the first size of holes that are then taken for data
)

// readerAt reads like pread: it may return less than it was asked for, and 0 without an error at the end.
type readerAt func(p []byte, offset int64) (int, error)

// losses collects what could not be read of one file or image.
type losses struct {
	bytes   int64
	offset  int64 // of the first
	err     error // of the first; io.EOF where the file ended early
	failed  bool  // a read failed: it is not only that the file ended early
	onRange func(offset, length int64, err error)
}

func (l *losses) add(offset, length int64, err error) {
	if l.bytes == 0 {
		l.offset, l.err = offset, err
	}
	l.bytes += length
	l.failed = l.failed || !errors.Is(err, io.EOF)
	if l.onRange != nil {
		l.onRange(offset, length, err)
	}
}

// reason says for people what was lost; empty when nothing was.
func (l *losses) reason() string {
	switch {
	case l.bytes == 0:
		return ""
	case errors.Is(l.err, io.EOF):
		return fmt.Sprintf("ends early, at byte %d: the last %s are zeros", l.offset, say.Size(l.bytes))
	}
	return fmt.Sprintf("%s cannot be read and are zeros, the first at byte %d: %v", say.Size(l.bytes), l.offset, l.err)
}

// isEnd tells whether nothing was lost but what lies beyond an early end.
func (l *losses) isEnd() bool { return l.bytes > 0 && !l.failed }

// fill reads len(p) bytes from offset on. What cannot be read is zeros, and goes into lost; around an error that is
// found out in blocks of 4 KiB. Its own error is one that ends the whole archive.
func fill(ctx context.Context, limit *readLimit, read readerAt, p []byte, offset int64, lost *losses) error {
	for len(p) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		size := min(len(p), maxRead)
		if err := limit.wait(ctx, size); err != nil {
			return err
		}
		n, err := read(p[:size], offset)
		switch {
		case n > 0:
		case err == nil || errors.Is(err, io.EOF):
			clear(p)
			lost.add(offset, int64(len(p)), io.EOF)
			return nil
		case isFatal(err):
			return err
		default:
			n, err = retry(read, p[:min(int64(len(p)), retryBytes-offset%retryBytes)], offset, lost)
			if err != nil {
				return err
			}
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// retry reads one block where a larger read failed.
func retry(read readerAt, block []byte, offset int64, lost *losses) (int, error) {
	n, err := read(block, offset)
	switch {
	case n > 0:
		return n, nil
	case err == nil:
		err = io.EOF
	case isFatal(err):
		return 0, err
	}
	clear(block)
	lost.add(offset, int64(len(block)), err)
	return len(block), nil
}

// dataSegments finds out where a file holds data, with SEEK_DATA and SEEK_HOLE, in about maxPieces at most: beyond that
// the smallest holes are taken for data. It returns one segment of the whole file where there are no holes, or where the
// filesystem cannot tell.
func dataSegments(ctx context.Context, fd int, sizeBytes int64, maxPieces int) ([]segment, error) {
	whole := []segment{{0, sizeBytes}}
	var found []segment
	minHole := int64(0)
	for pos := int64(0); pos < sizeBytes; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		data, err := unix.Seek(fd, pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= sizeBytes {
			break // nothing but a hole up to the end
		}
		if err != nil || data < pos {
			return whole, nil //nolint:nilerr // a filesystem that cannot tell where holes are has none
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return whole, nil //nolint:nilerr // likewise
		}
		if hole <= data { // beyond the largest offset there is, which only the end of a file can be
			hole = sizeBytes
		}
		hole = min(hole, sizeBytes)
		found = joinSegment(found, segment{data, hole - data}, minHole)
		if len(found) > maxPieces {
			minHole = max(2*minHole, minJoinHole)
			joined := found[:0]
			for _, s := range found {
				joined = joinSegment(joined, s, minHole)
			}
			found = joined
		}
		pos = hole
	}
	if len(found) == 1 && found[0] == whole[0] {
		return whole, nil
	}
	return found, nil
}

// joinSegment adds a segment, to the last one when the hole between them is smaller than minHole.
func joinSegment(segments []segment, s segment, minHole int64) []segment {
	if n := len(segments); n > 0 {
		last := &segments[n-1]
		if hole := s.offset - (last.offset + last.length); hole < minHole || hole == 0 {
			last.length = s.offset + s.length - last.offset
			return segments
		}
	}
	return append(segments, s)
}
