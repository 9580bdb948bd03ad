package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (m made) openIndex(t testing.TB) *Index {
	t.Helper()
	x, err := OpenIndex(context.Background(), bytes.NewReader(m.index), int64(len(m.index)), m.stats.IndexBlocksOffset)
	must(t, err)
	return x
}

// flagsOf returns the chattr flags of a file or folder.
func flagsOf(t testing.TB, path string) uint32 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	must(t, err)
	return flags & settableFlags
}

func setFlagsOf(t testing.TB, path string, flags uint32) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, changeFlags(int(f.Fd()), flags, settableFlags))
}

func TestExtractGivesBackTheSameTree(t *testing.T) {
	needRoot(t)
	src := richTree(t)
	flags := map[string]uint32{"etc/passwd": flagImmutable, "etc": flagImmutable | 0x80, "bin/su": flagAppend, "bin": 0x40,
		"sparse/end": 0x8 | 0x40}
	setAll := func(dir string, on bool) {
		for name, f := range flags {
			if !on {
				f = 0
			}
			setFlagsOf(t, filepath.Join(dir, name), f)
		}
	}
	setAll(src, true)
	t.Cleanup(func() { setAll(src, false) })
	m := writeTreeOf(t, src, TreeOptions{})
	want := tree(t, src)
	index := m.openIndex(t)
	reader := func(t *testing.T, opts ReaderOptions) *Reader {
		r, err := NewReader(context.Background(), bytes.NewReader(m.archive), int64(len(m.archive)), opts)
		must(t, err)
		return r
	}
	for _, tc := range []struct {
		name string
		open func(t *testing.T) *Reader
		opts ExtractOptions
	}{
		{"with index", func(t *testing.T) *Reader { return reader(t, ReaderOptions{}) }, ExtractOptions{Index: index, Workers: 3}},
		{"with index, going on", func(t *testing.T) *Reader { return reader(t, ReaderOptions{KeepGoing: true}) },
			ExtractOptions{Index: index, KeepGoing: true}},
		{"all of it by a pattern", func(t *testing.T) *Reader { return reader(t, ReaderOptions{}) },
			ExtractOptions{Index: index, Paths: []string{"."}}},
		{"without index", func(t *testing.T) *Reader { return reader(t, ReaderOptions{Workers: 1}) }, ExtractOptions{Workers: 1}},
		{"from a stream", func(t *testing.T) *Reader {
			r, err := NewStreamReader(context.Background(), io.MultiReader(bytes.NewReader(m.archive)), ReaderOptions{})
			must(t, err)
			return r
		}, ExtractOptions{Index: index}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			r := tc.open(t)
			defer r.Close()
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			tc.opts.Rebuild = true
			stats, err := Extract(context.Background(), r, root, tc.opts)
			if tc.opts.Index != nil {
				t.Cleanup(func() { setAll(dir, false) })
			}
			must(t, err)
			if len(stats.Shortfalls) > 0 {
				t.Errorf("shortfalls %+v", stats.Shortfalls)
			}
			want := maps.Clone(want)
			if tc.opts.Index == nil {
				delete(want, "socket")
				want["etc/passwd"] = strings.Replace(want["etc/passwd"], " user.odd=name=76", "", 1)
			} else {
				for name, f := range flags {
					if got := flagsOf(t, filepath.Join(dir, name)); got != f {
						t.Errorf("%q has flags %#x, want %#x", name, got, f)
					}
				}
			}
			compareTrees(t, want, tree(t, dir))
			if int(stats.Entries()) != len(want) {
				t.Errorf("%d entries counted of %d: %+v", stats.Entries(), len(want), stats)
			}
		})
	}
}

func TestExtractSelectedReadsNoMore(t *testing.T) {
	s := makeSample(t, 30)
	x := s.openIndex(t)
	for _, tc := range []struct {
		paths   []string
		want    []string
		members []string // paths of entries whose members may be read
	}{
		{[]string{"d05/f"}, []string{"d05", "d05/f"}, []string{"d05/f"}},
		{[]string{"/d05/f/", "d20"}, []string{"d05", "d05/f", "d20", "d20/f", "d20/g"}, []string{"d05/f", "d20", "d20/g", "d19/f"}},
		{[]string{"d0[34]/g"}, []string{"d03", "d03/g", "d04", "d04/g"}, []string{"d03/g", "d04/g", "d02/f", "d03/f"}},
		{[]string{"**/f", "big"}, nil, []string{"*"}},
	} {
		src := &countingAt{ReaderAt: bytes.NewReader(s.data)}
		r, err := NewReader(context.Background(), src, int64(len(s.data)), ReaderOptions{})
		must(t, err)
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		must(t, err)
		_, err = Extract(context.Background(), r, root, ExtractOptions{Index: x, Paths: tc.paths})
		must(t, err)
		root.Close()
		r.Close()
		got := slices.Sorted(maps.Keys(tree(t, dir)))[1:] // without the root
		if tc.want != nil && !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.paths, got, tc.want)
		}
		for _, name := range got {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if e, _, ferr := x.Find(context.Background(), name); err == nil && ferr == nil {
				from := name
				if e.Type == TypeHardlink {
					from = e.Linkname
				}
				if !bytes.Equal(data, s.contents[from]) {
					t.Errorf("%q: %q has other data", tc.paths, name)
				}
			}
			st, err := os.Lstat(filepath.Join(dir, name))
			must(t, err)
			if want := time.Unix(1_700_000_000, 123456789); !st.ModTime().Equal(want) {
				t.Errorf("%q: %q has time %s, want %s", tc.paths, name, st.ModTime(), want)
			}
		}
		var most int64
		read := map[Member]bool{}
		for _, name := range tc.members {
			for _, e := range s.entries {
				if name != "*" && e.Path != name {
					continue
				}
				for _, m := range s.members {
					if m.TarOffset < e.TarOffset+e.TarBytes && m.TarOffset+m.TarBytes > e.TarOffset && !read[m] {
						read[m] = true
						most += m.LengthBytes
					}
				}
			}
		}
		if src.bytes > most {
			t.Errorf("%q: %d bytes read, the members have %d", tc.paths, src.bytes, most)
		}
	}
}

func TestExtractSelectedFromAStream(t *testing.T) {
	s := makeSample(t, 6)
	dir, _, err := extractBytes(t, s.data, ExtractOptions{Paths: []string{"d03"}})
	if err == nil || !strings.Contains(err.Error(), `"d02/f", which holds the data and was not selected`) {
		t.Errorf("error %v, want one that says where the data is", err)
	}
	if got := slices.Sorted(maps.Keys(tree(t, dir))); !slices.Equal(got, []string{".", "d03", "d03/f"}) {
		t.Errorf("%q", got)
	}
	_, _, err = extractBytes(t, s.data, ExtractOptions{Paths: []string{"d03/f", "nothing*"}})
	if err == nil || !strings.Contains(err.Error(), `cannot find "nothing*"`) {
		t.Errorf("error %v, want that nothing was found", err)
	}
}

func TestExtractOverwrites(t *testing.T) {
	prepare := func(t *testing.T, dir string) {
		writeFile(t, filepath.Join(dir, "file"), []byte("before"), 0o600)
		must(t, os.Symlink("/etc", filepath.Join(dir, "dir")))
		must(t, os.Mkdir(filepath.Join(dir, "was-dir"), 0o755))
	}
	data := packMember(tarOf(t,
		entry{name: "file", data: "after"}, entry{name: "dir/", flag: '5'}, entry{name: "dir/passwd", data: "mine"},
		entry{name: "was-dir", flag: '2', link: "target"}), 1)
	for _, tc := range []struct {
		overwrite Overwrite
		file      string
		failures  int
	}{
		{OverwriteNever, "before", 4}, {OverwriteReplace, "after", 0}, {OverwriteKeep, "before", 2},
	} {
		dir := t.TempDir()
		prepare(t, dir)
		root, err := os.OpenRoot(dir)
		must(t, err)
		r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
		must(t, err)
		stats, err := Extract(context.Background(), r, root, ExtractOptions{Overwrite: tc.overwrite, KeepGoing: true})
		if len(stats.Failures) != tc.failures || (err != nil) != (tc.failures > 0) {
			t.Errorf("overwrite %d: %v, failures %v, want %d", tc.overwrite, err, stats.Failures, tc.failures)
		}
		if tc.overwrite == OverwriteNever && !errors.Is(stats.Failures[0].Err, fs.ErrExist) {
			t.Errorf("error %v, want that it exists", stats.Failures[0].Err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		if err != nil || string(got) != tc.file {
			t.Errorf("overwrite %d: file holds %q, %v", tc.overwrite, got, err)
		}
		if data, _ := os.ReadFile("/etc/passwd"); string(data) == "mine" {
			t.Fatal("left the folder")
		}
		r.Close()
		root.Close()
	}
}

func TestExtractNamesTheFirstFailure(t *testing.T) {
	var entries []entry
	for i := range 200 {
		entries = append(entries, entry{name: "f" + string(rune('A'+i%26)) + string(rune('a'+i/26)), data: "x"})
	}
	data := packMember(tarOf(t, entries...), 1)
	for range 6 {
		dir := t.TempDir()
		for _, i := range []int{40, 41, 90} {
			must(t, os.Mkdir(filepath.Join(dir, entries[i].name), 0o755))
		}
		root, err := os.OpenRoot(dir)
		must(t, err)
		r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
		must(t, err)
		_, err = Extract(context.Background(), r, root, ExtractOptions{Workers: 4})
		if err == nil || !strings.Contains(err.Error(), entries[40].name) {
			t.Fatalf("error %v, want that of %q", err, entries[40].name)
		}
		r.Close()
		root.Close()
	}
}

func TestExtractReportsWhatAnOrdinaryUserCannotRestore(t *testing.T) {
	data := packMember(tarOf(t,
		entry{name: "./", flag: '5', mode: 0o755},
		entry{name: "locked/", flag: '5', mode: 0o500},
		entry{name: "locked/suid", data: "x", mode: 0o4755, uid: 4321},
		entry{name: "locked/in/", flag: '5', mode: 0o700},
		entry{name: "later", data: "x"},
		entry{name: "locked/again", data: "y"},
		entry{name: "null", flag: '3', major: 1, minor: 3},
		entry{name: "caps", data: "x", pax: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00" +
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}), 1)
	if os.Getenv("VOLTAR_TEST_USER_DIR") == "" {
		needRoot(t)
		dir := t.TempDir()
		must(t, errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))) // both are the test's own
		exe := filepath.Join(dir, "test")
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, errors.Join(os.WriteFile(exe, self, 0o755), os.Chmod(exe, 0o755))) // whatever the umask is
		out := filepath.Join(dir, "out")
		must(t, os.Mkdir(out, 0o755))
		must(t, os.Chown(out, 65534, 65534))
		run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all",
			"env", "VOLTAR_TEST_USER_DIR="+out, exe, "-test.run", "^"+t.Name()+"$", "-test.v")
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(out, "locked/suid"), &st))
		if st.Mode&0o7777 != 0o755 || st.Uid != 65534 {
			t.Errorf("mode %o of user %d: a set-id bit for the wrong user", st.Mode, st.Uid)
		}
		must(t, unix.Lstat(filepath.Join(out, "locked"), &st))
		if st.Mode&0o7777 != 0o500 || st.Mtim.Sec != 1_600_000_000 {
			t.Errorf("folder has mode %o and time %d", st.Mode, st.Mtim.Sec)
		}
		return
	}
	root, err := os.OpenRoot(os.Getenv("VOLTAR_TEST_USER_DIR"))
	must(t, err)
	r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{})
	must(t, err)
	stats, err := Extract(context.Background(), r, root, ExtractOptions{Rebuild: true})
	must(t, err)
	var what []string
	for _, s := range stats.Shortfalls {
		what = append(what, s.What)
	}
	if want := []string{"device", "owner", "xattr"}; !slices.Equal(what, want) {
		t.Errorf("shortfalls %q, want %q", what, want)
	}
}
