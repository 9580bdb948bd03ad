package agefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"voltar/internal/safedir"
)

// newKey returns a public and the secret key that belongs to it.
func newKey(t testing.TB) (public, secret string) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.Recipient().String(), identity.String()
}

// text returns bytes that are of no use to anyone, but the same each time.
func text(length int) []byte {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(length)))
	data := make([]byte, length)
	_, _ = rand.NewChaCha8(seed).Read(data)
	return data
}

// seal encrypts data, and checks the promises on sizes.
func seal(t testing.TB, data []byte, keys ...string) []byte {
	t.Helper()
	r, err := ParseRecipients(keys)
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	w, err := r.NewWriter(&stored)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := int64(stored.Len()); got != w.StoredBytes() || got != r.StoredBytes(int64(len(data))) || w.PlainBytes() != int64(len(data)) {
		t.Errorf("%d bytes became %d, where %d were promised", len(data), got, w.StoredBytes())
	}
	return stored.Bytes()
}

func identities(t testing.TB, secrets ...string) *Identities {
	t.Helper()
	i := &Identities{}
	for _, secret := range secrets {
		if err := i.Add(strings.NewReader("# a comment\n"+secret+"\n"), nil); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func TestWhatIsEncryptedComesBack(t *testing.T) {
	ours, secret := newKey(t)
	others, _ := newKey(t)
	for _, length := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 2*chunkBytes - 200, 2 * chunkBytes, pieceBytes + 3*chunkBytes + 7} {
		data := text(length)
		stored := seal(t, data, others, ours)
		f, err := Open(bytes.NewReader(stored), int64(len(stored)), identities(t, secret), OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if f.SizeBytes() != int64(length) {
			t.Errorf("size %d, want %d", f.SizeBytes(), length)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.SizeBytes()))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes did not come back: %v", length, err)
		}
		random := rand.New(rand.NewPCG(1, uint64(length)))
		var group sync.WaitGroup
		for range 20 {
			from := random.Int64N(int64(length) + 1)
			p := make([]byte, random.Int64N(int64(length)-from+2))
			group.Go(func() {
				n, err := f.ReadAt(p, from)
				if want := min(len(p), length-int(from)); n != want || (err != nil && err != io.EOF) || !bytes.Equal(p[:n], data[from:][:n]) {
					t.Errorf("%d of %d bytes at %d of %d: %v", n, len(p), from, length, err)
				}
			})
		}
		group.Wait()
	}
}

func TestOthersCannotRead(t *testing.T) {
	ours, _ := newKey(t)
	theirs, wrong := newKey(t)
	stored := seal(t, text(10), ours)
	if _, err := Open(bytes.NewReader(stored), int64(len(stored)), &Identities{}, OpenOptions{}); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	_, err := Open(bytes.NewReader(stored), int64(len(stored)), identities(t, wrong), OpenOptions{})
	if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), theirs) || strings.Contains(err.Error(), wrong) {
		t.Error(err)
	}
}

// requests counts what is asked of a store.
type requests struct {
	io.ReaderAt
	count int
	bytes int64
	fail  error
}

func (r *requests) ReadAt(p []byte, offset int64) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	r.count++
	r.bytes += int64(len(p))
	return r.ReaderAt.ReadAt(p, offset)
}

func TestOnlyTheChunksThatAreNeededAreFetched(t *testing.T) {
	public, secret := newKey(t)
	data := text(64 << 20)
	stored := seal(t, data, public)
	source := &requests{ReaderAt: bytes.NewReader(stored)}
	f, err := Open(source, int64(len(stored)), identities(t, secret), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if source.count != 2 || source.bytes > headBytes+storedChunk {
		t.Errorf("opening took %d requests for %d bytes", source.count, source.bytes)
	}
	for _, read := range []struct {
		name                  string
		offset, length        int64
		requests, extraChunks int64
	}{
		{"a few bytes", 20 << 20, 100, 1, 1},
		{"a member", 30<<20 + 17, 1 << 20, 1, 1},
		{"what follows it begins in the chunk that is here", 31<<20 + 17, 1 << 20, 1, 0},
		{"more than is held at a time", 40 << 20, 7 << 20, 2, 1},
	} {
		source.count, source.bytes = 0, 0
		p := make([]byte, read.length)
		if _, err := f.ReadAt(p, read.offset); err != nil || !bytes.Equal(p, data[read.offset:][:read.length]) {
			t.Errorf("%s: %v", read.name, err)
		}
		most := (read.length/chunkBytes + read.extraChunks) * storedChunk
		if int64(source.count) > read.requests || source.bytes > most {
			t.Errorf("%s: %d requests for %d bytes, want %d for at most %d", read.name, source.count, source.bytes, read.requests, most)
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	public, secret := newKey(t)
	data := text(5*chunkBytes + 100)
	stored := seal(t, data, public)
	header := len(stored) - len(data) - 6*tagBytes
	flip := func(at int) []byte {
		spoiled := bytes.Clone(stored)
		spoiled[at] ^= 1
		return spoiled
	}
	third := header + 2*storedChunk + 5
	other := seal(t, data, public)
	for _, test := range []struct {
		name   string
		stored []byte
		opens  bool
	}{
		{"in the header", flip(5), false},
		{"in the middle", flip(third), true},
		{"in the last chunk", flip(len(stored) - 1), false},
		{"the end is missing", stored[:len(stored)-1], false},
		{"the last chunks are missing", stored[:header+3*storedChunk], false},
		{"only the header is left", stored[:header], false},
		{"nothing is left", nil, false},
		{"something is behind it", append(bytes.Clone(stored), 0), false},
		{"chunks in another order", append(append(append(bytes.Clone(stored[:header]), stored[header+storedChunk:][:storedChunk]...),
			stored[header:][:storedChunk]...), stored[header+2*storedChunk:]...), true},
		{"the chunks of another file", append(bytes.Clone(stored[:header]), other[header:]...), false},
		{"no age file", text(len(stored)), false},
	} {
		f, err := Open(bytes.NewReader(test.stored), int64(len(test.stored)), identities(t, secret), OpenOptions{})
		if (err == nil) != test.opens || (err != nil && !errors.Is(err, ErrDamaged)) {
			t.Errorf("%s: opening it says %v", test.name, err)
		}
		if err != nil {
			continue
		}
		if _, err := io.ReadAll(io.NewSectionReader(f, 0, f.SizeBytes())); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: reading it says %v", test.name, err)
		}
	}

	for _, test := range []struct {
		name   string
		stored []byte
		size   int64 // that it seems to have had
		good   int64
	}{
		{"in the last chunk", flip(len(stored) - 1), int64(len(data)), 5 * chunkBytes},
		{"in the middle of a chunk", stored[:header+4*storedChunk-1000], 4*chunkBytes - 1000, 3 * chunkBytes},
		{"between chunks", stored[:header+3*storedChunk], 3 * chunkBytes, 3 * chunkBytes}, // the manifest knows the size
		{"in the first and the last", func() []byte { d := flip(len(stored) - 1); d[header] ^= 1; return d }(), int64(len(data)), 0},
		{"behind the header", stored[:header], 0, 0},
	} {
		f, err := Open(bytes.NewReader(test.stored), int64(len(test.stored)), identities(t, secret), OpenOptions{Lenient: true})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.SizeBytes()))
		want := append(bytes.Clone(data[:test.good]), make([]byte, max(0, test.size-test.good))...)
		if err != nil || f.SizeBytes() != test.size || !bytes.Equal(got[:min(len(got), int(test.good))], want[:test.good]) {
			t.Errorf("%s: %d of %d bytes, %v", test.name, len(got), f.SizeBytes(), err)
		}
		p := make([]byte, 100) // and back
		if n, err := f.ReadAt(p, 0); test.good > 0 && (err != nil || !bytes.Equal(p[:n], data[:n])) {
			t.Errorf("%s: %d bytes at the beginning, %v", test.name, n, err)
		}
		var damaged int64
		for _, r := range f.Damaged() {
			damaged += r.LengthBytes
		}
		if missing := test.size - test.good; damaged > missing || missing > 0 && damaged == 0 {
			t.Errorf("%s: damaged is %v", test.name, f.Damaged())
		}
	}
	f, err := Open(bytes.NewReader(flip(third)), int64(len(stored)), identities(t, secret), OpenOptions{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.SizeBytes()))
	want := bytes.Clone(data)
	clear(want[2*chunkBytes : 3*chunkBytes])
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("around the damage: %v", err)
	}
	if d := f.Damaged(); len(d) != 1 || d[0] != (Range{2 * chunkBytes, chunkBytes}) {
		t.Errorf("damaged is %v", d)
	}
}

// An error of the store is no damage: with the store back, all can be read.
func TestErrorsOfTheStoreAreNoDamage(t *testing.T) {
	public, secret := newKey(t)
	data := text(3 * chunkBytes)
	stored := seal(t, data, public)
	source := &requests{ReaderAt: bytes.NewReader(stored), fail: errors.New("no route to host")}
	if _, err := Open(source, int64(len(stored)), identities(t, secret), OpenOptions{}); !errors.Is(err, source.fail) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	source.fail = nil
	f, err := Open(source, int64(len(stored)), identities(t, secret), OpenOptions{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 2*chunkBytes+1)
	source.fail = errors.New("connection reset")
	if _, err := f.ReadAt(p, 0); !errors.Is(err, source.fail) || errors.Is(err, ErrDamaged) || len(f.Damaged()) > 0 {
		t.Errorf("%v, damaged %v", err, f.Damaged())
	}
	if _, err := f.ReadAt(p[:1], 0); !errors.Is(err, source.fail) || errors.Is(err, ErrDamaged) || len(f.Damaged()) > 0 {
		t.Errorf("%v, damaged %v", err, f.Damaged())
	}
	source.fail = nil
	if _, err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
		t.Error(err)
	}
}

func TestRecipients(t *testing.T) {
	public, secret := newKey(t)
	quantum, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		keys []string
		want string
	}{
		{"one", []string{public}, ""},
		{"two", []string{public, public}, ""},
		{"against quantum computers", []string{quantum.Recipient().String()}, ""},
		{"none", nil, "for nobody"},
		{"a secret key", []string{secret}, "secret key as a recipient"},
		{"a typing error", []string{strings.Replace(public, "age1", "age1q", 1)}, "cannot take"},
		{"an SSH key", []string{"ssh-ed25519 AAAA"}, "no public key of age"},
		{"of both kinds", []string{public, quantum.Recipient().String()}, "post-quantum"},
	} {
		_, err := ParseRecipients(test.keys)
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	file := filepath.Join(t.TempDir(), "recipients")
	if err := os.WriteFile(file, []byte("# ours\n\n"+public+"\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(file); err != nil || len(keys) != 1 || keys[0] != public {
		t.Errorf("%q, %v", keys, err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(file); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("a file that others can change gives %q, %v", keys, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("# nobody\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(file); err == nil {
		t.Errorf("a file of nobody gives %q", keys)
	}
}

func TestIdentityWithAPassphrase(t *testing.T) {
	public, secret := newKey(t)
	lock, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	lock.SetWorkFactor(10)
	var binary, armored bytes.Buffer
	armorer := armor.NewWriter(&armored)
	for _, to := range []io.Writer{&binary, armorer} {
		w, err := age.Encrypt(to, lock)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, secret+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := armorer.Close(); err != nil {
		t.Fatal(err)
	}
	say := func(word string, err error) func() (string, error) {
		return func() (string, error) { return word, err }
	}
	for name, file := range map[string][]byte{"binary": binary.Bytes(), "armored": armored.Bytes()} {
		i := &Identities{}
		if err := i.Add(bytes.NewReader(file), say("correct horse", nil)); err != nil || i.String() != public {
			t.Errorf("%s: %q, %v", name, i, err)
		}
		if err := i.Add(bytes.NewReader(file), say("battery staple", nil)); err == nil || !strings.Contains(err.Error(), "wrong passphrase") {
			t.Errorf("%s: %v", name, err)
		}
		if err := i.Add(bytes.NewReader(file), say("", io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := new(Identities).Add(strings.NewReader("nothing of the kind\n"), nil); err == nil {
		t.Error("any text is taken for an identity")
	}
}

// Whatever is done to a stored file, what is read of it is what was encrypted, or an error; or, leniently, zeros that are
// noted, or the beginning of it.
func FuzzDamage(f *testing.F) {
	public, secret := newKey(f)
	data := text(2*chunkBytes + 1000)
	stored := seal(f, data, public)
	keys := identities(f, secret)
	f.Add(uint32(0), byte(0), uint32(0))
	f.Add(uint32(70_000), byte(1), uint32(0))
	f.Add(uint32(len(stored)-1), byte(0x80), uint32(0))
	f.Add(uint32(0), byte(0), uint32(1016))
	f.Fuzz(func(t *testing.T, at uint32, mask byte, cut uint32) {
		spoiled := bytes.Clone(stored)
		spoiled[int(at)%len(spoiled)] ^= mask
		spoiled = spoiled[:len(spoiled)-int(cut)%(len(spoiled)+1)]
		for _, lenient := range []bool{false, true} {
			file, err := Open(bytes.NewReader(spoiled), int64(len(spoiled)), keys, OpenOptions{Lenient: lenient})
			if err != nil {
				continue
			}
			got, err := io.ReadAll(io.NewSectionReader(file, 0, file.SizeBytes()))
			want := bytes.Clone(data)
			for _, r := range file.Damaged() {
				clear(want[r.OffsetBytes:][:r.LengthBytes])
			}
			if lenient {
				want = want[:len(got)] // whoever opens it so compares the size with the manifest's
			}
			if err == nil && !bytes.Equal(got, want) || err != nil && lenient {
				t.Errorf("lenient %t: %d bytes that are others than encrypted, %v", lenient, len(got), err)
			}
		}
	})
}
