package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// errEndMark says that a block is all zeros.
var errEndMark = errors.New("end mark")

// header is one block that describes an entry, in the ustar form or in those of GNU, star and before POSIX.
type header struct {
	typeflag           byte
	name, linkname     string
	mode, uid, gid     int64
	size               int64
	mtime              time.Time
	devmajor, devminor int64
	gnu                bool
	block              *[tarBlockBytes]byte // for the map of an old GNU sparse file
}

// isHeader says whether p is a header that can be trusted where none has to be: with the right sum and a magic.
func isHeader(p []byte) bool {
	block := (*[tarBlockBytes]byte)(p)
	_, err := parseHeader(block)
	return err == nil && bytes.HasPrefix(block[257:], []byte("ustar"))
}

func parseHeader(b *[tarBlockBytes]byte) (header, error) {
	h := header{block: b}
	if *b == [tarBlockBytes]byte{} {
		return h, errEndMark
	}
	want, err := parseNumber(b[148:156])
	if err != nil || !sumMatches(b, want) {
		return h, fmt.Errorf("%w: wrong checksum", errNoHeader)
	}
	h.typeflag = b[156]
	h.name, h.linkname = cString(b[0:100]), cString(b[157:257])
	var mtime int64
	posix := string(b[257:263]) == "ustar\x00"
	h.gnu = string(b[257:265]) == "ustar  \x00"
	fields := []struct {
		to   *int64
		from []byte
	}{{&h.mode, b[100:108]}, {&h.uid, b[108:116]}, {&h.gid, b[116:124]}, {&h.size, b[124:136]}, {&mtime, b[136:148]}}
	if posix || h.gnu {
		fields = append(fields, []struct {
			to   *int64
			from []byte
		}{{&h.devmajor, b[329:337]}, {&h.devminor, b[337:345]}}...)
	}
	for _, f := range fields {
		if *f.to, err = parseNumber(f.from); err != nil {
			return h, fmt.Errorf("%w: %w", errNoHeader, err)
		}
	}
	if h.size < 0 {
		return h, fmt.Errorf("%w: numbers out of range", errNoHeader)
	}
	for _, id := range []int64{h.uid, h.gid, h.devmajor, h.devminor} {
		if id < 0 || id >= 1<<32-1 {
			return h, fmt.Errorf("%w: numbers out of range", errNoHeader)
		}
	}
	h.mtime = time.Unix(mtime, 0).UTC()
	if posix {
		prefix := b[345:500]
		if string(b[508:512]) == "tar\x00" { // star has times behind a shorter prefix
			prefix = b[345:476]
		}
		if p := cString(prefix); p != "" {
			h.name = p + "/" + h.name
		}
	}
	return h, nil
}

// sumMatches compares with the sum of the bytes, the sum's own taken for spaces. Some old programs took them as signed.
func sumMatches(b *[tarBlockBytes]byte, want int64) bool {
	var unsigned, signed int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// parseNumber reads octal digits between spaces and NULs, or GNU's big-endian binary with the highest bit set.
func parseNumber(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		return parseBinary(b)
	}
	s := strings.Trim(string(b), " \x00")
	if s == "" {
		return 0, nil
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '7' || n >= 1<<60 {
			return 0, fmt.Errorf("cannot read number %q", s)
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}

func parseBinary(b []byte) (int64, error) {
	negative := b[0]&0x40 != 0
	var fill byte
	if negative {
		fill = 0xff
	}
	var wide [16]byte
	for i := range wide {
		wide[i] = fill
	}
	copy(wide[16-len(b):], b)
	if !negative {
		wide[16-len(b)] &^= 0x80
	}
	high, low := binary.BigEndian.Uint64(wide[:8]), binary.BigEndian.Uint64(wide[8:])
	if n := int64(low); negative && high == 1<<64-1 && n < 0 || !negative && high == 0 && n >= 0 {
		return n, nil
	}
	return 0, fmt.Errorf("cannot read number %x", b)
}

// cString returns what is before the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
