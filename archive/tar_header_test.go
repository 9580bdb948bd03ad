package archive

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func sampleHeaders() []tarHeader {
	whole := time.Unix(1763600000, 0)
	return []tarHeader{
		{name: "./", flag: flagDir, mode: 0o755, mtime: whole},
		{name: "etc/passwd", flag: flagFile, mode: 0o644, size: 1234, mtime: whole},
		{name: "ns", flag: flagFile, mode: 0o4755, mtime: whole.Add(123456780)},
		{name: "old", flag: flagFile, mtime: time.Unix(-2, 5e8)},
		{name: "far", flag: flagFile, mtime: time.Unix(1<<33, 0)},
		{name: "last octal second", flag: flagFile, mtime: time.Unix(1<<33-1, 0)},
		{name: "large", flag: flagFile, size: 8 << 30, mtime: whole},
		{name: "largest octal", flag: flagFile, size: 8<<30 - 1, mtime: whole},
		{name: "ids", flag: flagFile, uid: 1 << 21, gid: 1<<32 - 1, mtime: whole},
		{name: strings.Repeat("n", 100), flag: flagFile, mtime: whole},
		{name: strings.Repeat("d/", 50) + "n", flag: flagFile, mtime: whole},
		{name: "ü/", flag: flagDir, mtime: whole},
		{name: "latin\xe9", flag: flagFile, mtime: whole},
		{name: "link", link: "../t", flag: flagSymlink, mode: 0o777, mtime: whole},
		{name: "oddlink", link: "\xff", flag: flagSymlink, mtime: whole},
		{name: "hard", link: strings.Repeat("l", 101), flag: flagHardlink, mtime: whole},
		{name: "null", flag: flagChar, devMajor: 1, devMinor: 3, mtime: whole},
		{name: "disk", flag: flagBlock, devMajor: 4095, devMinor: 1<<20 - 1, mtime: whole},
		{name: "fifo", flag: flagFIFO, mtime: whole},
		{name: "a/sparse", flag: flagFile, sparse: true, realSize: 1 << 40, size: 1024, mtime: whole},
		{name: "attributes", flag: flagFile, mtime: whole, aclAccess: "user::rw-,user:5:r--", aclDefault: "user::rwx",
			xattrs: []xattr{{"security.capability", []byte{1, 0, 0, 2}}, {"user.x", []byte("a=b\nc")}}},
	}
}

// TestHeadersGolden shows every change of what headers look like. -update writes the file anew.
func TestHeadersGolden(t *testing.T) {
	var text bytes.Buffer
	nuls := regexp.MustCompile("\x00{2,}")
	for _, h := range sampleHeaders() {
		for block := range slices.Chunk(appendTarHeader(nil, &h), tarBlockBytes) {
			short := nuls.ReplaceAllFunc(block, func(run []byte) []byte { return fmt.Appendf(nil, "<%d NUL>", len(run)) })
			fmt.Fprintf(&text, "%q\n", short)
		}
		text.WriteByte('\n')
	}
	golden := filepath.Join("testdata", "headers.golden")
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(golden, text.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(text.Bytes(), want) {
		t.Errorf("headers are not those of %s:\n%s", golden, text.Bytes())
	}
}

func TestHeadersAsTheStandardLibraryReadsThem(t *testing.T) {
	for _, h := range sampleHeaders() {
		if h.sparse {
			continue // its data is needed; see TestIndexAgreesWithArchive
		}
		tr := tar.NewReader(io.MultiReader(bytes.NewReader(appendTarHeader(nil, &h)), bytes.NewReader(make([]byte, 1024))))
		got, err := tr.Next()
		if err != nil {
			t.Errorf("%q: %v", h.name, err)
			continue
		}
		if got.Name != h.name || got.Linkname != h.link || got.Size != h.size || !got.ModTime.Equal(h.mtime) ||
			got.Mode != int64(h.mode) || got.Uid != int(h.uid) || got.Gid != int(h.gid) ||
			got.Devmajor != int64(h.devMajor) || got.Devminor != int64(h.devMinor) || got.Typeflag != h.flag {
			t.Errorf("wrote %+v, read %+v", h, got)
		}
		for _, x := range h.xattrs {
			if got.PAXRecords["SCHILY.xattr."+x.name] != string(x.value) {
				t.Errorf("%q: attributes %q", h.name, got.PAXRecords)
			}
		}
	}
}

func TestRecordCountsItsOwnLength(t *testing.T) {
	for n := range 1100 {
		record := appendRecord(nil, "k", strings.Repeat("v", n))
		var length int
		if _, err := fmt.Sscan(string(record), &length); err != nil || length != len(record) {
			t.Errorf("a record of %d bytes says %d, %v", len(record), length, err)
		}
	}
}

func TestSparseMap(t *testing.T) {
	for name, c := range map[string]struct {
		segments []segment
		size     int64
		want     string
	}{
		"all hole":     {nil, 7, "1\n7\n0\n"},
		"ends in hole": {[]segment{{0, 5}}, 7, "2\n0\n5\n7\n0\n"},
		"ends in data": {[]segment{{0, 5}, {6, 1}}, 7, "2\n0\n5\n6\n1\n"},
	} {
		got := appendSparseMap(nil, c.segments, c.size)
		if len(got) != tarBlockBytes || string(bytes.TrimRight(got, "\x00")) != c.want {
			t.Errorf("%s: %q", name, bytes.TrimRight(got, "\x00"))
		}
	}
}

func TestJoinSegment(t *testing.T) {
	var got []segment
	for _, s := range []segment{{0, 1}, {1, 1}, {5, 1}, {100, 1}} {
		got = joinSegment(got, s, 4)
	}
	if want := []segment{{0, 6}, {100, 1}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func rawACL(entries ...uint32) []byte {
	raw := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for i := 0; i < len(entries); i += 3 {
		raw = binary.LittleEndian.AppendUint16(raw, uint16(entries[i]))
		raw = binary.LittleEndian.AppendUint16(raw, uint16(entries[i+1]))
		raw = binary.LittleEndian.AppendUint32(raw, entries[i+2])
	}
	return raw
}

func TestACLText(t *testing.T) {
	const none = 1<<32 - 1
	got, err := aclText(rawACL(aclUserObj, 6, none, aclUser, 5, 12345, aclGroupObj, 4, none, aclGroup, 0, 4000000000,
		aclMask, 7, none, aclOther, 1, none))
	want := "user::rw-,user:12345:r-x,group::r--,group:4000000000:---,mask::rwx,other::--x"
	if got != want || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for name, raw := range map[string][]byte{
		"empty": nil, "cut short": rawACL(aclUserObj, 6, none)[:11], "version": {1, 0, 0, 0}, "tag": rawACL(3, 6, none),
	} {
		if got, err := aclText(raw); err == nil {
			t.Errorf("%s: read as %q", name, got)
		}
	}
}

// readAttributes reads attributes as if an entry had them.
func readAttributes(t *testing.T, limits Limits, of map[string][]byte) (attributes, error) {
	t.Helper()
	limits = limits.withDefaults()
	r := attrReader{limits: &limits}
	return r.read(
		func(buf []byte) (n int, _ error) {
			for name := range of {
				n += copy(buf[n:], name+"\x00")
			}
			return n, nil
		},
		func(name string, buf []byte) (int, error) { return copy(buf, of[name]), nil })
}

func TestAttributesThatTarCannotHoldAreForTheIndex(t *testing.T) {
	a, err := readAttributes(t, Limits{AttributeBytes: 1000}, map[string][]byte{
		"user.b": []byte("2"), "user.a": []byte("1"), xfsACLAccessName: []byte("an ACL once more"), "user.x=y": []byte("odd"),
		"system.nfs4_acl": []byte("n"), aclAccessName: []byte("no ACL"), aclDefaultName: rawACL(aclOther, 0, 0),
		"user.large": make([]byte, 1000), "user.zz": []byte("behind it"),
	})
	must(t, err)
	if len(a.xattrs) != 3 || a.xattrs[0].name != "user.a" || a.xattrs[2].name != "user.zz" || a.aclDefault != "other::---" ||
		a.aclAccess != "" || a.tooLarge != 0 {
		t.Errorf("%+v", a)
	}
	want := []string{aclAccessName, "system.nfs4_acl", "user.large", "user.x=y"}
	slices.Sort(want)
	if got := sortedKeys(a.odd); !slices.Equal(got, want) {
		t.Errorf("for the index: %q", got)
	}
}

func TestAttributesThatAreTooLargeAreCounted(t *testing.T) {
	of := map[string][]byte{}
	for i := range 30 {
		of[fmt.Sprintf("user.%02d", i)] = make([]byte, 64<<10)
	}
	a, err := readAttributes(t, Limits{}, of)
	must(t, err)
	if len(a.xattrs) != 7 || len(a.odd) != 3 || a.tooLarge != 20 {
		t.Errorf("%d in the tar stream, %d in the index, %d nowhere; want 7, 3 and 20", len(a.xattrs), len(a.odd), a.tooLarge)
	}
}

func FuzzACLText(f *testing.F) {
	f.Add(rawACL(aclUserObj, 6, 0))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = aclText(raw) })
}

func FuzzParseDirents(f *testing.F) {
	f.Add(append(make([]byte, 16), 24, 0, 8, 'a', 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, buf []byte) {
		names, _ := parseDirents(nil, buf)
		for _, d := range names {
			if d.name == "" || d.name == "." || d.name == ".." || strings.ContainsRune(d.name, 0) {
				t.Errorf("name %q", d.name)
			}
		}
	})
}
