package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeGenerator makes trees that reach every limit, scaled down.
type treeGenerator struct {
	t      *testing.T
	rng    *rand.Rand
	xattrs bool // the filesystem of the tests has attributes of users
	files  []string
}

func (g *treeGenerator) name() string {
	letters := []string{"n", "ü", "\xff", "\x01", " ", "\""}
	return strings.Repeat(letters[g.rng.IntN(len(letters))], 1+g.rng.IntN(40)) + fmt.Sprint(g.rng.IntN(1000))
}

// fill makes what is in a folder.
func (g *treeGenerator) fill(dir string, depth int) {
	must(g.t, os.MkdirAll(dir, 0o755))
	for range g.rng.IntN(10) {
		path := filepath.Join(dir, g.name())
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		switch kind := g.rng.IntN(9); {
		case kind < 3 && depth > 0:
			g.fill(path, depth-1-g.rng.IntN(2))
		case kind == 3:
			must(g.t, os.Symlink(strings.Repeat("t", 1+g.rng.IntN(300)), path))
		case kind == 4 && len(g.files) > 0:
			must(g.t, os.Link(g.files[g.rng.IntN(len(g.files))], path))
		case kind == 5:
			g.sparse(path)
		case kind == 6:
			must(g.t, unix.Mkfifo(path, 0o640))
		default:
			must(g.t, os.WriteFile(path, noise(path, g.rng.IntN(1<<g.rng.IntN(14))), 0o640))
			g.files = append(g.files, path)
		}
	}
	if len(g.files) > 0 && g.xattrs {
		for i := range g.rng.IntN(4) {
			file := g.files[g.rng.IntN(len(g.files))]
			must(g.t, unix.Setxattr(file, fmt.Sprintf("user.%s%d", []string{"a", "b=c"}[g.rng.IntN(2)], i), noise(file, g.rng.IntN(400)), 0))
		}
	}
}

func (g *treeGenerator) sparse(path string) {
	f, err := os.Create(path)
	must(g.t, err)
	for range g.rng.IntN(20) {
		_, err := f.WriteAt(noise(path, 4096), int64(g.rng.IntN(50))*16384)
		must(g.t, err)
	}
	must(g.t, f.Truncate(int64(g.rng.IntN(1<<20))))
	must(g.t, f.Close())
	g.files = append(g.files, path)
}

// scaled returns limits of which some are within reach.
func scaled(rng *rand.Rand) Limits {
	some := func(limit *int, least, spread int) {
		if rng.IntN(3) == 0 {
			*limit = least + rng.IntN(spread)
		}
	}
	var l Limits
	var entries, stream, spillBytes int
	some(&entries, 1, 100)
	some(&stream, 1, 1<<20)
	some(&spillBytes, 1, 10_000)
	some(&l.Depth, 1, 3)
	some(&l.PathBytes, 1, 400)
	some(&l.IndexListBytes, 500, 8000)
	some(&l.AttributeBytes, 1, 600)
	some(&l.OddAttributeBytes, 1, 600)
	some(&l.BlockBytes, 1, 4000)
	some(&l.BlockEntries, 1, 10)
	some(&l.MemberIndexBytes, 1, 4000)
	some(&l.SparsePieces, 1, 10)
	some(&l.Damaged, 1, 10)
	some(&l.DamagedBytes, 1, 300)
	some(&l.NameBytes, 1, 2000)
	some(&l.LinkBytes, 1, 500)
	l.Entries, l.StreamBytes, l.SpillBytes = int64(entries), int64(stream), int64(spillBytes)
	return l
}

// Whatever WriteTree archives without an error is listed, verified, sampled, read and extracted by the readers, and is the
// tree that it was; whatever it does not archive is beyond a bound.
func TestWhatIsArchivedComesBack(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	must(t, os.WriteFile(probe, nil, 0o600))
	xattrs := unix.Setxattr(probe, "user.probe", nil, 0) == nil
	reached := map[string]int{}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 7))
		dir := filepath.Join(t.TempDir(), "tree")
		g := &treeGenerator{t: t, rng: rng, xattrs: xattrs}
		g.fill(dir, 6)
		limits := scaled(rng)
		opts := TreeOptions{Limits: limits, TempDir: t.TempDir(), openDirs: 1 + rng.IntN(4), sys: hostSystem()}
		if seed%4 == 0 {
			unreadable := opts.sys.pread
			opts.sys.pread = func(fd int, path string, p []byte, offset int64) (int, error) {
				if pathHash(path)%3 == 0 {
					return 0, unix.EIO
				}
				return unreadable(fd, path, p, offset)
			}
		}
		var archive, index bytes.Buffer
		stats, err := writeTreeTo(t, t.Context(), dir, &archive, &index, opts)
		var beyond *LimitError
		if errors.As(err, &beyond) {
			reached[beyond.What]++
			continue
		}
		if err != nil {
			t.Fatalf("seed %d, %+v: %v", seed, limits, err)
		}
		reached["none"]++
		m := made{archive.Bytes(), index.Bytes(), stats}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { comesBack(t, rng, dir, m, limits.withDefaults()) }) {
			t.Logf("%+v", limits)
		}
	}
	t.Log(reached)
	for _, what := range []string{LimitEntries, LimitStreamBytes, LimitDepth, LimitPathBytes, LimitIndexBytes, LimitSpillBytes, "none"} {
		if reached[what] == 0 {
			t.Errorf("no tree was beyond the bound of %s", what)
		}
	}
}

// comesBack holds an archive against the tree that it was made of.
func comesBack(t *testing.T, rng *rand.Rand, dir string, m made, limits Limits) {
	entries, _ := readIndex(t, m) // which holds it against docs/format.md
	x, err := OpenIndex(t.Context(), bytes.NewReader(m.index), int64(len(m.index)), -1)
	must(t, err)
	for i, b := range x.Blocks() {
		text, err := x.block(t.Context(), i)
		must(t, err)
		lines := bytes.SplitAfter(text, []byte("\n"))
		last := len(lines[len(lines)-2]) // behind it is nothing
		for _, line := range slices.Backward(lines) {
			if bytes.HasPrefix(line, []byte(`{"path`)) {
				last = len(line)
				break
			}
		}
		if b.Entries > limits.BlockEntries || b.Entries > 1 && len(text)-last > limits.BlockBytes+1000 {
			t.Errorf("a block of %d entries and %d bytes, the limits are %d and %d", b.Entries, len(text), limits.BlockEntries, limits.BlockBytes)
		}
	}
	if n := int64(len(m.stats.Damaged)); n > m.stats.DamagedCount || n > int64(limits.Damaged) {
		t.Errorf("%d damaged entries listed of %d, the limit is %d", n, m.stats.DamagedCount, limits.Damaged)
	}
	for _, opts := range []VerifyOptions{{Level: VerifyFull}, {Level: VerifyQuick}, {Level: VerifySample, SamplePercent: 1 + rng.IntN(90), Seed: rng.Uint64()}} {
		got, err := Verify(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), x, opts)
		if err != nil || !got.Good() {
			t.Errorf("verify at level %d: %q, %v", opts.Level, got.Findings, err)
		}
	}
	var rebuilt bytes.Buffer
	if _, err := RebuildIndex(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), &rebuilt); err != nil {
		t.Error(err)
	}
	want := tree(t, dir)
	if len(entries) != len(want) {
		t.Errorf("%d entries, want %d", len(entries), len(want))
	}
	damaged, joined := map[string]bool{}, map[string]bool{} // joined are files of which holes became data
	for _, e := range entries {
		joined[e.Path] = e.StoredBytes < e.SizeBytes || e.Type == TypeHardlink && joined[e.Linkname]
		damaged[e.Path] = e.Damaged != "" || e.Type == TypeHardlink && damaged[e.Linkname]
		if !damaged[e.Path] && (e.Type == TypeFile || e.Type == TypeHardlink) {
			readsBack(t, x, m.archive, e, filepath.Join(dir, e.Path))
		}
	}
	to := t.TempDir()
	root, err := os.OpenRoot(to)
	must(t, err)
	defer root.Close()
	r, err := NewReader(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	if _, err := Extract(t.Context(), r, root, ExtractOptions{Index: x}); err != nil {
		t.Fatal(err)
	}
	got := tree(t, to)
	for path := range want {
		if path == rootPath || damaged[path] || m.stats.NotStored[NotStoredXattrSize] > 0 || joined[path] && limits.SparsePieces < 100 {
			delete(want, path) // the root is the folder that was there; of the others the content was compared
			delete(got, path)
		}
	}
	compareTrees(t, want, got)
}

// readsBack reads one file by the index.
func readsBack(t *testing.T, x *Index, archive []byte, e Entry, path string) {
	t.Helper()
	found, members, err := x.Find(context.Background(), e.Path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(t.Context(), bytes.NewReader(archive), found, members)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	want, readErr := os.ReadFile(path)
	if err != nil || readErr != nil || !bytes.Equal(got, want) {
		t.Errorf("%q: %d bytes, want %d; %v, %v", e.Path, len(got), len(want), err, readErr)
	}
}
