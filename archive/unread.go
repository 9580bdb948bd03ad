package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// What is known not to have changed since the previous backup need not be read: its members are carried over by where they lie.
// Each is held against its sum, and now and then inflated, as any other that is carried over.

// ErrNotWhole says that not all members of the previous archive can be carried over.
var ErrNotWhole = errors.New("not all of the previous archive can be carried over")

// at returns the member of an image that begins at an offset of its extent.
func (p *Previous) at(tarOffset int64) (*previousMember, bool) {
	if p == nil || p.ended.Load() {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(p.members, tarOffset, func(m previousMember, offset int64) int {
		return cmp.Compare(m.tarOffset, offset)
	})
	if !ok {
		return nil, false
	}
	return &p.members[i], true
}

// carryUnread appends to dst a member whose content is not known but by its sum, and which is to inflate to plainBytes.
func (p *Previous) carryUnread(inf *inflater, dst []byte, m *previousMember, plainBytes int64) ([]byte, error) {
	dst, err := p.readStored(dst, m)
	if err != nil {
		return nil, err
	}
	stored := dst[len(dst)-int(m.length):]
	header, err := parseMemberHeader(stored)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRotten, unexpected(err))
	}
	if plainBytes < 0 { // whatever it declares
		plainBytes = header.tarBytes
	}
	if header.lengthBytes != memberHeadBytes || header.storedBytes != int64(m.length) || header.tarBytes != plainBytes ||
		int64(m.length) < memberLeastBytes {
		return nil, fmt.Errorf("%w: the member's header declares other lengths", ErrRotten)
	}
	if !p.isToBeProved(m) {
		return dst, nil
	}
	data, err := inf.member(stored, header, plainBytes)
	if err == nil {
		err = checkTrailer(stored[len(stored)-gzipTrailerBytes:], crc32.ChecksumIEEE(data), plainBytes)
	}
	if err == nil && sha256.Sum256(data) != m.plain {
		err = errors.New("it inflates to something else")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRotten, err)
	}
	return dst, nil
}

// isWhole tells whether the members are all that the archive has.
func (p *Previous) isWhole() bool {
	end := int64(0)
	for i := range p.members {
		if p.members[i].offset != end {
			return false
		}
		end += int64(p.members[i].length)
	}
	return end == p.sizeBytes && end > 0
}

// Rewrite writes the archive as it is into a new one, whose tree is known to be the same, and reads nothing but the archive. The
// index of the one is the index of the other. It fails with ErrNotWhole before it has written anything, where a member has to be
// made anew; any later error leaves out unfinished and useless.
func (p *Previous) Rewrite(ctx context.Context, out io.Writer) (carried Carried, err error) {
	if p == nil || !p.isWhole() {
		return carried, ErrNotWhole
	}
	var inf inflater
	var buf []byte
	w := memberOutput{out: out}
	for i := range p.members {
		if ctx.Err() != nil {
			return carried, context.Cause(ctx)
		}
		m := &p.members[i]
		if buf, err = p.carryUnread(&inf, buf[:0], m, -1); err != nil {
			p.failed(m, err)
			return carried, err
		}
		if err := w.put(&job{packed: buf, carried: true, previous: p, carriedFrom: m.offset}); err != nil {
			return carried, fmt.Errorf("write archive: %w", err)
		}
		carried.Members++
		carried.Bytes += int64(m.length)
	}
	return carried, nil
}
