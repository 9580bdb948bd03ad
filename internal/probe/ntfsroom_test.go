package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A new NTFS that was given room is sound to the tools of ntfs-3g, which look through all that is in use, and they take
// files into it.
func TestMakeRoom(t *testing.T) {
	for _, c := range []struct {
		name    string
		sizeMiB int64
		options []string
		files   int64
		records int64 // that it has then, at least
	}{
		{"a few", 64, nil, 1000, 1000},
		{"more than there is room for", 64, nil, 1 << 20, 8000},
		{"of which the bitmap moves", 1024, nil, 60000, 60000},
		{"none", 64, nil, 0, 256},
		{"clusters of 64k", 256, []string{"-c", "65536"}, 1000, 1000},
		{"clusters of 512", 64, []string{"-c", "512"}, 5000, 5000},
		{"sectors of 4k", 256, []string{"-s", "4096"}, 1000, 1000},
		{"sectors of 4k, clusters of 2M", 1024, []string{"-s", "4096", "-c", "2097152"}, 1000, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := blankFile(t, "disk", c.sizeMiB<<20)
			litter(t, path, c.sizeMiB<<20/4) // mkfs clears no more than it has to
			run(t, nil, path, append(append([]string{"mkfs.ntfs", "-Q", "-q", "-F", "-L", "room"}, c.options...), Device))
			before := read(t, path, "ntfs")
			made := max(27, before.NTFS.ClusterBytes/before.NTFS.RecordBytes) // by mkfs, which fills its cluster
			makeRoom(t, path, c.files)
			makeRoom(t, path, c.files) // which changes nothing more
			after := read(t, path, "ntfs")
			if before.Label != after.Label || *before.NTFS != *after.NTFS {
				t.Errorf("it was %+v and is %+v", before.NTFS, after.NTFS)
			}
			run(t, nil, path, []string{"ntfsresize", "--info", "--force", "--no-progress-bar", Device})
			if records := checkRecords(t, path, int(made)); records < c.records {
				t.Errorf("room for %d files, want %d", records, c.records)
			}
			content := bytes.Repeat([]byte("content"), 20000)
			source := filepath.Join(t.TempDir(), "source")
			if err := os.WriteFile(source, content, 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				run(t, nil, path, []string{"ntfscp", "-q", "-f", Device, source, fmt.Sprintf("/file %d", i)})
			}
			if got := run(t, nil, path, []string{"ntfscat", "-f", Device, "/file 19"}); !bytes.Equal(got, content) {
				t.Errorf("%d other bytes came back", len(got))
			}
			run(t, nil, path, []string{"ntfsresize", "--info", "--force", "--no-progress-bar", Device})
		})
	}
}

func makeRoom(t *testing.T, path string, files int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := MakeRoom(file, files); err != nil {
		t.Fatal(err)
	}
}

// litter leaves nothing blank in the first part of a file.
func litter(t *testing.T, path string, sizeBytes int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for at := int64(0); at < sizeBytes; at += 1 << 20 {
		if _, err := file.WriteAt(bytes.Repeat([]byte{0xa5}, 1<<20), at); err != nil {
			t.Fatal(err)
		}
	}
}

// checkRecords looks at each record of the MFT but those that mkfs has made, and at its bitmap, and returns how many there
// are.
func checkRecords(t *testing.T, path string, made int) int64 {
	t.Helper()
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := read(t, path, "ntfs").NTFS.readMFT(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	table := image[m.data.cluster*m.ClusterBytes:][:m.data.clusters*m.ClusterBytes]
	used := image[m.used.cluster*m.ClusterBytes:][:m.usedBytes]
	size := int(m.RecordBytes)
	records := len(table) / size
	if len(table)%size != 0 || len(used)*8 != records {
		t.Errorf("%d bytes of records, and a bitmap of %d", len(table), len(used))
	}
	for i := made; i < records; i++ {
		record := table[i*size:]
		if number := binary.LittleEndian.Uint32(record[44:]); string(record[:4]) != "FILE" || record[22] != 0 || number != uint32(i) {
			t.Fatalf("record %d is number %d, flags %#x", i, number, record[22])
		}
	}
	if !bytes.HasPrefix(used, []byte{0xff, 0xff, 0x00, 0x07}) || bytes.Count(used, []byte{0}) != len(used)-3 {
		t.Errorf("the records that are in use: % x", used[:8])
	}
	return int64(records)
}
