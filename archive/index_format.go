package archive

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// IndexFormat names the form of the index. It is in the first line of an index and in the first of its last gzip
// member; readers refuse a major version that they do not know.
const IndexFormat = "voltar-index/1"

// lineKind says what a line of an index is about.
type lineKind int

const (
	lineUnknown lineKind = iota // of a later version: to be passed over
	lineFormat
	lineMember
	lineEntry
	lineBlock
	lineTotal
)

// indexLine is one parsed line of an index: Kind says which of the other fields holds it.
type indexLine struct {
	Kind   lineKind
	Format string
	Member Member
	Entry  Entry
	Block  Block
	Total  indexTotal
}

// indexTotal is the last line of an index: how much there is of everything.
type indexTotal struct {
	Entries      int64 `json:"entries"`
	Members      int64 `json:"members"`
	TarBytes     int64 `json:"tar_length"`
	ArchiveBytes int64 `json:"length"`
	TellsAttrs   bool  `json:"attrs"` // of each entry, whether attributes or ACLs are in the tar stream
}

// entryJSON is the form of an entry's line, as docs/format.md gives it. Fields that hold their default are left out.
type entryJSON struct {
	Path       *string     `json:"path"`
	PathB64    []byte      `json:"path_b64"`
	Type       string      `json:"type"`
	Size       int64       `json:"size"`
	Stored     *int64      `json:"stored"`
	Mode       string      `json:"mode"`
	UID        uint32      `json:"uid"`
	GID        uint32      `json:"gid"`
	MTime      string      `json:"mtime"`
	CTime      string      `json:"ctime"`
	Inode      uint64      `json:"ino"`
	Device     string      `json:"dev"`
	Link       string      `json:"link"`
	LinkB64    []byte      `json:"link_b64"`
	TarOffset  *int64      `json:"tar"`
	TarBytes   int64       `json:"len"`
	DataOffset int64       `json:"data"`
	Flags      uint32      `json:"flags"`
	Project    uint32      `json:"project"`
	ExtentSize uint32      `json:"extsize"`
	CowExtSize uint32      `json:"cowextsize"`
	Shared     [][4]int64  `json:"shared"`
	Attrs      bool        `json:"attrs"`
	Damaged    string      `json:"damaged"`
	Xattrs     []xattrJSON `json:"xattrs"`
}

type xattrJSON struct {
	Name    *string `json:"name"`
	NameB64 []byte  `json:"name_b64"`
	Value   []byte  `json:"value"`
}

type blockJSON struct {
	Offset    int64  `json:"offset"`
	Length    int64  `json:"length"`
	TarOffset int64  `json:"tar_offset"`
	Entries   int    `json:"entries"`
	First     string `json:"first"`
	FirstB64  []byte `json:"first_b64"`
}

// appendEntry appends the line of an entry, newline and all.
func appendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, '{')
	dst = appendBytesField(dst, "path", e.Path)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, '"')
	if e.SizeBytes != 0 {
		dst = appendInt(dst, "size", e.SizeBytes)
	}
	if e.StoredBytes != e.SizeBytes {
		dst = appendInt(dst, "stored", e.StoredBytes)
	}
	dst = append(dst, `,"mode":"`...)
	dst = strconv.AppendUint(dst, uint64(e.Mode), 8)
	dst = append(dst, `","uid":`...)
	dst = strconv.AppendUint(dst, uint64(e.UID), 10)
	dst = append(dst, `,"gid":`...)
	dst = strconv.AppendUint(dst, uint64(e.GID), 10)
	dst = append(dst, `,"mtime":"`...)
	dst = appendTime(dst, e.MTime)
	dst = append(dst, '"')
	if !e.CTime.Equal(e.MTime) {
		dst = append(dst, `,"ctime":"`...)
		dst = appendTime(dst, e.CTime)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"ino":`...)
	dst = strconv.AppendUint(dst, e.Inode, 10)
	if e.DevMajor != 0 || e.DevMinor != 0 {
		dst = append(dst, `,"dev":"`...)
		dst = strconv.AppendUint(dst, uint64(e.DevMajor), 10)
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, uint64(e.DevMinor), 10)
		dst = append(dst, '"')
	}
	if e.Linkname != "" {
		dst = append(dst, ',')
		dst = appendBytesField(dst, "link", e.Linkname)
	}
	dst = appendInt(dst, "tar", e.TarOffset)
	if e.TarBytes != 0 {
		dst = appendInt(dst, "len", e.TarBytes)
	}
	if e.DataOffset != 0 {
		dst = appendInt(dst, "data", e.DataOffset)
	}
	if e.Flags != 0 {
		dst = appendInt(dst, "flags", int64(e.Flags))
	}
	for _, field := range []struct {
		name  string
		value uint32
	}{{"project", e.Project}, {"extsize", e.ExtentBytes}, {"cowextsize", e.CopyOnWriteExtents}} {
		if field.value != 0 {
			dst = appendInt(dst, field.name, int64(field.value))
		}
	}
	if len(e.Shared) > 0 {
		dst = append(dst, `,"shared":`...)
		for i, r := range e.Shared {
			dst = append(dst, "[,"[min(i, 1)], '[')
			dst = strconv.AppendInt(dst, r.OffsetBytes, 10)
			for _, n := range []int64{r.LengthBytes, r.From, r.FromOffsetBytes} {
				dst = strconv.AppendInt(append(dst, ','), n, 10)
			}
			dst = append(dst, ']')
		}
		dst = append(dst, ']')
	}
	if e.HasAttrs {
		dst = append(dst, `,"attrs":true`...)
	}
	if e.Damaged != "" {
		dst = append(dst, `,"damaged":`...)
		dst = appendString(dst, strings.ToValidUTF8(e.Damaged, "\uFFFD"))
	}
	if len(e.OddXattrs) > 0 {
		dst = append(dst, `,"xattrs":[`...)
		for i, name := range sortedKeys(e.OddXattrs) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '{')
			dst = appendBytesField(dst, "name", name)
			dst = append(dst, `,"value":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, e.OddXattrs[name])
			dst = append(dst, `"}`...)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}', '\n')
}

// summedMember is a member as an index has it.
type summedMember struct {
	Member
	sums MemberSums
}

// appendMember appends the line of a member.
func appendMember(dst []byte, m summedMember) []byte {
	dst = append(dst, `{"member":{"offset":`...)
	dst = strconv.AppendInt(dst, m.Offset, 10)
	dst = appendInt(dst, "length", m.LengthBytes)
	dst = appendInt(dst, "tar_offset", m.TarOffset)
	dst = appendInt(dst, "tar_length", m.TarBytes)
	dst = appendSums(dst, m.sums)
	return append(dst, '}', '}', '\n')
}

// appendBlock appends the line of a block.
func appendBlock(dst []byte, b Block) []byte {
	dst = append(dst, `{"block":{"offset":`...)
	dst = strconv.AppendInt(dst, b.Offset, 10)
	dst = appendInt(dst, "length", b.LengthBytes)
	dst = appendInt(dst, "tar_offset", b.TarOffset)
	dst = appendInt(dst, "entries", int64(b.Entries))
	dst = append(dst, ',')
	dst = appendBytesField(dst, "first", b.FirstPath)
	return append(dst, '}', '}', '\n')
}

// appendFormat appends the line that names the form of the index.
func appendFormat(dst []byte) []byte {
	return append(dst, `{"format":"`+IndexFormat+"\"}\n"...)
}

// appendTotal appends the last line of an index.
func appendTotal(dst []byte, t indexTotal) []byte {
	dst = append(dst, `{"total":{"entries":`...)
	dst = strconv.AppendInt(dst, t.Entries, 10)
	dst = appendInt(dst, "members", t.Members)
	dst = appendInt(dst, "tar_length", t.TarBytes)
	dst = appendInt(dst, "length", t.ArchiveBytes)
	if t.TellsAttrs {
		dst = append(dst, `,"attrs":true`...)
	}
	return append(dst, '}', '}', '\n')
}

// parseLine reads one line of an index, with or without its newline. A line whose kind is not known is no error:
// lineUnknown is for readers to pass over.
func parseLine(line []byte) (indexLine, error) {
	line = bytes.TrimRight(line, "\r\n")
	switch {
	case bytes.HasPrefix(line, []byte(`{"path"`)), bytes.HasPrefix(line, []byte(`{"path_b64"`)):
		e, err := parseEntry(line)
		return indexLine{Kind: lineEntry, Entry: e}, err
	case bytes.HasPrefix(line, []byte(`{"member"`)):
		var v struct{ Member Member }
		if err := json.Unmarshal(line, &v); err != nil {
			return indexLine{}, fmt.Errorf("cannot read a member's line of the index: %w", err)
		}
		if m := v.Member; m.Offset < 0 || m.LengthBytes <= 0 || m.TarOffset < 0 || m.TarBytes < 0 ||
			m.Offset > math.MaxInt64-m.LengthBytes || m.TarOffset > math.MaxInt64-m.TarBytes {
			return indexLine{}, errors.New("cannot read a member's line of the index: numbers out of range")
		}
		return indexLine{Kind: lineMember, Member: v.Member}, nil
	case bytes.HasPrefix(line, []byte(`{"block"`)):
		b, err := parseBlock(line)
		return indexLine{Kind: lineBlock, Block: b}, err
	case bytes.HasPrefix(line, []byte(`{"format"`)):
		var v struct{ Format string }
		if err := json.Unmarshal(line, &v); err != nil {
			return indexLine{}, fmt.Errorf("cannot read the format's line of the index: %w", err)
		}
		return indexLine{Kind: lineFormat, Format: v.Format}, nil
	case bytes.HasPrefix(line, []byte(`{"total"`)):
		var v struct{ Total indexTotal }
		if err := json.Unmarshal(line, &v); err != nil {
			return indexLine{}, fmt.Errorf("cannot read the last line of the index: %w", err)
		}
		return indexLine{Kind: lineTotal, Total: v.Total}, nil
	}
	if !json.Valid(line) {
		return indexLine{}, errors.New("cannot read a line of the index: not JSON")
	}
	return indexLine{Kind: lineUnknown}, nil
}

// parseEntry reads the line of one entry, with or without its newline. The path is not judged: a reader that makes
// files of it keeps inside its own root.
func parseEntry(line []byte) (Entry, error) {
	var j entryJSON
	if err := json.Unmarshal(line, &j); err != nil {
		return Entry{}, fmt.Errorf("cannot read an entry's line of the index: %w", err)
	}
	e, err := j.entry()
	if err != nil {
		return Entry{}, fmt.Errorf("cannot read an entry's line of the index: %w", err)
	}
	return e, nil
}

func (j *entryJSON) entry() (Entry, error) {
	e := Entry{
		Path: string(j.PathB64), Type: EntryType(j.Type), SizeBytes: j.Size, StoredBytes: j.Size, UID: j.UID, GID: j.GID,
		Inode: j.Inode, Linkname: j.Link, TarBytes: j.TarBytes, DataOffset: j.DataOffset, Flags: j.Flags,
		HasAttrs: j.Attrs, Damaged: j.Damaged, Accounting: Accounting{j.Project, j.ExtentSize, j.CowExtSize},
	}
	if j.Path != nil {
		e.Path = *j.Path
	}
	if len(j.LinkB64) > 0 {
		e.Linkname = string(j.LinkB64)
	}
	if j.Stored != nil {
		e.StoredBytes = *j.Stored
	}
	if len(j.Type) != 1 || j.Type[0] < 'a' || j.Type[0] > 'z' {
		return Entry{}, fmt.Errorf("cannot read type %q", j.Type)
	}
	if j.TarOffset == nil {
		return Entry{}, errors.New("no tar offset")
	}
	e.TarOffset = *j.TarOffset
	if e.SizeBytes < 0 || e.StoredBytes < 0 || e.TarOffset < -1 || e.TarBytes < 0 || e.DataOffset < 0 ||
		e.TarOffset > math.MaxInt64-e.TarBytes {
		return Entry{}, errors.New("numbers out of range")
	}
	var err error
	if e.Shared, err = parseShared(j.Shared); err != nil {
		return Entry{}, err
	}
	mode, err := strconv.ParseUint(j.Mode, 8, 32)
	if err != nil {
		return Entry{}, fmt.Errorf("cannot read mode %q", j.Mode)
	}
	e.Mode = uint32(mode)
	if e.MTime, err = parseTime(j.MTime); err != nil {
		return Entry{}, err
	}
	e.CTime = e.MTime
	if j.CTime != "" {
		if e.CTime, err = parseTime(j.CTime); err != nil {
			return Entry{}, err
		}
	}
	if j.Device != "" {
		major, minor, _ := strings.Cut(j.Device, ":")
		high, errMajor := strconv.ParseUint(major, 10, 32)
		low, errMinor := strconv.ParseUint(minor, 10, 32)
		if errMajor != nil || errMinor != nil {
			return Entry{}, fmt.Errorf("cannot read device number %q", j.Device)
		}
		e.DevMajor, e.DevMinor = uint32(high), uint32(low)
	}
	for _, x := range j.Xattrs {
		if e.OddXattrs == nil {
			e.OddXattrs = make(map[string][]byte, len(j.Xattrs))
		}
		name := string(x.NameB64)
		if x.Name != nil {
			name = *x.Name
		}
		e.OddXattrs[name] = append([]byte{}, x.Value...)
	}
	return e, nil
}

func parseBlock(line []byte) (Block, error) {
	var v struct{ Block blockJSON }
	if err := json.Unmarshal(line, &v); err != nil {
		return Block{}, fmt.Errorf("cannot read a block's line of the index: %w", err)
	}
	j := v.Block
	if j.Offset < 0 || j.Length <= 0 || j.TarOffset < 0 || j.Entries < 0 || j.Offset > math.MaxInt64-j.Length {
		return Block{}, errors.New("cannot read a block's line of the index: numbers out of range")
	}
	b := Block{Offset: j.Offset, LengthBytes: j.Length, FirstPath: j.First, Entries: j.Entries, TarOffset: j.TarOffset}
	if len(j.FirstB64) > 0 {
		b.FirstPath = string(j.FirstB64)
	}
	return b, nil
}

// appendBytesField appends `"name":"…"`, or `"name_b64":"…"` for what is not UTF-8.
func appendBytesField(dst []byte, name, value string) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	if utf8.ValidString(value) {
		dst = append(dst, '"', ':')
		return appendString(dst, value)
	}
	dst = append(dst, `_b64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, []byte(value))
	return append(dst, '"')
}

// appendString appends valid UTF-8 as a JSON string, escaping what JSON demands and nothing else, but for DEL, which
// terminals do not take well.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	begin := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		dst = append(dst, s[begin:i]...)
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		begin = i + 1
	}
	dst = append(dst, s[begin:]...)
	return append(dst, '"')
}

func appendInt(dst []byte, name string, value int64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, value, 10)
}

// appendTime appends seconds since 1970 as a decimal fraction, as PAX and `find -printf %T@` write it, without
// trailing zeros. Half a second before 1970 is -0.5.
func appendTime(dst []byte, t time.Time) []byte {
	sec, nsec := t.Unix(), int64(t.Nanosecond())
	if nsec == 0 {
		return strconv.AppendInt(dst, sec, 10)
	}
	if sec < 0 {
		dst = append(dst, '-')
		sec, nsec = -(sec + 1), 1e9-nsec
	}
	dst = strconv.AppendInt(dst, sec, 10)
	digits := strconv.AppendInt(nil, 1e9+nsec, 10)
	digits[0] = '.'
	return append(dst, bytes.TrimRight(digits, "0")...)
}

// parseTime reads what appendTime writes, which is any time: some filesystems keep 64 bits of seconds, and their users set all
// of them. Digits beyond nanoseconds are dropped.
func parseTime(s string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read time %q", s)
	}
	fraction = (fraction + "000000000")[:9]
	nsec, err := strconv.ParseUint(fraction, 10, 32)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read time %q", s)
	}
	if strings.HasPrefix(whole, "-") {
		return time.Unix(sec, -int64(nsec)).UTC(), nil
	}
	return time.Unix(sec, int64(nsec)).UTC(), nil
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
