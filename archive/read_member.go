package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// Fixed parts of a gzip member (RFC 1952, section 2.3).
const (
	gzipID1, gzipID2, gzipDeflate = 0x1f, 0x8b, 8

	gzipFlagHeaderCRC = 1 << 1
	gzipFlagExtra     = 1 << 2
	gzipFlagName      = 1 << 3
	gzipFlagComment   = 1 << 4
	gzipFlagReserved  = 0xe0

	gzipFixedBytes   = 10
	gzipTrailerBytes = 8
	// memberLeastBytes is the length of a member that inflates to nothing, with a VT subfield.
	memberLeastBytes = memberHeadBytes + 2 + gzipTrailerBytes
)

var errBadHeader = errors.New("no gzip header")

// memberHeader is what the header of a gzip member says.
type memberHeader struct {
	lengthBytes int  // of the header
	declares    bool // has a VT subfield, which is plausible
	storedBytes int64
	tarBytes    int64
}

// parseMemberHeader reads the header that p begins with. It returns io.ErrUnexpectedEOF when p ends before the header.
func parseMemberHeader(p []byte) (memberHeader, error) {
	var h memberHeader
	if n := min(len(p), 3); !bytes.Equal(p[:n], []byte{gzipID1, gzipID2, gzipDeflate}[:n]) {
		return h, errBadHeader
	}
	if len(p) < gzipFixedBytes {
		return h, io.ErrUnexpectedEOF
	}
	flags := p[3]
	if flags&gzipFlagReserved != 0 {
		return h, errBadHeader
	}
	n := gzipFixedBytes
	if flags&gzipFlagExtra != 0 {
		if len(p) < n+2 {
			return h, io.ErrUnexpectedEOF
		}
		extraBytes := int(binary.LittleEndian.Uint16(p[n:]))
		n += 2
		if len(p) < n+extraBytes {
			return h, io.ErrUnexpectedEOF
		}
		h.readExtra(p[n : n+extraBytes])
		n += extraBytes
	}
	for _, flag := range []byte{gzipFlagName, gzipFlagComment} {
		if flags&flag == 0 {
			continue
		}
		end := bytes.IndexByte(p[n:], 0)
		if end < 0 {
			return h, io.ErrUnexpectedEOF
		}
		n += end + 1
	}
	if flags&gzipFlagHeaderCRC != 0 {
		if len(p) < n+2 {
			return h, io.ErrUnexpectedEOF
		}
		if uint16(crc32.ChecksumIEEE(p[:n])) != binary.LittleEndian.Uint16(p[n:]) {
			return h, errors.New("wrong checksum of a gzip header")
		}
		n += 2
	}
	h.lengthBytes = n
	return h, nil
}

// readExtra looks for the VT subfield.
func (h *memberHeader) readExtra(extra []byte) {
	for len(extra) >= 4 {
		n := int(binary.LittleEndian.Uint16(extra[2:]))
		if len(extra) < 4+n {
			return
		}
		if extra[0] == ExtraID1 && extra[1] == ExtraID2 && n == ExtraDataBytes {
			h.storedBytes = int64(binary.LittleEndian.Uint32(extra[4:]))
			h.tarBytes = int64(binary.LittleEndian.Uint32(extra[8:]))
			h.declares = h.storedBytes >= memberLeastBytes &&
				h.storedBytes <= memberLimitBytes && h.tarBytes <= memberLimitBytes
			return
		}
		extra = extra[4+n:]
	}
}

// inflater inflates whole members, one after the other.
type inflater struct {
	src   bytes.Reader
	flate io.ReadCloser
	zeros zeroMember
}

// zeroMember is the last member seen that holds nothing but zeros. The images of large volumes have thousands of them,
// each the same bytes, which need not be inflated to know what is in them.
type zeroMember struct{ stored, data []byte }

// Bounds of what a zeroMember keeps: members that inflate to much out of little.
const (
	zeroMemberMaxStoredBytes = 32 << 10
	zeroMemberMinBytes       = 256 << 10
)

// note keeps a member that was inflated, if it is one of zeros.
func (z *zeroMember) note(stored, data []byte) {
	if len(stored) <= zeroMemberMaxStoredBytes && len(data) >= zeroMemberMinBytes && isZero(data) {
		z.stored, z.data = stored, data
	}
}

// match tells whether a member that must inflate to declared bytes is the one that is kept.
func (z *zeroMember) match(stored []byte, declared int64) bool {
	return z.data != nil && int64(len(z.data)) == declared && bytes.Equal(z.stored, stored)
}

// member inflates the member stored, whose header was parsed and which must yield declared bytes, no more and no less.
func (inf *inflater) member(stored []byte, header memberHeader, declared int64) ([]byte, error) {
	if len(stored) < header.lengthBytes+gzipTrailerBytes {
		return nil, io.ErrUnexpectedEOF
	}
	if header.declares && (header.storedBytes != int64(len(stored)) || header.tarBytes != declared) {
		return nil, errors.New("the member's header declares other lengths")
	}
	trailer := stored[len(stored)-gzipTrailerBytes:]
	inf.src.Reset(stored[header.lengthBytes : len(stored)-gzipTrailerBytes])
	if inf.flate == nil {
		inf.flate = flate.NewReader(&inf.src)
	} else if err := inf.flate.(flate.Resetter).Reset(&inf.src, nil); err != nil {
		return nil, err
	}
	data := make([]byte, declared)
	if n, err := io.ReadFull(inf.flate, data); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("holds %d bytes of %d", n, declared)
		}
		return nil, err
	}
	var more [1]byte
	if n, err := io.ReadFull(inf.flate, more[:]); n > 0 {
		return nil, fmt.Errorf("%w: more than the %d bytes declared", ErrExpansion, declared)
	} else if err != io.EOF {
		return nil, err
	}
	if inf.src.Len() > 0 {
		return nil, fmt.Errorf("%d bytes too many", inf.src.Len())
	}
	return data, checkTrailer(trailer, crc32.ChecksumIEEE(data), declared)
}

// prefix inflates as much of a damaged member as there is before its fault, at most what it declares. Where the damage
// changed data without breaking the coding, the fault comes behind data that is wrong.
func (inf *inflater) prefix(stored []byte, header memberHeader, declared int64) []byte {
	if len(stored) <= header.lengthBytes {
		return nil
	}
	inf.src.Reset(stored[header.lengthBytes:])
	if inf.flate == nil {
		inf.flate = flate.NewReader(&inf.src)
	} else if err := inf.flate.(flate.Resetter).Reset(&inf.src, nil); err != nil {
		return nil
	}
	data := make([]byte, declared)
	n, _ := io.ReadFull(inf.flate, data) // the fault is known already
	return data[:n]
}

func checkTrailer(trailer []byte, sum uint32, inflated int64) error {
	if want := binary.LittleEndian.Uint32(trailer); want != sum {
		return fmt.Errorf("wrong checksum (CRC-32 %08x, should be %08x)", sum, want)
	}
	if want := binary.LittleEndian.Uint32(trailer[4:]); want != uint32(inflated) {
		return fmt.Errorf("wrong length (%d bytes, should be %d modulo 2^32)", inflated, want)
	}
	return nil
}
