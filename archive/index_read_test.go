package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestIndexFindsEveryEntry(t *testing.T) {
	s := makeSample(t, 20)
	x := s.openIndex(t)
	ctx := context.Background()
	for _, want := range s.entries {
		e, members, err := x.Find(ctx, want.Path)
		if err != nil || e.Path != want.Path || e.TarOffset != want.TarOffset {
			t.Fatalf("find %q: %+v, %v", want.Path, e, err)
		}
		if want.Type != TypeFile && want.Type != TypeHardlink {
			continue
		}
		src := &countingAt{ReaderAt: bytes.NewReader(s.data)}
		f, err := OpenFile(ctx, src, e, members)
		if err != nil {
			t.Fatal(err)
		}
		content := want.Path
		if want.Type == TypeHardlink {
			content = want.Linkname
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, s.contents[content]) {
			t.Errorf("read %q: %d bytes, want %d; %v", want.Path, len(got), len(s.contents[content]), err)
		}
		f.Close()
		var stored int64
		for _, m := range members {
			stored += m.LengthBytes
		}
		if src.bytes != stored {
			t.Errorf("read %q: read %d bytes of the archive, its members have %d", want.Path, src.bytes, stored)
		}
	}
	for _, name := range []string{"nothing", "d00/a", "d00/f/x", "zz", "\x00"} {
		if _, _, err := x.Find(ctx, name); err == nil || name[0] != 0 && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("find %q: %v, want that it is not there", name, err)
		}
	}
}

func TestIndexWithoutKnownOffset(t *testing.T) {
	s := makeSample(t, 4)
	x, err := OpenIndex(context.Background(), bytes.NewReader(s.index), int64(len(s.index)), -1)
	if err != nil {
		t.Fatal(err)
	}
	if x.Entries() != int64(len(s.entries)) {
		t.Errorf("%d entries, want %d", x.Entries(), len(s.entries))
	}
}

func TestIndexListsFolders(t *testing.T) {
	s := makeSample(t, 12)
	x := s.openIndex(t)
	for _, dir := range []string{".", "d05", "d05/", "big", "none", "d1"} {
		for _, recursive := range []bool{false, true} {
			var want, got []string
			clean := strings.TrimSuffix(dir, "/")
			for _, e := range s.entries {
				if isBelow(e.Path, clean) && (recursive || !strings.Contains(below(e.Path, clean), "/")) {
					want = append(want, e.Path)
				}
			}
			for e, err := range x.List(context.Background(), dir, recursive) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Path)
			}
			if !slices.Equal(got, want) {
				t.Errorf("list %q, recursive %v: %q, want %q", dir, recursive, got, want)
			}
		}
	}
}

// bigIndex makes the index of an archive of n files in folders of a hundred.
func bigIndex(tb testing.TB, n int) (data []byte, blocksOffset int64) {
	tb.Helper()
	var index bytes.Buffer
	var blocks []Block
	member := Member{LengthBytes: 1 << 20, TarBytes: int64(n)*1024 + 1024}
	for begin := 0; begin < n; begin += BlockEntries {
		lines := appendMember(nil, summedMember{Member: member})
		first := ""
		for i := begin; i < min(begin+BlockEntries, n); i++ {
			e := Entry{Path: fmt.Sprintf("d%06d/f%02d", i/100, i%100), Type: TypeFile, SizeBytes: 300, StoredBytes: 300,
				MTime: time.Unix(int64(i), 0), CTime: time.Unix(int64(i), 0), TarOffset: int64(i) * 1024, TarBytes: 1024}
			if first == "" {
				first = e.Path
			}
			lines = appendEntry(lines, &e)
		}
		stored := packMember(lines, 1)
		blocks = append(blocks, Block{Offset: int64(index.Len()), LengthBytes: int64(len(stored)), FirstPath: first,
			Entries: min(BlockEntries, n-begin)})
		index.Write(stored)
	}
	blocksOffset = int64(index.Len())
	index.Write(packBlocks(blocks, indexTotal{int64(n), 1, member.TarBytes, member.LengthBytes, false}))
	return index.Bytes(), blocksOffset
}

func TestIndexReadsFewBlocks(t *testing.T) {
	data, blocksOffset := bigIndex(t, 50_000)
	src := &countingAt{ReaderAt: bytes.NewReader(data)}
	ctx := context.Background()
	x, err := OpenIndex(ctx, src, int64(len(data)), blocksOffset)
	if err != nil {
		t.Fatal(err)
	}
	largest := int64(0)
	for _, b := range x.Blocks() {
		largest = max(largest, b.LengthBytes)
	}
	for _, tc := range []struct {
		name   string
		blocks int64
		do     func() error
	}{
		{"find", 1, func() error { _, _, err := x.Find(ctx, "d000123/f45"); return err }},
		{"list a folder", 1, func() error { return drain(x.List(ctx, "d000123", true)) }},
		{"list a folder at the end of a block", 2, func() error { return drain(x.List(ctx, "d000129", true)) }},
		{"list what is not there", 1, func() error { return drain(x.List(ctx, "d000123x", true)) }},
	} {
		src.bytes, src.calls = 0, 0
		if err := tc.do(); err != nil {
			t.Fatal(err)
		}
		if src.calls > tc.blocks || src.bytes > tc.blocks*largest {
			t.Errorf("%s: %d reads of %d bytes, want %d blocks", tc.name, src.calls, src.bytes, tc.blocks)
		}
	}
}

func TestListSkipsWhatIsDeeper(t *testing.T) {
	var index bytes.Buffer
	var blocks []Block
	var n int64
	block := func(paths ...string) {
		lines := appendMember(nil, summedMember{Member: Member{LengthBytes: 1, TarBytes: 1 << 20}})
		for _, p := range paths {
			lines = appendEntry(lines, &Entry{Path: p, Type: TypeDir, TarOffset: n * 512, TarBytes: 512})
			n++
		}
		stored := packMember(lines, 1)
		blocks = append(blocks, Block{Offset: int64(index.Len()), LengthBytes: int64(len(stored)), FirstPath: paths[0],
			Entries: len(paths)})
		index.Write(stored)
	}
	block(".", "a", "a/a", "a/a/1")
	block("a/a/2", "a/a/3")
	block("a/a/4", "a/b")
	block("a/c", "b")
	end := int64(index.Len())
	index.Write(packBlocks(blocks, indexTotal{n, 1, 1 << 20, 1, false}))
	src := &countingAt{ReaderAt: bytes.NewReader(index.Bytes())}
	x, err := OpenIndex(context.Background(), src, int64(index.Len()), end)
	if err != nil {
		t.Fatal(err)
	}
	src.calls = 0
	var got []string
	for e, err := range x.List(context.Background(), "a", false) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Path)
	}
	if want := []string{"a/a", "a/b", "a/c"}; !slices.Equal(got, want) || src.calls != 3 {
		t.Errorf("%q in %d reads, want %q in 3", got, src.calls, want)
	}
}

func drain(entries func(func(Entry, error) bool)) error {
	for _, err := range entries {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestIndexNoticesDamage(t *testing.T) {
	s := makeSample(t, 6)
	read := func(data []byte) string {
		x, err := OpenIndex(context.Background(), bytes.NewReader(data), int64(len(data)), s.blocksOffset)
		if err != nil {
			return "error"
		}
		var all strings.Builder
		for e, err := range x.All(context.Background()) {
			if err != nil {
				return "error"
			}
			fmt.Fprintln(&all, e)
		}
		members, err := x.Members(context.Background())
		if err != nil {
			return "error"
		}
		fmt.Fprintln(&all, members)
		return all.String()
	}
	want := read(s.index)
	if want == "error" {
		t.Fatal("cannot read the index as it is")
	}
	for i := range s.index {
		bad := bytes.Clone(s.index)
		bad[i] ^= 0x41
		if got := read(bad); got != "error" && got != want {
			t.Errorf("byte %d flipped: other entries, and no error", i)
		}
	}
	for _, n := range []int{0, 10, len(s.index) / 2, len(s.index) - 1} {
		if got := read(s.index[:n]); got != "error" {
			t.Errorf("cut off at %d: no error", n)
		}
	}
}

func TestIndexRefusesALaterFormat(t *testing.T) {
	text := []byte("{\"format\":\"voltar-index/2\"}\n")
	data := packMember(appendTotal(text, indexTotal{}), 1)
	_, err := OpenIndex(context.Background(), bytes.NewReader(data), int64(len(data)), 0)
	if err == nil || !strings.Contains(err.Error(), "voltar-index/2") {
		t.Errorf("error %v, want one that names the format", err)
	}
}

func FuzzIndex(f *testing.F) {
	s := makeSample(f, 3)
	text, err := s.openIndex(f).block(context.Background(), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, []byte(`{"block":{"offset":0,"length":100,"tar_offset":0,"entries":4,"first":"."}}`))
	f.Fuzz(func(t *testing.T, block, list []byte) {
		stored := packMember(block, 1)
		list = bytes.ReplaceAll(list, []byte(`"length":100`), fmt.Appendf(nil, `"length":%d`, len(stored)))
		total := appendTotal(append(append(appendFormat(nil), list...), '\n'), indexTotal{Entries: 4})
		data := append(bytes.Clone(stored), packMember(total, 1)...)
		x, err := OpenIndex(context.Background(), bytes.NewReader(data), int64(len(data)), int64(len(stored)))
		if err != nil {
			return
		}
		ctx := context.Background()
		for e, err := range x.All(ctx) {
			if err == nil {
				_, members, err := x.Find(ctx, e.Path)
				if err == nil && len(members) > 0 && e.Type == TypeFile {
					if f, err := OpenFile(ctx, bytes.NewReader(s.data), e, members); err == nil {
						_, _ = io.Copy(io.Discard, io.LimitReader(f, 1<<20))
						f.Close()
					}
				}
			}
		}
		_, _ = x.Members(ctx)
		_ = drain(x.List(ctx, "d00", false))
	})
}

func BenchmarkFindAmongAMillion(b *testing.B) {
	data, blocksOffset := bigIndex(b, 1_000_000)
	ctx := context.Background()
	for i := 0; b.Loop(); i++ {
		x, err := OpenIndex(ctx, bytes.NewReader(data), int64(len(data)), blocksOffset)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := x.Find(ctx, fmt.Sprintf("d%06d/f%02d", i*7919%10_000, i%100)); err != nil {
			b.Fatal(err)
		}
	}
}
