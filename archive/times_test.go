package archive

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// btrfs and tmpfs keep 64 bits of seconds, and let users set all of them.
func TestAnyTimeComesBack(t *testing.T) {
	seconds := []int64{
		math.MinInt64, math.MinInt64 + 1, -1 << 60, -1 << 56, -62135596801, -1, 0, 1 << 33, 253402300800, 1<<55 + 1, 1 << 60,
		math.MaxInt64 - 62135596800, math.MaxInt64,
	}
	dir := t.TempDir()
	want := map[string]unix.StatxTimestamp{}
	for i, sec := range seconds {
		for _, nsec := range []uint32{0, 1, 999_999_999} {
			path := fmt.Sprintf("%d.%d", i, nsec)
			writeFile(t, filepath.Join(dir, path), []byte(path), 0o644)
			want[path] = unix.StatxTimestamp{Sec: sec, Nsec: nsec}
		}
	}
	sys := hostSystem()
	statx := sys.statx
	sys.statx = func(fd int, name string, flags int, path string) (unix.Statx_t, error) {
		st, err := statx(fd, name, flags, path)
		if at, ok := want[path]; ok {
			st.Mtime, st.Ctime = at, at
		}
		return st, err
	}
	m := writeTreeOf(t, dir, TreeOptions{sys: sys})
	x, err := OpenIndex(t.Context(), bytes.NewReader(m.index), int64(len(m.index)), -1)
	must(t, err)
	for e, err := range x.All(t.Context()) {
		must(t, err)
		for what, at := range map[string]time.Time{"mtime": e.MTime, "ctime": e.CTime} {
			if w, ok := want[e.Path]; ok && (at.Unix() != w.Sec || at.Nanosecond() != int(w.Nsec)) {
				t.Errorf("%s: %s %d.%09d, want %d.%09d", e.Path, what, at.Unix(), at.Nanosecond(), w.Sec, w.Nsec)
			}
		}
	}
	got, err := Verify(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), x, VerifyOptions{Level: VerifyFull})
	if err != nil || !got.Good() || got.Entries != m.stats.Entries {
		t.Errorf("%d of %d entries; %q, %v", got.Entries, m.stats.Entries, got.Findings, err)
	}
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	r, err := NewReader(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	if stats, err := Extract(t.Context(), r, root, ExtractOptions{Index: x}); err != nil || len(stats.Failures) > 0 {
		t.Errorf("%+v, %v", stats.Failures, err) // the kernel sets the nearest time that the filesystem has
	}
}
