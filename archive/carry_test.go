package archive

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testDay Day = 20_000

// failures collects why members cannot be used.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}

// memoryFile is a file of the previous archive that is in memory.
type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

func fileOf(data []byte) memoryFile { return memoryFile{bytes.NewReader(data)} }

// previousOf opens an archive to be carried over on the next day, at the default level.
func previousOf(t testing.TB, m made, failed func(error)) *Previous {
	t.Helper()
	p, err := ReadPrevious(t.Context(), bytes.NewReader(m.index), fileOf(m.archive), int64(len(m.archive)),
		PreviousOptions{Today: testDay + 1, FreshDays: 30, Failed: failed})
	must(t, err)
	return p
}

// unexpectedly fails the test when something of an archive cannot be carried over.
func unexpectedly(t testing.TB) func(error) {
	return func(err error) { t.Errorf("not carried: %v", err) }
}

// change changes some of a tree: content, names, times, and what is there.
func (g *treeGenerator) change(dir string) {
	var paths []string
	must(g.t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if path != dir {
			paths = append(paths, path)
		}
		return err
	}))
	for range 1 + g.rng.IntN(5) {
		if len(paths) == 0 {
			break
		}
		path := paths[g.rng.IntN(len(paths))]
		info, err := os.Lstat(path)
		if err != nil {
			continue // gone with its folder
		}
		switch kind := g.rng.IntN(5); {
		case kind == 0:
			must(g.t, os.RemoveAll(path))
		case kind == 1:
			must(g.t, os.Rename(path, filepath.Join(filepath.Dir(path), "moved"+g.name())))
		case info.Mode().IsRegular() && info.Size() > 0:
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(g.t, err)
			_, err = f.WriteAt([]byte{byte(g.rng.IntN(256))}, g.rng.Int64N(info.Size()))
			must(g.t, err)
			must(g.t, f.Close())
			if kind == 2 { // as what changed without leaving a trace
				must(g.t, os.Chtimes(path, info.ModTime(), info.ModTime()))
			}
		case info.Mode().IsDir():
			g.files = nil
			g.fill(filepath.Join(path, "more"+g.name()), 2)
		}
	}
	g.files = nil // some are gone
	g.fill(filepath.Join(dir, "new"), 3)
}

// An archive that carries over what it can is, to the byte, the one that is made without a previous one.
func TestCarriedArchiveIsTheOneMadeAfresh(t *testing.T) {
	carried := int64(0)
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 3))
		dir := filepath.Join(t.TempDir(), "tree")
		g := &treeGenerator{t: t, rng: rng}
		g.fill(dir, 5)
		large := bytes.Repeat(noise(fmt.Sprint(seed), 64<<10), 64+rng.IntN(64)) // members of pieces of a file
		writeFile(t, filepath.Join(dir, "large"), large, 0o600)
		limits := Limits{MemberIndexBytes: 400 + rng.IntN(3000)} // so that there are many members
		before := writeTreeOf(t, dir, TreeOptions{Limits: limits, Made: testDay})
		g.change(dir)
		fresh := writeTreeOf(t, dir, TreeOptions{Limits: limits, Made: testDay})
		again := writeTreeOf(t, dir, TreeOptions{Limits: limits, Made: testDay, Previous: previousOf(t, before, unexpectedly(t))})
		if !bytes.Equal(again.archive, fresh.archive) || !bytes.Equal(again.index, fresh.index) {
			t.Fatalf("seed %d: another archive or index", seed)
		}
		_, members := readIndex(t, fresh)
		for _, m := range members {
			if m.Offset%memberUnitBytes != 0 || m.LengthBytes%memberUnitBytes != 0 {
				t.Errorf("seed %d: a member of %d bytes at %d", seed, m.LengthBytes, m.Offset)
			}
		}
		if s := again.stats; s.Carried.Members > s.Members || s.Carried.Bytes > s.ArchiveBytes {
			t.Errorf("seed %d: carried %+v of %d members, %d bytes", seed, s.Carried, s.Members, s.ArchiveBytes)
		}
		carried += again.stats.Carried.Members
		// Unchanged, all of it is carried over.
		same := writeTreeOf(t, dir, TreeOptions{Limits: limits, Made: testDay + 1, Previous: previousOf(t, fresh, unexpectedly(t))})
		if !bytes.Equal(same.archive, fresh.archive) || same.stats.Carried != (Carried{same.stats.Members, same.stats.ArchiveBytes}) {
			t.Errorf("seed %d: %+v of %d members is carried of a tree that did not change", seed, same.stats.Carried, same.stats.Members)
		}
		if !bytes.Equal(gunzip(t, same.index), gunzip(t, fresh.index)) { // the days that members were made on are carried with them
			t.Errorf("seed %d: another index", seed)
		}
	}
	if carried < 20 {
		t.Errorf("only %d members of trees that changed a little were carried", carried)
	}
}

// imageWithList makes an image and the list of its members.
func imageWithList(t *testing.T, data []byte, opts ImageOptions) (made, ImageStats) {
	t.Helper()
	var list bytes.Buffer
	opts.Members = &list
	image, stats := imageOf(t, bytes.NewReader(data), int64(len(data)), opts)
	return made{archive: image, index: list.Bytes()}, stats
}

func TestCarriedImageIsTheOneMadeAfresh(t *testing.T) {
	data := append(bytes.Repeat(noise("image", 3<<18), 28), make([]byte, 19<<20)...) // members differ
	before, _ := imageWithList(t, data, ImageOptions{Made: testDay})
	data[5<<20]++ // in the second member
	data[29<<20]++
	fresh, _ := imageWithList(t, data, ImageOptions{Made: testDay})
	again, stats := imageWithList(t, data, ImageOptions{Made: testDay, Previous: previousOf(t, before, unexpectedly(t))})
	if !bytes.Equal(again.archive, fresh.archive) || !bytes.Equal(again.index, fresh.index) {
		t.Error("another image or list")
	}
	// Of ten members, two changed and three are of zeros, which are made once for all images.
	if stats.Members != 10 || stats.Carried.Members != 5 {
		t.Errorf("carried %+v of %d members", stats.Carried, stats.Members)
	}
	// Only zeros before more zeros are not padded.
	var got []int64
	for at := int64(0); at < int64(len(fresh.archive)); {
		got = append(got, at%memberUnitBytes)
		header, err := parseMemberHeader(fresh.archive[at:])
		must(t, err)
		at += header.storedBytes
	}
	if len(got) != 10 || slices.Max(got[:9]) > 0 || got[9] == 0 || len(fresh.archive)%memberUnitBytes != 0 {
		t.Errorf("members begin at %d behind a multiple, and the last ends at %d", got, len(fresh.archive))
	}
}

// A member that rotted anywhere is made anew from the source, and told of.
func TestRottenMemberIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), noise("content", 300<<10), 0o600)
	whole := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	_, members := readIndex(t, whole)
	first := members[0].LengthBytes
	for _, at := range []int64{0, 3, 16, 20, 23, 24, 1000, first / 2, first - 9, first - 8, first - 1, first} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			rotten := whole
			rotten.archive = bytes.Clone(whole.archive)
			rotten.archive[at] ^= 4
			var failed failures
			again := writeTreeOf(t, dir, TreeOptions{Made: testDay, Previous: previousOf(t, rotten, failed.add)})
			if !bytes.Equal(again.archive, whole.archive) {
				t.Error("another archive")
			}
			if len(failed.all) != 1 || !errors.Is(failed.all[0], ErrRotten) || again.stats.Carried.Members != again.stats.Members-1 {
				t.Errorf("%v; carried %+v of %d", failed.all, again.stats.Carried, again.stats.Members)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		var failed failures
		p := previousOf(t, whole, failed.add)
		p.src = fileOf(whole.archive[:first-1])
		again := writeTreeOf(t, dir, TreeOptions{Made: testDay, Previous: p})
		if !bytes.Equal(again.archive, whole.archive) || len(failed.all) != 2 || !errors.Is(failed.all[0], ErrRotten) {
			t.Errorf("%v", failed.all)
		}
	})
}

// A member that has every sum it must have, and holds something else, is found out where it is to be proved.
func TestProvedMemberMustHoldTheContent(t *testing.T) {
	plain, other := noise("a", 5000), noise("b", 5000)
	var enc memberEncoder
	forged, err := enc.encode(nil, other, LevelDefault)
	must(t, err)
	binary.LittleEndian.PutUint32(forged[len(forged)-8:], crc32.ChecksumIEEE(plain))
	for _, prove := range []bool{false, true} {
		var failed failures
		sum := sha256.Sum256(plain)
		p := &Previous{
			src:     fileOf(forged),
			opts:    PreviousOptions{Today: Day(proveEvery + 1 - int(sum[4])%proveEvery), Trusted: !prove, Failed: failed.add},
			members: []previousMember{{plain: sum, stored: storedSum(forged), length: uint32(len(forged))}},
			byPlain: []uint32{0},
		}
		var inf inflater
		_, carried := p.carry(&inf, nil, &job{plain: plain, sums: MemberSums{Plain: sum}})
		if carried == prove || (len(failed.all) == 0) == prove {
			t.Errorf("to be proved: %t; carried: %t, %v", prove, carried, failed.all)
		}
	}
}

// Every member is proved once in so many days, and each time where its sums may be anybody's.
func TestEveryMemberIsProvedInTime(t *testing.T) {
	for first := range 256 {
		proved := 0
		for day := range proveEvery {
			p := &Previous{
				opts:    PreviousOptions{Today: testDay + Day(day), Trusted: true},
				members: []previousMember{{plain: [32]byte{4: byte(first)}}},
			}
			if p.isToBeProved(&p.members[0]) {
				proved++
			}
			p.opts.Trusted = false
			if !p.isToBeProved(&p.members[0]) {
				t.Errorf("%d: not proved on day %d, though anybody may have written its sums", first, day)
			}
		}
		if proved != 1 {
			t.Errorf("%d: proved on %d days of %d", first, proved, proveEvery)
		}
	}
}

// Every length can be padded, and the padding inflates to nothing.
func TestPaddedMember(t *testing.T) {
	var enc memberEncoder
	src := noise("padded", 3000)
	member, err := enc.encode(nil, src, LevelDefault)
	must(t, err)
	for offset := range int64(memberUnitBytes) {
		padded := pad(bytes.Clone(member), offset)
		if end := offset + int64(len(padded)); end%memberUnitBytes != 0 || len(padded)-len(member) > memberUnitBytes+20 {
			t.Fatalf("at %d: %d bytes become %d", offset, len(member), len(padded))
		}
		if offset%31 == 0 && !bytes.Equal(gunzipOne(t, padded), src) {
			t.Fatalf("at %d: it inflates to something else", offset)
		}
	}
}

// Members are carried until their age, and made anew over many nights and not all in one.
func TestMembersAreMadeAnewInTime(t *testing.T) {
	image := make([]byte, 1)
	const size = 2000 * memberUnitBytes
	list := newTestList(t, 2000, func(i int) Day { return testDay })
	left := map[int]int{}
	for _, age := range []int{-1, 0, 1, 14, 15, 20, 29, 30, 31} {
		p, err := ReadPrevious(t.Context(), bytes.NewReader(list), fileOf(image), size, PreviousOptions{
			Today: testDay + Day(age), FreshDays: 30,
		})
		must(t, err)
		left[age] = len(p.members)
	}
	if left[-1] != 0 || left[0] != 2000 || left[1] != 2000 || left[14] != 2000 || left[30] != 0 || left[31] != 0 {
		t.Errorf("members carried by age: %v", left)
	}
	if left[15] > 1950 || left[15] < 1700 || left[20] < 1000 || left[20] > 1500 || left[29] == 0 {
		t.Errorf("members carried by age: %v; they are not made anew evenly", left)
	}
	for _, days := range []int{1, 2} {
		p, err := ReadPrevious(t.Context(), bytes.NewReader(list), fileOf(image), size, PreviousOptions{Today: testDay + Day(days), FreshDays: days})
		if err != nil || len(p.members) != 0 {
			t.Errorf("%d are carried at the age of %d days, %v", len(p.members), days, err)
		}
	}
}

// newTestList is the list of so many members of one unit each.
func newTestList(t *testing.T, count int, made func(i int) Day) []byte {
	t.Helper()
	var out bytes.Buffer
	list := newMemberList(&out, LevelDefault)
	for i := range count {
		must(t, list.add(summedMember{
			Member{Offset: int64(i) * memberUnitBytes, LengthBytes: memberUnitBytes, TarOffset: int64(i), TarBytes: 1},
			MemberSums{Plain: sha256.Sum256(fmt.Append(nil, i)), Made: made(i)},
		}))
	}
	must(t, list.finish())
	return out.Bytes()
}

// Of another level or encoder, or without sums, nothing is carried.
func TestOnlyTheSameEncodingIsCarried(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), noise("content", 10_000), 0o600)
	of := func(t *testing.T, edit func(string) string, opts PreviousOptions) int {
		t.Helper()
		m := writeTreeOf(t, dir, TreeOptions{Made: testDay})
		text := edit(string(gunzip(t, m.index)))
		packed := repack(t, text)
		opts.Today, opts.FreshDays = testDay+1, 30
		p, err := ReadPrevious(t.Context(), bytes.NewReader(packed), fileOf(m.archive), int64(len(m.archive)), opts)
		must(t, err)
		return len(p.members)
	}
	same := func(s string) string { return s }
	if n := of(t, same, PreviousOptions{}); n != 2 {
		t.Errorf("%d members are carried", n)
	}
	if n := of(t, same, PreviousOptions{Level: 5}); n != 0 {
		t.Errorf("%d members of another level are carried", n)
	}
	other := func(s string) string { return strings.Replace(s, Encoder, "another", 1) }
	if n := of(t, other, PreviousOptions{}); n != 0 {
		t.Errorf("%d members of another encoder are carried", n)
	}
	m := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	var rebuilt bytes.Buffer
	_, err := RebuildIndex(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), &rebuilt)
	must(t, err)
	m.index = rebuilt.Bytes()
	if p := previousOf(t, m, nil); len(p.members) != 0 {
		t.Errorf("%d members without sums are carried", len(p.members))
	}
}

// repack makes one gzip member of a text.
func repack(t testing.TB, text string) []byte {
	t.Helper()
	var enc memberEncoder
	packed, err := enc.encode(nil, []byte(text), LevelFast)
	must(t, err)
	return packed
}

// What an index claims is believed only as far as it can be.
func TestPreviousRefuses(t *testing.T) {
	sums := `"sha256":"` + strings.Repeat("ab", 32) + `","stored":"` + strings.Repeat("cd", 16) + `","made":"2024-10-01"`
	head := string(appendEncoder(appendFormat(nil), 0))
	total := string(appendTotal(nil, indexTotal{ArchiveBytes: 8192}))
	member := func(place string) string { return `{"member":{` + place + `,` + sums + "}}\n" }
	for name, text := range map[string]string{
		"behind the end":    head + member(`"offset":4097,"length":4096`) + total,
		"no length":         head + member(`"offset":0,"length":0`) + total,
		"beyond memory":     head + member(`"offset":0,"length":99999999`) + total,
		"negative":          head + member(`"offset":-1,"length":4096`) + total,
		"a short sum":       head + strings.Replace(member(`"offset":0,"length":4096`), "abab", "ab", 1) + total,
		"no hexadecimal":    head + strings.Replace(member(`"offset":0,"length":4096`), "abab", "abxy", 1) + total,
		"no day":            head + strings.Replace(member(`"offset":0,"length":4096`), "2024", "now", 1) + total,
		"no JSON":           head + "{\"member\"\n" + total,
		"no end":            head + member(`"offset":0,"length":4096`),
		"another archive":   head + member(`"offset":0,"length":4096`) + strings.Replace(total, "8192", "8193", 1),
		"a line of no kind": head + strings.Repeat("x", 100<<10) + "\n" + total,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadPrevious(t.Context(), bytes.NewReader(repack(t, text)), fileOf(nil), 8192, PreviousOptions{Today: testDay, FreshDays: 30})
			if err == nil {
				t.Error("it was taken")
			}
		})
	}
	long := head + `{"path":"` + strings.Repeat("x", 1<<20) + `"}` + "\n" + member(`"offset":0,"length":4096`) + total
	p, err := ReadPrevious(t.Context(), bytes.NewReader(repack(t, long)), fileOf(nil), 8192, PreviousOptions{Today: testDay, FreshDays: 30})
	if err != nil || len(p.members) != 1 {
		t.Errorf("behind a long line: %+v, %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadPrevious(ctx, bytes.NewReader(repack(t, long)), fileOf(nil), 8192, PreviousOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// failing fails every read in one way.
type failing struct {
	err   error
	reads *int
}

func (f failing) Close() error { return nil }

func (f failing) ReadAt([]byte, int64) (int, error) {
	*f.reads++
	return 0, f.err
}

// An archive that cannot be read is given up; one of which a part cannot be read is not.
func TestUnreadableArchiveIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), bytes.Repeat(noise("content", 64<<10), 20<<4), 0o600)
	m := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	for _, c := range []struct {
		err   error
		reads int
	}{{errors.New("gone"), 1}, {unix.EIO, int(m.stats.Members)}} {
		var failed failures
		p := previousOf(t, m, failed.add)
		reads := 0
		p.src = failing{c.err, &reads}
		pool := NewPool(1)
		again := writeTreeOf(t, dir, TreeOptions{Made: testDay, Previous: p, Pool: pool})
		pool.Close()
		if !bytes.Equal(again.archive, m.archive) || reads != c.reads || len(failed.all) != c.reads || !errors.Is(failed.all[0], c.err) {
			t.Errorf("%v: %d reads, %v", c.err, reads, failed.all)
		}
	}
}

// encoded is what the encoder makes of some data at each level. Encoder names it: where this changes, so must the name, for members
// of both must not be mixed.
var encoded = struct{ encoder, sum string }{
	"klauspost/compress v1.20.3, voltar 2", "5abcc6cb308b9071b20c39f69ef94a131b8922839eabf71a3e56c5550d5e743e",
}

func TestEncoderIsNamedForWhatItMakes(t *testing.T) {
	text := bytes.Repeat([]byte("a line of some text that repeats, as logs do\n"), 20_000)
	var enc memberEncoder
	h := sha256.New()
	for level := LevelFast - 1; level <= LevelBest; level++ {
		for _, src := range [][]byte{text, noise("encoded", 900<<10), append(noise("both", 300<<10), text...), nil} {
			packed, err := enc.encode(nil, src, level)
			must(t, err)
			_, _ = h.Write(pad(packed, 0))
		}
	}
	if sum := hex.EncodeToString(h.Sum(nil)); encoded.encoder != Encoder || encoded.sum != sum {
		t.Errorf("%q makes %s, and was to be %q that makes %s: give what makes other bytes another name", Encoder, sum, encoded.encoder, encoded.sum)
	}
	mod, err := os.ReadFile("../go.mod")
	must(t, err)
	if library, _, _ := strings.Cut(Encoder, ","); !bytes.Contains(mod, []byte("github.com/"+library+"\n")) {
		t.Errorf("go.mod has another library than %q", library)
	}
}

func TestDays(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC)
	if d := DayOf(at); d.String() != "2026-11-30" || DayOf(at.Add(time.Second)) != d+1 || DayOf(time.Time{}) != 0 {
		t.Errorf("%s", d)
	}
}

// Members that are carried can be read by whoever reads gzip.
func TestCarriedMembersInflate(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), bytes.Repeat(noise("content", 64<<10), 9<<4), 0o600)
	before := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	again := writeTreeOf(t, dir, TreeOptions{Made: testDay, Previous: previousOf(t, before, unexpectedly(t))})
	_, members := readIndex(t, again)
	for _, m := range members {
		data, err := io.ReadAll(flate.NewReader(bytes.NewReader(again.archive[m.Offset+memberHeadBytes:])))
		if err != nil || int64(len(data)) != m.TarBytes {
			t.Errorf("member at %d: %d bytes, %v", m.Offset, len(data), err)
		}
	}
}

// shared collects what is written, and of that what is carried over.
type shared struct {
	bytes.Buffer
	carried int
}

func (s *shared) WriteCarried(p []byte, file PreviousFile, offset int64) (int, error) {
	held := make([]byte, len(p))
	if _, err := file.ReadAt(held, offset); err != nil || !bytes.Equal(held, p) {
		return 0, errors.New("the other archive does not hold that")
	}
	s.carried += len(p)
	return s.Write(p)
}

// Whatever another archive is, or says of itself, what is passed on is what was written.
func TestCommonWriterPassesOnWhatIsWritten(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		writeFile(t, filepath.Join(dir, name), bytes.Repeat(noise(name, 64<<10), 80), 0o600)
	}
	before := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	writeFile(t, filepath.Join(dir, "b"), noise("another b", 5<<20), 0o600)
	now := writeTreeOf(t, dir, TreeOptions{Made: testDay})
	rotten := bytes.Clone(before.archive)
	for i := range rotten {
		rotten[i] ^= 1
	}
	open := func(m made, file []byte) *Previous {
		t.Helper()
		p, err := ReadPrevious(t.Context(), bytes.NewReader(m.index), fileOf(file), int64(len(file)), PreviousOptions{All: true})
		must(t, err)
		return p
	}
	for name, c := range map[string]struct {
		own         *Previous
		other       []byte
		least, most int // that is carried over
	}{
		"common":      {open(now, now.archive), before.archive, 1 << 20, len(now.archive) - 1<<20},
		"wrong index": {open(before, before.archive), before.archive, 0, len(now.archive)}, // an index that lies
		"rotten":      {open(now, now.archive), rotten, 0, 0},
	} {
		for _, piece := range []int{1000, 1 << 20, 64 << 20} {
			out := &shared{}
			w := NewCommonWriter(out, c.own, open(before, c.other))
			for data := now.archive; len(data) > 0; data = data[min(piece, len(data)):] {
				if n, err := w.Write(data[:min(piece, len(data))]); err != nil || n != min(piece, len(data)) {
					t.Fatalf("%s: %d, %v", name, n, err)
				}
			}
			if !bytes.Equal(out.Bytes(), now.archive) {
				t.Errorf("%s: something else is passed on", name)
			}
			if out.carried < c.least || out.carried > c.most {
				t.Errorf("%s: %d bytes are carried over", name, out.carried)
			}
		}
	}
}

func FuzzReadPrevious(f *testing.F) {
	f.Add(`{"encoder":{"name":"`+Encoder+`","level":6}}`+"\n"+`{"member":{"offset":0,"length":4096,"tar_offset":0,"tar_length":9,"sha256":"`+
		strings.Repeat("00", 32)+`","stored":"`+strings.Repeat("00", 16)+`","made":"2024-10-04"}}`+"\n"+`{"total":{"length":8192}}`+"\n", int64(8192))
	f.Add(`{"path":"x"`, int64(0))
	f.Fuzz(func(t *testing.T, text string, size int64) {
		p, err := ReadPrevious(t.Context(), bytes.NewReader(repack(t, text)), fileOf(nil), size,
			PreviousOptions{Today: testDay, FreshDays: 30})
		if err != nil {
			return
		}
		for _, m := range p.members {
			if m.offset < 0 || m.length == 0 || m.offset+int64(m.length) > size {
				t.Errorf("a member of %d bytes at %d, in an archive of %d", m.length, m.offset, size)
			}
		}
	})
}
