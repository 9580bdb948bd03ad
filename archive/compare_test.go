package archive

import (
	"bytes"
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
