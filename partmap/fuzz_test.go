package partmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sparse is a disk whose sectors are zero but for those that it has. It counts what is read.
type sparse struct {
	sectors   map[int64][]byte
	sizeBytes int64
	reads     int
	bytesRead int64
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.reads++
	s.bytesRead += int64(len(p))
	if off < 0 || off+int64(len(p)) > s.sizeBytes {
		return 0, io.EOF
	}
	clear(p)
	for at := off - off%512; at < off+int64(len(p)); at += 512 {
		if sector, ok := s.sectors[at/512]; ok {
			if at < off {
				copy(p, sector[off-at:])
			} else {
				copy(p[at-off:], sector)
			}
		}
	}
	return len(p), nil
}

// parseSparse takes records of four bytes sector number and 512 bytes of content.
func parseSparse(sizeSectors uint32, data []byte) *sparse {
	s := &sparse{sectors: map[int64][]byte{}, sizeBytes: int64(sizeSectors) * 512}
	for len(data) >= 516 {
		s.sectors[int64(binary.LittleEndian.Uint32(data))] = bytes.Clone(data[4:516])
		data = data[516:]
	}
	return s
}

// mend corrects the checksums of all GPT headers, so that what a fuzzer changes in them is looked at.
func (s *sparse) mend() {
	le := binary.LittleEndian
	for sector, h := range s.sectors {
		if string(h[:8]) != gptSignature {
			continue
		}
		unit := uint64(512)
		if le.Uint64(h[24:])*8 == uint64(sector) {
			unit = 4096
		}
		n, at := uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:])), le.Uint64(h[72:])
		if n <= maxEntriesBytes && at < 1<<40 {
			entries := make([]byte, n)
			if _, err := s.ReadAt(entries, int64(at*unit)); err == nil {
				le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
			}
		}
		clear(h[16:20])
		if n := le.Uint32(h[12:]); n <= 512 {
			le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
		}
	}
	s.reads, s.bytesRead = 0, 0
}

// packSparse is the reverse of parseSparse.
func packSparse(f testing.TB, disk string) (uint32, []byte) {
	f.Helper()
	file, err := os.Open(disk)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		f.Fatal(err)
	}
	var data []byte
	sector := make([]byte, 512)
	for at := int64(0); ; at += 512 {
		if at, err = file.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return uint32(info.Size() / 512), data
		} else if err != nil {
			f.Fatal(err)
		}
		if _, err := file.ReadAt(sector, at); err != nil {
			f.Fatal(err)
		}
		if !bytes.Equal(sector, make([]byte, 512)) {
			data = binary.LittleEndian.AppendUint32(data, uint32(at/512))
			data = append(data, sector...)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, made := range madeTables {
		disk := newDisk(f, 256*mib)
		made.make(f, disk)
		size, data := packSparse(f, disk)
		f.Add(size, data, false, false)
		f.Add(size, data, true, true)
	}
	f.Fuzz(func(t *testing.T, sizeSectors uint32, data []byte, large, mend bool) {
		disk := parseSparse(sizeSectors, data)
		if mend {
			disk.mend()
		}
		opts := Options{}
		if large {
			opts.SectorBytes = 4096
		}
		table, err := Read(disk, disk.sizeBytes, opts)
		if disk.bytesRead > maxReadBytes || disk.reads > 3*maxNumber*(maxEmptyLinks+2) {
			t.Errorf("%d reads of %d bytes", disk.reads, disk.bytesRead)
		}
		if err != nil {
			var invalid *InvalidError
			if !errors.Is(err, ErrNoTable) && !errors.As(err, &invalid) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		checkTable(t, table, disk.sizeBytes)
	})
}

// checkTable asserts what holds of every table that Read returns.
func checkTable(t *testing.T, table *Table, sizeBytes int64) {
	t.Helper()
	sum := int64(0)
	for _, r := range table.Gaps() {
		if r.SizeBytes <= 0 {
			t.Errorf("empty gap %+v", r)
		}
		sum += r.SizeBytes
	}
	last := 0
	for i, p := range table.Partitions {
		if p.Number <= last || p.SizeSectors == 0 {
			t.Errorf("partition %+v after number %d", p, last)
		}
		last = p.Number
		end := p.OffsetBytes() + p.SizeBytes()
		if p.OffsetBytes() < 512 || p.SizeBytes() <= 0 || end > sizeBytes {
			t.Errorf("partition %+v on a disk of %d bytes", p, sizeBytes)
		}
		for _, q := range table.Partitions[:i] {
			if q.OffsetBytes() < end && p.OffsetBytes() < q.OffsetBytes()+q.SizeBytes() && (!q.Extended || !p.Logical) {
				t.Errorf("%+v and %+v overlap", q, p)
			}
		}
		if !p.Extended {
			sum += p.SizeBytes()
		}
	}
	if sum != sizeBytes {
		t.Errorf("partitions and gaps have %d bytes, the disk %d", sum, sizeBytes)
	}
	var script strings.Builder
	if err := table.SfdiskScript(&script, "d"); err != nil {
		t.Error(err)
	}
	head := strings.Index(script.String(), "\n\n")
	if len(table.Partitions) > 0 && strings.Count(script.String()[head+2:], "\n") != len(table.Partitions) {
		t.Errorf("a script of other lines than partitions:\n%s", script.String())
	}
	table.Losses()
}

func FuzzParseInfo(f *testing.F) {
	f.Add("253|0|1|LVM-voltar-R-x|vg-lv1\n254|1|0||other\n")
	f.Add("No devices found\n")
	f.Add("253|0|x|a|b\n")
	f.Add("1|2|3|with|more|fields")
	f.Fuzz(func(t *testing.T, output string) {
		maps, err := parseInfo(strings.NewReader(output))
		if err != nil && maps != nil {
			t.Error("maps and an error")
		}
		for _, m := range maps {
			if m.Name == "" || strings.Contains(m.UUID, infoSeparator) || m.OpenCount < 0 {
				t.Errorf("map %+v", m)
			}
		}
	})
}
