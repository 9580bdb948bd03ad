// Package alloc tells which parts of a filesystem are in use, from the map that the filesystem itself keeps: $Bitmap of
// NTFS and the allocation bitmap of exFAT. What is free need not be read for an image.
//
// A guest wrote what is read here. A map is believed only when the filesystem was left in order and everything in it
// agrees: the reasons are in the errors. Whatever a map says, the sectors that boot, the copy of the boot sector and all
// that no cluster covers count as in use. The layouts are those of the kernel's fs/ntfs3/ntfs.h and fslog.c, and of
// Microsoft's "exFAT file system specification".
package alloc

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
)

// ErrUnknown is wrapped by the error of InUse for a type whose map it cannot read.
var ErrUnknown = errors.New("it has no map that is known")

// Range is a part of a filesystem, in bytes from its beginning.
type Range struct{ OffsetBytes, LengthBytes int64 }

// mergeBytes is how much free space between two ranges is counted as in use with them: to pass over less is not worth it.
const mergeBytes = 64 << 10

// chunkBytes is how much of a map is read at a time.
const chunkBytes = 64 << 10

// InUse returns the ranges in use of a filesystem of a type, in blkid's words, that begins at offset 0 of r and may fill
// sizeBytes: in ascending order, and apart from each other. An error says why all of it has to be taken for in use. Memory
// does not grow with the size of the filesystem. Where the map cannot be read any further, all that follows counts as in
// use.
func InUse(r io.ReaderAt, sizeBytes int64, fsType string) (iter.Seq[Range], error) {
	var m *bitmap
	var err error
	bounded := io.NewSectionReader(r, 0, max(sizeBytes, 0))
	switch fsType {
	case "ntfs":
		m, err = readNTFS(bounded)
	case "exfat":
		m, err = readExFAT(bounded)
	default:
		return nil, fmt.Errorf("%w: %q", ErrUnknown, fsType)
	}
	if err != nil {
		return nil, err
	}
	return m.ranges, m.check()
}

// bitmap is a map of clusters, one bit each, the lowest bit of a byte first.
type bitmap struct {
	r            *io.SectionReader // of the filesystem
	pieces       []Range           // where the map lies, in its order
	headBytes    int64             // at the beginning that boots, whatever the map says of it
	heapBytes    int64             // where the first cluster begins
	clusterBytes int64
	clusters     int64
	needed       []Range // what has to be in use, or the map is not to be believed
}

// check looks whether the map is all there and agrees with what is known to be in use.
func (m *bitmap) check() error {
	size := m.r.Size()
	if m.clusterBytes <= 0 || m.clusters <= 0 || m.heapBytes < 0 || m.heapBytes > size ||
		m.clusters > (size-m.heapBytes)/m.clusterBytes {
		return fmt.Errorf("%d clusters of %d bytes from byte %d on do not fit its %d bytes", m.clusters, m.clusterBytes, m.heapBytes, size)
	}
	mapBytes := int64(0)
	for _, p := range m.pieces {
		if p.OffsetBytes < m.heapBytes || p.LengthBytes <= 0 || p.LengthBytes > m.end()-p.OffsetBytes {
			return fmt.Errorf("its map of clusters lies out of range: %d bytes at %d", p.LengthBytes, p.OffsetBytes)
		}
		mapBytes += p.LengthBytes
	}
	if mapBytes < (m.clusters+7)/8 {
		return fmt.Errorf("its map of clusters has %d bytes for %d of them", mapBytes, m.clusters)
	}
	for _, n := range append(m.needed, m.pieces...) {
		used, err := m.isUsed(n)
		if err != nil {
			return fmt.Errorf("read its map of clusters: %w", err)
		}
		if !used {
			return fmt.Errorf("its map of clusters calls bytes %d to %d free, which are in use", n.OffsetBytes, n.OffsetBytes+n.LengthBytes)
		}
	}
	return nil
}

// end is where the last cluster ends.
func (m *bitmap) end() int64 { return m.heapBytes + m.clusters*m.clusterBytes }

// isUsed tells whether all clusters of a range are marked.
func (m *bitmap) isUsed(n Range) (bool, error) {
	first := (n.OffsetBytes - m.heapBytes) / m.clusterBytes
	last := (n.OffsetBytes + n.LengthBytes - 1 - m.heapBytes) / m.clusterBytes
	at := first / 8
	buffer := make([]byte, min(chunkBytes, last/8-at+1))
	for ; at <= last/8; at += int64(len(buffer)) {
		buffer = buffer[:min(int64(len(buffer)), last/8-at+1)]
		if err := m.read(buffer, at); err != nil {
			return false, err
		}
		for i, b := range buffer {
			want := byte(0xff)
			if at+int64(i) == first/8 {
				want <<= first % 8
			}
			if at+int64(i) == last/8 {
				want &= 0xff >> (7 - last%8)
			}
			if b&want != want {
				return false, nil
			}
		}
	}
	return true, nil
}

// read fills p with the bytes of the map from an offset on.
func (m *bitmap) read(p []byte, offset int64) error {
	for _, piece := range m.pieces {
		if offset >= piece.LengthBytes {
			offset -= piece.LengthBytes
			continue
		}
		n := min(int64(len(p)), piece.LengthBytes-offset)
		if _, err := m.r.ReadAt(p[:n], piece.OffsetBytes+offset); err != nil {
			return err
		}
		if p, offset = p[n:], 0; len(p) == 0 {
			return nil
		}
	}
	return io.ErrUnexpectedEOF
}

// ranges yields what is in use: what lies before the clusters and behind them, and the clusters that are marked.
func (m *bitmap) ranges(yield func(Range) bool) {
	size := m.r.Size()
	open := Range{0, min(max(m.headBytes, m.heapBytes), size)} // which may yet grow
	use := func(next Range) bool {
		if next.OffsetBytes-(open.OffsetBytes+open.LengthBytes) < mergeBytes {
			open.LengthBytes = max(open.LengthBytes, next.OffsetBytes+next.LengthBytes-open.OffsetBytes)
			return true
		}
		done := open
		open = next
		return done.LengthBytes == 0 || yield(done)
	}
	clusters := func(first, end int64) bool {
		return use(Range{m.heapBytes + first*m.clusterBytes, (end - first) * m.clusterBytes})
	}
	const none = -1
	begun := int64(none) // where a run of marked clusters began
	buffer := make([]byte, chunkBytes)
	for at := int64(0); at < m.clusters; at += int64(len(buffer)) * 8 {
		buffer = buffer[:min(int64(len(buffer)), (m.clusters-at+7)/8)]
		if err := m.read(buffer, at/8); err != nil {
			if begun == none {
				begun = at
			}
			break // all that follows
		}
		for i, b := range buffer {
			for bit := 0; bit < 8; {
				rest := b >> bit
				if begun == none {
					bit += min(bits.TrailingZeros8(rest), 8-bit)
				} else {
					bit += min(bits.TrailingZeros8(^rest), 8-bit)
				}
				cluster := min(at+int64(i)*8+int64(bit), m.clusters)
				if bit == 8 || cluster == m.clusters {
					break
				}
				if begun == none {
					begun = cluster
				} else if !clusters(begun, cluster) {
					return
				} else {
					begun = none
				}
			}
		}
	}
	if begun != none && !clusters(begun, m.clusters) {
		return
	}
	if end := m.end(); end < size && !use(Range{end, size - end}) {
		return
	}
	if open.LengthBytes > 0 {
		yield(open)
	}
}
