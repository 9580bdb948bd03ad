package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// errNoHeader says that a block is no header of an entry.
var errNoHeader = errors.New("no tar header")

// tarEntry is an entry as its headers in the tar stream describe it. Fields of Entry that are in the index alone are
// not set.
type tarEntry struct {
	Entry
	aclAccess, aclDefault string
	xattrs                []xattr   // in the order of the stream
	pieces                []segment // of a sparse file; nil for others
	dataBytes             int64     // in the stream, with the map of a sparse file
	notes                 []string
	exact                 bool  // TarOffset is known
	seq                   int64 // number of the entry in an extraction
}

// lostData is the error of data that is missing in the middle of an entry. What follows can be read.
type lostData struct{ err error }

func (l *lostData) Error() string { return l.err.Error() }
func (l *lostData) Unwrap() error { return l.err }

// tarReader reads the entries of a tar stream and, where the Reader goes on behind damage, finds the next one that can be
// trusted: by the index when there is one, and else only at the beginning of a member, as the middle of a member may be
// the data of a file that is itself a tar archive.
type tarReader struct {
	r        *Reader
	cursor   *cursor            // nil without an index
	damaged  func(*MemberError) // is told of all damage
	salvage  func([]byte)       // is told what a damaged member has from where an entry may begin; nil for nobody
	badEntry func(error) error  // decides on going on behind a header that is none; nil ends at it
	whole    bool               // the stream must end with an end mark

	global    paxRecords
	remaining int64 // of the data of the current entry
	padding   int64
	lost      bool // the next header has to be looked for
	damage    bool // there was some since the last header: an end mark that is missing is part of it
	block     [tarBlockBytes]byte
	done      bool
}

// next goes to the next entry. At the end of the stream it returns io.EOF, and only when all of it was sound.
func (t *tarReader) next() (*tarEntry, error) {
	if t.done {
		return nil, io.EOF
	}
	for {
		if err := t.skipData(); err != nil {
			return nil, t.ended(err)
		}
		if t.lost {
			if err := t.resync(); err != nil {
				return nil, t.ended(err)
			}
		}
		e, err := t.entry()
		switch {
		case err == nil:
			t.damage = false
			return e, nil
		case t.gap(err): // within the map of a sparse file, too, whose data is then no more to be skipped
			t.lost = true
			t.remaining, t.padding = 0, 0
		case errors.Is(err, errNoHeader) && t.badEntry != nil:
			if err := t.badEntry(err); err != nil {
				return nil, err
			}
			t.lost = true
			t.remaining, t.padding = 0, 0
		default:
			return nil, t.ended(err)
		}
	}
}

// ended makes of the end of the source the error that it is where an end mark has to come.
func (t *tarReader) ended(err error) error {
	if err == io.EOF && !t.done {
		t.done = true
		if t.whole && !t.lost && !t.damage {
			return fmt.Errorf("tar stream at byte %d: cut off before its end mark: %w", t.r.offset, io.ErrUnexpectedEOF)
		}
	}
	return err
}

// gap says whether err is damage, or a part not asked for, behind which the stream goes on.
func (t *tarReader) gap(err error) bool {
	var damage *MemberError
	if errors.As(err, &damage) && t.r.err == nil {
		prefix := damage.prefix
		damage.prefix = nil // whoever keeps the error need not keep that
		t.damaged(damage)
		if at := t.remaining + t.padding; t.salvage != nil && at < int64(len(prefix)) {
			t.salvage(prefix[at:])
		}
		t.damage = true
		return true
	}
	var skip *skipped
	return errors.As(err, &skip)
}

// data returns up to limit bytes of the current entry, valid until the next call. Where data is missing it returns a
// *lostData once; the end is io.EOF.
func (t *tarReader) data(limit int64) ([]byte, error) {
	if t.remaining == 0 {
		return nil, io.EOF
	}
	before := t.r.offset
	p, err := t.r.next(min(limit, t.remaining))
	if err == nil {
		t.remaining -= int64(len(p))
		return p, nil
	}
	if !t.gap(err) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := t.remaining
	if gone := t.r.offset - before; t.r.exact && gone >= 0 && gone <= t.remaining+t.padding {
		n = min(gone, t.remaining)
		t.padding -= gone - n
	} else {
		t.lost = true
		t.padding = 0
	}
	t.remaining -= n
	return nil, &lostData{err}
}

// skipData discards what is left of the current entry.
func (t *tarReader) skipData() error {
	for t.remaining > 0 {
		_, err := t.data(t.remaining)
		var lost *lostData
		if err != nil && !errors.As(err, &lost) {
			return err
		}
	}
	t.remaining, t.padding = t.padding, 0
	for t.remaining > 0 {
		_, err := t.data(t.remaining)
		var lost *lostData
		if err != nil && !errors.As(err, &lost) {
			return err
		}
	}
	return nil
}

// resync goes to the next header that can be trusted.
func (t *tarReader) resync() error {
	for {
		if t.cursor != nil && t.r.exact {
			e, ok, err := t.cursor.seek(t.r.offset)
			if err != nil {
				return err
			}
			to := e.TarOffset
			if !ok {
				if to = t.cursor.end; to < t.r.offset { // within the end mark
					return t.zerosToEnd()
				}
			}
			t.remaining, t.padding, t.lost = to-t.r.offset, 0, false
			if err := t.skipData(); err != nil {
				return err
			}
			if !t.lost {
				return nil
			}
			continue
		}
		err := t.r.fill()
		if err != nil && !t.gap(err) {
			return err
		}
		if err != nil {
			continue
		}
		if t.r.memberStart && len(t.r.rest) >= tarBlockBytes && isHeader(t.r.rest[:tarBlockBytes]) {
			t.lost = false
			return nil
		}
		t.r.skipPiece()
	}
}

// entry reads the headers of one entry, with those that extend them.
func (t *tarReader) entry() (*tarEntry, error) {
	e := &tarEntry{exact: t.r.exact}
	e.TarOffset = t.r.offset
	var local paxRecords
	var longName, longLink string
	for {
		at := t.r.offset
		if err := t.r.readFull(t.block[:]); err != nil {
			return nil, err
		}
		h, err := parseHeader(&t.block)
		if err == errEndMark && at == e.TarOffset {
			return nil, t.endMark()
		}
		if err == errEndMark {
			err = fmt.Errorf("%w: zeros behind an extended header", errNoHeader)
		}
		if err != nil {
			return nil, fmt.Errorf("tar stream at byte %d: %w", at, err)
		}
		switch h.typeflag {
		case 'x', 'X', 'g':
			text, err := t.extension(h)
			if err != nil {
				return nil, err
			}
			records, err := parsePax(text)
			if err != nil {
				return nil, fmt.Errorf("tar stream at byte %d: %w: %w", at, errNoHeader, err)
			}
			if h.typeflag == 'g' {
				t.global = t.global.with(records)
				if local == nil && longName == "" && longLink == "" {
					e.TarOffset = t.r.offset
				}
			} else {
				local = records
			}
		case 'L', 'K':
			text, err := t.extension(h)
			if err != nil {
				return nil, err
			}
			text, _, _ = bytes.Cut(text, []byte{0})
			if h.typeflag == 'L' {
				longName = string(text)
			} else {
				longLink = string(text)
			}
		default:
			if longName != "" {
				h.name = longName
			}
			if longLink != "" {
				h.linkname = longLink
			}
			if err := t.fillEntry(e, h, t.global.with(local)); err != nil {
				return nil, err
			}
			e.TarBytes = t.r.offset - e.TarOffset + t.remaining + t.padding
			return e, nil
		}
	}
}

// extension reads the data of a header that extends the next one.
func (t *tarReader) extension(h header) ([]byte, error) {
	if h.size > PAXMaxBytes {
		return nil, fmt.Errorf("tar stream at byte %d: %w: extended header of %d bytes, the limit is %d",
			t.r.offset, errNoHeader, h.size, int64(PAXMaxBytes))
	}
	text := make([]byte, h.size)
	if err := t.r.readFull(text); err != nil {
		return nil, unexpected(err)
	}
	var pad [tarBlockBytes]byte
	if err := t.r.readFull(pad[:padding(h.size)]); err != nil {
		return nil, unexpected(err)
	}
	return text, nil
}

// endMark is called behind the first block of zeros. Another one and then nothing but zeros must follow.
func (t *tarReader) endMark() error {
	if err := t.r.readFull(t.block[:]); err != nil {
		return unexpected(err)
	}
	if t.block != [tarBlockBytes]byte{} {
		return fmt.Errorf("tar stream at byte %d: %w: one block of zeros alone", t.r.offset-2*tarBlockBytes, errNoHeader)
	}
	return t.zerosToEnd()
}

// zerosToEnd reads what is left of the stream, which must be nothing but zeros.
func (t *tarReader) zerosToEnd() error {
	for {
		p, err := t.r.next(math.MaxInt64)
		if err == io.EOF {
			t.done = true
			return io.EOF
		}
		if err != nil && !t.gap(err) {
			return err
		}
		if !isZero(p) {
			t.done = true
			return fmt.Errorf("tar stream at byte %d: cannot use data behind the end mark", t.r.offset-int64(len(p)))
		}
	}
}

// fillEntry makes an entry of its header and the pax records that apply to it, and goes to its data.
func (t *tarReader) fillEntry(e *tarEntry, h header, pax paxRecords) error {
	at := t.r.offset - tarBlockBytes
	fail := func(err error) error {
		return fmt.Errorf("tar stream at byte %d: entry %q: %w: %w", at, e.Path, errNoHeader, err)
	}
	e.Path, e.Linkname = h.name, h.linkname
	e.Mode, e.UID, e.GID = uint32(h.mode&0o7777), uint32(h.uid), uint32(h.gid)
	e.MTime = h.mtime
	e.DevMajor, e.DevMinor = uint32(h.devmajor), uint32(h.devminor)
	size := h.size
	if err := e.applyPax(pax, &size); err != nil {
		return fail(err)
	}
	switch h.typeflag {
	case '0', 0, '7', 'S':
		e.Type = TypeFile
		if strings.HasSuffix(e.Path, "/") && h.typeflag != 'S' {
			e.Type = TypeDir
		}
	case '1':
		e.Type = TypeHardlink
	case '2':
		e.Type = TypeSymlink
	case '3':
		e.Type = TypeChar
	case '4':
		e.Type = TypeBlock
	case '5', 'D':
		e.Type = TypeDir
	case '6':
		e.Type = TypeFIFO
	default:
		return fail(fmt.Errorf("cannot read entries of type %q", h.typeflag))
	}
	if e.Type != TypeFile && h.typeflag != 'D' {
		size = 0
	}
	if size < 0 || size > math.MaxInt64-tarBlockBytes-t.r.offset {
		return fail(fmt.Errorf("cannot read a file of %d bytes", size))
	}
	e.dataBytes, e.StoredBytes, e.SizeBytes = size, size, size
	t.remaining, t.padding = size, padding(size)
	if e.Type != TypeFile {
		e.StoredBytes, e.SizeBytes = 0, 0
		return nil
	}
	return t.sparse(e, h, pax, fail)
}

// applyPax lets pax records take the place of what the header says.
func (e *tarEntry) applyPax(pax paxRecords, size *int64) error {
	for _, r := range pax {
		if r.value == "" && !strings.HasPrefix(r.key, "SCHILY.xattr.") {
			continue // what the header says holds
		}
		var err error
		switch r.key {
		case "path":
			e.Path = r.value
		case "linkpath":
			e.Linkname = r.value
		case "size":
			*size, err = parseDecimal(r.value)
		case "uid":
			e.UID, err = parseID(r.value)
		case "gid":
			e.GID, err = parseID(r.value)
		case "mtime":
			e.MTime, err = parsePaxTime(r.value)
		case "SCHILY.acl.access":
			e.aclAccess = r.value
		case "SCHILY.acl.default":
			e.aclDefault = r.value
		case "RHT.security.selinux":
			e.setXattr("security.selinux", strings.TrimRight(r.value, "\x00")+"\x00")
		case "SCHILY.acl.ace":
			e.notes = append(e.notes, "NFSv4 ACL")
		default:
			if name, ok := strings.CutPrefix(r.key, "SCHILY.xattr."); ok {
				e.setXattr(name, r.value)
			}
		}
		if err != nil {
			return fmt.Errorf("pax record %s: %w", r.key, err)
		}
	}
	e.HasAttrs = e.aclAccess != "" || e.aclDefault != "" || len(e.xattrs) > 0
	if strings.IndexByte(e.Path, 0) >= 0 || strings.IndexByte(e.Linkname, 0) >= 0 {
		return errors.New("cannot use a name with a NUL in it")
	}
	return nil
}

func (e *tarEntry) setXattr(name, value string) {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		e.notes = append(e.notes, "attribute without a usable name")
		return
	}
	for i := range e.xattrs {
		if e.xattrs[i].name == name {
			e.xattrs[i].value = []byte(value)
			return
		}
	}
	e.xattrs = append(e.xattrs, xattr{name: name, value: []byte(value)})
}

// parseDecimal reads a number that is not negative.
func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || s[0] == '+' {
		return 0, fmt.Errorf("cannot read number %.40q", s)
	}
	return n, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 { // which chown takes for "leave it"
		return 0, fmt.Errorf("cannot read id %.40q", s)
	}
	return uint32(n), nil
}

// parsePaxTime reads what parseTime reads, and a fraction without digits, which pax allows.
func parsePaxTime(s string) (time.Time, error) { return parseTime(strings.TrimSuffix(s, ".")) }

// paxRecords are in order; later ones count.
type paxRecords []paxRecord

type paxRecord struct{ key, value string }

// with returns p followed by others.
func (p paxRecords) with(others paxRecords) paxRecords {
	if len(p) == 0 {
		return others
	}
	if len(others) == 0 {
		return p
	}
	var all paxRecords
	for _, r := range p {
		if !others.has(r.key) {
			all = append(all, r)
		}
	}
	return append(all, others...)
}

func (p paxRecords) has(key string) bool {
	for _, r := range p {
		if r.key == key {
			return true
		}
	}
	return false
}

// get returns the last value of a key, or "".
func (p paxRecords) get(key string) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].key == key {
			return p[i].value
		}
	}
	return ""
}

// parsePax reads the records of a pax header: `LENGTH KEY=VALUE\n`, where LENGTH counts all of it. A record
// without a value takes back a global one of its key, but for attributes, where an empty value is one.
func parsePax(text []byte) (paxRecords, error) {
	var records paxRecords
	for len(text) > 0 {
		digits, _, ok := bytes.Cut(text[:min(len(text), 20)], []byte{' '})
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits)+2 || n > len(text) || text[n-1] != '\n' {
			return nil, errors.New("cannot read a pax record")
		}
		key, value, ok := strings.Cut(string(text[len(digits)+1:n-1]), "=")
		if !ok || key == "" {
			return nil, errors.New("cannot read a pax record")
		}
		text = text[n:]
		records = append(records, paxRecord{key, value})
	}
	return records, nil
}
