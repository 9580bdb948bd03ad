package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newTestCache(t *testing.T, limitBytes int64) *Cache {
	t.Helper()
	c := NewCache(t.Context(), limitBytes)
	t.Cleanup(c.Close)
	return c
}

func TestCacheKeepsWhatWasUsedLastWithinItsBound(t *testing.T) {
	c := newTestCache(t, 10<<20)
	loads := 0
	get := func(i int) {
		t.Helper()
		data, err := c.get(cacheKey{c, int64(i)}, 1<<20, func(context.Context) ([]byte, error) {
			loads++
			return bytes.Repeat([]byte{byte(i)}, 1<<20), nil
		})
		if err != nil || len(data) != 1<<20 || data[0] != byte(i) {
			t.Fatalf("%d: %d bytes, %v", i, len(data), err)
		}
	}
	for i := range 30 {
		get(i)
		get(0) // which is used all the time
		if c.held > 10<<20 || len(c.items) > 10 || c.order.Len() != len(c.items) {
			t.Fatalf("%d bytes in %d items are kept", c.held, len(c.items))
		}
	}
	if loads != 30 {
		t.Errorf("%d loads, want 30: what is used is kept", loads)
	}
	if get(1); loads != 31 {
		t.Errorf("%d loads, want 31: what is not used goes", loads)
	}
	c.drop(c)
	if c.held != 0 || len(c.items) != 0 {
		t.Errorf("%d bytes in %d items are kept of what is closed", c.held, len(c.items))
	}
}

func TestCacheLoadsOnceForAllWhoWait(t *testing.T) {
	c := newTestCache(t, 1<<20)
	var loads atomic.Int64
	begun, goOn := make(chan struct{}), make(chan struct{})
	load := func(context.Context) ([]byte, error) {
		if loads.Add(1) == 1 {
			close(begun)
		}
		<-goOn
		return []byte("data"), nil
	}
	var group sync.WaitGroup
	ask := func() {
		if data, err := c.get(cacheKey{c, 7}, 4, load); err != nil || string(data) != "data" {
			t.Errorf("%q %v", data, err)
		}
	}
	group.Go(ask)
	<-begun
	for range 10 {
		group.Go(ask)
	}
	close(goOn)
	group.Wait()
	if loads.Load() != 1 {
		t.Errorf("%d loads", loads.Load())
	}
	wrong := errors.New("wrong")
	for _, want := range []error{wrong, nil} { // an error is not kept
		if _, err := c.get(cacheKey{c, 8}, 4, func(context.Context) ([]byte, error) { return nil, want }); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	c.Close()
	if _, err := c.get(cacheKey{c, 9}, 4, load); !errors.Is(err, context.Canceled) {
		t.Errorf("closed: %v", err)
	}
}

// countingReader counts what is read of it.
type countingReader struct {
	io.ReaderAt
	reads atomic.Int64
}

func (c *countingReader) ReadAt(p []byte, offset int64) (int, error) {
	c.reads.Add(1)
	return c.ReaderAt.ReadAt(p, offset)
}

func TestRandomTreeKnowsAttributesAndLinks(t *testing.T) {
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	records := map[string]string{
		"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.security.x": "a\x00b", "SCHILY.acl.access": "user::rw-,user:7:r--,group::r--,mask::r--,other::---",
	}
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir}, {Name: "a", Typeflag: tar.TypeReg, PAXRecords: records}, {Name: "b", Typeflag: tar.TypeLink, Linkname: "a"},
		{Name: "c", Typeflag: tar.TypeReg}, {Name: "d", Typeflag: tar.TypeLink, Linkname: "a"},
	} {
		h.Mode, h.ModTime = 0o644, time.Unix(1e9, 0)
		if h.Name == "c" { // as nearly every file has, which takes a header beside the one that all have
			h.Format, h.ModTime = tar.FormatPAX, time.Unix(1e9, 123456789)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stored := packMember(stream.Bytes(), 1)
	var list bytes.Buffer
	blocks, err := RebuildIndex(t.Context(), bytes.NewReader(stored), int64(len(stored)), &list)
	if err != nil {
		t.Fatal(err)
	}
	index, err := OpenIndex(t.Context(), bytes.NewReader(list.Bytes()), int64(list.Len()), blocks)
	if err != nil {
		t.Fatal(err)
	}
	src := &countingReader{ReaderAt: bytes.NewReader(stored)}
	tree := NewRandomTree(index, src, newTestCache(t, 1<<20))
	entry := func(path string) Entry {
		t.Helper()
		e, err := tree.Entry(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if all, err := tree.Attributes(t.Context(), entry("c")); err != nil || len(all) != 0 || src.reads.Load() != 0 {
		t.Errorf("of what can have none: %q, %v, %d reads", all, err, src.reads.Load())
	}
	old := *index
	old.total.TellsAttrs = false
	oldSrc := &countingReader{ReaderAt: bytes.NewReader(stored)}
	oldTree := NewRandomTree(&old, oldSrc, newTestCache(t, 1<<20))
	if all, err := oldTree.Attributes(t.Context(), entry("c")); err != nil || len(all) != 0 || oldSrc.reads.Load() == 0 {
		t.Errorf("by an index that does not tell: %q, %v, %d reads", all, err, oldSrc.reads.Load())
	}
	without := entry("a")
	without.HasAttrs = false
	if all, err := oldTree.Attributes(t.Context(), without); err != nil || len(all) != 3 || !oldTree.MayHaveAttributes(without) {
		t.Errorf("by an index that does not tell: %q, %v", all, err)
	}
	acl, err := parseACL(records["SCHILY.acl.access"])
	if err != nil {
		t.Fatal(err)
	}
	odd := entry("a")
	odd.OddXattrs = map[string][]byte{"user.a=b": []byte("odd")}
	all, err := tree.Attributes(t.Context(), odd)
	want := map[string][]byte{"user.note": []byte("kept"), "security.x": []byte("a\x00b"), aclAccessName: acl, "user.a=b": []byte("odd")}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%q, %v, want %q", all, err, want)
	}
	if a, c := tree.Links(t.Context(), entry("a")), tree.Links(t.Context(), entry("c")); a != 3 || c != 1 {
		t.Errorf("a has %d names, c %d", a, c)
	}
	if target, err := tree.Inode(t.Context(), entry("d")); err != nil || target.Path != "a" {
		t.Errorf("d is a name of %q, %v", target.Path, err)
	}
	if _, err := tree.Entry(t.Context(), "e"); err != ErrNoEntry {
		t.Errorf("what is not there: %v", err)
	}
	lost := entry("b")
	lost.Linkname = "c"
	if _, err := tree.Inode(t.Context(), lost); err == nil {
		t.Error("a hard link that leads elsewhere is followed")
	}
	swapped := entry("a")
	swapped.SizeBytes = 1
	if _, err := tree.Open(t.Context(), swapped); err == nil {
		t.Error("an index that is not the archive's is believed")
	}
}

func TestRandomImage(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3*ImageMemberBytes-12345)
	for i := range data[:ImageMemberBytes+100] {
		data[i] = byte(random.IntN(3))
	}
	var stored, list, other bytes.Buffer
	if _, err := WriteImage(t.Context(), bytes.NewReader(data), int64(len(data)), &stored, ImageOptions{Level: LevelFast, Members: &list}); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteImage(t.Context(), bytes.NewReader(data), 100, io.Discard, ImageOptions{Members: &other}); err != nil {
		t.Fatal(err)
	}
	size, storedBytes := int64(len(data)), int64(stored.Len())
	for _, c := range []struct {
		name string
		list io.Reader
	}{{"with a list", &list}, {"without", nil}} {
		t.Run(c.name, func(t *testing.T) {
			image, err := OpenRandomImage(bytes.NewReader(stored.Bytes()), storedBytes, size, c.list, newTestCache(t, 5<<20))
			if err != nil {
				t.Fatal(err)
			}
			f := image.Open()
			for range 50 {
				from := random.Int64N(size)
				want := data[from:min(size, from+random.Int64N(1<<20))]
				got := make([]byte, len(want))
				if n, err := f.ReadAt(got, from); n != len(want) || err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes at %d: %d, %v", len(want), from, n, err)
				}
			}
			if n, err := f.ReadAt(make([]byte, 100), size-7); n != 7 || err != io.EOF {
				t.Errorf("at the end: %d %v", n, err)
			}
		})
	}
	if _, err := OpenRandomImage(bytes.NewReader(stored.Bytes()), storedBytes, size, &other, newTestCache(t, 1)); err == nil {
		t.Error("the list of another image is believed")
	}
	cut := stored.Bytes()[:storedBytes/2]
	image, err := OpenRandomImage(bytes.NewReader(cut), storedBytes, size, nil, newTestCache(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	var damage *MemberError
	if n, err := image.Open().ReadAt(make([]byte, 10), 0); err == nil || !errors.As(err, &damage) {
		t.Errorf("a member that is cut: %d bytes, %v", n, err)
	}
}

// Whoever goes from member to member finds the next one there.
func TestRandomFileReadsAhead(t *testing.T) {
	data := make([]byte, 4*ImageMemberBytes)
	var stored, list bytes.Buffer
	if _, err := WriteImage(t.Context(), bytes.NewReader(data), int64(len(data)), &stored, ImageOptions{Members: &list}); err != nil {
		t.Fatal(err)
	}
	src := &countingReader{ReaderAt: bytes.NewReader(stored.Bytes())}
	cache := newTestCache(t, 64<<20)
	image, err := OpenRandomImage(src, int64(stored.Len()), int64(len(data)), &list, cache)
	if err != nil {
		t.Fatal(err)
	}
	f := image.Open()
	for i, want := range []int64{2, 3, 4} { // at the beginning, one reads in sequence
		if _, err := f.ReadAt(make([]byte, 1), int64(i)*ImageMemberBytes); err != nil {
			t.Fatal(err)
		}
		cache.loads.Wait()
		if src.reads.Load() != want {
			t.Errorf("behind member %d, %d are read, want %d", i, src.reads.Load(), want)
		}
	}
	image.Close() // whose members are in the cache no more
	src.reads.Store(0)
	if _, err := image.Open().ReadAt(make([]byte, 1), 2*ImageMemberBytes); err != nil {
		t.Fatal(err)
	}
	cache.loads.Wait()
	if src.reads.Load() != 1 {
		t.Errorf("one read in the middle reads %d members", src.reads.Load())
	}
}

// A hard link is a name of what its own folder or another one holds, and of no folder and no other link.
func TestHardLinkLeadsToAFile(t *testing.T) {
	src := t.TempDir()
	writeFile(t, filepath.Join(src, "etc/file"), []byte("text"), 0o600)
	must(t, os.Link(filepath.Join(src, "etc/file"), filepath.Join(src, "link")))
	must(t, os.Mkdir(filepath.Join(src, "home"), 0o700))
	m := writeTreeOf(t, src, TreeOptions{})
	places := map[string]int64{}
	for e, err := range m.openIndex(t).All(t.Context()) {
		must(t, err)
		places[e.Path] = e.TarOffset
	}
	for target, good := range map[string]bool{"etc/file": true, "etc": false, ".": false, "home": false, "link": false, "nowhere": false} {
		lied := relined(t, m, func(l *indexLine) {
			if l.Kind == lineEntry && l.Entry.Type == TypeHardlink {
				l.Entry.Linkname, l.Entry.DataOffset = target, places[target]
			}
		})
		tree := NewRandomTree(lied.openIndex(t), bytes.NewReader(m.archive), NewCache(t.Context(), 1<<20))
		e, err := tree.Entry(t.Context(), "link")
		must(t, err)
		if found, err := tree.Inode(t.Context(), e); (err == nil) != good || good && found.Path != target {
			t.Errorf("%s: %+v, %v", target, found, err)
		}
		if _, _, err := lied.openIndex(t).Find(t.Context(), "link"); (err == nil) != good {
			t.Errorf("find by way of %s: %v", target, err)
		}
		tree.Close()
	}
}
