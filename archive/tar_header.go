package archive

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const tarBlockBytes = 512

// Type flags of POSIX tar.
const (
	flagFile     = '0'
	flagHardlink = '1'
	flagSymlink  = '2'
	flagChar     = '3'
	flagBlock    = '4'
	flagDir      = '5'
	flagFIFO     = '6'
	flagPAX      = 'x'
)

// Limits of the fields of an ustar header.
const (
	maxTarName = 100
	maxTarSize = 1<<33 - 1
	maxTarID   = 1<<21 - 1
	maxTarTime = 1<<33 - 1
)

// tarHeader is what the header blocks of one entry are made from.
type tarHeader struct {
	name     string // as in the stream
	link     string
	flag     byte
	mode     uint32
	uid, gid uint32
	size     int64 // of what follows in the stream
	mtime    time.Time
	devMajor uint32
	devMinor uint32

	sparse     bool  // GNU sparse 1.0: what follows begins with the map
	realSize   int64 // of a sparse file
	aclAccess  string
	aclDefault string
	xattrs     []xattr // sorted by name
}

// xattr is one extended attribute.
type xattr struct {
	name  string
	value []byte
}

// appendTarHeader appends the pax header of an entry, where it needs one, and its ustar header.
func appendTarHeader(dst []byte, h *tarHeader) []byte {
	records := appendPAXRecords(nil, h)
	base := lastComponent(h.name)
	if len(records) > 0 {
		pax := tarHeader{name: asciiName("PaxHeaders.0/" + base), flag: flagPAX, mode: 0o644, size: int64(len(records))}
		dst = appendUstar(dst, &pax)
		dst = append(dst, records...)
		dst = appendPadding(dst, int64(len(records)))
	}
	plain := *h
	if h.sparse {
		plain.name = "GNUSparseFile.0/" + base
	}
	plain.name, plain.link = asciiName(plain.name), asciiName(plain.link)
	return appendUstar(dst, &plain)
}

// appendPAXRecords appends the extended header records that the entry needs.
func appendPAXRecords(dst []byte, h *tarHeader) []byte {
	if !utf8.ValidString(h.name) || !utf8.ValidString(h.link) {
		dst = appendRecord(dst, "hdrcharset", "BINARY")
	}
	if !fitsName(h.name) && !h.sparse {
		dst = appendRecord(dst, "path", h.name)
	}
	if !fitsName(h.link) {
		dst = appendRecord(dst, "linkpath", h.link)
	}
	if h.size > maxTarSize {
		dst = appendRecord(dst, "size", strconv.FormatInt(h.size, 10))
	}
	if h.uid > maxTarID {
		dst = appendRecord(dst, "uid", strconv.FormatUint(uint64(h.uid), 10))
	}
	if h.gid > maxTarID {
		dst = appendRecord(dst, "gid", strconv.FormatUint(uint64(h.gid), 10))
	}
	if s := h.mtime.Unix(); h.mtime.Nanosecond() != 0 || s < 0 || s > maxTarTime {
		dst = appendRecord(dst, "mtime", string(appendTime(nil, h.mtime)))
	}
	if h.sparse {
		dst = appendRecord(dst, "GNU.sparse.major", "1")
		dst = appendRecord(dst, "GNU.sparse.minor", "0")
		dst = appendRecord(dst, "GNU.sparse.name", h.name)
		dst = appendRecord(dst, "GNU.sparse.realsize", strconv.FormatInt(h.realSize, 10))
	}
	if h.aclAccess != "" {
		dst = appendRecord(dst, "SCHILY.acl.access", h.aclAccess)
	}
	if h.aclDefault != "" {
		dst = appendRecord(dst, "SCHILY.acl.default", h.aclDefault)
	}
	for _, x := range h.xattrs {
		dst = appendRecord(dst, "SCHILY.xattr."+x.name, x.value)
	}
	return dst
}

// appendRecord appends "LENGTH KEY=VALUE\n", where LENGTH counts the whole record and so its own digits.
func appendRecord[T string | []byte](dst []byte, key string, value T) []byte {
	rest := len(" =\n") + len(key) + len(value)
	var length int
	for digits := 1; ; digits++ {
		length = rest + digits
		if len(strconv.Itoa(length)) == digits {
			break
		}
	}
	dst = strconv.AppendInt(dst, int64(length), 10)
	dst = append(dst, ' ')
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, '\n')
}

// appendUstar appends one ustar header block; what does not fit its field is in a pax record already, and here the
// field holds as much as it can, or zero.
func appendUstar(dst []byte, h *tarHeader) []byte {
	begin := len(dst)
	dst = grow(dst, tarBlockBytes)
	b := dst[begin:]
	clear(b)
	copy(b[0:100], h.name)
	octal(b[100:108], int64(h.mode), 0o7777)
	octal(b[108:116], int64(h.uid), maxTarID)
	octal(b[116:124], int64(h.gid), maxTarID)
	octal(b[124:136], h.size, maxTarSize)
	octal(b[136:148], h.mtime.Unix(), maxTarTime)
	copy(b[148:156], "        ")
	b[156] = h.flag
	copy(b[157:257], h.link)
	copy(b[257:265], "ustar\x0000")
	if h.flag == flagChar || h.flag == flagBlock {
		octal(b[329:337], int64(h.devMajor), maxTarID)
		octal(b[337:345], int64(h.devMinor), maxTarID)
	} else {
		octal(b[329:337], 0, maxTarID)
		octal(b[337:345], 0, maxTarID)
	}
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[148:155], sum, 1<<18-1)
	return dst
}

// octal fills a field with a number and a final NUL. A number that does not fit is written as 0.
func octal(field []byte, value, limit int64) {
	if value < 0 || value > limit {
		value = 0
	}
	last := len(field) - 1
	field[last] = 0
	for i := last - 1; i >= 0; i-- {
		field[i] = byte('0' + value&7)
		value >>= 3
	}
}

// fitsName tells whether a name can be in an ustar header as it is.
func fitsName(s string) bool {
	return len(s) <= maxTarName && isASCII(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asciiName returns what of a name an ustar header can hold, for readers that do not know pax.
func asciiName(s string) string {
	if fitsName(s) {
		return s
	}
	out := []byte(s)
	for i, c := range out {
		if c >= utf8.RuneSelf {
			out[i] = '_'
		}
	}
	return string(out[:min(len(out), maxTarName)])
}

// lastComponent returns the last component of a name, without the slash that a folder's ends in.
func lastComponent(name string) string {
	name = strings.TrimSuffix(name, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

// padding is how many zeros follow n bytes in a tar stream.
func padding(n int64) int64 {
	return -n & (tarBlockBytes - 1)
}

func appendPadding(dst []byte, n int64) []byte {
	return append(dst, make([]byte, padding(n))...)
}

// segment is a piece of a file that holds data.
type segment struct{ offset, length int64 }

// appendSparseMap appends the map of a sparse file, as GNU sparse 1.0 has it, with its padding.
func appendSparseMap(dst []byte, segments []segment, sizeBytes int64) []byte {
	if n := len(segments); n == 0 || segments[n-1].offset+segments[n-1].length < sizeBytes {
		segments = append(slices.Clip(segments), segment{offset: sizeBytes})
	}
	begin := len(dst)
	dst = append(strconv.AppendInt(dst, int64(len(segments)), 10), '\n')
	for _, s := range segments {
		dst = append(strconv.AppendInt(dst, s.offset, 10), '\n')
		dst = append(strconv.AppendInt(dst, s.length, 10), '\n')
	}
	return appendPadding(dst, int64(len(dst)-begin))
}
