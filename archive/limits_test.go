package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTreeBeyondABound(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		writeFile(t, filepath.Join(dir, "many", fmt.Sprint(i)), []byte("x"), 0o644)
	}
	writeFile(t, filepath.Join(dir, strings.Repeat("d/", 20)+"f"), []byte("deep"), 0o644)
	writeFile(t, filepath.Join(dir, strings.Repeat("n", 200)), []byte("long"), 0o644)
	writeFile(t, filepath.Join(dir, "size"), make([]byte, 2<<20), 0o644)
	for _, c := range []struct {
		limits Limits
		want   LimitError
	}{
		{Limits{Entries: 60}, LimitError{What: LimitEntries, Limit: 60}},
		{Limits{StreamBytes: 1 << 20}, LimitError{What: LimitStreamBytes, Limit: 1 << 20, Path: "size"}},
		{Limits{Depth: 19}, LimitError{What: LimitDepth, Limit: 19, Path: strings.Repeat("d/", 19) + "d"}},
		{Limits{PathBytes: 199}, LimitError{What: LimitPathBytes, Limit: 199, Path: strings.Repeat("n", 200)}},
		{Limits{IndexListBytes: 5000, BlockEntries: 1}, LimitError{What: LimitIndexBytes, Limit: 5000}},
		{Limits{Duration: time.Nanosecond}, LimitError{What: LimitDuration}},
	} {
		t.Run(c.want.What, func(t *testing.T) {
			_, err := writeTreeTo(t, t.Context(), dir, io.Discard, io.Discard, TreeOptions{Limits: c.limits})
			var got *LimitError
			if !errors.As(err, &got) || got.What != c.want.What || got.Limit != c.want.Limit || got.Got < got.Limit ||
				c.want.Path != "" && got.Path != c.want.Path {
				t.Errorf("%v: %+v, want %+v", err, got, c.want)
			}
		})
	}
	within := Limits{Entries: 80, StreamBytes: 4 << 20, Depth: 20, PathBytes: 200, IndexListBytes: 20_000, BlockEntries: 1, Duration: time.Hour}
	m := writeTreeOf(t, dir, TreeOptions{Limits: within})
	if entries, _ := readIndex(t, m); int64(len(entries)) != m.stats.Entries {
		t.Errorf("%d entries in the index, want %d", len(entries), m.stats.Entries)
	}
}

// A file that has more data than its tree may have is not searched for holes, which only the kernel could end. A file that has little,
// whatever its size, is stored.
func TestFilesBeyondTheBoundAreNotSearchedForHoles(t *testing.T) {
	dir := t.TempDir()
	const most = 1 << 20
	for name, size := range map[string]int64{"at the bound": most, "beyond": most + 1} {
		path := filepath.Join(dir, name)
		writeFile(t, path, nil, 0o644)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		beyond bool
		err    error
		fails  bool
	}{
		{"it has little", false, nil, false},
		{"it has more", true, nil, true},
		{"the kernel cannot tell", false, unix.EOPNOTSUPP, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sys := hostSystem()
			sys.mapsMore = func(_ context.Context, _ int, path string, sizeBytes, mostBytes int64) (bool, error) {
				if path != "beyond" || sizeBytes != most+1 || mostBytes != most {
					t.Errorf("asked whether %s of %d bytes has more than %d", path, sizeBytes, mostBytes)
				}
				return c.beyond, c.err
			}
			_, err := writeTreeTo(t, t.Context(), dir, io.Discard, io.Discard, TreeOptions{Limits: Limits{StreamBytes: most}, sys: sys})
			var got *LimitError
			if isBeyond := errors.As(err, &got) && got.What == LimitStreamBytes && got.Path == "beyond"; isBeyond != c.fails || err != nil && !isBeyond {
				t.Errorf("%v", err)
			}
		})
	}
}

// The kernel lists no more than 64 KiB of names. A file with more is no damage; what has a say in who may use it is stored.
func TestMoreAttributesThanTheKernelLists(t *testing.T) {
	list := func([]byte) (int, error) { return 0, unix.E2BIG }
	get := func(name string, buf []byte) (int, error) {
		switch name {
		case "security.capability":
			return copy(buf, "capability"), nil
		case aclAccessName:
			return copy(buf, "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff"), nil
		case aclDefaultName:
			return 0, unix.EOPNOTSUPP // as symbolic links have it
		}
		return 0, unix.ENODATA
	}
	r := attrReader{limits: defaultLimits()}
	a, err := r.read(list, get)
	want := []xattr{{"security.capability", []byte("capability")}}
	if err != nil || a.tooLarge != 1 || a.aclAccess != "user::rwx" || !reflect.DeepEqual(a.xattrs, want) {
		t.Errorf("%+v, %v", a, err)
	}
	get = func(string, []byte) (int, error) { return 0, unix.EIO }
	if _, err := r.read(list, get); !errors.Is(err, unix.EIO) {
		t.Errorf("%v, want %v", err, unix.EIO)
	}
}

func TestLimitErrorSaysTheNumber(t *testing.T) {
	err := &LimitError{What: LimitEntries, Limit: 1_000_000, Got: 1_000_001}
	if want := "more than 1 000 000 entries"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

// What GNU tar cannot unpack is counted: paths that the kernel does not take in one piece, and hard links to such.
func TestLongPathsAreCounted(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(root)
	at, name := root, strings.Repeat("d", 250)
	for range LongPathBytes/len(name) + 1 { // the last of them is too long
		must(t, unix.Mkdirat(at, name, 0o755))
		at, err = unix.Openat(at, name, unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(at)
	}
	file, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	must(t, unix.Close(file))
	must(t, unix.Linkat(at, "file", root, "link", 0))
	writeFile(t, dir+"/short", nil, 0o644)
	if m := writeTreeOf(t, dir, TreeOptions{}); m.stats.LongPaths != 3 {
		t.Errorf("%d, want the folder, the file in it and the link to that", m.stats.LongPaths)
	}
}

// A file may end at the largest offset there is. tmpfs then counts beyond it for the next hole.
func TestDataAtTheLargestOffset(t *testing.T) {
	fd, err := unix.MemfdCreate("largest", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	const size = math.MaxInt64
	must(t, unix.Ftruncate(fd, size))
	if _, err := unix.Pwrite(fd, []byte("end"), size-4096); err != nil {
		t.Fatal(err)
	}
	segments, err := dataSegments(t.Context(), fd, size, 10)
	if n := storedBytes(segments); err != nil || len(segments) != 1 || n > 4<<20 || segments[0].offset+segments[0].length != size {
		t.Errorf("%+v, %v", segments, err)
	}
}

// A file can be as large as any number that the kernel has, and is beyond each bound then.
func TestTheLargestFileIsBeyondTheBound(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "largest"), []byte("x"), 0o644)
	sys := hostSystem()
	statx := sys.statx
	sys.statx = func(fd int, name string, flags int, path string) (unix.Statx_t, error) {
		st, err := statx(fd, name, flags, path)
		if path == "largest" {
			st.Size, st.Blocks = math.MaxInt64, math.MaxInt64/512+1
		}
		return st, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it would be read for centuries
	defer cancel()
	_, err := writeTreeTo(t, ctx, dir, io.Discard, io.Discard, TreeOptions{Limits: Limits{StreamBytes: 1 << 30}, sys: sys})
	var got *LimitError
	if !errors.As(err, &got) || got.What != LimitStreamBytes || got.Got < got.Limit || got.Path != "largest" {
		t.Errorf("%v: %+v", err, got)
	}
}
