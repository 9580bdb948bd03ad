package partmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// tool runs one of the partitioning tools that the package is held against.
func tool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, stderr.Bytes())
	}
	return string(out)
}

func newDisk(t testing.TB, sizeBytes int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(sizeBytes); err != nil {
		t.Fatal(err)
	}
	return path
}

func readDisk(t testing.TB, path string, opts Options) (*Table, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Read(f, info.Size(), opts)
}

// sfdiskJSON is what sfdisk --json prints.
type sfdiskJSON struct {
	PartitionTable struct {
		Label      string
		ID         string
		FirstLBA   uint64
		LastLBA    uint64
		SectorSize int
		Partitions []struct {
			Node             string
			Start, Size      uint64
			Type, UUID, Name string
			Attrs            string
			Bootable         bool
		}
	}
}

// writeFile is a maker's way to write an image that no tool makes.
func writeFile(t testing.TB, path string, im image) {
	t.Helper()
	if err := os.WriteFile(path, im, 0o600); err != nil {
		t.Fatal(err)
	}
}

func manyLogicals() string {
	var b strings.Builder
	b.WriteString("label: dos\nd1 : size=8M\nd2 : size=200M, type=5\n")
	for number := 5; number <= 60; number++ {
		fmt.Fprintf(&b, "d%d : size=2M\n", number)
	}
	return b.String()
}

// madeTables are the tables that the conformance tests share.
var madeTables = []struct {
	name string
	make func(t testing.TB, disk string)
}{
	{"sfdisk gpt", func(t testing.TB, disk string) {
		tool(t, `label: gpt
label-id: 12173D2E-DA58-9C43-A7C4-BF9B86F6BDE2
d1 : size=10M, type=21686148-6449-6E6F-744E-656564454649, name="BIOS boot", attrs="LegacyBIOSBootable"
d3 : size=10M, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root", attrs="RequiredPartition GUID:48,63"
d2 : size=20M, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
`, "sfdisk", "-q", disk)
	}},
	{"sfdisk gpt with 200 entries", func(t testing.TB, disk string) {
		tool(t, "label: gpt\ntable-length: 200\nd1 : size=10M\nd150 : size=10M\n", "sfdisk", "-q", disk)
	}},
	{"sfdisk gpt without partitions", func(t testing.TB, disk string) { tool(t, "label: gpt\n", "sfdisk", "-q", disk) }},
	{"sfdisk dos", func(t testing.TB, disk string) {
		tool(t, `label: dos
label-id: 0x0000beef
d1 : size=10M, type=83, bootable
d2 : size=10M, type=e
d4 : size=40M, type=5
d5 : size=5M, type=83, bootable
d6 : size=6M, type=82
d7 : size=4M, type=fd
`, "sfdisk", "-q", disk)
	}},
	{"sfdisk dos, logical partitions out of order", func(t testing.TB, disk string) {
		tool(t, `label: dos
d1 : start=2048, size=200000, type=f
d5 : start=104448, size=4096
d6 : start=4096, size=4096
d7 : start=60000, size=4096
`, "sfdisk", "-q", disk)
	}},
	{"sfdisk dos, a logical partition deleted", func(t testing.TB, disk string) {
		tool(t, "label: dos\nd1 : size=40M, type=5\nd5 : size=5M\nd6 : size=6M\nd7 : size=4M\n", "sfdisk", "-q", disk)
		tool(t, "", "sfdisk", "-q", "--delete", disk, "5")
	}},
	{"sfdisk dos with partitions up to 60", func(t testing.TB, disk string) { tool(t, manyLogicals(), "sfdisk", "-q", disk) }},
	{"sfdisk dos with type 0", func(t testing.TB, disk string) {
		im := newImage(64 * mib)
		im[440] = 1
		im.mbrEntry(0, 1, 0, 0, 2048, 4096)
		writeFile(t, disk, im)
	}},
	{"parted gpt", func(t testing.TB, disk string) {
		tool(t, "", "parted", "-s", disk, "mklabel", "gpt", "mkpart", `"EFI system"`, "fat32", "1MiB", "20MiB", "set", "1", "esp",
			"on", "mkpart", "data", "ext4", "20MiB", "100%")
	}},
	{"parted msdos", func(t testing.TB, disk string) {
		tool(t, "", "parted", "-s", disk, "mklabel", "msdos", "mkpart", "primary", "ext4", "1MiB", "20MiB", "set", "1", "boot",
			"on", "mkpart", "extended", "20MiB", "100%", "mkpart", "logical", "linux-swap", "21MiB", "40MiB", "mkpart", "logical",
			"fat32", "41MiB", "60MiB", "mkpart", "logical", "ext4", "61MiB", "100%", "rm", "5")
	}},
	{"sgdisk", func(t testing.TB, disk string) {
		tool(t, "", "sgdisk", "-n", "1:2048:+10M", "-t", "1:ef00", "-c", "1:EFI", "-n", "5:0:+10M", "-t", "5:8e00", "-c",
			"5:a \"quoted\" `name` $HOME", "-A", "5:set:2", "-A", "5:set:60", "-n", "3:0:+5M", disk)
	}},
	{"sgdisk with 512 entries", func(t testing.TB, disk string) {
		tool(t, "", "sgdisk", "-S", "512", "-n", "1:2048:+10M", "-n", "400:0:+10M", disk)
	}},
	{"sgdisk hybrid", func(t testing.TB, disk string) {
		tool(t, "", "sgdisk", "-n", "1:2048:+10M", "-n", "2:0:+10M", "-h", "2", disk)
	}},
	{"hostile names", func(t testing.TB, disk string) {
		names := []string{
			"a \"q\" b", `back\slash`, "new\nline : start=1", "tab\tx", "日本é", "o'x $HOME `id`", "comma, x", strings.Repeat("a", 36),
			"semi;#", " lead", "\x01\x7f\u0080", "", "\u2028", `\x41`, strings.Repeat("日", 36),
		}
		spec := gptSpec{}
		for i, name := range names {
			first := uint64(2048 * (i + 1))
			spec.parts = append(spec.parts, gptPart{slot: i, first: first, last: first + 99, name: name})
		}
		im := newImage(64 * mib)
		im.gpt(spec)
		writeFile(t, disk, im)
	}},
	{"names that are lost", func(t testing.TB, disk string) {
		im := newImage(64 * mib)
		im.gpt(gptSpec{parts: []gptPart{
			{slot: 0, first: 2048, last: 4095, name: "x😀"},
			{slot: 1, first: 4096, last: 5095, units: []uint16{'a', 0xd800, 'b'}},
			{slot: 2, first: 6096, last: 7095, units: []uint16{0xdc00, 0xd800}},
			{slot: 3, first: 8096, last: 9095, units: []uint16{'a', 0, 'b'}, attrs: 8},
		}})
		writeFile(t, disk, im)
	}},
}

func TestReadAgreesWithSfdisk(t *testing.T) {
	for _, made := range madeTables {
		t.Run(made.name, func(t *testing.T) {
			t.Parallel()
			disk := newDisk(t, 256*mib)
			made.make(t, disk)
			table, err := readDisk(t, disk, Options{})
			if err != nil {
				t.Fatal(err)
			}

			var dump bytes.Buffer
			if err := table.SfdiskScript(&dump, disk); err != nil {
				t.Fatal(err)
			}
			if want := tool(t, "", "sfdisk", "--dump", disk); dump.String() != want {
				t.Errorf("script:\n%s\nsfdisk --dump:\n%s", dump.String(), want)
			}

			var want sfdiskJSON
			raw := tool(t, "", "sfdisk", "--json", disk)
			if !json.Valid([]byte(raw)) {
				return // sfdisk writes some hostile names raw; the dump above holds them
			}
			if err := json.Unmarshal([]byte(raw), &want); err != nil {
				t.Fatal(err)
			}
			head := want.PartitionTable
			if string(table.Label) != head.Label || table.ID != head.ID || table.FirstUsable != head.FirstLBA ||
				table.LastUsable != head.LastLBA || table.SectorBytes != head.SectorSize {
				t.Errorf("table %+v\nwant %+v", table, head)
			}
			if len(table.Partitions) != len(head.Partitions) {
				t.Fatalf("%d partitions, want %d", len(table.Partitions), len(head.Partitions))
			}
			for i, p := range table.Partitions {
				q := head.Partitions[i]
				if MapName(disk, p.Number) != q.Node || p.StartSectors != q.Start || p.SizeSectors != q.Size || p.Type != q.Type ||
					p.UUID != q.UUID || p.Bootable != q.Bootable || p.OffsetBytes() != int64(q.Start)*int64(head.SectorSize) {
					t.Errorf("partition %+v\nwant %+v", p, q)
				}
				if sound := string(utf16.Decode(untilZero(p.NameUTF16))); p.Name != sound {
					t.Errorf("name %q, want %q", p.Name, sound)
				}
				if !strings.ContainsRune(p.Name, '�') && p.Name != q.Name && q.Name != "" {
					t.Errorf("name %q, want %q", p.Name, q.Name)
				}
			}
		})
	}
}

func TestSfdiskScriptComesBack(t *testing.T) {
	for _, made := range madeTables {
		t.Run(made.name, func(t *testing.T) {
			t.Parallel()
			disk := newDisk(t, 256*mib)
			made.make(t, disk)
			table, err := readDisk(t, disk, Options{})
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(disk)
			if err != nil {
				t.Fatal(err)
			}
			var script, again bytes.Buffer
			if err := table.SfdiskScript(&script, "disk"); err != nil {
				t.Fatal(err)
			}
			fresh := newDisk(t, info.Size())
			tool(t, script.String(), "sfdisk", "-q", fresh)
			back, err := readDisk(t, fresh, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := back.SfdiskScript(&again, "disk"); err != nil {
				t.Fatal(err)
			}
			lossy := len(table.Losses()) > 0
			if same := script.String() == again.String(); !same && !lossy {
				t.Errorf("the script\n%s\ncame back as\n%s", script.String(), again.String())
			}
			if want := made.name == "names that are lost" || made.name == "sgdisk hybrid"; lossy != want {
				t.Errorf("losses %q", table.Losses())
			}
		})
	}
}

// TestLargeSectors holds the package against fdisk, which reads and writes images in sectors of 4096 bytes.
func TestLargeSectors(t *testing.T) {
	scripts := map[string]string{
		"gpt": `label: gpt
label-id: 12173D2E-DA58-9C43-A7C4-BF9B86F6BDE2
d1 : size=2560, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="x y"
d3 : size=2560, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
`,
		"dos": `label: dos
label-id: 0x0000cafe
d1 : start=256, size=2560, type=83, bootable
d2 : start=4096, size=20000, type=5
d5 : start=4352, size=2560, type=82
d6 : start=8192, size=2560, type=83
`,
	}
	for name, script := range scripts {
		for _, device := range []int{512, 4096} {
			t.Run(fmt.Sprintf("%s on a device of %d", name, device), func(t *testing.T) {
				disk := newDisk(t, 256*mib)
				dir := filepath.Dir(disk)
				in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
				if err := os.WriteFile(in, []byte(script), 0o600); err != nil {
					t.Fatal(err)
				}
				tool(t, "I\n"+in+"\nw\n", "fdisk", "-b", "4096", disk)
				tool(t, "O\n"+out+"\nq\n", "fdisk", "-b", "4096", disk)
				want, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				table, err := readDisk(t, disk, Options{SectorBytes: device})
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if err := table.SfdiskScript(&got, disk); err != nil {
					t.Fatal(err)
				}
				if got.String() != string(want) {
					t.Errorf("script:\n%s\nfdisk:\n%s", got.String(), want)
				}
			})
		}
	}
}

// TestFilesystemsAreNoTables makes filesystems on whole disks, some over an old table.
func TestFilesystemsAreNoTables(t *testing.T) {
	makers := []struct {
		want string
		argv []string
	}{
		{"an ext filesystem", []string{"mke2fs", "-q", "-F", "-t", "ext4"}},
		{"an XFS filesystem", []string{"mkfs.xfs", "-q", "-f"}},
		{"a btrfs filesystem", []string{"mkfs.btrfs", "-q", "-f"}},
		{"a FAT filesystem", []string{"mkfs.fat", "-I", "-F", "32"}},
		{"a FAT filesystem", []string{"mkfs.fat", "-I", "-F", "16"}},
		{"swap space", []string{"mkswap", "-q", "-f"}},
	}
	for _, maker := range makers {
		for _, before := range []string{"", "label: gpt\nsize=100M\nsize=100M\n", "label: dos\nsize=100M\nsize=100M\n"} {
			t.Run(strings.Join(maker.argv, " ")+" over "+strings.SplitN(before+"\n", "\n", 2)[0], func(t *testing.T) {
				t.Parallel()
				disk := newDisk(t, 400*mib)
				if before != "" {
					tool(t, before, "sfdisk", "-q", disk)
				}
				tool(t, "", maker.argv[0], append(maker.argv[1:], disk)...)
				table, err := readDisk(t, disk, Options{})
				if !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), maker.want) {
					t.Errorf("table %+v, error %v; want no table but %s", table, err, maker.want)
				}
			})
		}
	}
}
