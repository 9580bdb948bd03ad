package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plainTree makes a tree of n small files in folders, and one large file.
func plainTree(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("d%d/f%d", i/1500, i)), fmt.Appendf(nil, "file %d\n", i), 0o644)
	}
	writeFile(t, filepath.Join(dir, "large"), bytes.Repeat([]byte("0123456789abcdef"), 1<<20), 0o644)
	return dir
}

func TestBlocksAndMembersOfManyEntries(t *testing.T) {
	m := writeTreeOf(t, plainTree(t, BlockEntries+700), TreeOptions{})
	entries, members := readIndex(t, m)
	if len(entries) != BlockEntries+700+1+2+1 || m.stats.Files != BlockEntries+700+1 || m.stats.Dirs != 3 {
		t.Errorf("%d entries, stats %+v", len(entries), m.stats)
	}
	large := entries[len(entries)-1]
	var holding []Member
	for _, member := range members {
		if member.TarOffset < large.TarOffset+large.TarBytes && large.TarOffset < member.TarOffset+member.TarBytes {
			holding = append(holding, member)
		}
	}
	if len(holding) != 4 || holding[0].TarOffset != large.TarOffset {
		t.Errorf("16 MiB at %d are in members %+v", large.TarOffset, holding)
	}
	if got := readTar(t, m)["large"].data; len(got) != 16<<20 {
		t.Errorf("%d bytes", len(got))
	}
	if per := m.stats.IndexBytes / m.stats.Entries; per >= 100 {
		t.Errorf("index takes %d bytes an entry", per)
	}
}

func TestSameBytesWhateverTheNumberOfWorkers(t *testing.T) {
	dir := plainTree(t, 300)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first made
	for i, n := range []int{1, 2, 8} {
		runtime.GOMAXPROCS(n)
		pool := NewPool(n)
		m := writeTreeOf(t, dir, TreeOptions{Pool: pool})
		pool.Close()
		if i == 0 {
			first = m
		} else if !bytes.Equal(m.archive, first.archive) || !bytes.Equal(m.index, first.index) {
			t.Errorf("%d workers write other bytes than one", n)
		}
	}
}

func TestAddedFileMovesOnlyTheCutsAroundIt(t *testing.T) {
	dir := t.TempDir()
	for i := range 400 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("f%03d", i)), bytes.Repeat(fmt.Appendf(nil, "%d", i), 30<<10), 0o644)
	}
	count := func() map[string]bool {
		m := writeTreeOf(t, dir, TreeOptions{Level: LevelFast})
		_, members := readIndex(t, m)
		found := make(map[string]bool)
		for _, member := range members {
			found[string(m.archive[member.Offset:member.Offset+member.LengthBytes])] = true
		}
		return found
	}
	before := count()
	writeFile(t, filepath.Join(dir, "f010a"), bytes.Repeat([]byte("new"), 1<<20), 0o644)
	changed := 0
	for member := range count() {
		if !before[member] {
			changed++
		}
	}
	if len(before) < 100 || changed > 6 { // that of the root, that of the file, and those up to the next cut that is where it was
		t.Errorf("%d of %d members changed", changed, len(before))
	}
}

func TestDeepTree(t *testing.T) {
	dir := t.TempDir()
	const depth = 700 // more than 4096 bytes of path, and more than the folders kept open
	name := strings.Repeat("d", 9)
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for i := range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		if i%100 == 0 {
			f, err := unix.Openat(fd, "z", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
			must(t, err)
			_, err = unix.Write(f, []byte("after"))
			must(t, errors.Join(err, unix.Close(f)))
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, errors.Join(err, unix.Close(fd)))
		fd = next
	}
	must(t, unix.Close(fd))
	open := 0
	sys := hostSystem()
	getdents := sys.getdents
	sys.getdents = func(fd int, path string, buf []byte) (int, error) {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		open = max(open, len(list))
		return getdents(fd, path, buf)
	}
	m := writeTreeOf(t, dir, TreeOptions{sys: sys, openDirs: 20})
	entries, _ := readIndex(t, m)
	if len(entries) != 1+depth+depth/100 || m.stats.DamagedCount != 0 {
		t.Errorf("%d entries, damaged: %v", len(entries), m.stats.Damaged)
	}
	if last := entries[len(entries)-1]; last.Path != "z" || len(entries[depth].Path) < 4096 {
		t.Errorf("last %q, deepest of %d bytes", last.Path, len(entries[depth].Path))
	}
	if open > 150 { // 20 on the way down, those of entries ahead, the test's own
		t.Errorf("%d descriptors open at once", open)
	}
}

func TestDamage(t *testing.T) {
	const size = 5 << 20
	for name, c := range map[string]struct {
		fault  func(sys *system)
		path   string
		reason string // a part of it; of no damage when empty
		data   func(data []byte) bool
		stored bool
	}{
		"one block of a large file": {
			fault: badBlocks("large", 4<<20, 4<<20+4096), path: "large", stored: true,
			reason: "4.0 KiB cannot be read and are zeros, the first at byte 4194304: input/output error",
			data: func(d []byte) bool {
				return isZero(d[4<<20:4<<20+4096]) && d[4<<20-1] == 'x' && d[4<<20+4096] == 'x'
			},
		},
		"a small file's all": {
			fault: badBlocks("small", 0, size), path: "small", reason: "100 B cannot be read", stored: true, data: isZero,
		},
		"ends early": {
			fault: func(sys *system) {
				pread := sys.pread
				sys.pread = func(fd int, path string, p []byte, offset int64) (int, error) {
					if path == "large" {
						p = p[:max(0, min(int64(len(p)), 1000-offset))]
					}
					if len(p) == 0 {
						return 0, nil
					}
					return pread(fd, path, p, offset)
				}
			},
			path: "large", reason: "ends early, at byte 1000: the last 5.0 MiB are zeros", stored: true,
			data: func(d []byte) bool { return d[999] == 'x' && isZero(d[1000:]) },
		},
		"grows": {
			fault: statAfterRead("small", func(st *unix.Statx_t) { st.Size++ }), path: "small",
			reason: "changed size from 100 B to 101 B", stored: true,
		},
		"written to": {
			fault: statAfterRead("small", func(st *unix.Statx_t) { st.Mtime.Nsec ^= 1 }), path: "small",
			reason: "changed while it was read", stored: true,
		},
		"cannot be looked at": {
			fault: func(sys *system) {
				statx := sys.statx
				sys.statx = func(fd int, name string, flags int, path string) (unix.Statx_t, error) {
					if path == "small" {
						return unix.Statx_t{}, unix.EUCLEAN
					}
					return statx(fd, name, flags, path)
				}
			},
			path: "small", reason: "structure needs cleaning",
		},
		"folder cannot be listed": {
			fault: func(sys *system) {
				sys.getdents = failAt(sys.getdents, "sub")
			},
			path: "sub", reason: "the folder cannot be listed, and something in it may be missing: input/output error",
			stored: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "large"), bytes.Repeat([]byte("x"), size), 0o644)
			writeFile(t, filepath.Join(dir, "small"), bytes.Repeat([]byte("x"), 100), 0o644)
			writeFile(t, filepath.Join(dir, "sub/file"), nil, 0o644)
			sys := hostSystem()
			c.fault(sys)
			m := writeTreeOf(t, dir, TreeOptions{sys: sys})
			if len(m.stats.Damaged) != 1 || m.stats.DamagedCount != 1 || m.stats.Damaged[0].Path != c.path ||
				!strings.Contains(m.stats.Damaged[0].Reason, c.reason) {
				t.Fatalf("damaged %+v, want one of %q: %s", m.stats.Damaged, c.path, c.reason)
			}
			entries, _ := readIndex(t, m)
			inTar := readTar(t, m)
			found := false
			for _, e := range entries {
				if e.Path == c.path {
					found = true
					if e.Damaged != m.stats.Damaged[0].Reason {
						t.Errorf("index says %q", e.Damaged)
					}
				}
			}
			if found != c.stored {
				t.Errorf("in the index: %v", found)
			}
			if c.data != nil && !c.data(inTar[c.path].data) {
				t.Error("data is not what was read, with zeros for the rest")
			}
		})
	}
}

func failAt(call func(int, string, []byte) (int, error), at string) func(int, string, []byte) (int, error) {
	return func(fd int, path string, buf []byte) (int, error) {
		if path == at {
			return 0, unix.EIO
		}
		return call(fd, path, buf)
	}
}

// badBlocks makes a part of a file unreadable, as a bad disk does: what comes before it in a read is still returned.
func badBlocks(name string, from, to int64) func(*system) {
	return func(sys *system) {
		pread := sys.pread
		sys.pread = func(fd int, path string, p []byte, offset int64) (int, error) {
			if path == name && offset+int64(len(p)) > from && offset < to {
				if offset >= from {
					return 0, unix.EIO
				}
				p = p[:from-offset]
			}
			return pread(fd, path, p, offset)
		}
	}
}

// statAfterRead changes what the second look at a file shows.
func statAfterRead(name string, change func(*unix.Statx_t)) func(*system) {
	return func(sys *system) {
		statx := sys.statx
		sys.statx = func(fd int, at string, flags int, path string) (unix.Statx_t, error) {
			st, err := statx(fd, at, flags, path)
			if path == name && flags&unix.AT_EMPTY_PATH != 0 {
				change(&st)
			}
			return st, err
		}
	}
}

func TestMountedElsewhereIsCountedAndNotStored(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "mnt/inside"), []byte("x"), 0o644)
	writeFile(t, filepath.Join(dir, "bound"), []byte("x"), 0o644)
	sys := hostSystem()
	statx := sys.statx
	sys.statx = func(fd int, name string, flags int, path string) (unix.Statx_t, error) {
		st, err := statx(fd, name, flags, path)
		if path == "mnt" || path == "bound" {
			st.Mnt_id++
		}
		return st, err
	}
	m := writeTreeOf(t, dir, TreeOptions{sys: sys})
	entries, _ := readIndex(t, m)
	if m.stats.NotStored[NotStoredMount] != 2 || len(entries) != 3 {
		t.Errorf("not stored %v, entries %+v", m.stats.NotStored, entries)
	}
	if inTar := readTar(t, m); len(inTar) != 2 || inTar["mnt/"].Header == nil {
		t.Errorf("in the stream: %v", inTar)
	}
}

func TestExcludedIsCounted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lost+found/#1/a", "lost+found/#2", "cache/x", "keep/lost+found/y", "keep/z.tmp"} {
		writeFile(t, filepath.Join(dir, name), make([]byte, 4096), 0o644)
	}
	matcher, err := NewMatcher([]string{"/lost+found/*", "/cache", "*.tmp"})
	must(t, err)
	m := writeTreeOf(t, dir, TreeOptions{Exclude: matcher})
	if m.stats.ExcludedEntries != 6 || m.stats.ExcludedBytes != 4*4096 {
		t.Errorf("excluded %d entries, %d bytes", m.stats.ExcludedEntries, m.stats.ExcludedBytes)
	}
	var got []string
	entries, _ := readIndex(t, m)
	for _, e := range entries {
		got = append(got, e.Path)
	}
	if want := ". keep keep/lost+found keep/lost+found/y lost+found"; strings.Join(got, " ") != want {
		t.Errorf("entries %q, want %q", got, want)
	}
}

// limitedWriter fails after a number of bytes.
type limitedWriter struct{ left int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

// writerFunc is a function as a writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestErrorsEndEverything(t *testing.T) {
	dir := plainTree(t, 300)
	for name, c := range map[string]struct {
		run  func(t *testing.T, ctx context.Context, cancel context.CancelCauseFunc, pool *Pool) error
		want error
	}{
		"archive": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, pool *Pool) error {
			_, err := writeTreeTo(t, ctx, dir, &limitedWriter{1000}, io.Discard, TreeOptions{Pool: pool})
			return err
		}, unix.ENOSPC},
		"index": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, pool *Pool) error {
			_, err := writeTreeTo(t, ctx, dir, io.Discard, &limitedWriter{10}, TreeOptions{Pool: pool})
			return err
		}, unix.ENOSPC},
		"short write": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, pool *Pool) error {
			short := writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil })
			_, err := writeTreeTo(t, ctx, dir, short, io.Discard, TreeOptions{Pool: pool})
			return err
		}, io.ErrShortWrite},
		"cancelled": {func(t *testing.T, ctx context.Context, cancel context.CancelCauseFunc, pool *Pool) error {
			out := writerFunc(func(p []byte) (int, error) { cancel(errStopped); return len(p), nil })
			_, err := writeTreeTo(t, ctx, dir, out, io.Discard, TreeOptions{Pool: pool})
			return err
		}, errStopped},
		"no memory": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, pool *Pool) error {
			sys := hostSystem()
			sys.pread = func(int, string, []byte, int64) (int, error) { return 0, unix.ENOMEM }
			_, err := writeTreeTo(t, ctx, dir, io.Discard, io.Discard, TreeOptions{Pool: pool, sys: sys})
			return err
		}, unix.ENOMEM},
		"image": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, pool *Pool) error {
			src := bytes.NewReader(bytes.Repeat([]byte("x"), 64<<20))
			_, err := WriteImage(ctx, src, src.Size(), &limitedWriter{1000}, ImageOptions{Pool: pool})
			return err
		}, unix.ENOSPC},
		"stream, writing": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, _ *Pool) error {
			_, err := WriteStream(ctx, bytes.NewReader(make([]byte, 64<<20)), &limitedWriter{100}, StreamOptions{Workers: 2})
			return err
		}, unix.ENOSPC},
		"stream, reading": {func(t *testing.T, ctx context.Context, _ context.CancelCauseFunc, _ *Pool) error {
			src := io.MultiReader(bytes.NewReader(make([]byte, 8<<20)), brokenSource{io.ErrUnexpectedEOF})
			_, err := WriteStream(ctx, src, io.Discard, StreamOptions{Workers: 2})
			return err
		}, io.ErrUnexpectedEOF},
		"stream, cancelled": {func(t *testing.T, ctx context.Context, cancel context.CancelCauseFunc, _ *Pool) error {
			opts := StreamOptions{OnProgress: func(Progress) { cancel(errStopped) }}
			_, err := WriteStream(ctx, bytes.NewReader(make([]byte, 8<<20)), io.Discard, opts)
			return err
		}, errStopped},
	} {
		t.Run(name, func(t *testing.T) {
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			pool := NewPool(2)
			ctx, cancel := context.WithCancelCause(context.Background())
			err := c.run(t, ctx, cancel, pool)
			cancel(nil)
			pool.Close()
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			for range 6000 { // goroutines that have been told to end need a moment
				if runtime.NumGoroutine() <= goroutines {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				buf := make([]byte, 1<<16)
				t.Errorf("%d goroutines, %d before:\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
			}
			if n := openFiles(t); n != files {
				t.Errorf("%d open files, %d before", n, files)
			}
		})
	}
}

var errStopped = errors.New("stopped by a person")

type brokenSource struct{ err error }

func (r brokenSource) Read([]byte) (int, error) { return 0, r.err }

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}
