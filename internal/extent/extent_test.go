package extent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/mount"
	"voltar/partmap"
	"voltar/report"
)

func TestCheckNotEmpty(t *testing.T) {
	ext := unix.Statfs_t{Files: 1000, Ffree: 989, Blocks: 1000, Bfree: 900, Bsize: 4096}
	fullExt := ext
	fullExt.Ffree = 900
	fat := unix.Statfs_t{Blocks: 1000, Bfree: 999, Bsize: 4096}
	fullFAT := fat
	fullFAT.Bfree = 500
	btrfs := unix.Statfs_t{Type: unix.BTRFS_SUPER_MAGIC, Blocks: 1000, Bfree: 700, Bsize: 4096}
	fullBtrfs := btrfs
	fullBtrfs.Bfree = 400
	empty, withFile := archive.TreeStats{Entries: 2, Dirs: 2}, archive.TreeStats{Entries: 3, Files: 1}
	for _, c := range []struct {
		name    string
		stats   archive.TreeStats
		use     unix.Statfs_t
		refused bool
	}{
		{"fresh ext", empty, ext, false},
		{"nothing of a used ext", empty, fullExt, true},
		{"files of a used ext", withFile, fullExt, false},
		{"all excluded", archive.TreeStats{Entries: 1, ExcludedEntries: 9}, fullExt, false},
		{"nothing that could be read", archive.TreeStats{Entries: 1, DamagedCount: 1}, fullExt, false},
		{"fresh fat, which counts no inodes", empty, fat, false},
		{"nothing of a used fat", empty, fullFAT, true},
		{"fresh btrfs with large nodes", empty, btrfs, false},
		{"nothing of a used btrfs", empty, fullBtrfs, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := checkNotEmpty(c.stats, c.use); (err != nil) != c.refused {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestPeek(t *testing.T) {
	for _, c := range []struct {
		paths []string // folders end with a slash
		empty bool
	}{
		{nil, true},
		{[]string{"lost+found/"}, true},
		{[]string{"file"}, false},
		{[]string{"lost+found/", "file"}, false},
		{[]string{"lost+found/file"}, false},
		{[]string{"@/home/"}, false},
		{[]string{"a/", "b/"}, false},
	} {
		dir := t.TempDir()
		for _, path := range c.paths {
			folder, file := filepath.Split(path)
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			if file == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, path), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = checkNotEmpty(peek(root), unix.Statfs_t{Files: 1000, Ffree: 900})
		if (err != nil) != c.empty {
			t.Errorf("%q: %v", c.paths, err)
		}
		if names, err := root.Readdirnames(-1); err != nil || len(c.paths) > 0 && len(names) == 0 {
			t.Errorf("%q: the walk would find %q (%v)", c.paths, names, err)
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTableExtentsCoverTheDisk(t *testing.T) {
	const disk = int64(8 << 30)
	sectors := func(bytes int64) uint64 { return uint64(bytes / 512) }
	part := func(number int, offset, size int64) partmap.Partition {
		return partmap.Partition{Number: number, StartSectors: sectors(offset), SizeSectors: sectors(size), SectorBytes: 512}
	}
	extended := part(2, 100<<20, 200<<20)
	extended.Extended = true
	table := &partmap.Table{SizeBytes: disk, Partitions: []partmap.Partition{
		part(6, 250<<20, 10<<20), part(1, 1<<20, 50<<20), extended, part(5, 101<<20, 100<<20),
	}}
	var next int64
	var names []string
	for _, x := range tableExtents(table) {
		if x.OffsetBytes != next {
			t.Errorf("%s begins at %d, the one before ends at %d", x.Name, x.OffsetBytes, next)
		}
		next = x.OffsetBytes + x.SizeBytes
		names = append(names, x.Name)
		if isLarge := x.SizeBytes > unpartitionedMaxBytes; isLarge != (x.State == catalog.StateExcluded) || isLarge != (x.Reason != "") {
			t.Errorf("%s of %d bytes: %s (%s)", x.Name, x.SizeBytes, x.State, x.Reason)
		}
	}
	if got, want := strings.Join(names, " "), "boot p1 gap1 p5 gap2 p6 gap3"; got != want || next != disk {
		t.Errorf("extents %s up to %d, want %s up to %d", got, next, want, disk)
	}
}

func TestLedgerAddsUp(t *testing.T) {
	const size = 1 << 30
	for _, c := range []struct {
		name string
		x    catalog.Extent
		want report.Ledger
	}{
		{"files", catalog.Extent{State: catalog.StateFiles, UsedBytes: 300, ExcludedBytes: 100},
			report.Ledger{FilesBytes: 200, ExcludedBytes: 100, FreeBytes: size - 300}},
		{"more excluded than used: sparse or linked files", catalog.Extent{State: catalog.StateFiles, UsedBytes: 300, ExcludedBytes: 900},
			report.Ledger{ExcludedBytes: 300, FreeBytes: size - 300}},
		{"a filesystem that claims more than its extent", catalog.Extent{State: catalog.StateFiles, UsedBytes: 2 * size},
			report.Ledger{FilesBytes: size}},
		{"image", catalog.Extent{State: catalog.StateImage}, report.Ledger{ImageBytes: size}},
		{"swap", catalog.Extent{State: catalog.StateSwap}, report.Ledger{FreeBytes: size}},
		{"left out", catalog.Extent{State: catalog.StateExcluded}, report.Ledger{ExcludedBytes: size}},
		{"never reached", catalog.Extent{}, report.Ledger{FailedBytes: size}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.x.SizeBytes = size
			var got report.Ledger
			addToLedger(&got, &Extent{Extent: c.x})
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDamageKeepsTheBytesOfNames(t *testing.T) {
	var x Extent
	x.noteTree(archive.TreeStats{DamagedCount: 2, Damaged: []archive.Damage{{Path: "sound", Reason: "r"}, {Path: "latin\xe9", Reason: "r"}}})
	if x.Damaged[0].Path != "sound" || x.Damaged[0].PathB64 != nil || x.Damaged[1].Path != "" || string(x.Damaged[1].PathB64) != "latin\xe9" {
		t.Errorf("%+v", x.Damaged)
	}
	if line := damageLine(&x, x.Damaged[1]); !strings.Contains(line, "latin\xe9") {
		t.Errorf("line %q", line)
	}
}

func TestKernelErrorsGetTheirNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "a/b"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var x Extent
	x.noteKernelErrors(t.Context(), root, archive.TreeOptions{}, []mount.Error{{Inode: info.Sys().(*syscall.Stat_t).Ino, Message: "one"}, {Message: "two"}, {Inode: 1 << 60, Message: "three"}})
	if x.DamagedCount != 3 || x.Damaged[0].Path != "a/b" || x.Damaged[1].Path != "" || x.Damaged[2].Path != "" {
		t.Errorf("%+v", x.Damaged)
	}
}

// What a hostile superblock says is used does not make a manifest that no reader takes.
func TestUsedBytesStayInRange(t *testing.T) {
	for name, use := range map[string]unix.Statfs_t{
		"more free than there is": {Blocks: 1, Bfree: 3, Bsize: 4096},
		"more than there can be":  {Blocks: 1 << 63, Bsize: 4096},
	} {
		if got := usedBytes(use, 1<<20); got < 0 || got > 1<<20 {
			t.Errorf("%s: %d bytes", name, got)
		}
	}
}
