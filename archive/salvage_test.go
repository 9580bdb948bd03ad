package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hits returns the entries of a sample whose bytes overlap a member, with the hard links to them.
func (s *sample) hits(m Member) map[string]bool {
	lost := map[string]bool{}
	for _, e := range s.entries {
		if e.TarOffset < m.TarOffset+m.TarBytes && e.TarOffset+e.TarBytes > m.TarOffset {
			lost[e.Path] = true
		}
		if e.Type == TypeHardlink && lost[e.Linkname] {
			lost[e.Path] = true
		}
	}
	return lost
}

// damages are ways to spoil a member. Without an index, some cost the rest of the stream its place in it.
var damages = map[string]func(data []byte, m Member) []byte{
	"data":     func(d []byte, m Member) []byte { d[m.Offset+m.LengthBytes/2] ^= 0xff; return d },
	"checksum": func(d []byte, m Member) []byte { d[m.Offset+m.LengthBytes-8] ^= 0xff; return d },
	"header":   func(d []byte, m Member) []byte { d[m.Offset+1] ^= 0xff; return d },
	"length":   func(d []byte, m Member) []byte { d[m.Offset+17] ^= 0xff; return d },
	"all of it": func(d []byte, m Member) []byte {
		copy(d[m.Offset:m.Offset+m.LengthBytes], bytes.Repeat([]byte("X"), int(m.LengthBytes)))
		return d
	},
}

func TestExtractGoesOnBehindEveryDamagedMember(t *testing.T) {
	s := makeSample(t, 8)
	index := s.openIndex(t)
	for i, m := range s.members {
		for name, spoil := range damages {
			for _, with := range []*Index{index, nil} {
				t.Run(fmt.Sprintf("member %d, %s, index %v", i, name, with != nil), func(t *testing.T) {
					bad := spoil(bytes.Clone(s.data), m)
					if _, _, err := extractBytes(t, bad, ExtractOptions{Index: with}); err == nil {
						t.Error("no error without going on")
					}
					dir, stats, err := extractBytes(t, bad, ExtractOptions{KeepGoing: true, Index: with})
					if !errors.Is(err, ErrIncomplete) {
						t.Fatalf("error %v, want ErrIncomplete", err)
					}
					if len(stats.Damage) != 1 || stats.Damage[0].Offset != m.Offset {
						t.Errorf("damage %+v, want one at %d", stats.Damage, m.Offset)
					}
					lost := s.hits(m)
					listed := map[string]bool{}
					for _, f := range stats.Failures {
						listed[f.Path] = true
					}
					if with != nil && !maps.Equal(listed, lost) {
						t.Errorf("lost %v, want %v: %v", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(lost)), stats.Failures)
					}
					s.checkExtracted(t, dir, lost)
				})
			}
		}
	}
}

// checkExtracted looks for all files that are not lost, with their data, and for none that is.
func (s *sample) checkExtracted(t *testing.T, dir string, lost map[string]bool) {
	t.Helper()
	for _, e := range s.entries {
		if e.Type == TypeDir {
			continue
		}
		content := e.Path
		if e.Type == TypeHardlink {
			content = e.Linkname
		}
		got, err := os.ReadFile(filepath.Join(dir, e.Path))
		switch {
		case lost[e.Path] && err == nil:
			t.Errorf("%q is there, but was lost", e.Path)
		case !lost[e.Path] && !bytes.Equal(got, s.contents[content]):
			t.Errorf("%q: %d bytes of %d, %v", e.Path, len(got), len(s.contents[content]), err)
		}
	}
}

func TestExtractSurvivesADamagedIndex(t *testing.T) {
	s := makeSample(t, 8)
	bad := bytes.Clone(s.index)
	bad[len(bad)/3] ^= 0xff
	x, err := OpenIndex(context.Background(), bytes.NewReader(bad), int64(len(bad)), s.blocksOffset)
	must(t, err)
	dir, stats, err := extractBytes(t, s.data, ExtractOptions{KeepGoing: true, Index: x})
	if !errors.Is(err, ErrIncomplete) || len(stats.Damage) > 0 {
		t.Errorf("%v, damage %v", err, stats.Damage)
	}
	s.checkExtracted(t, dir, nil)
}

func verifySample(t *testing.T, s *sample, data []byte, index *Index, opts VerifyOptions) VerifyResult {
	t.Helper()
	res, err := Verify(context.Background(), bytes.NewReader(data), int64(len(data)), index, opts)
	must(t, err)
	return res
}

func TestVerifyFindsNothingInGoodArchives(t *testing.T) {
	s := makeSample(t, 8)
	x := s.openIndex(t)
	for _, level := range []VerifyLevel{VerifyQuick, VerifySample, VerifyFull} {
		for _, index := range []*Index{x, nil} {
			res := verifySample(t, s, s.data, index, VerifyOptions{Level: level, SamplePercent: 50})
			if !res.Good() {
				t.Errorf("level %d, index %v: %q", level, index != nil, res.Findings)
			}
			if level == VerifyFull && res.Entries != int64(len(s.entries)) {
				t.Errorf("%d entries of %d", res.Entries, len(s.entries))
			}
		}
	}
	src := richTree(t)
	m := writeTreeOf(t, src, TreeOptions{})
	res, err := Verify(context.Background(), bytes.NewReader(m.archive), int64(len(m.archive)), m.openIndex(t),
		VerifyOptions{Level: VerifyFull})
	if err != nil || !res.Good() {
		t.Errorf("%v: %q", err, res.Findings)
	}
}

func TestVerifyNamesWhatIsLost(t *testing.T) {
	s := makeSample(t, 6)
	x := s.openIndex(t)
	for i, m := range s.members {
		for name, spoil := range damages {
			bad := spoil(bytes.Clone(s.data), m)
			res := verifySample(t, s, bad, x, VerifyOptions{Level: VerifyFull})
			listed := map[string]bool{}
			for _, f := range res.Lost {
				listed[f.Path] = true
			}
			if want := s.hits(m); res.Good() || !maps.Equal(listed, want) {
				t.Errorf("member %d, %s: lost %v, want %v", i, name, slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(want)))
			}
			if len(res.Damage) != 1 || res.Damage[0].Offset != m.Offset {
				t.Errorf("member %d, %s: damage %v", i, name, res.Damage)
			}
			if res := verifySample(t, s, bad, nil, VerifyOptions{Level: VerifyFull}); res.Good() {
				t.Errorf("member %d, %s: good without the index", i, name)
			}
			all := VerifyOptions{Level: VerifySample, SamplePercent: 100}
			if res := verifySample(t, s, bad, x, all); res.Good() {
				t.Errorf("member %d, %s: a sample of all is good", i, name)
			}
		}
	}
}

func TestVerifyQuickSeesLengths(t *testing.T) {
	s := makeSample(t, 6)
	for name, data := range map[string][]byte{
		"cut off":     s.data[:len(s.data)-1],
		"a tail":      append(bytes.Clone(s.data), 'x'),
		"a header":    damages["header"](bytes.Clone(s.data), s.members[3]),
		"a length":    damages["length"](bytes.Clone(s.data), s.members[3]),
		"no archive":  nil,
		"a short cut": s.data[:s.members[2].Offset],
	} {
		res := verifySample(t, s, data, s.openIndex(t), VerifyOptions{})
		if res.Good() {
			t.Errorf("%s: good", name)
		}
		if res := verifySample(t, s, data, nil, VerifyOptions{}); res.Good() && name != "a short cut" {
			t.Errorf("%s: good without the index", name)
		}
	}
}

func TestVerifyComparesEveryField(t *testing.T) {
	s := makeSample(t, 2)
	for name, change := range map[string]func(*Entry){
		"path":        func(e *Entry) { e.Path += "x" },
		"mode":        func(e *Entry) { e.Mode ^= 1 },
		"owner":       func(e *Entry) { e.GID++ },
		"time":        func(e *Entry) { e.MTime = e.MTime.Add(1) },
		"size":        func(e *Entry) { e.SizeBytes++ },
		"stored size": func(e *Entry) { e.StoredBytes-- },
		"type":        func(e *Entry) { e.Type = TypeFIFO },
		"device":      func(e *Entry) { e.DevMinor++ },
		"length":      func(e *Entry) { e.TarBytes++ },
		"link":        func(e *Entry) { e.Linkname = "else" },
	} {
		other := *s
		other.entries = slices.Clone(s.entries)
		i := slices.IndexFunc(other.entries, func(e Entry) bool { return e.Path == "d01/f" })
		change(&other.entries[i])
		other.packIndex()
		res := verifySample(t, s, s.data, other.openIndex(t), VerifyOptions{Level: VerifyFull})
		if res.Good() || !strings.Contains(strings.Join(res.Findings, "\n"), name+" differs") {
			t.Errorf("%s: %q", name, res.Findings)
		}
	}
	other := *s
	other.entries = slices.Delete(slices.Clone(s.entries), 3, 4)
	other.packIndex()
	if res := verifySample(t, s, s.data, other.openIndex(t), VerifyOptions{Level: VerifyFull}); res.Good() {
		t.Error("an entry is missing from the index, and all is good")
	}
}

func TestRebuildIndex(t *testing.T) {
	src := richTree(t)
	m := writeTreeOf(t, src, TreeOptions{})
	original := m.openIndex(t)
	var out bytes.Buffer
	var err error
	rebuilt := made{archive: m.archive}
	rebuilt.stats.IndexBlocksOffset, err = RebuildIndex(context.Background(), bytes.NewReader(m.archive),
		int64(len(m.archive)), &out)
	must(t, err)
	rebuilt.index = out.Bytes()
	x := rebuilt.openIndex(t)
	res, err := Verify(context.Background(), bytes.NewReader(m.archive), int64(len(m.archive)), x, VerifyOptions{Level: VerifyFull})
	if err != nil || !res.Good() {
		t.Errorf("%v: %q", err, res.Findings)
	}
	var want, got []string
	for e, err := range original.All(context.Background()) {
		must(t, err)
		e.CTime, e.Inode, e.Flags, e.OddXattrs = e.MTime, 0, 0, nil
		if e.Type == TypeHardlink {
			e.SizeBytes, e.StoredBytes = 0, 0
		}
		if e.Type != TypeSocket {
			want = append(want, fmt.Sprint(e))
		}
	}
	for e, err := range x.All(context.Background()) {
		must(t, err)
		got = append(got, fmt.Sprint(e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	plain := oneGzip(t, tarOf(t, entry{name: "a"}))
	if _, err := RebuildIndex(context.Background(), bytes.NewReader(plain), int64(len(plain)), &out); err == nil {
		t.Error("an archive without declared members: no error")
	}
	bad := damages["data"](bytes.Clone(m.archive), Member{Offset: 0, LengthBytes: 2000})
	if _, err := RebuildIndex(context.Background(), bytes.NewReader(bad), int64(len(bad)), &out); err == nil {
		t.Error("a damaged archive: no error")
	}
}

type holes struct {
	*os.File
	punched int64
}

func (h *holes) PunchHole(_, length int64) error { h.punched += length; return nil }

func TestReadImage(t *testing.T) {
	const size = 2*ImageMemberBytes + 12345
	image := make([]byte, size)
	copy(image, noise("image", 100_000))
	copy(image[size-500:], noise("end", 500))
	var out bytes.Buffer
	_, err := WriteImage(context.Background(), bytes.NewReader(image), size, &out, ImageOptions{})
	must(t, err)
	read := func(data []byte, opts ReadImageOptions, going bool) (*holes, ReadImageStats, error) {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		must(t, err)
		t.Cleanup(func() { must(t, f.Close()) })
		must(t, f.Truncate(size))
		r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{KeepGoing: going})
		must(t, err)
		defer r.Close()
		dst := &holes{File: f}
		stats, err := ReadImage(context.Background(), r, dst, opts)
		return dst, stats, err
	}
	for _, opts := range []ReadImageOptions{{SizeBytes: size}, {SizeBytes: -1, SkipZeros: true}} {
		dst, stats, err := read(out.Bytes(), opts, false)
		must(t, err)
		got, err := os.ReadFile(dst.Name())
		if err != nil || !bytes.Equal(got, image) {
			t.Errorf("another image, %v", err)
		}
		if stats.SizeBytes != size || opts.SkipZeros != (stats.ZeroBytes > 0) || dst.punched != stats.ZeroBytes ||
			stats.WrittenBytes+stats.ZeroBytes != size {
			t.Errorf("%+v, %d punched", stats, dst.punched)
		}
	}
	if _, _, err := read(out.Bytes(), ReadImageOptions{SizeBytes: size - 1}, false); !errors.Is(err, ErrExpansion) {
		t.Errorf("too long: %v", err)
	}
	if _, _, err := read(out.Bytes(), ReadImageOptions{SizeBytes: size + 1}, false); err == nil {
		t.Error("too short: no error")
	}
	bad := out.Bytes()
	bad[1000] ^= 0xff
	if _, _, err := read(bad, ReadImageOptions{SizeBytes: size}, false); err == nil {
		t.Error("damaged: no error")
	}
	dst, stats, err := read(bad, ReadImageOptions{SizeBytes: size}, true)
	if !errors.Is(err, ErrIncomplete) || len(stats.Damage) != 1 || stats.Damage[0].TarBytes != ImageMemberBytes {
		t.Errorf("damaged: %v, %+v", err, stats)
	}
	clear(image[:ImageMemberBytes])
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, image) {
		t.Errorf("what is not damaged is not there, %v", err)
	}
}

// What a damaged member has of whole files before its fault is taken out beside their names: of a cut archive as it was, and never
// under the name itself.
func TestExtractSalvagesFilesOfADamagedMember(t *testing.T) {
	s := makeSample(t, 8)
	index := s.openIndex(t)
	found := 0
	for i, m := range s.members {
		for _, with := range []*Index{index, nil} {
			cut := s.data[:m.Offset+m.LengthBytes*3/4]
			dir, stats, err := extractBytes(t, cut, ExtractOptions{KeepGoing: true, Index: with})
			if !errors.Is(err, ErrIncomplete) {
				t.Fatalf("member %d, index %v: %v", i, with != nil, err)
			}
			listed := map[string]int{}
			for _, f := range stats.Failures {
				listed[f.Path]++
			}
			for _, e := range s.entries {
				got, err := os.ReadFile(filepath.Join(dir, e.Path+SalvageSuffix))
				if err != nil {
					continue
				}
				found++
				if _, err := os.Lstat(filepath.Join(dir, e.Path)); err == nil || !bytes.Equal(got, s.contents[e.Path]) || listed[e.Path] != 1 {
					t.Errorf("member %d, %q: %d bytes of %d, listed %d times", i, e.Path, len(got), len(s.contents[e.Path]), listed[e.Path])
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("%d files only were salvaged", found)
	}
}

// A file whose member is damaged reads up to the fault, and then says so.
func TestOpenSalvagedReadsUpToTheDamage(t *testing.T) {
	s := makeSample(t, 8)
	index := s.openIndex(t)
	e, members, err := index.Find(context.Background(), "big")
	must(t, err)
	bad := damages["checksum"](bytes.Clone(s.data), members[1])
	for salvaged, least := range map[bool]int{false: 0, true: 1} {
		open := OpenFile
		if salvaged {
			open = OpenSalvaged
		}
		f, err := open(context.Background(), bytes.NewReader(bad), e, members)
		must(t, err)
		got, err := io.ReadAll(f)
		var damage *MemberError
		want := int(members[1].TarOffset - e.TarOffset + int64(least)*members[1].TarBytes)
		if !errors.As(err, &damage) || len(got) > want || len(got) < want-tarBlockBytes*4 || !bytes.Equal(got, s.contents["big"][:len(got)]) {
			t.Errorf("salvaged %v: %d bytes, want about %d, %v", salvaged, len(got), want, err)
		}
		must(t, f.Close())
	}
}
