package browse

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/store"
)

// A volume of a million files of 20 kB in an archive of 20 GB, of which nothing is stored: the index is made once, and a
// member when it is read. Entries are in a thousand folders and members of a hundred files.
const (
	hugeFolders     = 1000
	filesPerFolder  = 999 // and the folder itself
	entriesOfHuge   = hugeFolders * (filesPerFolder + 1)
	entriesInMember = 100
	hugeFileBytes   = 20_000
	hugeEntryBytes  = 512 + (hugeFileBytes+511)/512*512
)

// huge is the volume, and counts what is read of it.
type huge struct {
	t                        testing.TB
	index                    []byte
	blocksOffset             int64
	memberBytes              int64
	archiveBytes             int64
	calls, indexRead, member atomic.Int64
	mu                       sync.Mutex
	cached                   []byte
	cachedAt                 int64
}

func hugePath(i int) string {
	if i%(filesPerFolder+1) == 0 {
		return fmt.Sprintf("d%04d", i/(filesPerFolder+1))
	}
	return fmt.Sprintf("d%04d/file-%06d", i/(filesPerFolder+1), i)
}

// hugeTar is the tar stream of one member. Folders take as much room as files, so that all members are alike.
func hugeTar(t testing.TB, member int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := range entriesInMember {
		n := int(member)*entriesInMember + i
		content := bytes.Repeat([]byte(fmt.Sprintf("%07d\n", n)), hugeFileBytes/8)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: hugePath(n), Mode: 0o644, Size: hugeFileBytes,
			ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// makeMember makes one member, without compression, so that all have one length.
func (h *huge) makeMember(member int64) []byte { return browsetest.Gzip(h.t, hugeTar(h.t, member), 0) }

// newHuge makes the index, as docs/format.md has it.
func newHuge(t testing.TB) *huge {
	t.Helper()
	h := &huge{t: t, cachedAt: -1}
	h.memberBytes = int64(len(h.makeMember(0)))
	const tarBytes = entriesInMember * hugeEntryBytes
	members := int64(entriesOfHuge / entriesInMember)
	h.archiveBytes = members * h.memberBytes
	var index, list bytes.Buffer
	list.WriteString("{\"format\":\"voltar-index/1\"}\n")
	for folder := range hugeFolders {
		var lines bytes.Buffer
		if folder == 0 {
			lines.WriteString("{\"format\":\"voltar-index/1\"}\n")
		}
		for i := folder * (filesPerFolder + 1); i < (folder+1)*(filesPerFolder+1); i++ {
			if i%entriesInMember == 0 {
				m := int64(i / entriesInMember)
				fmt.Fprintf(&lines, `{"member":{"offset":%d,"length":%d,"tar_offset":%d,"tar_length":%d}}`+"\n", m*h.memberBytes,
					h.memberBytes, m*tarBytes, tarBytes)
			}
			fmt.Fprintf(&lines, `{"path":%q,"type":"f","size":%d,"mode":"644","uid":0,"gid":0,"mtime":"1700000000","ino":%d,"tar":%d,"len":%d}`+"\n",
				hugePath(i), hugeFileBytes, i, int64(i)*hugeEntryBytes, hugeEntryBytes)
		}
		block := browsetest.Gzip(t, lines.Bytes(), 1)
		fmt.Fprintf(&list, `{"block":{"offset":%d,"length":%d,"tar_offset":%d,"entries":%d,"first":%q}}`+"\n", index.Len(), len(block),
			int64(folder)*(filesPerFolder+1)*hugeEntryBytes, filesPerFolder+1, hugePath(folder*(filesPerFolder+1)))
		index.Write(block)
	}
	h.blocksOffset = int64(index.Len())
	total, err := json.Marshal(map[string]any{"total": map[string]int64{"entries": entriesOfHuge, "members": members,
		"tar_length": members * tarBytes, "length": h.archiveBytes}})
	if err != nil {
		t.Fatal(err)
	}
	list.Write(append(total, '\n'))
	index.Write(browsetest.Gzip(t, list.Bytes(), 1))
	h.index = index.Bytes()
	return h
}

// backup looks like a backup of the volume.
func (h *huge) backup() *Backup {
	m := &catalog.Manifest{Extents: []catalog.Extent{{State: catalog.StateFiles, Archive: "v.tar.gz",
		Index: &catalog.Index{Name: "v.index.gz", BlocksOffset: h.blocksOffset}}},
		Files: []catalog.File{{Name: "v.tar.gz", SizeBytes: h.archiveBytes}, {Name: "v.index.gz", SizeBytes: int64(len(h.index))}}}
	return New(nil, catalog.Backup{Manifest: m}, h.open)
}

func (h *huge) open(_ context.Context, _ store.Store, _ catalog.Backup, name string) (File, error) {
	if name == "v.index.gz" {
		return &hugeFile{h: h, size: int64(len(h.index)), read: &h.indexRead, at: bytes.NewReader(h.index)}, nil
	}
	return &hugeFile{h: h, size: h.archiveBytes, read: &h.member, at: hugeArchive{h}}, nil
}

type hugeFile struct {
	h    *huge
	size int64
	read *atomic.Int64
	at   io.ReaderAt
}

func (f *hugeFile) ReadAt(p []byte, offset int64) (int, error) {
	f.h.calls.Add(1)
	f.read.Add(int64(len(p)))
	return f.at.ReadAt(p, offset)
}
func (f *hugeFile) Close() error     { return nil }
func (f *hugeFile) SizeBytes() int64 { return f.size }

// hugeArchive makes the members that are read.
type hugeArchive struct{ h *huge }

func (a hugeArchive) ReadAt(p []byte, offset int64) (int, error) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		if at >= a.h.archiveBytes {
			return done, io.EOF
		}
		if m := at / a.h.memberBytes; m != a.h.cachedAt {
			a.h.cached, a.h.cachedAt = a.h.makeMember(m), m
		}
		done += copy(p[done:], a.h.cached[at%a.h.memberBytes:])
	}
	return done, nil
}

func (h *huge) cat(t testing.TB, n int) string {
	b := h.backup()
	tree, err := b.Tree(context.Background(), b.Extents()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	r, _, err := tree.Open(context.Background(), hugePath(n))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil || len(data) != hugeFileBytes {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	return string(data[:7])
}

func TestOneFileOfAMillionTakesFewReads(t *testing.T) {
	h := newHuge(t)
	if h.archiveBytes < 20e9 {
		t.Fatalf("the archive has %d bytes only", h.archiveBytes)
	}
	for _, n := range []int{1, 123_457, 765_432, 999_999} {
		h.calls.Store(0)
		h.indexRead.Store(0)
		h.member.Store(0)
		if got := h.cat(t, n); got != fmt.Sprintf("%07d", n) {
			t.Errorf("file %d has the content of %s", n, got)
		}
		// The list of blocks and one block; one member and what a buffer reads beyond it.
		if got, most := h.indexRead.Load(), int64(len(h.index))/20; got > most {
			t.Errorf("file %d: %d bytes of the index read, want %d at most of %d", n, got, most, len(h.index))
		}
		if got, most := h.member.Load(), h.memberBytes+1<<20; got > most {
			t.Errorf("file %d: %d bytes of the archive read, want %d at most", n, got, most)
		}
		if got := h.calls.Load(); got > 20 {
			t.Errorf("file %d: %d reads, want 20 at most", n, got)
		}
	}
	b := h.backup()
	tree, err := b.Tree(t.Context(), b.Extents()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	h.indexRead.Store(0)
	count := 0
	for _, err := range tree.List(t.Context(), "d0500", false) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if got, most := h.indexRead.Load(), int64(len(h.index))/50; count != filesPerFolder || got > most {
		t.Errorf("a folder of %d entries: %d bytes of the index read, want %d at most", count, got, most)
	}
	h.readRandomly(t, b)
}

// readRandomly goes through a folder as a mount does: it reads a block of the index, and each member once.
func (h *huge) readRandomly(t testing.TB, b *Backup) {
	t.Helper()
	cache := archive.NewCache(t.Context(), 16<<20)
	defer cache.Close()
	h.indexRead.Store(0)
	h.member.Store(0)
	tree, err := b.RandomTree(t.Context(), b.Extents()[0], cache)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	files := 0
	for listed, err := range tree.List(t.Context(), "d0500") {
		if err != nil {
			t.Fatal(err)
		}
		e, err := tree.Entry(t.Context(), listed.Path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := tree.Open(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, hugeFileBytes)
		if n, err := f.ReadAt(data, 0); n != len(data) || err != nil || path.Base(e.Path) != "file-"+fmt.Sprintf("%06d", 500_001+files) ||
			string(data[:7]) != fmt.Sprintf("%07d", 500_001+files) {
			t.Fatalf("%s: %d bytes %.10q, %v", e.Path, n, data, err)
		}
		files++
	}
	if got, most := h.indexRead.Load(), int64(len(h.index))/50; files != filesPerFolder || got > most {
		t.Errorf("%d files of a mounted folder: %d bytes of the index read, want %d at most", files, got, most)
	}
	if got, want := h.member.Load(), h.memberBytes*(filesPerFolder+1)/entriesInMember; got != want {
		t.Errorf("%d files of a mounted folder: %d bytes of the archive read, want %d", files, got, want)
	}
}

// BenchmarkOneFileOfAMillion opens a backup, finds one of its million files and reads it out of the 20 GB archive. It is
// the same file each time, so that its member is made before.
func BenchmarkOneFileOfAMillion(b *testing.B) {
	h := newHuge(b)
	h.cat(b, 500_050)
	b.ResetTimer()
	for b.Loop() {
		h.cat(b, 500_050)
	}
	b.ReportMetric(float64(h.archiveBytes), "archive-bytes")
}

// BenchmarkMountedFolderOfAMillion lists a folder of a backup with a million files and reads its 999 files, as a mount does, and counts
// what is read for it.
func BenchmarkMountedFolderOfAMillion(b *testing.B) {
	h := newHuge(b)
	for b.Loop() {
		h.calls.Store(0)
		h.readRandomly(b, h.backup())
	}
	b.ReportMetric(float64(h.calls.Load()), "reads")
	b.ReportMetric(float64(h.indexRead.Load()), "index-bytes")
	b.ReportMetric(float64(h.member.Load()), "archive-bytes")
}
