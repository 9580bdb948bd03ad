package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/fiemap"
	"voltar/internal/keep"
	"voltar/internal/lab"
	"voltar/report"
)

// racingDisk makes a filesystem on a volume and mounts it over a mapping of its own, so that LVM freezes nothing when it makes a
// snapshot: as with a guest.
func racingDisk(t *testing.T, name, options string, mkfs ...string) (dir string) {
	t.Helper()
	device := lab.LV(t, "races", name, 320*mib)
	lab.Do(t, mkfs[0], append(mkfs[1:], device)...)
	lab.Do(t, "dmsetup", "create", "guest-"+name, "--table", fmt.Sprintf("0 %d linear %s 0", 320*mib/512, device))
	t.Cleanup(func() { lab.Do(t, "dmsetup", "remove", "--retry", "guest-"+name) })
	return lab.Mount(t, "/dev/mapper/guest-"+name, options)
}

const racing = 256 << 10 // bytes of the file that changes

func racingContent(c byte) []byte { return bytes.Repeat([]byte{c}, racing) }

// overwrite writes the file that changes in place, without waiting for the disk.
func overwrite(t *testing.T, dir string, c byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(racingContent(c), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// commitTimes has the filesystem write what it knows of its files, their times among it, by way of another one.
func commitTimes(t *testing.T, dir string) {
	t.Helper()
	shell(t, `echo more >> "$1/other"; sync "$1/other"`, dir)
}

// Times on a snapshot of a running guest prove nothing: what changed without them is in the backup all the same.
func TestLabCarryFindsWhatChangesWithoutItsTimes(t *testing.T) {
	lab.VG(t, "races", 2600*mib)
	races := map[string]struct {
		dir           string
		first, second func(t *testing.T, dir string) // before each of the two nights
	}{
		"overwritten": {racingDisk(t, "overwritten", "defaults", "mkfs.ext4", "-q"),
			func(t *testing.T, dir string) { overwrite(t, dir, 'b'); commitTimes(t, dir) },
			func(*testing.T, string) {}},
		"xfs": {racingDisk(t, "xfs", "defaults", "mkfs.xfs", "-q"),
			func(t *testing.T, dir string) { overwrite(t, dir, 'b'); commitTimes(t, dir) },
			func(*testing.T, string) {}},
		"lazytime": {racingDisk(t, "lazytime", "lazytime", "mkfs.ext4", "-q"),
			func(*testing.T, string) {},
			func(t *testing.T, dir string) {
				if err := unix.Fdatasync(int(overwrite(t, dir, 'b').Fd())); err != nil {
					t.Fatal(err)
				}
			}},
	}
	var mapped []byte
	races["mapped"] = struct {
		dir           string
		first, second func(t *testing.T, dir string)
	}{racingDisk(t, "mapped", "defaults", "mkfs.ext4", "-q"),
		func(t *testing.T, dir string) {
			var err error
			mapped, err = unix.Mmap(int(overwrite(t, dir, 'a').Fd()), 0, racing, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			copy(mapped, racingContent('x'))
			commitTimes(t, dir)
		},
		func(*testing.T, string) { copy(mapped, racingContent('b')) }}
	still := make([]byte, 24*mib)
	_, _ = rand.NewChaCha8([32]byte{}).Read(still)
	for _, r := range races {
		writeFile(t, filepath.Join(r.dir, "file"), racingContent('a'))
		writeFile(t, filepath.Join(r.dir, "still"), still)
	}
	unix.Sync()
	for _, r := range races {
		r.first(t, r.dir)
	}
	s := newSite(t, "[select]\nvolume_groups = [\"races\"]\n")
	s.run(t, exitDone)
	for _, r := range races {
		r.second(t, r.dir)
	}
	unix.Sync()
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	result := s.run(t, exitDone)
	for name := range races {
		v := wantStatus(t, result, "races/"+name, report.VolumeOK)
		if v.Carried == nil || v.Carried.Bytes < 20*mib || v.Carried.NewBytes > 4*mib {
			t.Errorf("%s: %+v was carried over", name, v.Carried)
		}
		folders := s.backupsOf(t, "races/"+name)
		last := folders[len(folders)-1]
		got := shell(t, `tar -xzOf "$1"/*.tar.gz file`, last)
		if got != string(racingContent('b')) {
			t.Errorf("%s: the archive does not have what the snapshot has, but %d bytes that begin %.10q", name, len(got), got)
		}
	}
	checkSums(t, s.backupsOf(t, "races/xfs")...)
	if code, out, errs := voltar(t, "verify", "--full", "--all", "--config", s.config); code != 0 {
		t.Errorf("verify ends with %d: %s %s", code, out, errs)
	}
}

// Of an image, what did not change is carried over, and what it holds is what the volume held.
func TestLabCarryOfAnImage(t *testing.T) {
	lab.VG(t, "images", 200*mib)
	device := lab.LV(t, "images", "raw", 64*mib)
	shell(t, `dd if=/dev/urandom of="$1" bs=1M count=40 conv=fsync status=none`, device)
	s := newSite(t, "[select]\nvolume_groups = [\"images\"]\n")
	s.run(t, exitDone)
	shell(t, `printf changed | dd of="$1" bs=1 seek=9000000 conv=notrunc,fsync status=none`, device)
	v := wantStatus(t, s.run(t, exitDone), "images/raw", report.VolumeOK)
	if c := v.Carried; c == nil || c.Members != 9 || c.NewMembers != 7 { // of the new ones, six are zeros
		t.Errorf("%+v was carried over", c)
	}
	folders := s.backupsOf(t, "images/raw")
	last := folders[len(folders)-1]
	shell(t, `gunzip -c "$1"/*.img.gz | cmp - "$2"`, last, device)
	if x := manifest(t, last).Extents[0]; x.State != catalog.StateImage || x.Members == "" || x.Carried == nil || !strings.HasPrefix(x.Carried.From, "images/raw@") {
		t.Errorf("%+v", x)
	}
	checkSums(t, folders...)
	if code, out, errs := voltar(t, "verify", "--full", "--all", "--config", s.config); code != 0 {
		t.Errorf("verify ends with %d: %s %s", code, out, errs)
	}
}

// On XFS and btrfs, what is carried over shares its blocks with the previous backup. Each backup is whole without the other.
func TestLabCarrySharesBlocks(t *testing.T) {
	for _, filesystem := range []string{"xfs", "btrfs"} {
		t.Run(filesystem, func(t *testing.T) {
			device := lab.Disk(t, 400*mib)
			lab.Do(t, "mkfs."+filesystem, "-q", device)
			tree := t.TempDir()
			still := make([]byte, 40*mib)
			_, _ = rand.NewChaCha8([32]byte{}).Read(still)
			writeFile(t, filepath.Join(tree, "still"), still)
			writeFile(t, filepath.Join(tree, "file"), racingContent('a'))
			s := newSite(t, "\n[[directory]]\nname = \"d\"\npath = \""+tree+"\"\n")
			if err := os.Mkdir(s.backups, 0o700); err != nil {
				t.Fatal(err)
			}
			lab.Do(t, "mount", device, s.backups)
			t.Cleanup(func() { lab.Do(t, "umount", s.backups) })
			usedBytes := func() int64 {
				t.Helper()
				unix.Sync()
				var use unix.Statfs_t
				if err := unix.Statfs(s.backups, &use); err != nil {
					t.Fatal(err)
				}
				return int64(use.Blocks-use.Bfree) * use.Bsize
			}
			s.run(t, exitDone)
			first := usedBytes()
			writeFile(t, filepath.Join(tree, "file"), racingContent('b'))
			result := s.run(t, exitDone)
			if c := result.Volumes[0].Copies[0]; c.SharedBytes < 36*mib {
				t.Errorf("%d bytes are shared", c.SharedBytes)
			}
			if more := usedBytes() - first; more > 12*mib {
				t.Errorf("the second night takes %d bytes", more)
			}
			folders := s.backupsOf(t, "@directory/d")
			checkSums(t, folders...)
			lines := listed(t, s, "@directory/d")
			own, all := *lines[0].OwnBytes, freedBy(t, s, lines[0].Backup, lines[1].Backup)
			if one := freedBy(t, s, lines[0].Backup); one != own || own == 0 || own > 12*mib || *lines[1].OwnBytes > 12*mib {
				t.Errorf("of %d and %d bytes the backups' own, the first alone frees %d", own, *lines[1].OwnBytes, one)
			}
			if whole := lines[0].SizeBytes + *lines[1].OwnBytes; filesystem == "xfs" && (all < whole-mib || all > whole+mib) || all > whole+mib {
				t.Errorf("both free %d bytes of %d", all, whole)
			}
			before := usedBytes()
			if code, out, errs := voltar(t, "forget", lines[0].Backup, "--config", s.config); code != 0 || !strings.Contains(out, "This freed") {
				t.Errorf("%d %s %s", code, out, errs)
			}
			lab.Do(t, "umount", s.backups)
			lab.Do(t, "mount", device, s.backups)
			if freed := before - usedBytes(); freed < own || freed > own+2*mib { // and what the filesystem keeps of it for itself
				t.Errorf("%d bytes were freed, not %d", freed, own)
			}
			if got := shell(t, `tar -xzOf "$1"/*.tar.gz still | sha256sum; sha256sum < "$2"`, folders[1], filepath.Join(tree, "still")); strings.Count(got, "\n") != 2 || got[:64] != got[68:132] {
				t.Errorf("without the first backup, the second holds something else: %s", got)
			}
			checkSums(t, folders[1])
			if filesystem == "xfs" {
				s.run(t, exitDone)
				sound := filepath.Join(t.TempDir(), "sound")
				lab.Do(t, "cp", "-a", s.backups, sound)
				wantRotFound(t, s, device, folders[1])
				wantRotRepaired(t, s, sound)
			}
		})
	}
}

// wantRotFound flips a bit in a block that two backups share. The next night has it anew, and marks both.
func wantRotFound(t *testing.T, s site, device, folder string) {
	t.Helper()
	file, err := os.Open(filepath.Join(folder, "d.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	if err := fiemap.Each(int(file.Fd()), 1<<40, func(e fiemap.Extent) bool {
		if e.IsShared() && e.LengthBytes > mib {
			at = e.AtBytes + e.LengthBytes/2
		}
		return at == 0
	}); err != nil || at == 0 {
		t.Fatalf("nothing is shared: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "umount", s.backups)
	disk, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	was := make([]byte, 1)
	_, err = disk.ReadAt(was, at)
	if err == nil {
		_, err = disk.WriteAt([]byte{was[0] ^ 1}, at)
	}
	if err := errors.Join(err, disk.Sync(), disk.Close()); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "mount", device, s.backups)
	s.run(t, exitDone)
	var status []string
	for _, l := range listed(t, s, "@directory/d") {
		status = append(status, l.Status)
	}
	if !slices.Equal(status, []string{"damaged", "damaged", "complete"}) {
		t.Errorf("the backups are %v", status)
	}
	folders := s.backupsOf(t, "@directory/d")
	checkSums(t, folders[len(folders)-1])
}

// wantRotRepaired wants both backups that lost a block which they shared to have it again, from another destination, and to share it again.
func wantRotRepaired(t *testing.T, s site, sound string) {
	t.Helper()
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, append(config, folderDestination("sound", sound, "catch_up = false\n")...))
	result := s.run(t, exitDone)
	var shared int64
	repaired := result.Destinations[0].CaughtUp
	for _, c := range repaired {
		shared += c.SharedBytes
		if c.From != "sound" || !slices.Equal(c.Repaired, []string{"d.tar.gz"}) {
			t.Errorf("%+v", c)
		}
	}
	if len(repaired) != 2 || shared < 2*36*mib {
		t.Errorf("%d were repaired, %d bytes are shared: %+v", len(repaired), shared, result.Destinations[0])
	}
	checkSums(t, s.backupsOf(t, "@directory/d")...)
	for _, l := range listed(t, s, "@directory/d") {
		if l.Status != "complete" {
			t.Errorf("%+v", l)
		}
	}
}

// freedBy says what removing backups frees, as a dry run of `forget` has it.
func freedBy(t *testing.T, s site, backups ...string) (bytes int64) {
	t.Helper()
	_, out, errs := voltar(t, append([]string{"forget", "--force", "--dry-run", "--json", "--config", s.config}, backups...)...)
	var lines []keep.Line
	if err := json.Unmarshal([]byte(out), &lines); err != nil || len(lines) != len(backups) {
		t.Fatal(err, out, errs)
	}
	for _, l := range lines {
		bytes += l.FreedBytes
	}
	return bytes
}

// listed is what `list` says of the backups of a source.
func listed(t *testing.T, s site, source string) (lines []catalog.Line) {
	t.Helper()
	code, out, errs := voltar(t, "list", source, "--json", "--config", s.config)
	if err := json.Unmarshal([]byte(out), &lines); code != 0 || err != nil {
		t.Fatal(code, err, out, errs)
	}
	return lines
}
