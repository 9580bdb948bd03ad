// Package storetest is the conformance suite of package store: what every implementation must pass, on whatever
// system or server it stands.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/store"
)

// largeBytes is more than one part of any upload in parts that S3 has by default, and no multiple of anything.
const largeBytes = 40<<20 + 12345

// Run runs the suite. For each of its tests it calls open, which must return a store without any object and see to it
// that the store is closed and cleared at the end of the test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"RoundTrip", testRoundTrip},
		{"OddKeys", testOddKeys},
		{"BadKeys", testBadKeys},
		{"VisibleAfterCommitOnly", testVisibleAfterCommitOnly},
		{"Replace", testReplace},
		{"Abort", testAbort},
		{"WriterEndsOnce", testWriterEndsOnce},
		{"NotExist", testNotExist},
		{"List", testList},
		{"ListOfMany", testListOfMany},
		{"Folders", testFolders},
		{"Look", testLook},
		{"Marks", testMarks},
		{"Delete", testDelete},
		{"RangedReads", testRangedReads},
		{"Large", testLarge},
		{"Shared", testShared},
		{"ConcurrentKeys", testConcurrentKeys},
		{"ConcurrentWritersOfOneKey", testConcurrentWritersOfOneKey},
		{"FolderComesAndGoes", testFolderComesAndGoes},
		{"Cancelled", testCancelled},
		{"CancelledWriter", testCancelledWriter},
		{"Sweep", testSweep},
		{"LockUntil", testLockUntil},
		{"IfAbsent", testIfAbsent},
		{"OneOfManyIsFirst", testOneOfManyIsFirst},
		{"NamesStayApart", testNamesStayApart},
		{"Probe", testProbe},
		{"Usage", testUsage},
		{"String", testString},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// RunIfAbsent runs the part of the suite that is about objects which may replace nothing.
func RunIfAbsent(t *testing.T, open func(t *testing.T) store.Store) {
	t.Run("IfAbsent", func(t *testing.T) { testIfAbsent(t, open(t)) })
	t.Run("OneOfManyIsFirst", func(t *testing.T) { testOneOfManyIsFirst(t, open(t)) })
}

const folder = "host/vg/lv/2026-11-20T010001Z"

// put writes an object in pieces.
func put(t *testing.T, s store.Store, key string, data []byte) store.Object {
	t.Helper()
	object, err := tryPut(s, key, data)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return object
}

func tryPut(s store.Store, key string, data []byte) (store.Object, error) {
	opts := store.PutOptions{MaxBytes: int64(len(data)), Tags: map[string]string{"voltar-run": "20261120T010001Z-3f9a0c"}}
	w, err := s.Create(context.Background(), key, opts)
	if err != nil {
		return store.Object{}, err
	}
	for piece := range slices.Chunk(data, 1<<20) {
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			return store.Object{}, errors.Join(fmt.Errorf("wrote %d of %d", n, len(piece)), err, w.Abort())
		}
	}
	return w.Commit(context.Background())
}

func get(t *testing.T, s store.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(context.Background(), key)
	if err != nil {
		t.Fatalf("open %q: %v", key, err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	if r.SizeBytes() != int64(len(data)) {
		t.Errorf("reader of %q says %d bytes and gives %d", key, r.SizeBytes(), len(data))
	}
	return data
}

func keys(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	list, _ := steps(t, s, prefix)
	return list
}

// steps lists keys, and counts the steps in which the store does so.
func steps(t *testing.T, s store.Store, prefix string) (list []string, made int64) {
	t.Helper()
	var count atomic.Int64
	objects, err := s.List(store.WithProgress(context.Background(), func() { count.Add(1) }), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	list = []string{}
	for _, o := range objects {
		list = append(list, o.Key)
	}
	return list, count.Load()
}

func folders(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	names, err := s.Folders(context.Background(), prefix)
	if err != nil {
		t.Fatalf("folders of %q: %v", prefix, err)
	}
	return names
}

func remove(t *testing.T, s store.Store, key string) {
	t.Helper()
	if err := s.Delete(context.Background(), key); err != nil {
		t.Fatalf("delete %q: %v", key, err)
	}
}

// begin starts an object and writes data without an end.
func begin(t *testing.T, s store.Store, key string, data []byte) store.Writer {
	t.Helper()
	w, err := s.Create(context.Background(), key, store.PutOptions{})
	if err != nil {
		t.Fatalf("create %q: %v", key, err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatalf("write %q: %v", key, err)
	}
	return w
}

func noise(seed uint64, sizeBytes int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	data := make([]byte, sizeBytes)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails, as its documentation promises
	return data
}

func testRoundTrip(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, 4096, 1<<20 + 7} {
		key := fmt.Sprintf("%s/file-%d", folder, size)
		data := noise(uint64(size), size)
		before := time.Now()
		committed := put(t, s, key, data)
		if committed.Key != key || committed.SizeBytes != int64(size) {
			t.Errorf("Commit = %+v, want %q of %d bytes", committed, key, size)
		}
		if got := get(t, s, key); !bytes.Equal(got, data) {
			t.Errorf("%q: %d bytes came back and are not those written", key, len(got))
		}
		stat, err := s.Stat(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		if stat.Key != key || stat.SizeBytes != int64(size) {
			t.Errorf("Stat = %+v, want %q of %d bytes", stat, key, size)
		}
		// Servers have clocks of their own, of whole seconds.
		if d := stat.Modified.Sub(before); d < -time.Hour || d > time.Hour || stat.Modified.Location() != time.UTC {
			t.Errorf("modified %v, written at %v", stat.Modified, before)
		}
	}
}

func testOddKeys(t *testing.T, s store.Store) {
	odd := []string{
		"a b/ leading and trailing ", "a+b/c%2Fd", "@dump/na;me", "q?a=b&c", "hash#tag", "ünï/日本語", "quote'\"`$(x)",
		"..dots../...", "-dash", "~tilde", "back\\slash", "co:lon", "a*b[c]", "UPPER/lower", "<xml>&amp;",
		strings.Repeat("n", 200),
	}
	for i, key := range odd {
		put(t, s, key, []byte{byte(i)})
	}
	for i, key := range odd {
		if got := get(t, s, key); !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("%q holds %v, want %d", key, got, i)
		}
	}
	slices.Sort(odd)
	if got := keys(t, s, ""); !slices.Equal(got, odd) {
		t.Errorf("List = %q, want %q", got, odd)
	}
	for _, key := range odd {
		remove(t, s, key)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("after the deletions there is %q", got)
	}
}

func testBadKeys(t *testing.T, s store.Store) {
	ctx := context.Background()
	for _, key := range []string{"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "a\x00b",
		"a\nb", "\xff"} {
		w, err := s.Create(ctx, key, store.PutOptions{})
		if !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Create(%q): error %v, want ErrBadKey", key, err)
		}
		if err == nil {
			_ = w.Abort()
		}
		if _, err := s.Open(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Open(%q): error %v, want ErrBadKey", key, err)
		}
		if _, err := s.Stat(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Stat(%q): error %v, want ErrBadKey", key, err)
		}
		if err := s.Delete(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Delete(%q): error %v, want ErrBadKey", key, err)
		}
		if key == "" {
			continue // a prefix
		}
		if _, err := s.List(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("List(%q): error %v, want ErrBadKey", key, err)
		}
		if _, err := s.Folders(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Folders(%q): error %v, want ErrBadKey", key, err)
		}
		if _, err := s.Sweep(ctx, key); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("Sweep(%q): error %v, want ErrBadKey", key, err)
		}
	}
}

func testVisibleAfterCommitOnly(t *testing.T, s store.Store) {
	key := folder + "/archive"
	w := begin(t, s, key, noise(1, 1<<20))
	if _, err := s.Stat(context.Background(), key); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("while it is written, Stat says %v", err)
	}
	if _, err := s.Open(context.Background(), key); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("while it is written, Open says %v", err)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("while it is written, List has %q", got)
	}
	if _, err := w.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{key}) {
		t.Errorf("after Commit, List has %q", got)
	}
}

func testReplace(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("old"))
	w := begin(t, s, "a", []byte("new and longer"))
	if got := get(t, s, "a"); string(got) != "old" {
		t.Errorf("before Commit it holds %q", got)
	}
	if _, err := w.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "a"); string(got) != "new and longer" {
		t.Errorf("after Commit it holds %q", got)
	}
	put(t, s, "a", nil)
	if got := get(t, s, "a"); len(got) != 0 {
		t.Errorf("replaced by nothing it holds %q", got)
	}
}

func testAbort(t *testing.T, s store.Store) {
	put(t, s, "kept", []byte("old"))
	for _, key := range []string{"kept", folder + "/fresh"} {
		w := begin(t, s, key, noise(2, 1<<20))
		if err := errors.Join(w.Abort(), w.Abort()); err != nil {
			t.Errorf("abort %q: %v", key, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("List = %q", got)
	}
	if got := get(t, s, "kept"); string(got) != "old" {
		t.Errorf("the earlier object holds %q", got)
	}
	if freed, err := s.Sweep(context.Background(), ""); freed != 0 || err != nil {
		t.Errorf("Abort left %d bytes, %v", freed, err)
	}
}

func testWriterEndsOnce(t *testing.T, s store.Store) {
	ctx := context.Background()
	committed := begin(t, s, "a", []byte("x"))
	if _, err := committed.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := committed.Abort(); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	if got := get(t, s, "a"); string(got) != "x" {
		t.Errorf("after that Abort it holds %q", got)
	}
	if _, err := committed.Commit(ctx); err == nil {
		t.Error("a second Commit succeeded")
	}
	if _, err := committed.Write([]byte("y")); err == nil {
		t.Error("Write after Commit succeeded")
	}
	aborted := begin(t, s, "b", []byte("x"))
	if err := aborted.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := aborted.Commit(ctx); err == nil {
		t.Error("Commit after Abort succeeded")
	}
	if _, err := aborted.Write([]byte("y")); err == nil {
		t.Error("Write after Abort succeeded")
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("List = %q", got)
	}
}

func testNotExist(t *testing.T, s store.Store) {
	ctx := context.Background()
	put(t, s, folder+"/file", []byte("x"))
	for _, key := range []string{"nothing", folder + "/nothing", folder, "host", folder + "/file/below", folder + "/fil"} {
		if _, err := s.Open(ctx, key); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("Open(%q): error %v, want ErrNotExist", key, err)
		}
		if _, err := s.Stat(ctx, key); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("Stat(%q): error %v, want ErrNotExist", key, err)
		}
		if err := s.Delete(ctx, key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	if got := keys(t, s, "nothing/at/all"); len(got) != 0 {
		t.Errorf("List of a folder that is not there = %q", got)
	}
	if got := folders(t, s, "nothing/at/all"); len(got) != 0 {
		t.Errorf("Folders of a folder that is not there = %q", got)
	}
	if got := get(t, s, folder+"/file"); string(got) != "x" {
		t.Errorf("the neighbour holds %q", got)
	}
}

func testList(t *testing.T, s store.Store) {
	all := []string{"h/v/a-b/1", "h/v/a.b", "h/v/a/1", "h/v/a/2/3", "h/v/a/20", "h/v/a0", "h/w/1", "h2/v/a/1"}
	for i, key := range all {
		put(t, s, key, make([]byte, i))
	}
	for prefix, want := range map[string][]string{
		"":        all,
		"h":       all[:7],
		"h/v":     all[:6],
		"h/v/a":   {"h/v/a/1", "h/v/a/2/3", "h/v/a/20"},
		"h/v/a/2": {"h/v/a/2/3"},
		"h/v/a/1": {},
	} {
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
	objects, err := s.List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range objects {
		if o.SizeBytes != int64(i) || o.Modified.IsZero() {
			t.Errorf("%+v, want %d bytes and a time", o, i)
		}
	}
}

// S3 lists a thousand at once: a store must not stop there.
func testListOfMany(t *testing.T, s store.Store) {
	var want []string
	var group sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i := range 1050 {
		key := fmt.Sprintf("host/vg/lv%04d/1/manifest.json", i)
		want = append(want, key)
		limit <- struct{}{}
		group.Go(func() {
			defer func() { <-limit }()
			if _, err := tryPut(s, key, []byte("{}")); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	got, made := steps(t, s, "host")
	if !slices.Equal(got, want) {
		t.Errorf("List has %d objects, want %d", len(got), len(want))
	}
	if made < 2 {
		t.Errorf("a long listing tells of %d steps", made)
	}
	if got := folders(t, s, "host/vg"); len(got) != len(want) || !slices.IsSorted(got) {
		t.Errorf("Folders has %d names, want %d", len(got), len(want))
	}
}

func testFolders(t *testing.T, s store.Store) {
	for _, key := range []string{"h/v/b/1", "h/v/a/1", "h/v/a/2", "h/v/a.b/1", "h/v/file", "h/w/1", "h2/1", "top"} {
		put(t, s, key, nil)
	}
	for prefix, want := range map[string][]string{
		"": {"h", "h2"}, "h": {"v", "w"}, "h/v": {"a", "a.b", "b"}, "h/v/a": {}, "h/v/file": {},
	} {
		if got := folders(t, s, prefix); !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("Folders(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func testLook(t *testing.T, s store.Store) {
	for _, key := range []string{
		"h/v/b/m", "h/v/b/s", "h/v/b/x", "h/v/a/m", "h/v/a.b/x", "h/v/c/m/deeper", "h/v/d/sub/m", "h/v/m", "h/w/m", "h2/m", "top",
	} {
		put(t, s, key, []byte(key))
	}
	for prefix, want := range map[string][]string{
		"": {"h", "h2: h2/m"}, "h": {"v: h/v/m", "w: h/w/m"}, "h/v": {"a: h/v/a/m", "a.b", "b: h/v/b/m h/v/b/s", "c", "d"},
		"h/v/b": {}, "h/v/b/m": {}, "h/none": {},
	} {
		folders, err := s.Look(context.Background(), prefix, "m", "s")
		if err != nil {
			t.Fatalf("look into %q: %v", prefix, err)
		}
		var got []string
		for _, f := range folders {
			line := f.Name + ":"
			for _, o := range f.Objects {
				line += " " + o.Key
				if o.SizeBytes != int64(len(o.Key)) || o.Mark == "" {
					t.Errorf("Look(%q) has %+v", prefix, o)
				}
			}
			got = append(got, strings.TrimSuffix(line, ":"))
		}
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("Look(%q) = %q, want %q", prefix, got, want)
		}
	}
	folders, err := s.Look(context.Background(), "h/v")
	var all []string // without a name
	for _, f := range folders {
		for _, o := range f.Objects {
			all = append(all, o.Key)
		}
	}
	slices.Sort(all)
	if want := []string{"h/v/a.b/x", "h/v/a/m", "h/v/b/m", "h/v/b/s", "h/v/b/x"}; err != nil || !slices.Equal(all, want) {
		t.Errorf("Look without a name = %q, %v, want %q", all, err, want)
	}
	if _, err := s.Look(context.Background(), "../x", "m"); !errors.Is(err, store.ErrBadKey) {
		t.Errorf("a prefix that climbs out: %v", err)
	}
}

// Whoever reads an object knows it again in a listing, and takes no other for it that has its key and its size.
func testMarks(t *testing.T, s store.Store) {
	const key = "h/v/a/m"
	listed := func() string {
		objects, err := s.List(context.Background(), "h/v")
		if err != nil || len(objects) != 1 {
			t.Fatalf("%+v, %v", objects, err)
		}
		folders, err := s.Look(context.Background(), "h/v", "m")
		if err != nil || len(folders) != 1 || len(folders[0].Objects) != 1 || folders[0].Objects[0].Mark != objects[0].Mark {
			t.Fatalf("%+v and %+v, %v", objects, folders, err)
		}
		return objects[0].Mark
	}
	seen := map[string]bool{}
	for _, content := range []string{"one", "two"} {
		put(t, s, key, []byte(content))
		mark := ""
		for mark == "" { // of what has just been written, some stores say nothing yet
			r, err := s.Open(context.Background(), key)
			if err != nil {
				t.Fatal(err)
			}
			marks := r.(store.Marked).Marks()
			if err := r.Close(); err != nil || len(marks) != 1 {
				t.Fatalf("%q, %v", marks, err)
			}
			mark = marks[0]
		}
		if mark != listed() || seen[mark] {
			t.Errorf("%q was read by the mark %q, and listed with %q; before there were %v", content, mark, listed(), seen)
		}
		seen[mark] = true
	}
}

func testDelete(t *testing.T, s store.Store) {
	put(t, s, "h/v/a/1", []byte("x"))
	put(t, s, "h/v/a/2", []byte("y"))
	put(t, s, "h/w", []byte("z"))
	remove(t, s, "h/v/a/1")
	if _, err := s.Stat(context.Background(), "h/v/a/1"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("after the deletion Stat says %v", err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"h/v/a/2", "h/w"}) {
		t.Errorf("List = %q", got)
	}
	remove(t, s, "h/v/a/1")
	remove(t, s, "h/v/a/2")
	if got := folders(t, s, "h"); len(got) != 0 {
		t.Errorf("folders that hold nothing are left: %q", got)
	}
	put(t, s, "h/v/a/1", []byte("again"))
	if got := get(t, s, "h/v/a/1"); string(got) != "again" {
		t.Errorf("made anew it holds %q", got)
	}
}

func testRangedReads(t *testing.T, s store.Store) {
	data := noise(3, 1<<20+1)
	put(t, s, "a", data)
	r, err := s.Open(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	size := len(data)
	for _, c := range []struct{ offset, length int }{
		{0, 1}, {0, size}, {1, 100}, {size / 2, 65536}, {size - 1, 1}, {size - 10, 10}, {5, 0},
	} {
		buf := make([]byte, c.length)
		n, err := r.ReadAt(buf, int64(c.offset))
		atEnd := errors.Is(err, io.EOF) && c.offset+c.length == size
		if n != c.length || (err != nil && !atEnd) {
			t.Errorf("ReadAt %d at %d = %d, %v", c.length, c.offset, n, err)
		}
		if !bytes.Equal(buf, data[c.offset:c.offset+c.length]) {
			t.Errorf("ReadAt %d at %d gave other bytes", c.length, c.offset)
		}
	}
	for _, c := range []struct{ offset, length, want int }{{size - 3, 10, 3}, {size, 10, 0}, {size + 100, 10, 0}} {
		n, err := r.ReadAt(make([]byte, c.length), int64(c.offset))
		if n != c.want || !errors.Is(err, io.EOF) {
			t.Errorf("ReadAt %d at %d = %d, %v, want %d and EOF", c.length, c.offset, n, err, c.want)
		}
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			buf := make([]byte, 1000)
			offset := i * 100_000
			if _, err := r.ReadAt(buf, int64(offset)); err != nil || !bytes.Equal(buf, data[offset:offset+len(buf)]) {
				t.Errorf("concurrent ReadAt at %d: %v", offset, err)
			}
		})
	}
	group.Wait()
	got, err := io.ReadAll(r) // ReadAt has not moved it
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("Read beside ReadAt gave %d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func testLarge(t *testing.T, s store.Store) {
	data := noise(4, largeBytes)
	for _, maxBytes := range []int64{0, largeBytes} {
		w, err := s.Create(context.Background(), "large", store.PutOptions{MaxBytes: maxBytes})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(data)}); err != nil || n != largeBytes {
			t.Fatalf("wrote %d, %v", n, err)
		}
		object, err := w.Commit(context.Background())
		if err != nil || object.SizeBytes != largeBytes {
			t.Fatalf("Commit = %+v, %v", object, err)
		}
		if got := get(t, s, "large"); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back and are not those written", len(got))
		}
	}
}

// What is shared with another object is there as if it had been written, on whatever filesystem, and stays when that object goes.
func testShared(t *testing.T, s store.Store) {
	const block = 64 << 10
	data := noise(5, 4*block)
	put(t, s, "one", data)
	r, err := s.Open(context.Background(), "one")
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(context.Background(), "two", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sharer, ok := w.(store.Sharer)
	if !ok { // as objects of this store never do
		sharer = alone{w}
	}
	var want []byte
	for _, piece := range []struct {
		from, to int64
		share    bool
	}{{0, block, false}, {2 * block, 4 * block, true}, {0, block, true}, {0, 100, false}, {block, 2 * block, true}} {
		part := data[piece.from:piece.to]
		if piece.share {
			_, err = sharer.Share(part, r, piece.from)
		} else {
			_, err = w.Write(part)
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, part...)
	}
	object, err := w.Commit(context.Background())
	if err != nil || object.SizeBytes != int64(len(want)) {
		t.Fatalf("Commit = %+v, %v", object, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	remove(t, s, "one")
	if got := get(t, s, "two"); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back and are not those written", len(got))
	}
	if _, err := sharer.Share(data, r, 0); err == nil {
		t.Error("an object took more after its Commit")
	}
}

// alone shares nothing.
type alone struct{ store.Writer }

func (a alone) Share(data []byte, _ store.Reader, _ int64) (bool, error) {
	_, err := a.Write(data)
	return false, err
}

func testConcurrentKeys(t *testing.T, s store.Store) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			key := fmt.Sprintf("%s/file-%d", folder, i)
			data := noise(uint64(i), 300_000)
			if _, err := tryPut(s, key, data); err != nil {
				t.Error(err)
				return
			}
			if got := get(t, s, key); !bytes.Equal(got, data) {
				t.Errorf("%q: other bytes came back", key)
			}
		})
	}
	group.Wait()
	if got := keys(t, s, folder); len(got) != 8 {
		t.Errorf("List = %q", got)
	}
}

func testConcurrentWritersOfOneKey(t *testing.T, s store.Store) {
	const size = 200_000
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if _, err := tryPut(s, "a", bytes.Repeat([]byte{byte('a' + i)}, size)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	got := get(t, s, "a")
	if len(got) != size || !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
		t.Errorf("%d bytes, of more than one writer", len(got))
	}
	if freed, err := s.Sweep(context.Background(), ""); freed != 0 || err != nil {
		t.Errorf("the writers left %d bytes, %v", freed, err)
	}
}

// One deletes the last object of a folder while another is about to write there.
func testFolderComesAndGoes(t *testing.T, s store.Store) {
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			key := fmt.Sprintf("h/v/%d", i)
			for range 10 {
				if _, err := tryPut(s, key, []byte("x")); err != nil {
					t.Errorf("put beside deletions: %v", err)
					return
				}
				if err := s.Delete(context.Background(), key); err != nil {
					t.Errorf("delete beside writers: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("List = %q", got)
	}
}

var errEnough = errors.New("the night is over")

// isEnd reports whether an error tells of the end of the context, by its cause.
func isEnd(err error) bool { return errors.Is(err, errEnough) }

func testCancelled(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("x"))
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errEnough)
	w, createErr := s.Create(ctx, "b", store.PutOptions{})
	if createErr == nil { // a store may say so as late as this
		_, createErr = w.Commit(ctx)
	}
	r, openErr := s.Open(ctx, "a")
	if openErr == nil {
		_, openErr = r.Read(make([]byte, 1))
		_ = r.Close()
	}
	_, statErr := s.Stat(ctx, "a")
	_, listErr := s.List(ctx, "")
	_, foldersErr := s.Folders(ctx, "")
	_, sweepErr := s.Sweep(ctx, "")
	_, usageErr := s.Usage(ctx)
	for op, err := range map[string]error{
		"Create": createErr, "Open": openErr, "Stat": statErr, "List": listErr, "Folders": foldersErr,
		"Delete": s.Delete(ctx, "a"), "Sweep": sweepErr, "Usage": usageErr,
	} {
		if op == "Usage" && err == nil {
			continue // a store that knows no room has nothing to ask for
		}
		if !isEnd(err) {
			t.Errorf("%s: error %v, want the cause of the context's end", op, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("List = %q", got)
	}
}

func testCancelledWriter(t *testing.T, s store.Store) {
	for _, whose := range []string{"Create", "Commit"} {
		creating, cancelCreate := context.WithCancelCause(context.Background())
		committing, cancelCommit := context.WithCancelCause(context.Background())
		w, err := s.Create(creating, folder+"/file", store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if whose == "Create" {
			cancelCreate(errEnough)
		} else {
			cancelCommit(errEnough)
		}
		if _, err := w.Commit(committing); !isEnd(err) {
			t.Errorf("Commit after the end of %s's context: %v", whose, err)
		}
		if err := w.Abort(); err != nil {
			t.Errorf("Abort: %v", err)
		}
		cancelCreate(nil)
		cancelCommit(nil)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("List = %q", got)
	}
	if freed, err := s.Sweep(context.Background(), ""); freed != 0 || err != nil {
		t.Errorf("%d bytes were left, %v", freed, err)
	}
}

// What a dead writer left goes; what stands, and what others write beside it, stays.
func testSweep(t *testing.T, s store.Store) {
	put(t, s, folder+"/done", []byte("x"))
	begin(t, s, folder+"/dead", noise(5, 8<<20)) // and no more is heard of it
	begin(t, s, folder+"/done", noise(6, 100))
	alive := begin(t, s, folder+"0/alive", []byte("y"))
	if got := keys(t, s, ""); !slices.Equal(got, []string{folder + "/done"}) {
		t.Errorf("before the sweep List = %q", got)
	}
	if freed, err := s.Sweep(context.Background(), folder); err != nil || freed < 0 {
		t.Errorf("Sweep = %d, %v", freed, err)
	}
	if freed, err := s.Sweep(context.Background(), folder); err != nil || freed != 0 {
		t.Errorf("a second Sweep = %d, %v", freed, err)
	}
	if _, err := alive.Commit(context.Background()); err != nil {
		t.Errorf("a writer beside the swept folder: %v", err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{folder + "/done", folder + "0/alive"}) {
		t.Errorf("after the sweep List = %q", got)
	}
	if got := get(t, s, folder+"/done"); string(got) != "x" {
		t.Errorf("after the sweep the object holds %q", got)
	}
	if freed, err := s.Sweep(context.Background(), "nothing/there"); err != nil || freed != 0 {
		t.Errorf("Sweep of nothing = %d, %v", freed, err)
	}
}

// A store that does not lock, or is not told to, refuses what must be locked instead of storing it without.
func testLockUntil(t *testing.T, s store.Store) {
	if locker, ok := store.As[store.Locker](s); ok && locker.LockFor() > 0 {
		t.Fatal("the suite is for stores that are not told to lock")
	}
	w, err := s.Create(context.Background(), "a", store.PutOptions{LockUntil: time.Now().Add(time.Hour)})
	if !errors.Is(err, store.ErrNoLock) {
		t.Errorf("Create: error %v, want ErrNoLock", err)
	}
	if err == nil {
		_ = w.Abort()
	}
}

// An object that is to appear only where there is none leaves what is there alone.
func testIfAbsent(t *testing.T, s store.Store) {
	const key = folder + "/claim"
	if err := tryFirst(s, key, []byte("first")); err != nil {
		t.Fatalf("where there is nothing: %v", err)
	}
	if err := tryFirst(s, key, []byte("second")); !errors.Is(err, store.ErrExists) {
		t.Errorf("where there is an object: %v, want ErrExists", err)
	}
	if got := get(t, s, key); string(got) != "first" {
		t.Errorf("it holds %q", got)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{key}) {
		t.Errorf("List = %q", got)
	}
	if freed, err := s.Sweep(context.Background(), folder); freed != 0 || err != nil {
		t.Errorf("%d bytes were left, %v", freed, err)
	}
	remove(t, s, key)
	if err := tryFirst(s, key, []byte("third")); err != nil {
		t.Errorf("where an object was deleted: %v", err)
	}
	w, err := s.Create(context.Background(), "aborted", store.PutOptions{IfAbsent: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if err := tryFirst(s, "aborted", nil); err != nil {
		t.Errorf("where one was aborted: %v", err)
	}
}

func tryFirst(s store.Store, key string, data []byte) error {
	w, err := s.Create(context.Background(), key, store.PutOptions{MaxBytes: int64(len(data)), IfAbsent: true})
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Commit(context.Background())
	return err
}

// Of many who want to be the first at one key, in many rounds, none sees another's object in the place of the one that it
// wrote. A store that can only tell that there are several may refuse them all, but not for ever.
func testOneOfManyIsFirst(t *testing.T, s store.Store) {
	won := 0
	for round := range 12 {
		key := fmt.Sprintf("%s%02d/claim", folder, round)
		var group sync.WaitGroup
		var mu sync.Mutex
		var winners []string
		for i := range 4 {
			group.Go(func() {
				text := fmt.Sprint("writer ", i)
				err := tryFirst(s, key, []byte(text))
				if err != nil && !errors.Is(err, store.ErrExists) {
					t.Errorf("round %d: %v", round, err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, text)
				}
			})
		}
		group.Wait()
		switch len(winners) {
		case 0: // whoever comes alone has it
			if err := tryFirst(s, key, []byte("later")); err != nil {
				t.Errorf("round %d: nobody had it, and nobody gets it: %v", round, err)
			}
		case 1:
			won++
			if got := get(t, s, key); string(got) != winners[0] {
				t.Errorf("round %d: %q was told that it is the first, and there is %q", round, winners[0], got)
			}
		default:
			t.Errorf("round %d: %q were all told that they are the first", round, winners)
		}
	}
	t.Logf("%d of 12 rounds had a winner", won)
}

// Names that differ only in case, or in a dot at their end, are two.
func testNamesStayApart(t *testing.T, s store.Store) {
	all := []string{"h/Vol/x", "h/vol./x", "h/vol/X", "h/vol/x"}
	for _, key := range all {
		put(t, s, key, []byte(key))
	}
	if got := keys(t, s, ""); !slices.Equal(got, all) {
		t.Errorf("List = %q", got)
	}
	for _, key := range all {
		if got := get(t, s, key); string(got) != key {
			t.Errorf("%q holds %q", key, got)
		}
	}
}

func testProbe(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("x"))
	for range 2 {
		if notes, err := s.Probe(context.Background()); err != nil || len(notes) > 0 {
			t.Errorf("Probe = %q, %v", notes, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("List = %q", got)
	}
	if freed, err := s.Sweep(context.Background(), ""); freed != 0 || err != nil {
		t.Errorf("%d bytes were left, %v", freed, err)
	}
}

func testUsage(t *testing.T, s store.Store) {
	usage, err := s.Usage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if usage.TotalBytes < -1 || usage.FreeBytes < -1 || (usage.TotalBytes >= 0 && usage.FreeBytes > usage.TotalBytes) {
		t.Errorf("Usage = %+v", usage)
	}
}

func testString(t *testing.T, s store.Store) {
	if s.String() == "" {
		t.Error("the store has no name")
	}
}
