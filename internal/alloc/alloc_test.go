package alloc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/hostcmd"
)

func run(t *testing.T, argv ...string) []byte {
	t.Helper()
	res, err := hostcmd.New(hostcmd.Options{}).Run(t.Context(), hostcmd.Cmd{Name: argv[0], Args: argv[1:]})
	if err != nil {
		t.Fatal(err)
	}
	return res.Stdout
}

// noise makes a file of random bytes, as the free space of a used disk is.
func noise(t *testing.T, name string, sizeBytes int) string {
	t.Helper()
	data := make([]byte, sizeBytes)
	chacha := rand.NewChaCha8([32]byte([]byte("the same noise in each test run.")))
	_, _ = chacha.Read(data) // never fails
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// inUse collects the ranges of an image, which have to be in order and apart.
func inUse(t testing.TB, image []byte, fsType string) ([]Range, int64) {
	t.Helper()
	ranges, err := InUse(bytes.NewReader(image), int64(len(image)), fsType)
	if err != nil {
		t.Fatal(err)
	}
	list, used := slices.Collect(ranges), int64(0)
	for i, r := range list {
		if i > 0 && r.OffsetBytes < list[i-1].OffsetBytes+list[i-1].LengthBytes+mergeBytes {
			t.Errorf("%+v follows %+v", r, list[i-1])
		}
		used += r.LengthBytes
	}
	return list, used
}

// only returns an image of nothing but some ranges.
func only(image []byte, ranges []Range) []byte {
	out := make([]byte, len(image))
	for _, r := range ranges {
		copy(out[r.OffsetBytes:][:r.LengthBytes], image[r.OffsetBytes:])
	}
	return out
}

// What is in use of a real NTFS is all that its own tools need to find every file whole.
func TestNTFS(t *testing.T) {
	for _, args := range [][]string{nil, {"-c", "65536"}, {"-s", "4096"}, {"-c", "512"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			const size = 48 << 20
			path := noise(t, "disk", size)
			run(t, slices.Concat([]string{"mkfs.ntfs", "-Q", "-q", "-F", "-T"}, args, []string{path})...)
			var files [][]byte
			for i := range 8 {
				content := noise(t, "content", 700_000+i*77_777)
				data, err := os.ReadFile(content)
				if err != nil {
					t.Fatal(err)
				}
				data = data[i*1000:]
				if err := os.WriteFile(content, data, 0o600); err != nil {
					t.Fatal(err)
				}
				run(t, "ntfscp", "-f", path, content, fmt.Sprintf("file%d", i))
				files = append(files, data)
			}
			image, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			ranges, used := inUse(t, image, "ntfs")
			if used < 8*700_000 || used > size/3 {
				t.Errorf("%d bytes of %d in use: %+v", used, size, ranges)
			}
			if last := ranges[len(ranges)-1]; last.OffsetBytes+last.LengthBytes != size || ranges[0].OffsetBytes != 0 || ranges[0].LengthBytes < 8192 {
				t.Errorf("the boot sectors are not in use: %+v", ranges)
			}
			if err := os.WriteFile(path, only(image, ranges), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "ntfsresize", "--info", "--force", "--no-progress-bar", path)
			for i, want := range files {
				if got := run(t, "ntfscat", path, fmt.Sprintf("file%d", i)); !bytes.Equal(got, want) {
					t.Errorf("file%d came back with %d bytes, other than its %d", i, len(got), len(want))
				}
			}
		})
	}
}

// Likewise of exFAT, where clusters that are marked by hand stand for files.
func TestExFAT(t *testing.T) {
	for _, args := range [][]string{nil, {"-c", "32768", "-b", "65536"}, {"-c", "512"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			const size = 48 << 20
			path := noise(t, "disk", size)
			run(t, slices.Concat([]string{"mkfs.exfat"}, args, []string{path})...)
			image, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m, err := readExFAT(io.NewSectionReader(bytes.NewReader(image), 0, size))
			if err != nil {
				t.Fatal(err)
			}
			_, before := inUse(t, image, "exfat")
			// Three clusters far behind, that cross a byte of the map, and the very last one.
			var want []Range
			for _, cluster := range []int64{m.clusters/2 | 7, m.clusters/2 | 7 + 1, m.clusters/2 | 7 + 2, m.clusters - 1} {
				image[m.pieces[0].OffsetBytes+cluster/8] |= 1 << (cluster % 8)
				want = append(want, Range{m.heapBytes + cluster*m.clusterBytes, m.clusterBytes})
			}
			ranges, used := inUse(t, image, "exfat")
			if used <= before || used > size/3 {
				t.Errorf("%d bytes of %d in use, before that %d: %+v", used, size, before, ranges)
			}
			left := only(image, ranges)
			for _, r := range want {
				if !bytes.Equal(left[r.OffsetBytes:][:r.LengthBytes], image[r.OffsetBytes:][:r.LengthBytes]) {
					t.Errorf("%+v is not in use", r)
				}
			}
			if !bytes.Equal(left[m.end():], image[m.end():]) || !bytes.Equal(left[:m.heapBytes], image[:m.heapBytes]) {
				t.Error("what is no cluster is not in use")
			}
			if err := os.WriteFile(path, left, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "fsck.exfat", "-n", path)
		})
	}
}

const (
	tinySector  = 512
	tinySectors = 8192 // with clusters of one
	tinyMFT     = 100
	tinyLog     = 200
	tinyMap     = 300
)

// tinyNTFS makes the parts of an NTFS that are looked at.
func tinyNTFS() []byte {
	image := make([]byte, (tinySectors+1)*tinySector)
	copy(image[3:], "NTFS    ")
	le := binary.LittleEndian
	le.PutUint16(image[11:], tinySector)
	image[13] = 1
	le.PutUint64(image[40:], tinySectors)
	le.PutUint64(image[48:], tinyMFT)
	image[64] = 0xf6 // 2^10
	record := func(number int, kind uint32, value []byte, runs []byte, sizeBytes uint64) {
		r := image[tinyMFT*tinySector+number*1024:][:1024]
		copy(r, "FILE")
		le.PutUint16(r[4:], 48)
		le.PutUint16(r[6:], 3)
		le.PutUint16(r[20:], 56)
		a := r[56:]
		le.PutUint32(a, kind)
		if value != nil {
			le.PutUint32(a[4:], 64)
			le.PutUint32(a[16:], uint32(len(value)))
			le.PutUint16(a[20:], 24)
			copy(a[24:], value)
		} else {
			le.PutUint32(a[4:], 96)
			a[8] = 1
			le.PutUint16(a[32:], 64)
			le.PutUint64(a[40:], sizeBytes)
			le.PutUint64(a[48:], sizeBytes)
			le.PutUint64(a[56:], sizeBytes)
			copy(a[64:], runs)
		}
		le.PutUint32(a[le.Uint32(a[4:]):], ntfsAttrEnd)
	}
	record(ntfsRecordVol, ntfsAttrInfo, make([]byte, 12), nil, 0)
	record(ntfsRecordLog, ntfsAttrData, nil, []byte{0x21, 16, tinyLog, 0}, 8192)
	// In two pieces, the second before the first.
	record(ntfsRecordBitmap, ntfsAttrData, nil, []byte{0x21, 1, tinyMap & 0xff, tinyMap >> 8, 0x11, 1, 0xfe}, 1024)
	for i := range 8192 {
		image[tinyLog*tinySector+i] = 0xff
	}
	for cluster := range 4 * tinyLog {
		mark(image, cluster)
	}
	return image
}

// mark marks a cluster of a tinyNTFS.
func mark(image []byte, cluster int) {
	at := tinyMap*tinySector + cluster/8
	if cluster/8 >= tinySector {
		at = (tinyMap-2)*tinySector + cluster/8 - tinySector
	}
	image[at] |= 1 << (cluster % 8)
}

func restartPage(inUse uint16, lsn uint64, flags uint16) []byte {
	page := make([]byte, ntfsLogPageBytes)
	copy(page, "RSTR")
	const area = 0x30
	binary.LittleEndian.PutUint32(page[16:], ntfsLogPageBytes)
	binary.LittleEndian.PutUint16(page[24:], area)
	binary.LittleEndian.PutUint64(page[area:], lsn)
	binary.LittleEndian.PutUint16(page[area+12:], inUse)
	binary.LittleEndian.PutUint16(page[area+14:], flags)
	return page
}

// Whatever does not fit has everything taken for in use.
func TestUnbelievableNTFS(t *testing.T) {
	info, bitmap := tinyMFT*tinySector+ntfsRecordVol*1024+56, tinyMFT*tinySector+ntfsRecordBitmap*1024+56
	restart := func(pages ...[]byte) func([]byte) {
		return func(b []byte) { copy(b[tinyLog*tinySector:], bytes.Join(pages, nil)) }
	}
	set := func(at int, value ...byte) func([]byte) { return func(b []byte) { copy(b[at:], value) } }
	for _, c := range []struct {
		name   string
		change func([]byte)
		reason string // "" is believed
	}{
		{"sound", func([]byte) {}, ""},
		{"dirty", set(info+24+10, 1), "marked as dirty"},
		{"no flags", set(info, 0x50), "nothing of its state"},
		{"log open", restart(restartPage(0, 9, 0)), "log is open"},
		{"log closed", restart(restartPage(ntfsNoClient, 9, 0)), ""},
		{"log clean", restart(restartPage(0, 9, ntfsLogClean)), ""},
		{"log opened again", restart(restartPage(ntfsNoClient, 9, 0), restartPage(0, 10, 0)), "log is open"},
		{"log closed again", restart(restartPage(0, 9, 0), restartPage(ntfsNoClient, 10, 0)), ""},
		{"log broken", set(tinyLog*tinySector, []byte("BAAD")...), "log is open"},
		{"map compressed", set(bitmap+12, 1), "compressed"},
		{"map not all written", set(bitmap+56, 0xff, 3), "are wanted"},
		{"map too short", set(bitmap+48, 0xff, 3), "are wanted"},
		{"map without its end", set(bitmap+68, 0), "runs lack 512 bytes"},
		{"map in holes", set(bitmap+68, 0x01), "make no sense"},
		{"map outside", set(bitmap+66, 0xff, 0x7f), "run of 1 clusters at"},
		{"map elsewhere", set(bitmap+16, 1), "elsewhere"},
		{"map calls itself free", func(b []byte) { b[tinyMap*tinySector+tinyMap/8] = 0 }, "free"},
		{"map calls the boot sector free", func(b []byte) { b[tinyMap*tinySector] &^= 1 }, "free"},
		{"map calls the MFT free", func(b []byte) { b[tinyMap*tinySector+tinyMFT/8] = 0 }, "free"},
		{"record written in part", set(bitmap-56+510, 1), "written in part"},
		{"no record", set(bitmap-56, 'B'), "is none"},
		{"larger than its place", set(40, 0xff, 0xff, 0xff), "sectors"},
		{"MFT outside", set(48, 0xff, 0xff, 0xff), "MFT at cluster"},
		{"odd clusters", set(13, 3), "clusters of"},
		{"another name", set(3, 'X'), "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := tinyNTFS()
			c.change(image)
			_, err := InUse(bytes.NewReader(image), int64(len(image)), "ntfs")
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%v, want %q", err, c.reason)
			}
		})
	}
}

func TestUnbelievableExFAT(t *testing.T) {
	path := noise(t, "disk", 16<<20)
	run(t, "mkfs.exfat", path)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	x, root, err := readExFATBoot(io.NewSectionReader(bytes.NewReader(sound), 0, int64(len(sound))))
	if err != nil {
		t.Fatal(err)
	}
	rootAt, err := x.offset(root)
	if err != nil {
		t.Fatal(err)
	}
	entry := int(rootAt) + exfatEntryBytes*slices.IndexFunc(slices.Collect(slices.Chunk(sound[rootAt:rootAt+4096], exfatEntryBytes)),
		func(e []byte) bool { return e[0] == exfatEntryBitmap })
	set := func(at int, value ...byte) func([]byte) { return func(b []byte) { copy(b[at:], value) } }
	for _, c := range []struct {
		name   string
		change func([]byte)
		reason string
	}{
		{"sound", func([]byte) {}, ""},
		{"dirty", set(106, exfatVolumeDirty), "not unmounted"},
		{"TexFAT", set(110, 2), "2 tables"},
		{"of the future", set(105, 2), "revision 2"},
		{"more clusters than room", set(92, 0xff, 0xff, 0xff), "clusters of"},
		{"no map", set(entry, 0x85), "has none"},
		{"map too short", set(entry+24, 1, 0), "has 1 bytes"},
		{"map nowhere", set(entry+20, 0xff, 0xff, 0xff, 0x7f), "no cluster"},
		{"root nowhere", set(96, 0, 0, 0, 0), "no cluster 0"},
		{"map calls itself free", func(b []byte) { clear(b[x.heapBytes:][:8]) }, "free"},
		{"another name", set(3, 'X'), "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := bytes.Clone(sound)
			c.change(image)
			_, err := InUse(bytes.NewReader(image), int64(len(image)), "exfat")
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%v, want %q", err, c.reason)
			}
		})
	}
}

func TestOtherTypesTellNothing(t *testing.T) {
	if _, err := InUse(bytes.NewReader(nil), 0, "ext4"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// failing cannot read from an offset on.
type failing struct {
	io.ReaderAt
	from int64
}

func (f failing) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > f.from {
		return 0, errors.New("cannot read there")
	}
	return f.ReaderAt.ReadAt(p, offset)
}

// Of a map that cannot be read any further, all that follows is in use.
func TestMapThatEnds(t *testing.T) {
	const cluster, clusters = 64 << 10, 8 * chunkBytes * 2
	m := &bitmap{
		pieces: []Range{{0, chunkBytes}, {1 << 20, chunkBytes}}, clusterBytes: cluster, clusters: clusters,
		r: io.NewSectionReader(failing{bytes.NewReader(make([]byte, 2<<20)), 1 << 20}, 0, clusters*cluster+100),
	}
	want := []Range{{clusters / 2 * cluster, clusters/2*cluster + 100}}
	if got := slices.Collect(m.ranges); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzInUse(f *testing.F) {
	f.Add(tinyNTFS(), true)
	exfat := make([]byte, 64<<10)
	copy(exfat[3:], "EXFAT   ")
	le := binary.LittleEndian
	le.PutUint64(exfat[72:], 128)
	for at, value := range map[int]uint32{80: 24, 84: 8, 88: 32, 92: 96, 96: 4, 104: 0x100} {
		le.PutUint32(exfat[at:], value)
	}
	exfat[108], exfat[110] = 9, 1
	copy(exfat[34*512:], []byte{exfatEntryBitmap, 0, 19: 0, 20: 2, 24: 12})
	exfat[32*512] = 0xff
	f.Add(exfat, false)
	f.Fuzz(func(t *testing.T, image []byte, isNTFS bool) {
		fsType := "exfat"
		if isNTFS {
			fsType = "ntfs"
		}
		ranges, err := InUse(bytes.NewReader(image), int64(len(image)), fsType)
		if err != nil {
			return
		}
		end := int64(-mergeBytes)
		for r := range ranges {
			if r.OffsetBytes < end+mergeBytes || r.LengthBytes <= 0 || r.LengthBytes > int64(len(image))-r.OffsetBytes {
				t.Fatalf("%+v after byte %d of %d", r, end, len(image))
			}
			end = r.OffsetBytes + r.LengthBytes
		}
	})
}
