package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// entry is one of an archive made by hand.
type entry struct {
	name, link, data string
	flag             byte // '0' when 0
	mode             int64
	uid              int
	major, minor     int64
	size             int64 // in the header, when not that of data
	pax              map[string]string
}

// tarOf makes a tar stream with an end mark.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	return append(tarPart(t, entries...), make([]byte, 1024)...)
}

func tarPart(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out []byte
	for _, e := range entries {
		if e.flag == 0 {
			e.flag = '0'
		}
		if e.mode == 0 {
			e.mode = 0o644
		}
		if len(e.pax) > 0 {
			var records []byte
			for _, key := range slices.Sorted(maps.Keys(e.pax)) {
				records = appendRecord(records, key, e.pax[key])
			}
			out = append(out, ustar(e, "PaxHeaders.0/x", 'x', int64(len(records)))...)
			out = appendPadding(append(out, records...), int64(len(records)))
		}
		size := e.size
		if size == 0 {
			size = int64(len(e.data))
		}
		out = append(out, ustar(e, e.name, e.flag, size)...)
		out = appendPadding(append(out, e.data...), int64(len(e.data)))
	}
	return out
}

// ustar makes one header block.
func ustar(e entry, name string, flag byte, size int64) []byte {
	h := tarHeader{name: name, link: e.link, flag: flag, mode: uint32(e.mode), uid: uint32(e.uid), size: size,
		mtime: time.Unix(1_600_000_000, 0), devMajor: uint32(e.major), devMinor: uint32(e.minor)}
	return appendUstar(nil, &h)
}

func TestExtractStaysInside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	sparse10 := func(realsize string, mapText string, data string) entry {
		text := appendPadding([]byte(mapText), int64(len(mapText)))
		return entry{name: "sparse", data: string(text) + data, pax: map[string]string{"GNU.sparse.major": "1",
			"GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": realsize}}
	}
	for _, tc := range []struct {
		name    string
		entries []entry
		says    string   // of the error
		left    []string // in the folder, besides "."
	}{
		{"dot dot", []entry{{name: "../evil", data: "x"}}, "leads outside", nil},
		{"dot dot inside", []entry{{name: "a/../../evil", data: "x"}}, "leads outside", nil},
		{"dot dot at the end", []entry{{name: "a/..", flag: '5'}}, "leads outside", nil},
		{"absolute", []entry{{name: outside + "/evil", data: "x"}}, "absolute", nil},
		{"absolute in pax", []entry{{name: "x", data: "x", pax: map[string]string{"path": outside + "/evil"}}}, "absolute", nil},
		{"dot dot in a sparse name", []entry{{name: "x", pax: map[string]string{"GNU.sparse.major": "1",
			"GNU.sparse.minor": "0", "GNU.sparse.name": "../evil", "GNU.sparse.realsize": "0"},
			data: "0\n" + strings.Repeat("\x00", 510)}}, "leads outside", nil},
		{"link to a folder, then through it", []entry{{name: "a", flag: '2', link: outside}, {name: "a/evil", data: "x"}},
			"symbolic link, which is not followed", []string{"a"}},
		{"link to a folder, then a folder in it", []entry{{name: "a", flag: '2', link: outside}, {name: "a/b/", flag: '5'}},
			"not followed", []string{"a"}},
		{"link to a folder, then the folder itself", []entry{{name: "a", flag: '2', link: outside}, {name: "a/", flag: '5', mode: 0o777}},
			"not followed", []string{"a"}},
		{"link to a file, then the file", []entry{{name: "a", flag: '2', link: secret}, {name: "a", data: "x"}},
			"already exists", []string{"a"}},
		{"hard link to outside", []entry{{name: "a", flag: '1', link: "../../../../../../" + secret}}, "leads outside", nil},
		{"hard link to an absolute path", []entry{{name: "a", flag: '1', link: secret}}, "absolute", nil},
		{"hard link through a link", []entry{{name: "d", flag: '2', link: outside}, {name: "a", flag: '1', link: "d/secret"}},
			"cannot link to", []string{"d"}},
		{"hard link to a folder", []entry{{name: "d/", flag: '5'}, {name: "a", flag: '1', link: "d"}}, "cannot link to", []string{"d"}},
		{"hard link to the root", []entry{{name: "a", flag: '1', link: "."}}, "cannot link to", nil},
		{"hard link to itself", []entry{{name: "a", flag: '1', link: "a"}}, "to itself", nil},
		{"hard link to nothing", []entry{{name: "a", flag: '1', link: "b"}}, "no such file", nil},
		{"NUL in a name", []entry{{name: "a", data: "x", pax: map[string]string{"path": "a\x00b"}}}, "NUL", nil},
		{"NUL in a link", []entry{{name: "a", flag: '2', pax: map[string]string{"linkpath": "a\x00b"}}}, "NUL", nil},
		{"a name that is too long", []entry{{name: "a", data: "x", pax: map[string]string{"path": strings.Repeat("n", 256)}}},
			"file name too long", nil},
		{"the same file twice", []entry{{name: "a", data: "1"}, {name: "a", data: "2"}}, "already exists", []string{"a"}},
		{"a file, then a folder", []entry{{name: "a", data: "1"}, {name: "a/", flag: '5'}}, "no folder", []string{"a"}},
		{"a file, then something in it", []entry{{name: "a", data: "1"}, {name: "a/b", data: "x"}}, "no folder", []string{"a"}},
		{"a folder, then a file", []entry{{name: "a/", flag: '5'}, {name: "a", data: "1"}}, "already exists", []string{"a"}},
		{"a file as the root", []entry{{name: ".", data: "1"}}, "root", nil},
		{"a link as the root", []entry{{name: ".", flag: '2', link: outside}}, "root", nil},
		{"more data than there is", []entry{{name: "a", data: "x", size: 1 << 30}}, "unexpected EOF", nil},
		{"a size beyond all numbers", []entry{{name: "a", pax: map[string]string{"size": "9223372036854775807"}}}, "bytes", nil},
		{"a negative size", []entry{{name: "a", pax: map[string]string{"size": "-1"}}}, "number", nil},
		{"an owner beyond all numbers", []entry{{name: "a", pax: map[string]string{"uid": "4294967295"}}}, "id", nil},
		{"a time that is none", []entry{{name: "a", pax: map[string]string{"mtime": "soon"}}}, "time", nil},
		{"an attribute that is too large", []entry{{name: "a", pax: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 100_000)}}},
			"user.x", nil},
		{"overlapping pieces", []entry{sparse10("1000", "2\n0\n10\n5\n10\n", strings.Repeat("x", 20))}, "not in order", nil},
		{"pieces in the wrong order", []entry{sparse10("1000", "2\n100\n10\n5\n10\n", strings.Repeat("x", 20))}, "not in order", nil},
		{"a piece behind the end", []entry{sparse10("10", "1\n5\n10\n", strings.Repeat("x", 10))}, "ends at byte 15", nil},
		{"a piece that overflows", []entry{sparse10("9223372036854775807", "1\n9223372036854775807\n10\n", "xxxxxxxxxx")},
			"not in order", nil},
		{"a negative piece", []entry{sparse10("10", "1\n-5\n10\n", "xxxxxxxxxx")}, "number", nil},
		{"less data than pieces", []entry{sparse10("100", "1\n0\n50\n", "x")}, "50 bytes for 1", nil},
		{"more pieces than there is room", []entry{sparse10("100", "99999999999\n", "x")}, "pieces", nil},
		{"a map that does not end", []entry{sparse10("100", strings.Repeat("1", 512), "")}, "number", nil},
		{"a map that is not all there", []entry{sparse10("100", "9\n1\n", "")}, "cut off", nil},
		{"a map with something else in it", []entry{sparse10("100", "9\n-1\n", "")}, "number", nil},
		{"an unknown sparse form", []entry{{name: "a", pax: map[string]string{"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}}}, "form", nil},
		{"an unknown type", []entry{{name: "a", flag: 'Q'}}, "type", nil},
		{"a pax record that lies", []entry{{name: "PaxHeader", flag: 'x', data: "99 path=a\n"}, {name: "a"}}, "pax record", nil},
		{"a pax header beyond all measure", []entry{{name: "PaxHeader", flag: 'x', size: 1 << 30}}, "limit", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := packMember(tarOf(t, tc.entries...), 1)
			for _, overwrite := range []Overwrite{OverwriteNever, OverwriteReplace} {
				dir, _, err := extractBytes(t, data, ExtractOptions{Overwrite: overwrite, Devices: true})
				if overwrite == OverwriteNever {
					if err == nil || !strings.Contains(err.Error(), tc.says) {
						t.Errorf("error %v, want one with %q", err, tc.says)
					}
					if got := slices.Sorted(maps.Keys(tree(t, dir))); !slices.Equal(got[1:], tc.left) && len(got)+len(tc.left) > 1 {
						t.Errorf("left %q, want %q", got, tc.left)
					}
				}
				if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
					t.Fatalf("outside: %v, %v", names, err)
				}
				if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
					t.Fatalf("secret: %q, %v", data, err)
				}
				if st, err := os.Stat(secret); err != nil || st.Mode() != 0o600 {
					t.Fatalf("secret: %v, %v", st.Mode(), err)
				}
			}
		})
	}
}

func TestExtractDoesNotUseLinksThatWereThere(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(dir, "a")))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	data := packMember(tarOf(t, entry{name: "a/evil", data: "x"}), 1)
	r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	_, err = Extract(context.Background(), r, root, ExtractOptions{Overwrite: OverwriteReplace})
	if err == nil || !strings.Contains(err.Error(), "not followed") {
		t.Errorf("error %v", err)
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("outside: %v", names)
	}
}

func TestExtractLeavesDevicesOutUnlessAsked(t *testing.T) {
	data := packMember(tarOf(t, entry{name: "null", flag: '3', major: 1, minor: 3}, entry{name: "pipe", flag: '6'}), 1)
	dir, stats, err := extractBytes(t, data, ExtractOptions{})
	must(t, err)
	if _, err := os.Lstat(filepath.Join(dir, "null")); err == nil {
		t.Error("made a device node")
	}
	if len(stats.Shortfalls) != 1 || stats.Shortfalls[0].What != "device" || stats.Shortfalls[0].Path != "null" {
		t.Errorf("shortfalls %+v, want the device", stats.Shortfalls)
	}
}

func TestExtractReachesAnyDepth(t *testing.T) {
	var entries []entry
	path := ""
	for i := range 1500 {
		path += fmt.Sprintf("n%04d\xff/", i)
		if i%100 == 99 {
			entries = append(entries, entry{name: "x", flag: '5', mode: 0o755, pax: map[string]string{"path": path}},
				entry{name: "x", data: path, pax: map[string]string{"path": path + "file"}})
		}
	}
	// Up again by one, which is a folder that is no longer open.
	entries = append(entries, entry{name: "x", data: "up", pax: map[string]string{"path": path[:7*1000] + "up"}},
		entry{name: "x", flag: '1', pax: map[string]string{"path": "link", "linkpath": path + "file"}})
	data := packMember(tarOf(t, entries...), 1)
	dir, stats, err := extractBytes(t, data, ExtractOptions{})
	must(t, err)
	if stats.Files != 16 || stats.Hardlinks != 1 {
		t.Errorf("%+v", stats)
	}
	got, err := os.ReadFile(filepath.Join(dir, "link"))
	if err != nil || string(got) != path {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	run(t, "rm", "-rf", dir)
}

func TestExtractGivesFoldersBackTheirTimes(t *testing.T) {
	data := packMember(tarOf(t, entry{name: "a/", flag: '5', mode: 0o755}, entry{name: "b", data: "x"},
		entry{name: "a/late", data: "x"}, entry{name: "c/", flag: '5', mode: 0o755}), 1)
	dir, _, err := extractBytes(t, data, ExtractOptions{})
	must(t, err)
	st, err := os.Stat(filepath.Join(dir, "a"))
	must(t, err)
	if !st.ModTime().Equal(time.Unix(1_600_000_000, 0)) {
		t.Errorf("time %s", st.ModTime())
	}
}

func TestExtractDoesNotInheritACLs(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	run(t, "setfacl", "-d", "-m", "u:1234:rwx", dir)
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	data := packMember(tarOf(t, entry{name: "a/", flag: '5', mode: 0o755}, entry{name: "a/f", data: "x"}, entry{name: "f", data: "x"},
		entry{name: "p", flag: '6'}), 1)
	r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	_, err = Extract(context.Background(), r, root, ExtractOptions{})
	must(t, err)
	for name, line := range tree(t, dir) {
		if name != "." && strings.Contains(line, "posix_acl") {
			t.Errorf("%q: %s", name, line)
		}
	}
}

func TestExtractRefusesAStreamThatIsCutOffOrGoesOn(t *testing.T) {
	good := tarOf(t, entry{name: "a", data: "x"})
	for name, stream := range map[string][]byte{
		"no end mark":              good[:1024],
		"half an end mark":         good[:1536],
		"data behind the end mark": append(bytes.Clone(good), tarPart(t, entry{name: "b"})...),
		"no whole header":          good[:100],
		"nothing":                  nil,
		"something else":           []byte(strings.Repeat("text", 500)),
	} {
		if _, _, err := extractBytes(t, packMember(stream, 1), ExtractOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, _, err := extractBytes(t, packMember(stream, 1), ExtractOptions{KeepGoing: true}); err == nil {
			t.Errorf("%s: no error when going on", name)
		}
	}
}

func TestParseACL(t *testing.T) {
	raw := func(entries ...uint32) []byte {
		out := []byte{2, 0, 0, 0}
		for i := 0; i < len(entries); i += 3 {
			id := entries[i+2]
			out = append(out, byte(entries[i]), 0, byte(entries[i+1]), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
		}
		return out
	}
	const none = 1<<32 - 1
	for _, tc := range []struct {
		text string
		want []byte
	}{
		{"user::rw-,user:1000:r--,group::r--,mask::r-x,other::---",
			raw(1, 6, none, 2, 4, 1000, 4, 4, none, 0x10, 5, none, 0x20, 0, none)},
		{"other::r--\ngroup:7:-w-\nuser::rwx\n", raw(1, 7, none, 8, 2, 7, 0x20, 4, none)},
		{"user:joe:r--:1001,user:bin:--x:2", raw(2, 1, 2, 2, 4, 1001)},
		{"default:user::rwx", raw(1, 7, none)},
		{"other:r--", raw(0x20, 4, none)},
		{"user:joe:r--", nil}, {"user:4294967295:r", nil}, {"king::rwx", nil}, {"mask:1:r", nil}, {"user::rwz", nil},
		{"user", nil}, {"a:b:c:d:e", nil},
	} {
		got, err := parseACL(tc.text)
		if (err == nil) != (tc.want != nil) || err == nil && !bytes.Equal(got, tc.want) {
			t.Errorf("%q: %x, %v; want %x", tc.text, got, err, tc.want)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(tarOf(f, entry{name: "a/", flag: '5'}, entry{name: "a/b", data: "x"}, entry{name: "c", flag: '1', link: "a/b"},
		entry{name: "l", flag: '2', link: "../.."}, entry{name: "l/x", data: "evil"}))
	f.Add(tarOf(f, entry{name: "sparse", data: "1\n0\n1\n" + strings.Repeat("\x00", 506) + "x", pax: map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "5"}}))
	var gnu bytes.Buffer
	w := tar.NewWriter(&gnu)
	must(f, w.WriteHeader(&tar.Header{Name: strings.Repeat("n/", 80), Typeflag: tar.TypeDir, Format: tar.FormatGNU}))
	must(f, w.Close())
	f.Add(gnu.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 64<<10 {
			return
		}
		base := t.TempDir()
		must(t, os.Mkdir(filepath.Join(base, "in"), 0o755))
		root, err := os.OpenRoot(filepath.Join(base, "in"))
		must(t, err)
		defer root.Close()
		data := packMember(stream, 0)
		for _, going := range []bool{false, true} {
			r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{KeepGoing: going})
			must(t, err)
			_, err = Extract(context.Background(), r, root, ExtractOptions{KeepGoing: going, NoOwner: true, Overwrite: OverwriteReplace})
			if err == nil && !endsWell(stream) {
				t.Error("no error for a stream without an end mark")
			}
			r.Close()
		}
		if names, err := os.ReadDir(base); err != nil || len(names) != 1 {
			t.Errorf("left its folder: %v, %v", names, err)
		}
		_ = os.Chmod(filepath.Join(base, "in"), 0o755) // for the test's own removal
	})
}

// endsWell says whether the stream ends in the two blocks of zeros that it must.
func endsWell(stream []byte) bool {
	return len(stream) >= 1024 && isZero(stream[len(stream)-1024:])
}

// FuzzTarReader holds the reader of headers against the standard library's.
func FuzzTarReader(f *testing.F) {
	f.Add(tarOf(f, entry{name: "a", data: "x"}, entry{name: "b", flag: '2', link: "c", pax: map[string]string{"path": "long"}}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		data := packMember(stream, 0)
		r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
		must(t, err)
		defer r.Close()
		mine := &tarReader{r: r, whole: true}
		theirs := tar.NewReader(bytes.NewReader(stream))
		for {
			e, err := mine.next()
			if err != nil {
				return
			}
			h, herr := theirs.Next()
			if herr != nil {
				if errors.Is(herr, tar.ErrHeader) {
					return // it is stricter in places
				}
				t.Fatalf("%q: the standard library says %v", e.Path, herr)
			}
			if e.Path != h.Name && e.Type != TypeDir || e.Type == TypeFile && e.SizeBytes != h.Size {
				t.Fatalf("%q of %d bytes; the standard library reads %q of %d", e.Path, e.SizeBytes, h.Name, h.Size)
			}
		}
	})
}
