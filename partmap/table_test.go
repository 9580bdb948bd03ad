package partmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

const mib = 1 << 20

// part is what a test expects of one partition.
func part(p Partition) string {
	return fmt.Sprintf("%d:%d+%d %s", p.Number, p.StartSectors, p.SizeSectors, p.Type)
}

const linuxGUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

func TestReadOddTables(t *testing.T) {
	two := []gptPart{{slot: 0, first: 100, last: 199, name: "a"}, {slot: 2, first: 200, last: 299, name: "b"}}
	twoWant := []string{"1:100+100 " + linuxGUID, "3:200+100 " + linuxGUID}
	tests := []struct {
		name   string
		make   func(im image)
		device int // sector size of the device
		sector int // of the table; 0 means 512
		want   []string
		notes  []string // a part of each
	}{
		{
			name: "GPT without fault", make: func(im image) { im.gpt(gptSpec{parts: two}) }, want: twoWant,
		}, {
			name: "GPT of 4096-byte sectors on a device of 512",
			make: func(im image) { im.gpt(gptSpec{sectorBytes: 4096, parts: two}) }, sector: 4096, want: twoWant,
			notes: []string{"sectors of 4096 bytes, the device in 512"},
		}, {
			name: "GPT of 512-byte sectors on a device of 4096", device: 4096,
			make: func(im image) { im.gpt(gptSpec{parts: two}) }, want: twoWant,
			notes: []string{"sectors of 512 bytes, the device in 4096"},
		}, {
			name: "primary header wiped", make: func(im image) { im.gpt(gptSpec{parts: two, noPrimary: true}) }, want: twoWant,
			notes: []string{"it is missing): the backup is used"},
		}, {
			name: "primary header damaged",
			make: func(im image) { im.gpt(gptSpec{parts: two}); im[512+56] ^= 1 }, want: twoWant,
			notes: []string{"it has a wrong checksum): the backup is used"},
		}, {
			name: "primary entries damaged",
			make: func(im image) { im.gpt(gptSpec{parts: two}); im[1024+70] ^= 1 }, want: twoWant,
			notes: []string{"entries with a wrong checksum): the backup is used"},
		}, {
			name: "backup missing", make: func(im image) { im.gpt(gptSpec{parts: two, noBackup: true}) }, want: twoWant,
			notes: []string{"the backup GPT cannot be used (it is missing)"},
		}, {
			name: "backup damaged", make: func(im image) { im.gpt(gptSpec{parts: two}); im[len(im)-512+56] ^= 1 }, want: twoWant,
			notes: []string{"the backup GPT cannot be used (it has a wrong checksum)"},
		}, {
			name: "the two differ",
			make: func(im image) {
				im.gpt(gptSpec{parts: two[:1]})
				im.gpt(gptSpec{parts: two, noBackup: true})
			}, want: twoWant,
			notes: []string{"the two GPTs differ"},
		}, {
			name: "disk has grown", make: func(im image) { im[:2*mib].gpt(gptSpec{parts: two}) }, want: twoWant,
			notes: []string{"the disk has grown"},
		}, {
			name: "grown, and primary entries damaged: the backup is where the primary header says",
			make: func(im image) { im[:2*mib].gpt(gptSpec{parts: two}); im[1024] ^= 1 }, want: twoWant,
			notes: []string{"the backup is used", "the disk has grown"},
		}, {
			name: "no protective MBR", make: func(im image) { im.gpt(gptSpec{parts: two, noProtective: true}) }, want: twoWant,
			notes: []string{"the protective MBR is missing"},
		}, {
			name: "protective MBR wrong",
			make: func(im image) { im.gpt(gptSpec{parts: two}); im[446+8] = 9 }, want: twoWant,
			notes: []string{"begins at sector 9 instead of 1"},
		}, {
			name: "hybrid MBR",
			make: func(im image) { im.gpt(gptSpec{parts: two}); im.mbrEntry(0, 1, 0x80, 0x83, 100, 100) }, want: twoWant,
			notes: []string{"hybrid"},
		}, {
			name: "MBR written over a GPT",
			make: func(im image) {
				im.gpt(gptSpec{parts: two, noProtective: true})
				im.mbrEntry(0, 0, 0, 0x83, 2048, 100)
			}, want: []string{"1:2048+100 83"},
			notes: []string{"a GPT, too, is on the disk"},
		}, {
			name: "MBR written over a damaged GPT",
			make: func(im image) {
				im.gpt(gptSpec{parts: two, noProtective: true, noBackup: true})
				im[600] ^= 1
				im[1024] ^= 1
				im.mbrEntry(0, 0, 0, 0x83, 2048, 100)
			}, want: []string{"1:2048+100 83"},
			notes: []string{"a GPT, too, is on the disk"},
		}, {
			name: "old filesystem under a whole GPT: the table counts",
			make: func(im image) { im.gpt(gptSpec{sectorBytes: 4096, parts: two}); im.ext(0) }, sector: 4096, want: twoWant,
			notes: []string{"what looks like an ext filesystem lies outside", "sectors of 4096"},
		}, {
			name: "200 entries of 256 bytes",
			make: func(im image) {
				im.gpt(gptSpec{entryCount: 200, entryBytes: 256, parts: []gptPart{{slot: 199, first: 300, last: 300}}})
			}, want: []string{"200:300+1 " + linuxGUID},
		}, {
			name: "same UUID twice",
			make: func(im image) {
				im.gpt(gptSpec{parts: []gptPart{{first: 100, last: 100, uuid: 7}, {slot: 1, first: 101, last: 101, uuid: 7}}})
			}, want: []string{"1:100+1 " + linuxGUID, "2:101+1 " + linuxGUID},
			notes: []string{"partitions 1 and 2 have the same UUID"},
		}, {
			name: "partition before the first usable sector",
			make: func(im image) {
				im.gpt(gptSpec{parts: two, edit: func(h []byte) { binary.LittleEndian.PutUint64(h[40:], 150) }})
			}, want: twoWant,
			notes: []string{"partition 1 lies outside the sectors that the table calls usable"},
		}, {
			name: "MBR of 4096-byte sectors on a device of 512",
			make: func(im image) { im.mbrEntry(0, 0, 0, 0x83, 256, 300); im.ext(256 * 4096) }, sector: 4096,
			want: []string{"1:256+300 83"}, notes: []string{"sectors of 4096 bytes, the device in 512"},
		}, {
			name: "MBR of 512-byte sectors on a device of 4096", device: 4096,
			make: func(im image) { im.mbrEntry(0, 0, 0, 0x83, 256, 300); im.ext(256 * 512) },
			want: []string{"1:256+300 83"}, notes: []string{"sectors of 512 bytes, the device in 4096"},
		}, {
			name: "MBR that only fits in 512-byte sectors, on a device of 4096", device: 4096,
			make: func(im image) { im.mbrEntry(0, 0, 0, 0x83, 2048, 4096) },
			want: []string{"1:2048+4096 83"}, notes: []string{"sectors of 512 bytes, the device in 4096"},
		}, {
			name: "MBR on a device of 4096, contents unknown", device: 4096, sector: 4096,
			make: func(im image) { im.mbrEntry(0, 0, 0, 0x83, 256, 300) }, want: []string{"1:256+300 83"},
		}, {
			name: "extended partition of 4096-byte sectors",
			make: func(im image) {
				im.mbrEntry(0, 0, 0, 0x0f, 256, 600)
				im.mbrEntry(256*4096, 0, 0, 0x83, 1, 99)
			}, sector: 4096, want: []string{"1:256+600 f", "5:257+99 83"},
			notes: []string{"sectors of 4096"},
		}, {
			name: "logical chain: nested, empty first link, backwards",
			make: func(im image) {
				im.mbrEntry(0, 1, 0, 0x05, 1000, 1000)
				im.mbrEntry(1000*512, 1, 0, 0x05, 500, 100) // the first record has no partition, as DR-DOS leaves it
				im.mbrEntry(1500*512, 0, 0x80, 0x83, 10, 50)
				im.mbrEntry(1500*512, 1, 0, 0x0f, 100, 100)
				im.mbrEntry(1500*512, 3, 0, 0x05, 900, 1) // only the first link counts
				im.mbrEntry(1100*512, 0, 0, 0x82, 10, 50)
				im.mbrEntry(1100*512, 2, 0, 0x83, 5000, 50) // old bytes in an unused slot
			}, want: []string{"2:1000+1000 5", "5:1510+50 83", "6:1110+50 82"},
		}, {
			name: "chain broken off",
			make: func(im image) {
				im.mbrEntry(0, 0, 0, 0x05, 1000, 1000)
				im.mbrEntry(1000*512, 0, 0, 0x83, 10, 50)
				im.mbrEntry(1000*512, 1, 0, 0x05, 500, 100)
			}, want: []string{"1:1000+1000 5", "5:1010+50 83"},
			notes: []string{"ends at sector 1500, where no boot record is"},
		}, {
			name: "two extended partitions",
			make: func(im image) {
				im.mbrEntry(0, 0, 0, 0x05, 1000, 1000)
				im.mbrEntry(1000*512, 0, 0, 0x83, 10, 50)
				im.mbrEntry(0, 1, 0, 0x85, 2000, 1000)
				im.mbrEntry(2000*512, 0, 0, 0x83, 10, 50)
			}, want: []string{"1:1000+1000 5", "2:2000+1000 85", "5:1010+50 83", "6:2010+50 83"},
			notes: []string{"2 partitions are extended ones"},
		}, {
			name: "BSD disk label in a partition",
			make: func(im image) { im.mbrEntry(0, 3, 0, 0xa5, 63, 1000) }, want: []string{"4:63+1000 a5"},
			notes: []string{"partition 4 holds a BSD disk label"},
		}, {
			name: "partition of type 0 has a size",
			make: func(im image) { im.mbrEntry(0, 0, 0, 0, 63, 1000) }, want: []string{"1:63+1000 0"},
		}, {
			name: "boot loader kept the parameters of a FAT filesystem",
			make: func(im image) { im.fat(0); im.mbrEntry(0, 0, 0x80, 0x83, 63, 1000) }, want: []string{"1:63+1000 83"},
			notes: []string{"the boot sector also has the parameters of a FAT filesystem"},
		}, {
			name: "old physical volume label beneath an MBR",
			make: func(im image) {
				copy(im[512:], "LABELONE")
				copy(im[512+24:], "LVM2 001")
				im.mbrEntry(0, 0, 0, 0x83, 63, 1000)
			}, want: []string{"1:63+1000 83"},
			notes: []string{"what looks like an LVM physical volume lies outside"},
		}, {
			name: "MBR with an identifier and no partition",
			make: func(im image) { im[440], im[510], im[511] = 1, 0x55, 0xaa }, want: nil,
			notes: []string{"the table has no partitions"},
		}, {
			name: "GPT with no partition", make: func(im image) { im.gpt(gptSpec{}) }, want: nil,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			im := newImage(8 * mib)
			test.make(im)
			table, err := Read(im.reader(), int64(len(im)), Options{SectorBytes: test.device})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range table.Partitions {
				got = append(got, part(p))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("partitions %q, want %q", got, test.want)
			}
			if want := max(test.sector, 512); table.SectorBytes != want && test.want != nil {
				t.Errorf("sectors of %d bytes, want %d", table.SectorBytes, want)
			}
			if len(table.Notes) != len(test.notes) {
				t.Fatalf("notes %q, want %d", table.Notes, len(test.notes))
			}
			for i, want := range test.notes {
				if !strings.Contains(table.Notes[i], want) {
					t.Errorf("note %q, want it to hold %q", table.Notes[i], want)
				}
			}
		})
	}
}

func TestReadNoTable(t *testing.T) {
	part := []gptPart{{first: 100, last: 199}}
	tests := []struct {
		name string
		make func(im image)
		want string // in the error
	}{
		{"zeros", func(image) {}, ""},
		{"ext", func(im image) { im.ext(0) }, "an ext filesystem"},
		{"ext with a boot loader", func(im image) { im.ext(0); im[440], im[510], im[511] = 9, 0x55, 0xaa }, "an ext filesystem"},
		{"FAT", func(im image) { im.fat(0) }, "a FAT filesystem"},
		{"FAT with boot code where entries are", func(im image) {
			im.fat(0)
			copy(im[440:], bytes.Repeat([]byte("Press any key. "), 4))
		}, "a FAT filesystem"},
		{"FAT with boot code like entries past the end", func(im image) {
			im.fat(0)
			im.mbrEntry(0, 1, 0, 0x65, 0x20646b6e, 0x65737361)
		}, "a FAT filesystem"},
		{"NTFS", func(im image) { copy(im[3:], "NTFS    "); im[510], im[511] = 0x55, 0xaa }, "an NTFS filesystem"},
		{"exFAT", func(im image) { copy(im[3:], "EXFAT   "); im[510], im[511] = 0x55, 0xaa }, "an exFAT filesystem"},
		{"XFS", func(im image) { copy(im, "XFSB") }, "an XFS filesystem"},
		{"XFS whose first sector looks like an MBR", func(im image) {
			copy(im, "XFSB")
			im.mbrEntry(0, 0, 0, 0x83, 100, 100)
		}, "an XFS filesystem"},
		{"LUKS", func(im image) { copy(im, "LUKS\xba\xbe") }, "a LUKS container"},
		{"physical volume", func(im image) {
			copy(im[512:], "LABELONE")
			copy(im[512+24:], "LVM2 001")
		}, "an LVM physical volume"},
		{"btrfs", func(im image) { copy(im[65536+64:], "_BHRfS_M") }, "a btrfs filesystem"},
		{"swap", func(im image) { copy(im[4086:], "SWAPSPACE2") }, "swap space"},
		{"boot sector without partitions", func(im image) { im[510], im[511] = 0x55, 0xaa }, ""},
		{"MBR mark among random bytes", func(im image) {
			for i := range 512 {
				im[i] = byte(i*7 + 3)
			}
			im[510], im[511] = 0x55, 0xaa
		}, ""},
		{"AIX", func(im image) {
			copy(im, "\xc9\xc2\xd4\xc1")
			im.mbrEntry(0, 0, 0, 0x83, 100, 100)
		}, ""},
		{"ext over a GPT of which the backup is left", func(im image) {
			im.gpt(gptSpec{parts: part, noPrimary: true, noProtective: true})
			im.ext(0)
		}, "an ext filesystem"},
		{"ext over a GPT of which the backup and the protective MBR are left", func(im image) {
			im.gpt(gptSpec{parts: part, noPrimary: true})
			im.ext(0)
		}, "an ext filesystem"},
		{"XFS over the protective MBR", func(im image) {
			im.gpt(gptSpec{parts: part})
			clear(im[:512])
			copy(im, "XFSB")
		}, "an XFS filesystem"},
		{"ext over a damaged GPT without protective MBR", func(im image) {
			im.gpt(gptSpec{parts: part, noProtective: true})
			im[512+56] ^= 1
			im[len(im)-512+56] ^= 1
			im.ext(0)
		}, "an ext filesystem"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			im := newImage(4 * mib)
			test.make(im)
			table, err := Read(im.reader(), int64(len(im)), Options{})
			if !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("table %v, error %v; want no table, %q", table, err, test.want)
			}
		})
	}
	if _, err := Read(bytes.NewReader(nil), 0, Options{}); !errors.Is(err, ErrNoTable) {
		t.Errorf("empty disk: %v", err)
	}
}

func TestReadInvalid(t *testing.T) {
	le := binary.LittleEndian
	chain := func(im image, links int, next func(i int) uint32) {
		im.mbrEntry(0, 0, 0, 0x05, 100, 8000)
		at := uint32(0)
		for i := range links {
			im.mbrEntry(int64(100+at)*512, 0, 0, 0x83, 1, 1)
			im.mbrEntry(int64(100+at)*512, 1, 0, 0x05, next(i), 2)
			at = next(i)
		}
	}
	gpt := func(parts ...gptPart) func(image) { return func(im image) { im.gpt(gptSpec{parts: parts}) } }
	edit := func(f func(h []byte)) func(image) {
		return func(im image) { im.gpt(gptSpec{parts: []gptPart{{first: 100, last: 199}}, edit: f}) }
	}
	tests := []struct {
		name string
		make func(im image)
		want string
	}{
		{"GPT overlap", gpt(gptPart{first: 100, last: 200}, gptPart{slot: 1, first: 200, last: 300}), "partition 1 and partition 2 overlap"},
		{"GPT nested", gpt(gptPart{first: 100, last: 900}, gptPart{slot: 1, first: 200, last: 300}), "partition 1 and partition 2 overlap"},
		{"GPT past the end", gpt(gptPart{first: 100, last: 1 << 40}), "partition 1 (sectors 100 to 1099511627776) reaches past the end"},
		{"GPT at the end of numbers", gpt(gptPart{first: 0, last: 1<<64 - 1}), "reaches past the end"},
		{"GPT backwards", gpt(gptPart{first: 200, last: 100}), "ends at sector 100, before it begins"},
		{"GPT over its header", gpt(gptPart{first: 1, last: 100}), "the table itself"},
		{"GPT over its entries", gpt(gptPart{first: 10, last: 100}), "the table itself"},
		{"GPT over its backup", gpt(gptPart{first: 100, last: 8*mib/512 - 1}), "over the backup GPT"},
		{"GPT cut short", func(im image) {
			big := newImage(16 * mib)
			big.gpt(gptSpec{parts: []gptPart{{first: 100, last: 199}}})
			copy(im, big)
		}, "the disk was cut short"},
		{"GPT entries beyond reason", edit(func(h []byte) { le.PutUint32(h[80:], 1<<31) }), "2147483648 entries"},
		{"GPT no entries", edit(func(h []byte) { le.PutUint32(h[80:], 0) }), "0 entries"},
		{"GPT entry size", edit(func(h []byte) { le.PutUint32(h[84:], 8) }), "entries of 8 bytes"},
		{"GPT entry size odd", edit(func(h []byte) { le.PutUint32(h[84:], 130) }), "entries of 130 bytes"},
		{"GPT entries elsewhere", edit(func(h []byte) { le.PutUint64(h[72:], 1<<63) }), "outside the disk"},
		{"GPT entries among partitions", edit(func(h []byte) { le.PutUint64(h[72:], 1000) }), "among the partitions"},
		{"GPT header elsewhere", edit(func(h []byte) { le.PutUint64(h[24:], 7) }), "says that it is at sector 7"},
		{"GPT no room", edit(func(h []byte) { le.PutUint64(h[48:], 3) }), "no space for partitions"},
		{"GPT header length", edit(func(h []byte) { le.PutUint32(h[12:], 10000) }), "length of 10000"},
		{"protective MBR alone", func(im image) { im.mbrEntry(0, 0, 0, 0xee, 1, 100) }, "there is no GPT header"},
		{"both GPTs damaged", func(im image) {
			gpt(gptPart{first: 100, last: 199})(im)
			im[512+57] ^= 1
			im[len(im)-512+57] ^= 1
		}, "neither header can be used"},
		{"MBR overlap", func(im image) {
			im.mbrEntry(0, 0, 0, 0x83, 100, 100)
			im.mbrEntry(0, 1, 0, 0x83, 199, 100)
		}, "partition 1 and partition 2 overlap"},
		{"MBR past the end", func(im image) { im.mbrEntry(0, 0, 0, 0x83, 100, 1<<31) }, "reaches past the end"},
		{"MBR over itself", func(im image) { im.mbrEntry(0, 0, 0, 0x83, 0, 100) }, "the table itself"},
		{"extended over a primary", func(im image) {
			im.mbrEntry(0, 0, 0, 0x05, 100, 100)
			im.mbrEntry(0, 1, 0, 0x83, 150, 10)
		}, "partitions 1 and 2 overlap"},
		{"extended over the MBR", func(im image) { im.mbrEntry(0, 0, 0, 0x05, 0, 100) }, "lies over the table itself"},
		{"chain in a circle", func(im image) {
			chain(im, 4, func(i int) uint32 { return []uint32{10, 20, 30, 10}[i] })
		}, "leads back to sector 110"},
		{"chain to its own start", func(im image) { chain(im, 1, func(int) uint32 { return 0 }) }, "leads back to sector 100"},
		{"chain out of its container", func(im image) { chain(im, 1, func(int) uint32 { return 8000 }) }, "leaves its container"},
		{"chain past the end of numbers", func(im image) { chain(im, 1, func(int) uint32 { return 1<<32 - 1 }) }, "leaves its container"},
		{"logical out of its container", func(im image) {
			im.mbrEntry(0, 0, 0, 0x05, 100, 100)
			im.mbrEntry(100*512, 0, 0, 0x83, 10, 100)
		}, "reaches out of its container"},
		{"logical over its record", func(im image) {
			im.mbrEntry(0, 0, 0, 0x05, 100, 100)
			im.mbrEntry(100*512, 0, 0, 0x83, 0, 10)
		}, "overlap"},
		{"logicals overlap", func(im image) {
			im.mbrEntry(0, 0, 0, 0x05, 100, 1000)
			im.mbrEntry(100*512, 0, 0, 0x83, 10, 100)
			im.mbrEntry(100*512, 1, 0, 0x05, 500, 100)
			im.mbrEntry(600*512, 0, 0, 0x83, 10, 100)
			im.mbrEntry(600*512, 1, 0, 0x05, 300, 100)
			im.mbrEntry(400*512, 0, 0, 0x83, 290, 10)
		}, "overlap"},
		{"too many logicals", func(im image) { chain(im, 300, func(i int) uint32 { return uint32(2 * (i + 1)) }) }, "more than 255 partitions"},
		{"endless empty links", func(im image) {
			im.mbrEntry(0, 0, 0, 0x05, 100, 8000)
			for i := range uint32(200) {
				im.mbrEntry(int64(100+i)*512, 0, 0, 0x05, i+1, 1)
			}
		}, "empty links"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			im := newImage(8 * mib)
			test.make(im)
			table, err := Read(im.reader(), int64(len(im)), Options{})
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("table %+v, error %v; want an InvalidError", table, err)
			}
			if !strings.Contains(invalid.Problem, test.want) {
				t.Errorf("problem %q, want it to hold %q", invalid.Problem, test.want)
			}
		})
	}
}

// failing fails reads that touch a range.
type failing struct {
	io.ReaderAt
	from, to int64
}

var errBroken = errors.New("input/output error")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, errBroken
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReadWithReadErrors(t *testing.T) {
	gpt := newImage(4 * mib)
	gpt.gpt(gptSpec{parts: []gptPart{{first: 100, last: 199}}})
	dos := newImage(4 * mib)
	dos.mbrEntry(0, 0, 0, 0x05, 100, 100)
	dos.mbrEntry(100*512, 0, 0, 0x83, 10, 10)
	size := int64(4 * mib)
	tests := []struct {
		name     string
		im       image
		from, to int64
		fails    bool
	}{
		{"boot sector", gpt, 0, 512, true},
		{"primary header", gpt, 512, 1024, false},
		{"primary entries", gpt, 2048, 4096, false},
		{"backup header", gpt, size - 512, size, false},
		{"where a signature would be", dos, 65536, 66000, false},
		{"extended boot record", dos, 100 * 512, 101 * 512, true},
		{"everything", gpt, 0, size, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table, err := Read(failing{test.im.reader(), test.from, test.to}, size, Options{})
			if test.fails {
				if !errors.Is(err, errBroken) || errors.Is(err, ErrNoTable) {
					t.Errorf("table %v, error %v; want the read error", table, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(table.Partitions) == 0 || !strings.Contains(strings.Join(table.Notes, "\n"), "cannot be read") {
				t.Errorf("partitions %v, notes %q", table.Partitions, table.Notes)
			}
		})
	}
}

func TestReadRefusesASectorSize(t *testing.T) {
	if _, err := Read(newImage(mib).reader(), mib, Options{SectorBytes: 520}); err == nil || errors.Is(err, ErrNoTable) {
		t.Errorf("error %v", err)
	}
}

func TestGaps(t *testing.T) {
	im := newImage(4 * mib)
	im.mbrEntry(0, 0, 0, 0x83, 100, 100)
	im.mbrEntry(0, 1, 0, 0x83, 200, 100)
	im.mbrEntry(0, 2, 0, 0x05, 1000, 7192)
	im.mbrEntry(1000*512, 0, 0, 0x83, 10, 7182)
	table, err := Read(im.reader(), int64(len(im)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Range{{0, 100 * 512}, {300 * 512, 710 * 512}}
	if got := table.Gaps(); !slices.Equal(got, want) {
		t.Errorf("gaps %v, want %v", got, want)
	}
	if want := []Range{{0, 512}, {1000 * 512, 512}}; !slices.Equal(table.Structures, want) {
		t.Errorf("structures %v, want %v", table.Structures, want)
	}
	empty := Table{SizeBytes: 1000}
	if got := empty.Gaps(); !slices.Equal(got, []Range{{0, 1000}}) {
		t.Errorf("gaps of an empty table: %v", got)
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		vg, lv string
		number int
		want   string
	}{
		{"nova-volumes", "volume-00000001-snapshot", 1, "nova--volumes-volume--00000001--snapshot1"},
		{"nova-volumes", "volume-00000001", 12, "nova--volumes-volume--00000001p12"},
		{"a--b", "-c-", 5, "a----b---c--5"},
	}
	for _, test := range tests {
		if got := MapName(DMName(test.vg, test.lv), test.number); got != test.want {
			t.Errorf("%s/%s partition %d: %s, want %s", test.vg, test.lv, test.number, got, test.want)
		}
	}
}
