package extent

import (
	"errors"
	"io"
	"iter"

	"voltar/archive"
	"voltar/internal/alloc"
)

// inUse narrows what has to be read for the image of an extent, nil for all of it, down to what its filesystem has in use,
// where that tells. It notes what is left out, or why nothing is.
func (x *Extent) inUse(source *io.SectionReader, allocated iter.Seq2[archive.Range, error]) iter.Seq2[archive.Range, error] {
	used, err := alloc.InUse(source, source.Size(), x.found.Type)
	switch {
	case errors.Is(err, alloc.ErrUnknown):
		x.unused = ""
		return allocated
	case err != nil:
		x.unused = "; free space is stored too: " + err.Error()
		return allocated
	}
	x.unused = "; without its free space"
	for r := range used {
		x.UsedBytes += r.LengthBytes
	}
	if allocated == nil {
		return func(yield func(archive.Range, error) bool) {
			for r := range used {
				if !yield(archive.Range(r), nil) {
					return
				}
			}
		}
	}
	return intersect(allocated, used)
}

// intersect yields what is in both of two lists of ranges, each in ascending order.
func intersect(a iter.Seq2[archive.Range, error], b iter.Seq[alloc.Range]) iter.Seq2[archive.Range, error] {
	return func(yield func(archive.Range, error) bool) {
		next, stop := iter.Pull(b)
		defer stop()
		other, more := next()
		for r, err := range a {
			if err != nil {
				yield(r, err)
				return
			}
			end := r.OffsetBytes + r.LengthBytes
			for more && other.OffsetBytes < end {
				from := max(r.OffsetBytes, other.OffsetBytes)
				to := min(end, other.OffsetBytes+other.LengthBytes)
				if from < to && !yield(archive.Range{OffsetBytes: from, LengthBytes: to - from}, nil) {
					return
				}
				if other.OffsetBytes+other.LengthBytes > end {
					break // the rest of it may be in the next
				}
				other, more = next()
			}
			if !more {
				return
			}
		}
	}
}
