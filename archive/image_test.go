package archive

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// extent makes size bytes: zeros but for 1 MiB of text at each offset.
func extent(size int, offsets ...int) []byte {
	data := make([]byte, size)
	for _, at := range offsets {
		copy(data[at:min(size, at+1<<20)], bytes.Repeat([]byte("content "), 1<<17))
	}
	return data
}

func imageOf(t *testing.T, src io.ReaderAt, size int64, opts ImageOptions) ([]byte, ImageStats) {
	t.Helper()
	var out bytes.Buffer
	stats, err := WriteImage(context.Background(), src, size, &out, opts)
	must(t, err)
	if stats.ArchiveBytes != int64(out.Len()) || stats.SizeBytes != size {
		t.Errorf("stats %+v, %d bytes written", stats, out.Len())
	}
	return out.Bytes(), stats
}

func TestImageInflatesToTheExtent(t *testing.T) {
	for _, size := range []int{1, ImageMemberBytes - 1, ImageMemberBytes, 5*ImageMemberBytes + 777} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := extent(size, 0, size/2)
			image, stats := imageOf(t, bytes.NewReader(data), int64(size), ImageOptions{})
			if !bytes.Equal(gunzip(t, image), data) {
				t.Error("another content")
			}
			if stats.ReadBytes != int64(size) || stats.DamagedCount != 0 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
	if image, _ := imageOf(t, bytes.NewReader(nil), 0, ImageOptions{}); len(image) != 0 {
		t.Errorf("an empty extent is %d bytes", len(image))
	}
}

func TestImageMembersLieWhereTheirExtraFieldsSay(t *testing.T) {
	data := extent(3*ImageMemberBytes+10, 100, 2*ImageMemberBytes)
	image, _ := imageOf(t, bytes.NewReader(data), int64(len(data)), ImageOptions{})
	for n, rest := 0, image; len(rest) > 0; n++ {
		length, plainLength := le32(rest[16:]), le32(rest[20:])
		if string(rest[12:14]) != "VT" || plainLength != min(ImageMemberBytes, len(data)-n*ImageMemberBytes) {
			t.Fatalf("member %d begins % x", n, rest[:24])
		}
		plain := gunzipOne(t, rest[:length])
		if !bytes.Equal(plain, data[n*ImageMemberBytes:][:plainLength]) {
			t.Errorf("member %d inflates to something else", n)
		}
		rest = rest[length:]
	}
}

func le32(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24 }

// readLog keeps which ranges were read.
type readLog struct {
	io.ReaderAt
	read []Range
}

func (r *readLog) ReadAt(p []byte, offset int64) (int, error) {
	r.read = append(r.read, Range{offset, int64(len(p))})
	return r.ReaderAt.ReadAt(p, offset)
}

func ranges(list ...Range) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestImageReadsOnlyWhatIsAllocated(t *testing.T) {
	const size = 4 * ImageMemberBytes
	data := bytes.Repeat([]byte("garbage!"), size/8)
	used := []Range{{100, 50}, {200, 10}, {ImageMemberBytes - 5, 10}, {size - 1, 1}}
	want := make([]byte, size)
	for _, r := range used {
		copy(want[r.OffsetBytes:r.OffsetBytes+r.LengthBytes], data[r.OffsetBytes:])
	}
	pool := NewPool(1)
	defer pool.Close()
	imageOf(t, bytes.NewReader(data), size, ImageOptions{Pool: pool}) // so that buffers hold something else
	src := &readLog{ReaderAt: bytes.NewReader(data)}
	image, stats := imageOf(t, src, size, ImageOptions{Pool: pool, Allocated: ranges(used...)})
	if !bytes.Equal(gunzip(t, image), want) {
		t.Error("another content")
	}
	split := []Range{{100, 50}, {200, 10}, {ImageMemberBytes - 5, 5}, {ImageMemberBytes, 5}, {size - 1, 1}}
	if !reflect.DeepEqual(src.read, split) || stats.ReadBytes != 71 || stats.ZeroBytes != ImageMemberBytes {
		t.Errorf("read %v, stats %+v", src.read, stats)
	}
}

func TestImageRefusesRangesThatCannotBe(t *testing.T) {
	for name, list := range map[string][]Range{
		"overlap": {{0, 10}, {5, 10}}, "descending": {{50, 10}, {0, 10}}, "beyond": {{90, 11}}, "negative": {{0, -1}},
		"far beyond": {{1 << 62, 1 << 62}}, "before": {{-1, 1}},
	} {
		_, err := WriteImage(context.Background(), bytes.NewReader(make([]byte, 100)), 100, io.Discard,
			ImageOptions{Allocated: ranges(list...)})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	failed := func(yield func(Range, error) bool) { yield(Range{}, errStopped) }
	_, err := WriteImage(context.Background(), bytes.NewReader(make([]byte, 100)), 100, io.Discard,
		ImageOptions{Allocated: failed})
	if !errors.Is(err, errStopped) {
		t.Errorf("error %v, want %v", err, errStopped)
	}
}

// badDisk cannot read some blocks of 4 KiB.
type badDisk struct {
	io.ReaderAt
	bad map[int64]bool
}

func (d badDisk) ReadAt(p []byte, offset int64) (int, error) {
	for at := offset / 4096; at*4096 < offset+int64(len(p)); at++ {
		if d.bad[at] {
			return 0, unix.EIO
		}
	}
	return d.ReaderAt.ReadAt(p, offset)
}

func TestImageListsWhatCannotBeRead(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 2*ImageMemberBytes+100)
	src := badDisk{bytes.NewReader(data), map[int64]bool{3: true, 4: true, 1023: true, 1024: true, 2048: true}}
	image, stats := imageOf(t, src, int64(len(data)), ImageOptions{})
	eio := unix.EIO.Error()
	want := []Damage{
		{OffsetBytes: 3 * 4096, LengthBytes: 8192, Reason: eio}, {OffsetBytes: 1023 * 4096, LengthBytes: 8192, Reason: eio},
		{OffsetBytes: 2048 * 4096, LengthBytes: 100, Reason: eio},
	}
	if !reflect.DeepEqual(stats.Damaged, want) || stats.DamagedCount != 3 || stats.DamagedBytes != 4*4096+100 {
		t.Errorf("stats %+v", stats)
	}
	for _, d := range want {
		clear(data[d.OffsetBytes : d.OffsetBytes+d.LengthBytes])
	}
	if !bytes.Equal(gunzip(t, image), data) {
		t.Error("another content than what was read, with zeros for the rest")
	}
}

func TestLossEndsAtTheEndOfTheBlock(t *testing.T) {
	src := badDisk{bytes.NewReader(bytes.Repeat([]byte("x"), 20000)), map[int64]bool{1: true}}
	image, stats := imageOf(t, src, 20000, ImageOptions{Allocated: ranges(Range{5000, 15000})})
	want := []Damage{{OffsetBytes: 5000, LengthBytes: 8192 - 5000, Reason: unix.EIO.Error()}}
	if !reflect.DeepEqual(stats.Damaged, want) {
		t.Errorf("damaged %+v, want %+v", stats.Damaged, want)
	}
	if plain := gunzip(t, image); !isZero(plain[:8192]) || plain[8192] != 'x' {
		t.Error("another content")
	}
}

func TestImageOfAShortSourceIsDamaged(t *testing.T) {
	image, stats := imageOf(t, bytes.NewReader([]byte("abc")), 10, ImageOptions{})
	if string(gunzip(t, image)) != "abc\x00\x00\x00\x00\x00\x00\x00" || stats.DamagedBytes != 7 {
		t.Errorf("stats %+v", stats)
	}
}

func TestZeroMembersAreCompressedOnce(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	const size = 20 * ImageMemberBytes
	image, stats := imageOf(t, bytes.NewReader(make([]byte, size)), size, ImageOptions{Pool: pool})
	if stats.ZeroBytes != size || len(image) > 20*5000 || len(pool.zeros) != 1 {
		t.Errorf("%d bytes, %d kinds of zero members, stats %+v", len(image), len(pool.zeros), stats)
	}
	plain, _ := imageOf(t, bytes.NewReader(make([]byte, size)), size, ImageOptions{Pool: pool, Allocated: ranges()})
	if !bytes.Equal(plain, image) {
		t.Error("zeros that were not read are stored in another way")
	}
}

func TestEncoderMakesTheSameWhateverCameBefore(t *testing.T) {
	random := make([]byte, 3*pieceBytes)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(random)
	text := bytes.Repeat([]byte("some text, over and over; "), 40000)
	inputs := [][]byte{{}, {1}, text, random, make([]byte, 1<<20),
		bytes.Join([][]byte{text, random, text, random}, nil), bytes.Join([][]byte{random, text}, nil)}
	for level := Level(1); level <= 9; level++ {
		var used memberEncoder
		for range 3 {
			for i, src := range inputs {
				var fresh memberEncoder
				want, err := fresh.encode(nil, src, level)
				must(t, err)
				got, err := used.encode([]byte("kept"), src, level)
				must(t, err)
				if !bytes.Equal(got[4:], want) {
					t.Errorf("level %d, input %d: other bytes than a fresh encoder's", level, i)
				}
				if !bytes.Equal(gunzipOne(t, want), src) {
					t.Errorf("level %d, input %d: inflates to something else", level, i)
				}
			}
		}
	}
}

func TestRandomDataIsStored(t *testing.T) {
	random := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(random)
	for name, c := range map[string]struct {
		src  []byte
		want bool
	}{
		"random": {random[:pieceBytes], true}, "little": {random[:1000], false}, "zeros": {make([]byte, pieceBytes), false},
		"text":     {bytes.Repeat([]byte("the quick brown fox"), 1+pieceBytes/19)[:pieceBytes], false},
		"half":     {append(random[:pieceBytes/2:pieceBytes/2], make([]byte, pieceBytes/2)...), false},
		"six bits": {sixBits(random[:pieceBytes]), false},
	} {
		if got := looksRandom(c.src); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	packed, err := new(memberEncoder).encode(nil, random, LevelDefault)
	must(t, err)
	if extra := len(packed) - len(random); extra > 300 {
		t.Errorf("random data grew by %d bytes", extra)
	}
}

func sixBits(p []byte) []byte {
	out := make([]byte, len(p))
	for i, c := range p {
		out[i] = c & 63
	}
	return out
}

func TestStreamIsOneMemberWhateverTheNumberOfWorkers(t *testing.T) {
	data := bytes.Repeat([]byte("INSERT INTO t VALUES (1);\n"), 200000)
	var first []byte
	for _, workers := range []int{1, 3} {
		var out bytes.Buffer
		stats, err := WriteStream(context.Background(), bytes.NewReader(data), &out, StreamOptions{Workers: workers})
		must(t, err)
		if stats.ContentBytes != int64(len(data)) || stats.ArchiveBytes != int64(out.Len()) {
			t.Errorf("stats %+v, %d bytes written", stats, out.Len())
		}
		if !bytes.Equal(gunzipOne(t, out.Bytes()), data) {
			t.Error("another content")
		}
		if !bytes.Equal(out.Bytes()[4:8], make([]byte, 4)) {
			t.Errorf("MTIME % x", out.Bytes()[4:8])
		}
		if first == nil {
			first = out.Bytes()
		} else if !bytes.Equal(first, out.Bytes()) {
			t.Errorf("%d workers write other bytes than one", workers)
		}
	}
	var out bytes.Buffer
	if _, err := WriteStream(context.Background(), bytes.NewReader(nil), &out, StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(gunzipOne(t, out.Bytes())) != 0 {
		t.Error("an empty stream inflates to something")
	}
}

func TestSums(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 500000)
	for _, step := range []int{1 << 20, 7777, len(data)} {
		s := NewSums()
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			p := bytes.Clone(rest[:n])
			if got, err := s.Write(p); got != n || err != nil {
				t.Fatalf("wrote %d, %v", got, err)
			}
			clear(p) // the caller's to use again
			rest = rest[n:]
		}
		want := Digest{fmt.Sprintf("%x", sha1.Sum(data)), fmt.Sprintf("%x", sha256.Sum256(data)), int64(len(data))}
		if got := s.Sum(); got != want || s.Sum() != want {
			t.Errorf("steps of %d: got %+v, want %+v", step, got, want)
		}
	}
	if got := NewSums().Sum().SHA1; got != "da39a3ee5e6b4b0d3255bfef95601890afd80709" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestParseLevel(t *testing.T) {
	for s, want := range map[string]Level{"fast": 2, "default": 6, "best": 9, "1": 1, "9": 9} {
		if got, err := ParseLevel(s); got != want || err != nil {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "10", "-1", "quick", "6.0"} {
		if got, err := ParseLevel(s); err == nil {
			t.Errorf("%q read as %d", s, got)
		}
	}
}

// onlyZeros counts what is written and punched, and fails when something is written that is no zero.
type onlyZeros struct {
	t                *testing.T
	written, punched int64
}

func (z *onlyZeros) WriteAt(p []byte, _ int64) (int, error) {
	if !isZero(p) {
		z.t.Error("something else than zeros is written")
	}
	z.written += int64(len(p))
	return len(p), nil
}

func (z *onlyZeros) PunchHole(_, lengthBytes int64) error {
	z.punched += lengthBytes
	return nil
}

// A volume of nothing but zeros is neither read nor written, however large.
func TestZerosAreLeftOut(t *testing.T) {
	nothing := func(func(Range, error) bool) {}
	const size = 2<<30 + 5000
	image, stats := imageOf(t, bytes.NewReader(nil), size, ImageOptions{Allocated: nothing})
	if stats.ReadBytes != 0 || stats.ZeroBytes != size {
		t.Errorf("written: %+v", stats)
	}
	for _, skip := range []bool{true, false} {
		r, err := NewReader(context.Background(), bytes.NewReader(image), int64(len(image)), ReaderOptions{Workers: 1})
		must(t, err)
		dst := &onlyZeros{t: t}
		read, err := ReadImage(context.Background(), r, dst, ReadImageOptions{SizeBytes: size, SkipZeros: skip})
		must(t, err)
		if skip && (read.ZeroBytes != size || dst.punched != size || dst.written != 0) || !skip && dst.written != size {
			t.Errorf("skip %v: %+v, %d punched, %d written", skip, read, dst.punched, dst.written)
		}
		must(t, r.Close())
	}
}

func TestDataBetweenZerosComesBack(t *testing.T) {
	data := extent(9*ImageMemberBytes+100, 3*ImageMemberBytes+5, 7*ImageMemberBytes)
	image, _ := imageOf(t, bytes.NewReader(data), int64(len(data)), ImageOptions{})
	r, err := NewReader(context.Background(), bytes.NewReader(image), int64(len(image)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	dst := make(memory, len(data))
	_, err = ReadImage(context.Background(), r, dst, ReadImageOptions{SizeBytes: int64(len(data)), SkipZeros: true})
	must(t, err)
	if !bytes.Equal(dst, data) {
		t.Error("another content")
	}
}

// memory is what is written to it.
type memory []byte

func (m memory) WriteAt(p []byte, offset int64) (int, error) { return copy(m[offset:], p), nil }
