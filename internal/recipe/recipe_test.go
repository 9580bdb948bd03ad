package recipe

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/catalog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// What a guest named its filesystem must reach mkfs as it is, and nothing else may run.
func TestMkfsWordsSurviveTheShell(t *testing.T) {
	for _, label := range []string{
		"", "root", "two words", "it's", `$(touch /tmp/owned)`, "`id`", "a\nb", "end\n", "\n", "back\\slash", `%s\n`, "tab\t", "\x1b[31m", "caf\xe9", "naïve",
		`"; rm -rf / #`, "-n", "DEVICE ", "DEVICE", "~", "*",
	} {
		s := step{Extent: catalog.Extent{Filesystem: &catalog.Filesystem{
			Mkfs: [][]string{{"printf", "%s", label, "DEVICE"}}, MkfsEnv: []string{"CONF=" + "/dev/null"},
		}}}
		script := "LOOP=\n" + strings.Join(s.Mkfs(), "\n")
		for _, line := range s.Mkfs() {
			if strings.ContainsAny(line, "\n\x1b") {
				t.Errorf("label %q: command %q is not one printable line", label, line)
			}
		}
		out, err := exec.Command("/bin/sh", "-euc", script).Output()
		if err != nil || string(out) != label {
			t.Errorf("label %q arrived as %q (%v) by\n%s", label, out, err, script)
		}
	}
}

// Only commands may begin with four spaces: a guest's names stand in the lines between.
func TestGuestNamesCannotBecomeCommands(t *testing.T) {
	m := &catalog.Manifest{Source: catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: "lv", SizeBytes: 1 << 30}}
	m.Table = &catalog.Table{Label: "gpt", SectorBytes: 512}
	m.Extents = []catalog.Extent{{
		Name: "p1", Number: 1, State: catalog.StateImage, Archive: "lv.p1.img.gz", Reason: "evil\n    touch /tmp/owned",
		Filesystem: &catalog.Filesystem{Type: "ext4\n    touch /tmp/owned", Label: "x\n    touch /tmp/owned"},
	}}
	for _, line := range strings.Split(string(Text(m, Options{})), "\n") {
		if strings.HasPrefix(line, "    ") && strings.Contains(line, "owned") {
			t.Errorf("a name became a command: %q", line)
		}
	}
}

func TestCommandsParse(t *testing.T) {
	pages := map[string][]byte{}
	for name, m := range samples() {
		pages[name] = Text(m, Options{})
	}
	pages["plain-signed"] = Text(samples()["plain"], Options{Signed: true})
	pages["dump-encrypted-signed"] = Text(samples()["dump-encrypted"], Options{Signed: true})
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			var script []string
			for _, line := range strings.Split(string(page), "\n") {
				if command, found := strings.CutPrefix(line, "    "); found {
					script = append(script, command)
				}
			}
			if out, err := exec.Command("/bin/sh", "-n", "-c", strings.Join(script, "\n")).CombinedOutput(); err != nil {
				t.Errorf("sh -n: %v: %s", err, out)
			}
			checkGolden(t, name, page)
		})
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("differs from %s:\n%s", file, got)
	}
}

func samples() map[string]*catalog.Manifest {
	source := catalog.Source{Kind: catalog.SourceVolume, VG: "nova-volumes", Name: "volume-00000001", SizeBytes: 1 << 30}
	ext4 := &catalog.Filesystem{Type: "ext4", Label: "root", Mkfs: [][]string{
		{"mke2fs", "-t", "ext4", "-L", "root", "DEVICE"}, {"tune2fs", "-e", "panic", "DEVICE"}}, MkfsEnv: []string{"MKE2FS_CONFIG=/dev/null"}, Params: map[string]string{
		"block_bytes": "4096", "cluster_bytes": "4096", "inode_bytes": "256", "block_count": "262144", "blocks_per_group": "32768",
		"inodes_per_group": "8192", "inode_count": "65536", "group_descriptor_bytes": "64"}}
	plain := &catalog.Manifest{Source: source, Status: catalog.StatusComplete, Extents: []catalog.Extent{
		{SizeBytes: 1 << 30, State: catalog.StateFiles, Archive: "volume-00000001.tar.gz", BootArea: "volume-00000001.boot.gz", Filesystem: ext4},
	}}
	ofGuest := *plain
	ofGuest.Source.Guest = &catalog.Guest{ID: "dcf47dbd-46d1-4d5b-b442-262a806a333a", Name: "web\n    touch /tmp/owned", Kind: "libvirt", Disk: "vda"}
	ofGuest.Definition = "volume-00000001.guest.tar.gz"
	machine := *plain.Encrypted("age-encryption.org/v1", []string{"age1one"})
	machine.Source.Guest = &catalog.Guest{ID: "100", Name: "100", Kind: "proxmox-vm"}
	machine.Definition = "volume-00000001.guest.tar.gz.age"
	thin := source
	thin.ThinPool = "pool"
	parted := &catalog.Manifest{Source: thin, Status: catalog.StatusDamaged, Table: &catalog.Table{Label: "gpt", SectorBytes: 4096}, Extents: []catalog.Extent{
		{Name: "boot", SizeBytes: 1 << 20, State: catalog.StateImage, Archive: "volume-00000001.boot.gz", Reason: "boot code"},
		{Name: "p1", Number: 1, OffsetBytes: 1 << 20, SizeBytes: 512 << 20, State: catalog.StateFiles, Archive: "volume-00000001.p1.tar.gz", Filesystem: ext4},
		{Name: "p2", Number: 2, OffsetBytes: 513 << 20, SizeBytes: 128 << 20, State: catalog.StateSwap,
			Filesystem: &catalog.Filesystem{Type: "swap", Mkfs: [][]string{{"mkswap", "-U", "1-2", "DEVICE"}}}},
		{Name: "p3", Number: 3, OffsetBytes: 641 << 20, SizeBytes: 128 << 20, State: catalog.StateImage, Archive: "volume-00000001.p3.img.gz", Reason: "unknown"},
		{Name: "gap1", OffsetBytes: 769 << 20, SizeBytes: 255 << 20, State: catalog.StateExcluded, Reason: "unpartitioned"},
	}}
	fat := &catalog.Filesystem{Type: "vfat", Mkfs: [][]string{{"mkfs.vfat", "DEVICE"}}, MkfsNotes: []string{"it differs"}, Params: map[string]string{
		"size_bytes": "67108864", "block_bytes": "512", "sector_bytes": "512", "sectors_per_cluster": "1", "reserved_sectors": "32",
		"fats": "2", "sectors": "131072", "sectors_per_fat": "1009", "fat_bits": "32", "media": "248", "clusters": "129022", "info_sector": "1", "backup_boot_sector": "6", "root_cluster": "2",
	}}
	hybrid := &catalog.Manifest{Source: source, Status: catalog.StatusComplete, Table: &catalog.Table{Label: "gpt", SectorBytes: 512,
		Losses: []string{"the MBR's own partitions are not in the script"}}, Extents: []catalog.Extent{
		{Name: "boot", SizeBytes: 1 << 20, State: catalog.StateImage, Archive: "volume-00000001.boot.gz", Reason: "boot code"},
		{Name: "p1", Number: 1, OffsetBytes: 1 << 20, SizeBytes: 64 << 20, State: catalog.StateFiles, Archive: "volume-00000001.p1.tar.gz",
			BootArea: "volume-00000001.p1.boot.gz", Filesystem: fat},
	}}
	special := &catalog.Manifest{Source: source, Status: catalog.StatusComplete, Table: &catalog.Table{Label: "gpt", SectorBytes: 512}}
	for i, fs := range []*catalog.Filesystem{
		{Type: "xfs", Mkfs: [][]string{{"mkfs.xfs", "DEVICE"}}, MkfsEnv: []string{"LC_ALL=C.UTF-8"}, MkfsNotes: []string{"it differs"}},
		{Type: "ext4", Mkfs: [][]string{{"mke2fs", "DEVICE"}}, MkfsLast: [][]string{{"tune2fs", "-O", "read-only", "DEVICE"}}},
	} {
		name := fmt.Sprintf("p%d", i+1)
		special.Extents = append(special.Extents, catalog.Extent{Name: name, Number: i + 1, OffsetBytes: int64(i+1) << 26, SizeBytes: 1 << 26,
			State: catalog.StateFiles, Archive: "volume-00000001." + name + ".tar.gz", Filesystem: fs})
	}
	guest := func(name string, segments ...catalog.GuestSegment) *catalog.GuestLV {
		return &catalog.GuestLV{VG: "rl", Name: name, Segments: segments}
	}
	lvm := &catalog.Manifest{Source: source, Status: catalog.StatusComplete, Extents: []catalog.Extent{
		{SizeBytes: 1 << 30, State: catalog.StateLVM, Archive: "volume-00000001.pv.img.gz", Reason: "a physical volume",
			PV: &catalog.GuestPV{VG: "rl", HeadBytes: 1 << 20, Tail: "volume-00000001.pvtail.img.gz", TailBytes: 1 << 20}},
		{Name: "lv1", OffsetBytes: 1 << 20, SizeBytes: 96 << 20, State: catalog.StateFiles, Archive: "volume-00000001.lv1.tar.gz",
			Filesystem: &catalog.Filesystem{Type: "btrfs", Mkfs: [][]string{{"mkfs.btrfs", "DEVICE"}}, Subvolumes: []catalog.Subvolume{
				{Path: "@ $(id)", Default: true}, {PathB64: []byte("@/caf\xe9\n"), ReadOnly: true},
			}},
			LV: guest("root", catalog.GuestSegment{SizeBytes: 64 << 20, Offsets: []int64{1 << 20}},
				catalog.GuestSegment{SizeBytes: 32 << 20, StripeBytes: 64 << 10, Offsets: []int64{200 << 20, 300 << 20}})},
		{Name: "lv2", OffsetBytes: 65 << 20, SizeBytes: 4 << 20, State: catalog.StateImage, Archive: "volume-00000001.lv2.img.gz", Reason: "unknown",
			LV: guest("data", catalog.GuestSegment{SizeBytes: 4 << 20, Offsets: []int64{65 << 20}})},
	}}
	all := map[string]*catalog.Manifest{"plain": plain, "partitioned": parted, "hybrid": hybrid, "guest-lvm": lvm}
	all["special"] = special
	for _, name := range []string{"partitioned", "hybrid", "guest-lvm"} {
		sealed := all[name].Encrypted("age-encryption.org/v1", []string{"age1one", "age1two"})
		sealed.Encryption.Details = sealed.Names().Details()
		sealed.Files = []catalog.File{{Name: "volume-00000001.p1.tar.gz.age", SizeBytes: 9}, {Name: "volume-00000001.sfdisk.age", SizeBytes: 7}}
		all[name+"-encrypted"] = sealed
	}
	all["guest"], all["guest-encrypted"] = &ofGuest, &machine
	all["dump-encrypted"] = (&catalog.Manifest{
		Source: catalog.Source{Kind: catalog.SourceDump, Name: "mysql"}, Files: []catalog.File{{Name: "mysql.dump.gz.age"}},
		Dumps: []catalog.Dump{{Name: "mysql", File: "mysql.dump.gz", Preset: "mysql"}},
	}).Encrypted("age-encryption.org/v1", []string{"age1one"})
	database := *plain
	database.Dumps = []catalog.Dump{{Name: "all", File: "volume-00000001.all.dump.gz", Preset: "postgresql"}, {Name: "keys", File: "volume-00000001.keys.dump.gz"}}
	database.Quiesce = &catalog.Quiesce{Level: "application-consistent", Databases: map[string]string{
		"db1": "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: voltar", "db2": "binlog.000042\t328",
	}}
	dump := &catalog.Manifest{
		Source: catalog.Source{Kind: catalog.SourceDump, Name: "db1"}, Status: catalog.StatusComplete,
		Dumps: []catalog.Dump{{Name: "db1", File: "db1.dump.gz", Preset: "mysql"}},
	}
	stream := &catalog.Manifest{
		Source: catalog.Source{Kind: catalog.SourceStream, Name: "binlog"}, Status: catalog.StatusComplete,
		Dumps: []catalog.Dump{{Name: "binlog", File: "binlog.dump.gz"}},
	}
	directory := &catalog.Manifest{
		Source: catalog.Source{Kind: catalog.SourceDirectory, Name: "web", Path: "/srv/web"}, Status: catalog.StatusDamaged,
		Extents: []catalog.Extent{{State: catalog.StateFiles, Archive: "web.tar.gz"}},
	}
	all["shared"] = &catalog.Manifest{Source: source, Status: catalog.StatusComplete, Extents: []catalog.Extent{
		{SizeBytes: 1 << 30, State: catalog.StateFiles, Archive: "volume-00000001.tar.gz", UsedBytes: 500 << 20, ContentBytes: 2 << 30,
			UniqueBytes: 490 << 20, LongPaths: 2, Filesystem: &catalog.Filesystem{Type: "xfs", Mkfs: [][]string{{"mkfs.xfs", "DEVICE"}}}},
	}}
	all["database"], all["dump"], all["stream"], all["directory"] = &database, dump, stream, directory
	return all
}

// What stands in the page brings a dump and a directory back.
func TestPageBringsSourcesBack(t *testing.T) {
	const rows = "INSERT INTO book\n"
	dir, bin := t.TempDir(), t.TempDir()
	try := func(m *catalog.Manifest, env ...string) (string, error) {
		var script []string
		for _, line := range strings.Split(string(Text(m, Options{})), "\n") {
			if command, found := strings.CutPrefix(line, "    "); found {
				script = append(script, command)
			}
		}
		cmd := exec.Command("/bin/sh", "-c", strings.Join(script, "\n"))
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	run := func(m *catalog.Manifest, env ...string) string {
		t.Helper()
		out, err := try(m, env...)
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, Text(m, Options{}), out)
		}
		return out
	}
	fails := func(m *catalog.Manifest) string {
		t.Helper()
		out, err := try(m)
		if err == nil {
			t.Errorf("it goes well:\n%s", out)
		}
		return out
	}
	shell := func(script string) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-euc", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// Clients that show what they are given.
	for name, script := range map[string]string{"mysql": "#!/bin/sh\ncat\n", "runuser": "#!/bin/sh\necho \"$*\"; cat\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for preset, want := range map[string]string{
		"mysql": rows + "FLUSH PRIVILEGES;\n", "postgresql": "-u postgres -- psql -X -q -d postgres\n" + rows,
	} {
		shell("printf '" + rows + "' | gzip >db.dump.gz; sha1sum db.dump.gz >db.checksum")
		m := &catalog.Manifest{
			Source: catalog.Source{Kind: catalog.SourceDump, Name: "db"},
			Dumps:  []catalog.Dump{{Name: "db", File: "db.dump.gz", Preset: preset}},
		}
		if out := run(m); out != "db.dump.gz: OK\n"+want {
			t.Errorf("%s was given %q", preset, out)
		}
	}
	binlog := &catalog.Manifest{Source: catalog.Source{Kind: catalog.SourceStream, Name: "db"}, Dumps: []catalog.Dump{{Name: "db", File: "db.dump.gz"}}}
	output := filepath.Join(t.TempDir(), "output")
	run(binlog, "OUTPUT="+output)
	if data, err := os.ReadFile(output); err != nil || string(data) != rows {
		t.Errorf("unpacked is %q, %v", data, err)
	}

	shell("mkdir tree; echo hello >tree/file; tar -czf web.tar.gz -C tree .; sha1sum web.tar.gz >web.checksum")
	live, target := filepath.Join(t.TempDir(), "it's $(here)"), filepath.Join(t.TempDir(), "target")
	folder := &catalog.Manifest{
		Source:  catalog.Source{Kind: catalog.SourceDirectory, Name: "web", Path: live},
		Extents: []catalog.Extent{{State: catalog.StateFiles, Archive: "web.tar.gz"}},
	}
	if out := fails(folder); !strings.Contains(out, "set TARGET to the folder to fill; the files were in "+live) {
		t.Errorf("without a target it says %q", out)
	}
	if _, err := os.Lstat(live); err == nil {
		t.Error("without a target it fills the live tree")
	}
	run(folder, "TARGET="+target)
	if data, err := os.ReadFile(filepath.Join(target, "file")); err != nil || string(data) != "hello\n" {
		t.Errorf("unpacked is %q, %v", data, err)
	}
}

// GNU tar fails at paths that the kernel does not take in one piece. Everything else comes back all the same.
func TestPageLeavesOutWhatTarCannotUnpack(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	w := tar.NewWriter(zipped)
	long := strings.Repeat(strings.Repeat("ü", 100)+"/", 30) // 201 bytes each
	for _, name := range []string{"grüße", long[:201*20] + "file", long, long + "file", "last", "link", "linked"} {
		h := tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg}
		if name == "link" { // to one that is left out
			h.Typeflag, h.Linkname = tar.TypeLink, long+"file"
		}
		if name == "linked" {
			h.Typeflag, h.Linkname = tar.TypeLink, "last"
		}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	sums := "sha1sum web.tar.gz > web.checksum\n"
	if err := errors.Join(w.Close(), zipped.Close(), os.WriteFile(filepath.Join(dir, "web.tar.gz"), packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	text := string(Text(&catalog.Manifest{
		Source:  catalog.Source{Kind: catalog.SourceDirectory, Name: "web", Path: target},
		Extents: []catalog.Extent{{State: catalog.StateFiles, Archive: "web.tar.gz", LongPaths: 3}},
	}, Options{}))
	if !strings.Contains(text, "3 of its files and folders have paths of 4096 bytes and more, or are hard links to such") {
		t.Errorf("nothing is said of it:\n%s", text)
	}
	script := sums
	for line := range strings.Lines(text) {
		if command, found := strings.CutPrefix(line, "    "); found {
			script += command
		}
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TARGET="+target)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	entries, err := os.ReadDir(target)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := []string{"grüße", "last", "linked", long[:200]}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, want %q; %v", got, want, err)
	}
}
