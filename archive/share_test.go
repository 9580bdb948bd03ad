package archive

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever files share, each byte is either the first of its place, or named with the file and the offset where that lies.
func TestShareMapNamesTheFirstOfEachPlace(t *testing.T) {
	const block, blocks = 4 << 10, 3 * shareBucketBytes / (4 << 10)
	random := rand.New(rand.NewPCG(1, 2))
	first := map[int64]sharedSource{} // by block
	m := newShareMap()
	for file := range int64(200) {
		var extents []physical
		offset := int64(0)
		for range 1 + random.IntN(6) {
			at := shareBucketBytes - 50*block + random.Int64N(100)*block // around the border of two buckets
			if random.IntN(20) == 0 {
				at = random.Int64N(blocks) * block
			}
			length := (1 + random.Int64N(40)) * block
			offset += random.Int64N(3) * block
			extents = append(extents, physical{offset: offset, length: length, at: at})
			offset += length
		}
		want := map[int64]sharedSource{}
		for _, x := range extents {
			for b := int64(0); b < x.length; b += block {
				if of, known := first[x.at+b]; known {
					want[x.offset+b] = of
				} else {
					first[x.at+b] = sharedSource{file, x.offset + b}
				}
			}
		}
		got := map[int64]sharedSource{}
		end := int64(0)
		for _, r := range m.add(file, extents) {
			if r.OffsetBytes < end {
				t.Fatalf("file %d: %+v begins before byte %d", file, r, end)
			}
			end = r.OffsetBytes + r.LengthBytes
			for b := int64(0); b < r.LengthBytes; b += block {
				got[r.OffsetBytes+b] = sharedSource{r.From, r.FromOffsetBytes + b}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("file %d with %+v:\n%v\nwant\n%v", file, extents, got, want)
		}
	}
}

func TestShareMapIsBounded(t *testing.T) {
	m := newShareMap()
	m.free = 3
	for i := range int64(10) {
		m.add(i, []physical{{length: 4096, at: i * 8192}})
	}
	if got := m.add(11, []physical{{length: 10 * 8192}}); sharedBytes(got) != 3*4096 {
		t.Errorf("%+v", got)
	}
	var many []physical
	for i := range int64(2 * maxShared) {
		many = append(many, physical{offset: i * 8192, length: 4096, at: 0})
	}
	if got := m.add(12, many); len(got) != maxShared {
		t.Errorf("%d ranges", len(got))
	}
}

func TestCompressedExtentsAreKnownAsAWhole(t *testing.T) {
	m := newShareMap()
	m.add(0, []physical{{length: 128 << 10, at: 4096, packed: true}})
	if got := m.add(1, []physical{{length: 128 << 10, at: 8192, packed: true}}); len(got) > 0 { // 4 KiB are enough for it
		t.Errorf("two that lie behind each other: %+v", got)
	}
	want := []Shared{{4096, 128 << 10, 0, 0}}
	if got := m.add(2, []physical{{offset: 4096, length: 128 << 10, at: 4096, packed: true}}); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// cloneByCopy does what the kernel does, by its rules, on filesystems that cannot.
func cloneByCopy(fd int, r *unix.FileCloneRange) error {
	const block = 4 << 10
	var from, to unix.Stat_t
	if err := unix.Fstat(int(r.Src_fd), &from); err != nil {
		return err
	}
	if err := unix.Fstat(fd, &to); err != nil {
		return err
	}
	end := int64(r.Src_offset + r.Src_length)
	if r.Src_offset%block != 0 || r.Dest_offset%block != 0 || end > from.Size ||
		r.Src_length%block != 0 && (end != from.Size || int64(r.Dest_offset+r.Src_length) < to.Size) {
		return unix.EINVAL
	}
	data := make([]byte, r.Src_length)
	if _, err := unix.Pread(int(r.Src_fd), data, int64(r.Src_offset)); err != nil {
		return err
	}
	_, err := unix.Pwrite(fd, data, int64(r.Dest_offset))
	return err
}

// sharedTree makes files of which some are said to share their data, and archives them.
func sharedTree(t *testing.T, dir string) (made, int64) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{7})
	noise := func(n int) []byte {
		p := make([]byte, n)
		_, _ = random.Read(p)
		return p
	}
	big, small := noise(9<<20+123), noise(10_000)
	changed := slices.Clone(big)
	copy(changed[5<<20:], noise(4096))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	places := map[string][]physical{
		"a":         {{0, 9<<20 + 123, 1 << 30, false}},
		"b":         {{0, 9<<20 + 123, 1 << 30, false}},
		"changed":   {{0, 5 << 20, 1 << 30, false}, {5<<20 + 4096, 4<<20 + 123 - 4096, 1<<30 + 5<<20 + 4096, false}},
		"sub/small": {{0, 10_000, 1 << 20, false}},
		"sub/twice": {{0, 8192, 1 << 20, false}, {8192, 10_000, 1 << 20, false}},
		"twice":     {{0, 1 << 20, 1 << 31, false}, {1 << 20, 1 << 20, 1 << 31, false}},
		"wrong":     {{0, 1 << 20, 1 << 30, false}}, // which it is not: nothing but the data counts
	}
	half := noise(1 << 20)
	for name, data := range map[string][]byte{"a": big, "b": big, "changed": changed, "sub/small": small,
		"sub/twice": slices.Concat(small[:8192], small), "twice": slices.Concat(half, half), "wrong": noise(1 << 20)} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	sys := hostSystem()
	sys.canShare = func(int) bool { return true }
	sys.shared = func(_ int, path string, _ int64, list []physical) ([]physical, error) {
		if path == "sub" {
			return list, fmt.Errorf("a folder has no data: %w", fs.ErrInvalid)
		}
		return append(list, places[path]...), nil
	}
	m := writeTreeOf(t, dir, TreeOptions{sys: sys})
	const bytes = 9<<20 + 123 + 9<<20 + 123 - 4096 + 8192 + 10_000 + 1<<20 + 1<<20
	return m, bytes
}

func TestWhatWasSharedIsSharedAgain(t *testing.T) {
	src := t.TempDir()
	m, shared := sharedTree(t, src)
	if m.stats.SharedBytes != shared {
		t.Errorf("%d bytes are said to be shared, want %d", m.stats.SharedBytes, shared)
	}
	index := m.openIndex(t)
	for _, c := range []struct {
		name   string
		opts   ExtractOptions
		shared int64
	}{
		{"as it was", ExtractOptions{Index: index, cloneRange: cloneByCopy}, shared - 1<<20},
		{"some of it", ExtractOptions{Index: index, Paths: []string{"b", "sub"}, cloneRange: cloneByCopy}, 8192 + 10_000},
		{"where it cannot be", ExtractOptions{Index: index, cloneRange: func(int, *unix.FileCloneRange) error { return unix.EOPNOTSUPP }}, 0},
		{"where the kernel will not", ExtractOptions{Index: index, cloneRange: func(int, *unix.FileCloneRange) error { return unix.EINVAL }}, 0},
		{"without an index", ExtractOptions{cloneRange: cloneByCopy}, 0},
		{"as this host can", ExtractOptions{Index: index}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			r, err := NewReader(context.Background(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
			must(t, err)
			defer r.Close()
			c.opts.Rebuild = true
			stats, err := Extract(context.Background(), r, root, c.opts)
			must(t, err)
			if c.shared >= 0 && stats.SharedBytes != c.shared {
				t.Errorf("%d bytes are shared, want %d", stats.SharedBytes, c.shared)
			}
			want, got := tree(t, src), tree(t, dir)
			if len(c.opts.Paths) > 0 {
				delete(got, ".") // it is new
				for name := range want {
					if _, taken := got[name]; !taken {
						delete(want, name)
					}
				}
			}
			compareTrees(t, want, got)
		})
	}
}

// An index may say anything, to make a file of what it must not hold, or to have an entry wait for itself.
func TestClaimsOfSharingAreHeldAgainstTheData(t *testing.T) {
	src := t.TempDir()
	m, _ := sharedTree(t, src)
	index := m.openIndex(t)
	offsets := map[string]int64{}
	for e, err := range index.All(t.Context()) {
		must(t, err)
		offsets[e.Path] = e.TarOffset
	}
	for name, claim := range map[string]func(own int64) []Shared{
		"other data":       func(int64) []Shared { return []Shared{{0, 1 << 20, offsets["a"], 4096}} },
		"itself":           func(own int64) []Shared { return []Shared{{0, 1 << 20, own, 0}} },
		"what comes later": func(int64) []Shared { return []Shared{{0, 1 << 20, offsets["wrong"] + 512, 0}} },
		"a folder":         func(int64) []Shared { return []Shared{{0, 1 << 20, offsets["sub"], 0}} },
		"nothing":          func(int64) []Shared { return []Shared{{0, 1 << 20, 7, 0}} },
		"disorder":         func(int64) []Shared { return []Shared{{8192, 8192, 0, 0}, {0, 16384, 0, 0}} },
		"beyond the end":   func(int64) []Shared { return []Shared{{0, 1 << 60, offsets["a"], 0}} },
		"crooked":          func(int64) []Shared { return []Shared{{100, 1 << 20, offsets["a"], 50}} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			var lines bytes.Buffer
			w := newIndexWriter(&lines, defaultLimits())
			members, err := index.Members(t.Context())
			must(t, err)
			var all []Entry
			for e, err := range index.All(t.Context()) {
				must(t, err)
				if e.Type == TypeFile {
					e.Shared = claim(e.TarOffset)
				}
				all = append(all, e)
			}
			for i, member := range members {
				var in []Entry
				for len(all) > 0 && (i == len(members)-1 || all[0].TarOffset+all[0].TarBytes <= member.TarOffset+member.TarBytes) {
					in, all = append(in, all[0]), all[1:]
				}
				must(t, w.member(summedMember{Member: member}, in))
			}
			at, err := w.finish()
			must(t, err)
			forged, err := OpenIndex(t.Context(), bytes.NewReader(lines.Bytes()), int64(lines.Len()), at)
			must(t, err)
			r, err := NewReader(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
			must(t, err)
			defer r.Close()
			_, err = Extract(t.Context(), r, root, ExtractOptions{Index: forged, Rebuild: true, cloneRange: cloneByCopy})
			must(t, err)
			compareTrees(t, tree(t, src), tree(t, dir))
		})
	}
}

func TestFilesAreFoundByTheirPlaceInTheStream(t *testing.T) {
	src := t.TempDir()
	for i := range 2500 {
		must(t, os.WriteFile(filepath.Join(src, fmt.Sprintf("%04d", i)), bytes.Repeat([]byte{byte(i)}, i%7*100), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(src, "1200"), bytes.Repeat([]byte("large"), 3<<20), 0o600))
	m := writeTreeOf(t, src, TreeOptions{})
	index := m.openIndex(t)
	var cache blockCache
	for e, err := range index.All(t.Context()) {
		must(t, err)
		path, err := index.fileAt(t.Context(), e.TarOffset, &cache)
		if e.Type == TypeFile && (err != nil || path != e.Path) {
			t.Fatalf("at %d is %q, want %q (%v)", e.TarOffset, path, e.Path, err)
		}
		if _, err := index.fileAt(t.Context(), e.TarOffset+1, &cache); err == nil {
			t.Fatalf("a file in the middle of %q", e.Path)
		}
	}
}
