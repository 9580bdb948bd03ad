package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// packMember makes one gzip member with a VT subfield that declares what it is told.
func packMember(data []byte, level int) []byte {
	var body bytes.Buffer
	w, err := flate.NewWriter(&body, level)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(data) // a bytes.Buffer takes everything
	_ = w.Close()
	member := []byte{gzipID1, gzipID2, gzipDeflate, gzipFlagExtra, 0, 0, 0, 0, 0, 255, 12, 0, ExtraID1, ExtraID2, 8, 0}
	member = binary.LittleEndian.AppendUint32(member, uint32(memberHeadBytes+body.Len()+gzipTrailerBytes))
	member = binary.LittleEndian.AppendUint32(member, uint32(len(data)))
	member = append(member, body.Bytes()...)
	member = binary.LittleEndian.AppendUint32(member, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(member, uint32(len(data)))
}

// sample is an archive made by the tests, with its index.
type sample struct {
	data, index  []byte
	blocksOffset int64
	members      []Member
	entries      []Entry
	contents     map[string][]byte
}

// makeSample packs files of pseudo-random text into members of two files each, but for "big", which spans three.
func makeSample(t testing.TB, files int) *sample {
	t.Helper()
	s := &sample{contents: map[string][]byte{}}
	var chunk bytes.Buffer
	var total int64
	flush := func() {
		if chunk.Len() == 0 {
			return
		}
		stored := packMember(chunk.Bytes(), 1)
		s.members = append(s.members, Member{int64(len(s.data)), int64(len(stored)), total - int64(chunk.Len()),
			int64(chunk.Len())})
		s.data = append(s.data, stored...)
		chunk.Reset()
	}
	add := func(h *tar.Header, data []byte) {
		e := Entry{Path: strings.TrimSuffix(h.Name, "/"), Mode: uint32(h.Mode), MTime: h.ModTime, CTime: h.ModTime, TarOffset: total}
		switch h.Typeflag {
		case tar.TypeDir:
			e.Type = TypeDir
		case tar.TypeReg:
			e.Type, e.SizeBytes, e.StoredBytes = TypeFile, int64(len(data)), int64(len(data))
			s.contents[e.Path] = data
		case tar.TypeLink:
			e.Type, e.Linkname = TypeHardlink, h.Linkname
			i := slices.IndexFunc(s.entries, func(o Entry) bool { return o.Path == h.Linkname })
			e.DataOffset = s.entries[i].TarOffset
		}
		h.Format = tar.FormatPAX
		var one bytes.Buffer
		w := tar.NewWriter(&one)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if e.Path == "." || e.Path == "big" {
			flush()
		}
		e.TarBytes = int64(one.Len())
		total += e.TarBytes
		s.entries = append(s.entries, e)
		if e.Path != "big" {
			chunk.Write(one.Bytes())
			return
		}
		total -= e.TarBytes
		for rest := one.Bytes(); len(rest) > 0; {
			n := min(len(rest), 200*tarBlockBytes)
			chunk.Write(rest[:n])
			total += int64(n)
			if rest = rest[n:]; len(rest) > 0 {
				flush()
			}
		}
	}
	when := time.Unix(1_700_000_000, 123456789).UTC()
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: when}, nil)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o600, Size: 250_000, ModTime: when}, noise("big", 250_000))
	for i := range files {
		name := fmt.Sprintf("d%02d/", i)
		if i%2 == 0 {
			flush()
		}
		add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o750, ModTime: when}, nil)
		add(&tar.Header{Typeflag: tar.TypeReg, Name: name + "f", Mode: 0o644, Size: 40_000, ModTime: when}, noise(name, 40_000))
		if i > 0 {
			add(&tar.Header{Typeflag: tar.TypeLink, Name: name + "g", Linkname: fmt.Sprintf("d%02d/f", i-1), Mode: 0o644,
				ModTime: when}, nil)
		}
	}
	flush()
	chunk.Write(make([]byte, 1024))
	total += 1024
	flush()
	s.packIndex()
	return s
}

// packIndex makes the index, of blocks of four entries, as docs/format.md has them.
func (s *sample) packIndex() {
	var index, lines bytes.Buffer
	last := s.members[len(s.members)-1]
	total := last.TarOffset + last.TarBytes
	var blocks []Block
	for begin := 0; begin < len(s.entries); begin += 4 {
		part := s.entries[begin:min(begin+4, len(s.entries))]
		lines.Reset()
		if begin == 0 {
			lines.Write(appendFormat(nil))
		}
		first := s.memberAt(part[0].TarOffset)
		next := first
		for _, e := range part {
			for next < len(s.members) && s.members[next].TarOffset < e.TarOffset+e.TarBytes {
				lines.Write(appendMember(nil, summedMember{Member: s.members[next]}))
				next++
			}
			lines.Write(appendEntry(nil, &e))
		}
		if begin+4 >= len(s.entries) {
			for _, m := range s.members[next:] {
				lines.Write(appendMember(nil, summedMember{Member: m}))
			}
		}
		stored := packMember(lines.Bytes(), 1)
		blocks = append(blocks, Block{Offset: int64(index.Len()), LengthBytes: int64(len(stored)), FirstPath: part[0].Path,
			Entries: len(part), TarOffset: s.members[first].TarOffset})
		index.Write(stored)
	}
	s.blocksOffset = int64(index.Len())
	index.Write(packBlocks(blocks, indexTotal{int64(len(s.entries)), int64(len(s.members)), total, int64(len(s.data)), false}))
	s.index = index.Bytes()
}

func packBlocks(blocks []Block, total indexTotal) []byte {
	text := appendFormat(nil)
	for _, b := range blocks {
		text = appendBlock(text, b)
	}
	return packMember(appendTotal(text, total), 1)
}

func (s *sample) memberAt(tarOffset int64) int {
	for i, m := range s.members {
		if m.TarOffset+m.TarBytes > tarOffset {
			return i
		}
	}
	return -1
}

func (s *sample) openIndex(t testing.TB) *Index {
	t.Helper()
	x, err := OpenIndex(context.Background(), bytes.NewReader(s.index), int64(len(s.index)), s.blocksOffset)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// noise returns text that is the same for the same seed and does not compress to nothing.
func noise(seed string, n int) []byte {
	x := uint64(len(seed)) + 88172645463325252
	for _, c := range []byte(seed) {
		x = x*1099511628211 + uint64(c)
	}
	data := make([]byte, n)
	for i := range data {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = "abcdefghijklmnop"[x>>40&15]
	}
	return data
}

// tree describes all that is in a folder, one line for each thing.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			line += fmt.Sprintf(" %d bytes%s", st.Size, describeData(t, path, st.Size))
			if st.Nlink > 1 && inodes[st.Ino] == "" {
				inodes[st.Ino] = name
			}
			line += " " + inodes[st.Ino]
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %x", st.Rdev)
		}
		list := make([]byte, 64<<10)
		n, err := unix.Llistxattr(path, list)
		if err != nil {
			return err
		}
		names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
		slices.Sort(names)
		for _, a := range names {
			value := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(path, a, value)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s=%x", a, value[:n])
		}
		all[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// compareTrees reports what differs between two folders.
func compareTrees(t testing.TB, want, got map[string]string) {
	t.Helper()
	for name, line := range want {
		if got[name] != line {
			t.Errorf("%q:\nwant %s\n got %s", name, line, got[name])
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%q should not be there", name)
		}
	}
}

// countingAt counts the bytes that are read from it.
type countingAt struct {
	io.ReaderAt
	bytes, calls int64
}

func (c *countingAt) ReadAt(p []byte, offset int64) (int, error) {
	c.calls++
	c.bytes += int64(len(p))
	return c.ReaderAt.ReadAt(p, offset)
}
