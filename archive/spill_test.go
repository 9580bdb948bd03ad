package archive

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func tempSpill(t testing.TB, limit int64) *spill {
	t.Helper()
	s := &spill{dir: t.TempDir(), limit: limit}
	t.Cleanup(func() {
		if left := s.used.Load(); left != 0 {
			t.Errorf("%d bytes of temporary files are left", left)
		}
		if names, err := os.ReadDir(s.dir); err != nil || len(names) > 0 {
			t.Errorf("temporary files are left: %v, %v", names, err)
		}
	})
	return s
}

// Lists of any size, on top of one another, come back sorted and whole, with as little memory as there may be.
func TestNamesInTemporaryFiles(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		stack := nameStack{spill: tempSpill(t, 1<<30), budget: 1 + rng.IntN(4000)}
		type open struct {
			list nameList
			want []dirent
		}
		var all []*open
		check := func(o *open, n int) {
			for range n {
				d, ok, err := stack.pop(&o.list)
				must(t, err)
				if !ok {
					if len(o.want) > 0 {
						t.Fatalf("seed %d: %d names are missing", seed, len(o.want))
					}
					return
				}
				if len(o.want) == 0 || d != o.want[0] {
					t.Fatalf("seed %d: got %+v, want the first of %d names", seed, d, len(o.want))
				}
				o.want = o.want[1:]
			}
		}
		for range 60 {
			if len(all) > 0 && rng.IntN(3) == 0 {
				last := all[len(all)-1]
				check(last, len(last.want)+1)
				must(t, stack.drop(&last.list))
				all = all[:len(all)-1]
				continue
			}
			lister, o := stack.begin(), &open{}
			for range rng.IntN(12) {
				var some []dirent
				for range rng.IntN(400) {
					some = append(some, dirent{strings.Repeat("n", 1+rng.IntN(200)) + fmt.Sprint(rng.Uint64()), uint8(rng.IntN(8))})
				}
				o.want = append(o.want, some...)
				must(t, lister.add(some))
			}
			sortNames(o.want)
			var err error
			o.list, err = lister.finish()
			must(t, err)
			all = append(all, o)
			check(o, rng.IntN(30))
		}
		for _, o := range slices.Backward(all) {
			check(o, len(o.want)+1)
			must(t, stack.drop(&o.list))
		}
		if stack.held != 0 {
			t.Errorf("seed %d: %d bytes are held of nothing", seed, stack.held)
		}
		stack.close()
	}
}

func TestLinksInTemporaryFiles(t *testing.T) {
	links := newLinkTable(tempSpill(t, 1<<30), 50*linkOverheadBytes)
	const count = linkSlotsLeast * 5 / 8 // of a table that was made larger
	key := func(i int) inodeKey { return inodeKey{uint32(i % 3), uint32(i % 5), uint64(i) << 20} }
	name := func(i int) string { return strings.Repeat("p", i%300) + fmt.Sprint(i) }
	for i := range count {
		if _, ok, err := links.take(key(i)); ok || err != nil {
			t.Fatalf("%d is known before: %v", i, err)
		}
		must(t, links.put(key(i), firstName{name(i), int64(i), 2}))
	}
	for i := range count {
		first, ok, err := links.take(key(i))
		if err != nil || !ok || first.path != name(i) || first.tarOffset != int64(i) {
			t.Fatalf("%d: %+v, %t, %v", i, first, ok, err)
		}
	}
	if links.held > links.budget {
		t.Errorf("%d bytes in memory, of %d allowed", links.held, links.budget)
	}
	links.close()
}

// What is in memory and what is in temporary files makes no difference to the archive, and they have a bound.
func TestTreeOfLittleMemoryIsTheSame(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%4), fmt.Sprintf("e%d", i%7), fmt.Sprintf("file with a name %d", i))
		writeFile(t, name, noise(name, i), 0o644)
		if i%3 == 0 {
			must(t, os.Link(name, filepath.Join(dir, fmt.Sprintf("z%d", i))))
		}
	}
	want := writeTreeOf(t, dir, TreeOptions{})
	little := Limits{NameBytes: 500, LinkBytes: 500}
	got := writeTreeOf(t, dir, TreeOptions{Limits: little, TempDir: t.TempDir(), openDirs: 1})
	if !bytes.Equal(got.archive, want.archive) || !bytes.Equal(got.index, want.index) {
		t.Error("another archive or index")
	}
	little.SpillBytes = 10_000
	var none bytes.Buffer
	_, err := writeTreeTo(t, t.Context(), dir, &none, &none, TreeOptions{Limits: little, TempDir: t.TempDir()})
	if want := "more than 10 000 bytes of temporary files"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestFindInodes(t *testing.T) {
	dir := t.TempDir()
	var inodes []uint64
	want := map[uint64]string{}
	for i := range 200 {
		name := fmt.Sprintf("d%d/f%d", i%9, i)
		writeFile(t, filepath.Join(dir, name), nil, 0o644)
		if i%5 == 0 {
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, name), &st))
			inodes, want[st.Ino] = append(inodes, st.Ino), name
		}
	}
	root, err := os.Open(dir)
	must(t, err)
	defer root.Close()
	got, err := FindInodes(t.Context(), root, inodes, TreeOptions{Limits: Limits{NameBytes: 100}, TempDir: t.TempDir()})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err = FindInodes(t.Context(), root, inodes, TreeOptions{Limits: Limits{Entries: 100}}); err == nil || len(got) == len(want) {
		t.Errorf("%d found beyond the bound, %v", len(got), err)
	}
}

// What a guest makes large leaves room for the records of others.
func TestTemporaryFilesLeaveRoom(t *testing.T) {
	const total = 1 << 30 // a sixteenth is 64 MiB
	for _, test := range []struct{ free, most int64 }{{100 << 20, 36 << 20}, {64 << 20, 0}, {total, 8 << 20}} {
		s := tempSpill(t, 8<<20)
		if test.most > s.limit {
			s.limit = 1 << 30
		}
		s.room = func(string) (int64, int64, error) { return test.free, total, nil }
		file, err := s.create()
		must(t, err)
		var refused *LimitError
		at := int64(0)
		for ; refused == nil && at < s.limit+1; at += roomEveryBytes {
			if err := file.writeAt([]byte{1}, at+roomEveryBytes-1); err != nil && !errors.As(err, &refused) {
				t.Fatal(err)
			}
		}
		if took := s.used.Load(); refused == nil || took != test.most {
			t.Errorf("of %d free bytes the files took %d, want %d: %v", test.free, took, test.most, refused)
		}
		file.close()
	}
}
