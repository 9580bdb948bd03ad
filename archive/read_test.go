package archive

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func readAll(t testing.TB, data []byte, opts ReaderOptions) ([]byte, error) {
	t.Helper()
	r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return io.ReadAll(r)
}

func oneGzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("XX\x01\x00a")
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReaderTakesAnySequenceOfMembers(t *testing.T) {
	a, b := noise("a", 3<<20+17), noise("b", 100)
	exact := noise("c", 2*readPieceBytes)
	for _, tc := range []struct {
		name       string
		data, want []byte
	}{
		{"one long member", oneGzip(t, a), a},
		{"a member of whole pieces", oneGzip(t, exact), exact},
		{"declared members", append(packMember(a, 1), packMember(b, 1)...), append(bytes.Clone(a), b...)},
		{"a mixture", append(packMember(b, 1), append(oneGzip(t, a), packMember(b, 5)...)...),
			append(append(bytes.Clone(b), a...), b...)},
		{"empty members", append(packMember(nil, 1), oneGzip(t, nil)...), nil},
		{"a declared member that is too large to hold", packMember(make([]byte, memberLimitBytes+1), 1),
			make([]byte, memberLimitBytes+1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readAll(t, tc.data, ReaderOptions{})
			if err != nil || !bytes.Equal(got, tc.want) {
				t.Fatalf("%d bytes, want %d; %v", len(got), len(tc.want), err)
			}
			r, err := NewStreamReader(context.Background(), iotestOneByte{bytes.NewReader(tc.data)}, ReaderOptions{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, tc.want) {
				t.Errorf("as a stream: %d bytes, want %d; %v", len(got), len(tc.want), err)
			}
		})
	}
}

// iotestOneByte gives at most 1000 bytes a time.
type iotestOneByte struct{ io.Reader }

func (r iotestOneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1000)]) }

func TestReaderRefuses(t *testing.T) {
	a := noise("a", 5000)
	good := packMember(a, 1)
	bomb := packMember(make([]byte, 1<<20), 1)
	copy(bomb[20:], []byte{0, 4, 0, 0}) // declares 1 KiB
	for _, tc := range []struct {
		name string
		data []byte
		opts ReaderOptions
		is   error
		says string
	}{
		{"nothing", nil, ReaderOptions{}, ErrNotArchive, ""},
		{"something else", []byte("PK\x03\x04 and more"), ReaderOptions{}, ErrNotArchive, ""},
		{"a tail that is no member", append(bytes.Clone(good), "garbage"...), ReaderOptions{}, nil, "damaged member at byte "},
		{"a tail of zeros", append(bytes.Clone(good), 0, 0, 0), ReaderOptions{}, nil, "damaged member"},
		{"a member that ends early", good[:len(good)-1], ReaderOptions{}, io.ErrUnexpectedEOF, "byte 0"},
		{"a long member that ends early", oneGzip(t, a)[:500], ReaderOptions{}, io.ErrUnexpectedEOF, "byte 0"},
		{"a member of more than it declares", bomb, ReaderOptions{}, ErrExpansion, "1024"},
		{"more than is allowed", oneGzip(t, make([]byte, 10<<20)), ReaderOptions{MaxBytes: 1 << 20}, ErrExpansion, "1.0 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readAll(t, tc.data, tc.opts)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want %v with %q", err, tc.is, tc.says)
			}
		})
	}
}

func TestReaderNoticesEveryFlippedByte(t *testing.T) {
	for name, data := range map[string][]byte{
		"declared": append(packMember(noise("a", 300), 1), packMember(noise("b", 100), 1)...),
		"plain":    append(oneGzip(t, noise("a", 300)), oneGzip(t, noise("b", 100))...),
	} {
		want, err := readAll(t, data, ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 0x55
			got, err := readAll(t, bad, ReaderOptions{Workers: 2})
			if err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: byte %d flipped: other data, and no error", name, i)
			}
			if _, err := readAll(t, bad, ReaderOptions{Workers: 2, KeepGoing: true}); err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: byte %d flipped, going on: no error", name, i)
			}
		}
	}
}

// readAround goes on behind damage and returns the data of each stretch and the damage. Nothing is inflated for who does not salvage.
func readAround(t testing.TB, data []byte) (good [][]byte, damage []*MemberError, err error) {
	t.Helper()
	r, err := NewStreamReader(context.Background(), bytes.NewReader(data), ReaderOptions{Workers: 2, KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var cur []byte
	for {
		p, err := r.next(1 << 30)
		var d *MemberError
		switch {
		case err == nil:
			cur = append(cur, p...)
			continue
		case errors.As(err, &d) && r.err == nil:
			good, cur = append(good, cur), nil
			damage = append(damage, d)
			if d.prefix != nil {
				t.Errorf("a damaged member was inflated again: %d bytes", len(d.prefix))
			}
			continue
		case err == io.EOF:
			err = nil
		}
		return append(good, cur), damage, err
	}
}

func TestReaderGoesOnBehindDamage(t *testing.T) {
	parts := [][]byte{noise("a", 200_000), noise("b", 200_000), noise("c", 200_000), noise("d", 900)}
	var data []byte
	var at []int
	for _, p := range parts {
		at = append(at, len(data))
		data = append(data, packMember(p, 1)...)
	}
	flip := func(i int) []byte {
		bad := bytes.Clone(data)
		bad[i] ^= 0xff
		return bad
	}
	for _, tc := range []struct {
		name     string
		data     []byte
		lost     int
		tarBytes int64
	}{
		{"data", flip(at[1] + 5000), 1, 200_000},
		{"checksum", flip(at[2] - 8), 1, 200_000},
		{"magic", flip(at[1]), 1, -1},
		{"stored length, too small", flip(at[1] + 16), 1, -1},
		{"stored length, too large", flip(at[1] + 18), 1, -1},
		{"inflated length", flip(at[1] + 20), 1, -1},
		{"inflated length in the trailer", flip(at[2] - 4), 1, -1},
		{"the first magic", flip(0), 0, -1},
		{"missing bytes", append(bytes.Clone(data[:at[1]+100]), data[at[1]+200:]...), 1, -1},
		{"missing members", append(bytes.Clone(data[:at[1]+100]), data[at[2]:]...), 1, -1},
		{"the last member", flip(at[3] + 300), 3, 900},
		{"the end", data[:len(data)-3], 3, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good, damage, err := readAround(t, tc.data)
			if err != nil {
				t.Fatal(err)
			}
			if len(damage) != 1 || damage[0].TarBytes != tc.tarBytes || damage[0].Offset != int64(at[tc.lost]) {
				t.Errorf("damage %+v, want one at %d of %d bytes", damage, at[tc.lost], tc.tarBytes)
			}
			want := bytes.Join(append(append([][]byte{}, parts[:tc.lost]...), parts[tc.lost+1:]...), nil)
			if got := bytes.Join(good, nil); !bytes.Equal(got, want) {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func TestReaderDoesNotTakeAnArchiveInsideForItself(t *testing.T) {
	inner := append(packMember([]byte("inner one"), 1), packMember([]byte("inner two"), 1)...)
	random := make([]byte, 300_000)
	rng := rand.NewChaCha8([32]byte{})
	_, _ = rng.Read(random) // cannot fail
	holder := append(append(bytes.Clone(random[:1000]), inner...), random[1000:]...)
	first, last := noise("first", 1000), noise("last", 100_000)
	data := packMember(first, 1)
	damaged := len(data)
	data = append(data, packMember(holder, 1)...)
	data = append(data, packMember(last, 1)...)
	if !bytes.Contains(data, inner) {
		t.Fatal("the inner archive did not pass through deflate unchanged: the test shows nothing")
	}
	data[damaged] ^= 0xff
	good, _, err := readAround(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Join(good, nil); !bytes.Equal(got, append(bytes.Clone(first), last...)) {
		t.Errorf("%d bytes, want those of the first and the last member only", len(got))
	}
}

func TestReaderFailsWithItsSource(t *testing.T) {
	data := packMember(noise("a", 200_000), 1)
	broken := errors.New("broken source")
	for _, n := range []int{0, 10, 5000} {
		src := io.MultiReader(bytes.NewReader(data[:n]), brokenReader{broken})
		r, err := NewStreamReader(context.Background(), src, ReaderOptions{KeepGoing: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: error %v, want that of the source", n, err)
		}
		r.Close()
	}
}

type brokenReader struct{ err error }

func (f brokenReader) Read([]byte) (int, error) { return 0, f.err }

func TestReaderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	source, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer source.Close()
	if _, err := w.Write(packMember(noise("a", 20_000), 1)); err != nil {
		t.Fatal(err)
	}
	r, err := NewStreamReader(ctx, source, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 20_000)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(first); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	w.Close() // lets the goroutine that reads the source go
	r.Close()
}

// FuzzReader holds reading around damage against what a good reader of gzip makes of the same bytes.
func FuzzReader(f *testing.F) {
	f.Add(append(packMember(noise("a", 300), 1), packMember(noise("b", 100), 1)...))
	f.Add(append(packMember([]byte("x"), 0)[:20], packMember(noise("b", 70_000), 1)...))
	f.Add(append(oneGzip(f, noise("a", 300)), 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 12, 0, 'V', 'T', 8, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		mine, err := readAll(t, data, ReaderOptions{MaxBytes: 8 << 20})
		if err == nil {
			zr, zerr := gzip.NewReader(bytes.NewReader(data))
			if zerr != nil {
				t.Fatalf("read it, the standard library does not: %v", zerr)
			}
			theirs, zerr := io.ReadAll(zr)
			if zerr != nil || !bytes.Equal(mine, theirs) {
				t.Fatalf("read %d bytes; the standard library %d, %v", len(mine), len(theirs), zerr)
			}
		}
		_, damage, gerr := readAround(t, data)
		if err != nil && !errors.Is(err, ErrExpansion) && len(damage) == 0 && gerr == nil {
			t.Fatalf("error %v, but none when going on", err)
		}
	})
}
