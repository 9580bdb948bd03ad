package archive

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// restored extracts an archive, and returns where to.
func restored(t *testing.T, m made) string {
	t.Helper()
	dir := t.TempDir()
	r, root := m.open(t), openedRoot(t, dir)
	if stats, err := Extract(t.Context(), r, root, ExtractOptions{Index: m.openIndex(t), Rebuild: true}); err != nil || len(stats.Shortfalls) > 0 {
		t.Fatalf("%v, %+v", err, stats.Shortfalls)
	}
	return dir
}

func (m made) open(t *testing.T) *Reader {
	t.Helper()
	r, err := NewReader(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func openedRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root
}

// differences are what Compare finds between an archive and a folder, as "path: what".
func differences(t *testing.T, m made, dir string, opts CompareOptions) []string {
	t.Helper()
	got, err := Compare(t.Context(), m.open(t), m.openIndex(t), openedRoot(t, dir), opts)
	must(t, err)
	if got.Entries != m.stats.Entries {
		t.Errorf("%d entries compared of %d", got.Entries, m.stats.Entries)
	}
	var list []string
	for _, d := range got.Differences {
		list = append(list, d.Path+": "+d.Err.Error())
	}
	return list
}

// A tree that came back as it was does not differ; whatever is changed of it does, and nothing else.
func TestCompareFindsEachDifference(t *testing.T) {
	needRoot(t)
	src := richTree(t)
	must(t, os.WriteFile(filepath.Join(src, "words"), bytes.Repeat([]byte("some data. "), 500_000), 0o600))
	sparse, err := os.Create(filepath.Join(src, "holes"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("in the middle"), 1<<20)
	must(t, err)
	must(t, sparse.Truncate(3<<20))
	must(t, sparse.Close())
	m := writeTreeOf(t, src, TreeOptions{})
	dir := restored(t, m)
	if found := differences(t, m, dir, CompareOptions{}); len(found) > 0 {
		t.Fatalf("restored, and not the same: %q", found)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	overwrite := func(name string, offset int64) {
		f, err := os.OpenFile(at(name), os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("X"), offset)
		must(t, err)
		must(t, f.Close())
	}
	moment := time.Unix(1_000_000_000, 0)
	for _, change := range []struct {
		name string
		do   func()
		path string // that differs, and in what
		what string
	}{
		{"a byte", func() { overwrite("words", 4_000_000) }, "words", "data differs"},
		{"a byte in a hole", func() { overwrite("holes", 2<<20) }, "holes", "has a hole"},
		{"longer", func() { must(t, os.Truncate(at("words"), 5_500_001)) }, "words", "it has 5500001 bytes, not 5500000"},
		{"mode", func() { must(t, os.Chmod(at("words"), 0o640)) }, "words", "mode is 0640, not 0600"},
		{"owner", func() { must(t, os.Chown(at("words"), 7, 8)) }, "words", "belongs to 7:8"},
		{"attribute", func() { must(t, unix.Setxattr(at("words"), "user.more", []byte("x"), 0)) }, "words", "user.more"},
		{"flags", func() { setFlagsOf(t, at("words"), 0x40) }, "words", "flags are 0x40, not 0x0"},
		{"time", func() {}, "words", "modified at 2001-09-09"},
		{"gone", func() { must(t, os.Remove(at("words"))) }, "words", "missing"},
		{"a folder is gone", func() { must(t, os.RemoveAll(at("etc"))) }, "etc", "missing"},
		{"another type", func() { must(t, os.Remove(at("words"))); must(t, os.Mkdir(at("words"), 0o700)) }, "words", "another type"},
		{"more", func() { must(t, os.WriteFile(at("zz"), nil, 0o600)) }, "zz", "does not have it"},
		{"more in a folder", func() { must(t, os.WriteFile(at("etc/aa"), nil, 0o600)) }, "etc/aa", "does not have it"},
	} {
		t.Run(change.name, func(t *testing.T) {
			dir = restored(t, m)
			change.do()
			if change.name == "time" {
				must(t, os.Chtimes(at("words"), moment, moment))
			}
			found := differences(t, m, dir, CompareOptions{})
			if !slices.ContainsFunc(found, func(d string) bool { return strings.HasPrefix(d, change.path+": ") && strings.Contains(d, change.what) }) {
				t.Errorf("found %q, want %s: …%s", found, change.path, change.what)
			}
			for _, d := range found {
				path, what, _ := strings.Cut(d, ": ")
				if path != change.path && !strings.HasPrefix(path, change.path+"/") && !strings.Contains(what, "modified at") {
					t.Errorf("found %q too", d)
				}
			}
		})
	}
}

// relined returns an archive with its index made anew, each line of it changed as change says.
func relined(t *testing.T, m made, change func(l *indexLine)) made {
	t.Helper()
	x := m.openIndex(t)
	if len(x.blocks) != 1 {
		t.Fatalf("the index has %d blocks, want 1", len(x.blocks))
	}
	text := appendFormat(nil)
	for l, err := range x.lines(t.Context(), 0) {
		must(t, err)
		change(&l)
		switch l.Kind {
		case lineMember:
			text = appendMember(text, summedMember{Member: l.Member})
		case lineEntry:
			text = appendEntry(text, &l.Entry)
		}
	}
	block, total := indexLine{Kind: lineBlock, Block: x.blocks[0]}, indexLine{Kind: lineTotal, Total: x.total}
	change(&block)
	change(&total)
	stored := packMember(text, 1)
	block.Block.LengthBytes = int64(len(stored))
	m.index = append(stored, packBlocks([]Block{block.Block}, total.Total)...)
	m.stats.IndexBlocksOffset = int64(len(stored))
	return m
}

// An index that says of an entry, a member or all together something else than the archive does is found by a comparison and by a full
// verification, though the tree came back as it was.
func TestIndexThatLiesIsFound(t *testing.T) {
	needRoot(t)
	m := writeTreeOf(t, richTree(t), TreeOptions{})
	dir := restored(t, m)
	find := func(t *testing.T, m made) (compared, verified []string) {
		result, err := Compare(t.Context(), m.open(t), m.openIndex(t), openedRoot(t, dir), CompareOptions{})
		must(t, err)
		for _, d := range result.Differences {
			compared = append(compared, fmt.Sprintf("%s: %v", d.Path, d.Err))
		}
		v, err := Verify(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), m.openIndex(t), VerifyOptions{Level: VerifyFull})
		must(t, err)
		return compared, v.Findings
	}
	if compared, verified := find(t, relined(t, m, func(*indexLine) {})); len(compared)+len(verified) > 0 {
		t.Fatalf("nothing was changed: %q, %q", compared, verified)
	}
	entry := func(path string, change func(e *Entry)) func(*indexLine) {
		return func(l *indexLine) {
			if l.Kind == lineEntry && l.Entry.Path == path {
				change(&l.Entry)
			}
		}
	}
	for name, change := range map[string]func(*indexLine){
		"mode":                   entry("etc/passwd", func(e *Entry) { e.Mode = 0o4777 }),
		"time":                   entry("etc/passwd", func(e *Entry) { e.MTime = time.Unix(3e9, 0) }),
		"owner":                  entry("etc/passwd", func(e *Entry) { e.UID = 7 }),
		"group":                  entry("etc/passwd", func(e *Entry) { e.GID = 7 }),
		"size":                   entry("etc/passwd", func(e *Entry) { e.SizeBytes = 1 << 62 }),
		"stored size":            entry("sparse/middle", func(e *Entry) { e.StoredBytes++ }),
		"size of a hard link":    entry("etc/su-too", func(e *Entry) { e.SizeBytes = 1 << 62 }),
		"length":                 entry("etc/passwd", func(e *Entry) { e.TarBytes += 512 }),
		"place":                  entry("etc/passwd", func(e *Entry) { e.TarOffset += 512 }),
		"not in the stream":      entry("etc/passwd", func(e *Entry) { e.TarOffset = -1 }),
		"type":                   entry("etc/passwd", func(e *Entry) { e.Type = TypeFIFO }),
		"attributes":             entry("etc/passwd", func(e *Entry) { e.HasAttrs = false }),
		"no attributes":          entry("-rf", func(e *Entry) { e.HasAttrs = true }),
		"device":                 entry("null", func(e *Entry) { e.DevMinor = 5 }),
		"target":                 entry("bin/link", func(e *Entry) { e.Linkname = "elsewhere" }),
		"link to nowhere":        entry("etc/passwd", func(e *Entry) { e.Type, e.Linkname, e.DataOffset = TypeHardlink, "nowhere", 5120 }),
		"link to a folder":       entry("etc/passwd", func(e *Entry) { e.Type, e.Linkname = TypeHardlink, "." }),
		"other name of a link":   entry("etc/su-too", func(e *Entry) { e.Linkname = "bin/caps" }),
		"other place of a link":  entry("etc/su-too", func(e *Entry) { e.DataOffset += 512 }),
		"name":                   entry("etc/passwd", func(e *Entry) { e.Path = "etc/passwe" }),
		"order":                  entry("etc/passwd", func(e *Entry) { e.Path = "a" }),
		"unknown entry":          entry("socket", func(e *Entry) { e.TarOffset = 1 << 61 }),
		"entries in all":         func(l *indexLine) { l.Total.Entries = 1 << 60 },
		"members in all":         func(l *indexLine) { l.Total.Members++ },
		"length of the stream":   func(l *indexLine) { l.Total.TarBytes += 512 },
		"length of the archive":  func(l *indexLine) { l.Total.ArchiveBytes++ },
		"first of a block":       func(l *indexLine) { l.Block.FirstPath = "-" },
		"first member":           func(l *indexLine) { l.Block.TarOffset = 512 },
		"members' lengths":       func(l *indexLine) { l.Member.TarBytes = 1 << 60 },
		"members' places":        func(l *indexLine) { l.Member.Offset += 4096 },
		"members' stored length": func(l *indexLine) { l.Member.LengthBytes -= min(l.Member.LengthBytes-1, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			if compared, verified := find(t, relined(t, m, change)); len(compared) == 0 || len(verified) == 0 {
				t.Errorf("compared: %q\nverified: %q", compared, verified)
			}
		})
	}
	// Two members of which one takes what the other has lost: all of them together are as long as before.
	n := 0
	compared, verified := find(t, relined(t, m, func(l *indexLine) {
		if l.Kind != lineMember {
			return
		}
		switch n++; n {
		case 1:
			l.Member.LengthBytes += 4096
		case 2:
			l.Member.Offset += 4096
			l.Member.LengthBytes -= 4096
		}
	}))
	if len(verified) == 0 || !slices.ContainsFunc(compared, func(d string) bool { return strings.Contains(d, "not where the index says") }) {
		t.Errorf("the border of two members: %q, %q", compared, verified)
	}
}
