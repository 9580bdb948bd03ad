package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/klauspost/compress/flate"
)

const (
	memberHeadBytes = 10 + 2 + 4 + ExtraDataBytes
	memberTailBytes = 8
	// memberUnitBytes is what members of archives and images are padded to a multiple of: a block of most filesystems, which two
	// files can share.
	memberUnitBytes = 4 << 10
	maxMemberBytes  = math.MaxUint32 // what the extra field can express

	pieceBytes      = 128 << 10 // decided on as one: compress or store
	sampleBytes     = 4 << 10
	samplesPerPiece = 4
	maxStoredBytes  = 65535 // of one stored block, RFC 1951 section 3.2.4
	storedAboveBits = 7.95  // a byte: such data would shrink by less than 1 %
)

// memberEncoder compresses members. What it makes of some bytes at some level is always the same. It is for one
// goroutine at a time.
type memberEncoder struct {
	writers [10]*flate.Writer // by level
	out     appender
}

// appender is an io.Writer onto the end of a slice.
type appender struct{ buf []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.buf = append(a.buf, p...)
	return len(p), nil
}

// encode appends to dst the gzip member that inflates to src.
func (e *memberEncoder) encode(dst, src []byte, level Level) ([]byte, error) {
	begin := len(dst)
	if len(src) > maxMemberBytes {
		return dst, fmt.Errorf("cannot write a member of %d bytes", len(src))
	}
	dst = append(dst, 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 4+ExtraDataBytes, 0,
		ExtraID1, ExtraID2, ExtraDataBytes, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(src)))

	dst, err := e.deflate(dst, src, level)
	if err != nil {
		return dst, err
	}
	dst = append(dst, emptyLast...)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(src))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(src)))
	if len(dst)-begin > maxMemberBytes-2*memberUnitBytes { // which leaves room to pad it
		return dst, fmt.Errorf("cannot write a member of %d bytes", len(dst)-begin)
	}
	setStoredBytes(dst[begin:])
	return dst, nil
}

// deflate appends src as a deflate stream, but for its end, up to a whole byte. Runs of pieces that would not shrink are stored
// as they are; between them compression starts afresh, so that nothing refers across a run.
func (e *memberEncoder) deflate(dst, src []byte, level Level) ([]byte, error) {
	w, err := e.writer(level)
	if err != nil {
		return dst, err
	}
	for len(src) > 0 {
		n, store := nextRun(src)
		if store {
			dst = appendStored(dst, src[:n])
		} else {
			e.out.buf = dst
			w.Reset(&e.out)
			if _, err = w.Write(src[:n]); err == nil {
				err = w.Flush()
			}
			dst, e.out.buf = e.out.buf, nil
			if err != nil {
				return dst, err
			}
		}
		src = src[n:]
	}
	return dst, nil
}

// Blocks of deflate that inflate to nothing, and end at a whole byte (RFC 1951, section 3.2).
const (
	emptyStored = "\x00\x00\x00\xff\xff"     // a stored block
	emptyFixed  = "\x02\x00\x00\x00\xff\xff" // a block with fixed codes, and a stored one
	emptyLast   = "\x01\x00\x00\xff\xff"     // a stored block, the last of its stream
)

// pad lengthens a member that encode made, which begins at an offset of its file, so that the next one begins at a multiple of
// memberUnitBytes. The padding is within its deflate stream: any number of bytes from 20 on is one of fives and sixes.
func pad(member []byte, offset int64) []byte {
	padding := memberUnitBytes - 1 - int((offset+int64(len(member))-1)%memberUnitBytes)
	for padding < padding%len(emptyStored)*len(emptyFixed) {
		padding += memberUnitBytes
	}
	end := bytes.Clone(member[len(member)-len(emptyLast)-memberTailBytes:])
	member = member[:len(member)-len(end)]
	fixed := padding % len(emptyStored)
	for range fixed {
		member = append(member, emptyFixed...)
	}
	for range (padding - fixed*len(emptyFixed)) / len(emptyStored) {
		member = append(member, emptyStored...)
	}
	member = append(member, end...)
	setStoredBytes(member)
	return member
}

// setStoredBytes enters the length of a member in its header.
func setStoredBytes(member []byte) {
	binary.LittleEndian.PutUint32(member[memberHeadBytes-ExtraDataBytes:], uint32(len(member)))
}

func (e *memberEncoder) writer(level Level) (*flate.Writer, error) {
	level = level.orDefault()
	if err := level.check(); err != nil {
		return nil, err
	}
	if e.writers[level] == nil {
		w, err := flate.NewWriter(&e.out, int(level))
		if err != nil {
			return nil, err
		}
		e.writers[level] = w
	}
	return e.writers[level], nil
}

// nextRun returns how many bytes at the beginning of src belong together, and whether to store them.
func nextRun(src []byte) (n int, store bool) {
	n = min(pieceBytes, len(src))
	store = looksRandom(src[:n])
	for n < len(src) {
		next := src[n:min(n+pieceBytes, len(src))]
		if looksRandom(next) != store {
			break
		}
		n += len(next)
	}
	return n, store
}

// looksRandom tells from samples whether the bytes of p are spread so evenly that compressing them is not worth it, as
// those of compressed and encrypted files are. Repetitions of such data are not looked for.
func looksRandom(p []byte) bool {
	if len(p) < pieceBytes {
		return false // too little to judge, or to gain by
	}
	var counts [256]uint16
	step := (len(p) - sampleBytes) / (samplesPerPiece - 1)
	for s := range samplesPerPiece {
		for _, c := range p[s*step : s*step+sampleBytes] {
			counts[c]++
		}
		// The first sample of most data says no already: its commonest byte is far too common.
		if s == 0 && most(&counts) > sampleBytes/64 {
			return false
		}
	}
	const total = samplesPerPiece * sampleBytes
	bits := 0.0
	for _, n := range counts {
		if n > 0 {
			bits -= float64(n) * math.Log2(float64(n)/total)
		}
	}
	return bits/total > storedAboveBits
}

func most(counts *[256]uint16) (n uint16) {
	for _, c := range counts {
		n = max(n, c)
	}
	return n
}

// appendStored appends p as stored blocks, none of them the last of its stream.
func appendStored(dst, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), maxStoredBytes)
		dst = append(dst, 0, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
		dst = append(dst, p[:n]...)
		p = p[n:]
	}
	return dst
}
