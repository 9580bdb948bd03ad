package archive

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleEntries() map[string]Entry {
	at := time.Unix(1763600000, 123456789).UTC()
	return map[string]Entry{
		"file": {Path: "etc/passwd", Type: TypeFile, SizeBytes: 1234, StoredBytes: 1234, Mode: 0o644, MTime: at,
			CTime: at.Add(time.Second), Inode: 42, TarOffset: 10240, TarBytes: 2048},
		"sparse file": {Path: "s", Type: TypeFile, SizeBytes: 1 << 40, StoredBytes: 4096, Mode: 0o4755, UID: 1<<32 - 1,
			GID: 1 << 31, MTime: at, CTime: at, Inode: 1<<64 - 1, TarBytes: 1024},
		"all holes":     {Path: "h", Type: TypeFile, SizeBytes: 5, MTime: at, CTime: at},
		"not UTF-8":     {Path: "a\xff\xfe", Type: TypeSymlink, Linkname: "\x80", MTime: at, CTime: at},
		"odd names":     {Path: "q\"\\\n\x7f\u2028é\ufffd", Type: TypeSymlink, Linkname: "<&>", MTime: at, CTime: at},
		"device":        {Path: "dev/null", Type: TypeChar, DevMajor: 1, DevMinor: 3, MTime: at, CTime: at},
		"hard link":     {Path: "b", Type: TypeHardlink, Linkname: "a", DataOffset: 512, MTime: at, CTime: at},
		"socket":        {Path: "run/s", Type: TypeSocket, TarOffset: -1, MTime: at, CTime: at},
		"flags, damage": {Path: "x", Type: TypeFile, Flags: 0x80000000, Damaged: "ends \"early\"", MTime: at, CTime: at},
		"project and sharing": {Path: "x", Type: TypeFile, Accounting: Accounting{1<<32 - 1, 1 << 20, 4096},
			Shared: []Shared{{0, 4096, 512, 8192}, {4096, 1 << 60, 1 << 40, 0}}, MTime: at, CTime: at},
		"odd attributes": {Path: "y", Type: TypeFile, MTime: at, CTime: at,
			OddXattrs: map[string][]byte{"user.a=b": {0, 255}, "user.\xff=": {}}},
		"before 1970": {Path: "z", Type: TypeDir, MTime: time.Unix(-1, 5e8).UTC(), CTime: time.Unix(-2, 1).UTC()},
		"far future":  {Path: "z", Type: TypeDir, MTime: time.Unix(1<<40, 1).UTC(), CTime: time.Unix(0, 0).UTC()},
	}
}

func TestEntryLineRoundTrip(t *testing.T) {
	for name, want := range sampleEntries() {
		t.Run(name, func(t *testing.T) { roundTrip(t, want) })
	}
}

func roundTrip(t *testing.T, want Entry) {
	t.Helper()
	line := appendEntry(nil, &want)
	if !json.Valid(line) {
		t.Fatalf("not JSON: %q", line)
	}
	got, err := parseLine(line)
	if err != nil || got.Kind != lineEntry {
		t.Fatalf("parse %q: kind %d, %v", line, got.Kind, err)
	}
	if !reflect.DeepEqual(got.Entry, want) {
		t.Errorf("line %s\n got %+v\nwant %+v", line, got.Entry, want)
	}
}

func TestOtherLinesRoundTrip(t *testing.T) {
	m := Member{Offset: 1, LengthBytes: 2, TarOffset: 3, TarBytes: 4}
	b := Block{Offset: 1, LengthBytes: 2, TarOffset: 3, Entries: 4, FirstPath: "a\"\xff"}
	total := indexTotal{Entries: 1, Members: 2, TarBytes: 3, ArchiveBytes: 4, TellsAttrs: true}
	for _, c := range []struct {
		line []byte
		want indexLine
	}{
		{appendMember(nil, summedMember{Member: m}), indexLine{Kind: lineMember, Member: m}},
		{appendBlock(nil, b), indexLine{Kind: lineBlock, Block: b}},
		{appendTotal(nil, total), indexLine{Kind: lineTotal, Total: total}},
		{appendFormat(nil), indexLine{Kind: lineFormat, Format: IndexFormat}},
		{[]byte(`{"later":1}`), indexLine{}},
	} {
		got, err := parseLine(c.line)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v", c.line, got, err)
		}
	}
}

func TestParseLineRefuses(t *testing.T) {
	for _, line := range []string{
		"", "{", `{"path":"a"}`, `{"path":"a","type":"f","tar":0,"mode":"8","mtime":"0"}`, `{"path":"a","type":"f","tar":-2,"mode":"0","mtime":"0"}`,
		`{"path":"a","type":"f","tar":0,"mode":"0","mtime":""}`, `{"path":"a","type":"f","tar":0,"mode":"0","mtime":"1.x"}`,
		`{"path":"a","type":"f","tar":9223372036854775807,"len":1,"mode":"0","mtime":"0"}`,
		`{"path":"a","type":"f","tar":0,"mode":"0","mtime":"0","dev":"1"}`, `{"path":"a","type":"f","tar":0,"mode":"0","mtime":"0","size":-1}`,
		`{"member":{"offset":-1,"length":1}}`, `{"member":{"offset":0,"length":0}}`, `{"block":{"offset":1,"length":-1}}`,
	} {
		if got, err := parseLine([]byte(line)); err == nil {
			t.Errorf("%s: read as %+v", line, got)
		}
	}
}

func FuzzEntryLine(f *testing.F) {
	for _, e := range sampleEntries() {
		f.Add(e.Path, e.Linkname, e.Damaged, e.SizeBytes, e.StoredBytes, e.MTime.Unix(), int64(e.CTime.Nanosecond()), e.Mode)
	}
	f.Fuzz(func(t *testing.T, path, link, damaged string, size, stored, sec, nsec int64, mode uint32) {
		if size < 0 || stored < 0 || sec == math.MinInt64 || nsec < 0 || nsec >= 1e9 {
			return
		}
		damaged = strings.ToValidUTF8(damaged, "")
		roundTrip(t, Entry{Path: path, Type: TypeFile, Linkname: link, Damaged: damaged, SizeBytes: size,
			StoredBytes: stored, Mode: mode, MTime: time.Unix(sec, nsec).UTC(), CTime: time.Unix(-sec, nsec).UTC()})
	})
}

func FuzzParseLine(f *testing.F) {
	for _, e := range sampleEntries() {
		f.Add(appendEntry(nil, &e))
	}
	f.Add(appendMember(nil, summedMember{Member: Member{LengthBytes: 1}}))
	f.Add(appendBlock(nil, Block{LengthBytes: 1}))
	f.Fuzz(func(t *testing.T, line []byte) {
		got, err := parseLine(line)
		if err != nil || got.Kind != lineEntry {
			return
		}
		again, err := parseEntry(appendEntry(nil, &got.Entry))
		if err != nil || !reflect.DeepEqual(again, got.Entry) {
			t.Errorf("%q: read as %+v, and that written and read as %+v, %v", line, got.Entry, again, err)
		}
	})
}
