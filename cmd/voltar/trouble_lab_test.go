package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// One run over volumes each of which is in some trouble: written to all the while, made to panic the host, dependent on a
// journal elsewhere, with a table that makes no sense, with a snapshot too small for what is written. Each comes to what
// it deserves, and the host stays as it was.
func TestLabTroubledVolumes(t *testing.T) {
	lab.VG(t, "vg", 1000<<20)
	// Should the archive of small be there before all is written, a dump beside it holds the snapshot until then.
	written := filepath.Join(t.TempDir(), "written")
	s := newSite(t, `[snapshot]
size = "48MiB"
min_size = "8MiB"
poll_interval = "200ms"
extend_at_percent = 100
[[volume]]
match = "small"
snapshot_size = "8MiB"
[[dump]]
name = "writer"
volumes = ["small"]
command = ["sh", "-c", "until [ -e `+written+` ]; do sleep 0.1; done; echo written"]
`)
	busy := map[string]string{"busy-ext4": "", "busy-xfs": ""}
	for name := range busy {
		device := lab.LV(t, "vg", name, 96<<20)
		if name == "busy-ext4" {
			makeExt(t, device)
		} else {
			makeXFS(t, device)
		}
		busy[name] = lab.Mount(t, device, "defaults")
	}
	panicky := lab.LV(t, "vg", "panicky", 32<<20)
	makePanicky(t, panicky)
	journal := lab.LV(t, "vg", "journal", 16<<20)
	lab.Do(t, "mke2fs", "-q", "-b", "4096", "-O", "journal_dev", journal)
	outside := lab.LV(t, "vg", "outside", 32<<20)
	lab.Do(t, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-J", "device="+journal, outside)
	dirtyOutside(t, outside)
	journalSum := sumOf(t, journal)
	hostile := lab.LV(t, "vg", "hostile", 32<<20)
	makeHostile(t, hostile)
	hollow := lab.LV(t, "vg", "hollow", 32<<20)
	makeHollow(t, hollow)
	small := lab.LV(t, "vg", "small", 96<<20)
	makeExt(t, small)
	fillDeviceFile(t, small)

	writeFile(t, written, nil)
	first := s.run(t, 0, "vg/small")
	if snapshot := volume(t, first, "vg/small").Snapshot; snapshot == nil || snapshot.SuggestedBytes == 0 || snapshot.SizeBytes != 8<<20 {
		t.Errorf("snapshot of small: %+v", snapshot)
	}
	if err := os.Remove(written); err != nil {
		t.Fatal(err)
	}
	earlier := s.backupsOf(t, "vg/small")
	before := hostState(t)

	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for name, dir := range busy {
		writeJournalled(t, filepath.Join(dir, "before the snapshot"))
		writers.Go(func() { keepWriting(ctx, t, dir) })
		_ = name
	}
	writers.Go(func() {
		overflow(ctx, t, small)
		if err := os.WriteFile(written, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	result := s.run(t, exitAttention)
	stop()
	writers.Wait()

	if after := hostState(t); after != before {
		t.Errorf("after the run:\n%s\nbefore:\n%s", after, before)
	}
	for name := range busy {
		wantStatus(t, result, "vg/"+name, report.VolumeOK)
		checkConsistent(t, s.backupsOf(t, "vg/"+name)[0], name)
	}

	wantStatus(t, result, "vg/panicky", report.VolumeDamaged)
	m := manifest(t, s.backupsOf(t, "vg/panicky")[0])
	if x := m.Extents[0]; m.Status != catalog.StatusDamaged || x.State != catalog.StateFiles || len(x.Damaged) == 0 || x.Damaged[0].Path != "corrupt" {
		t.Errorf("panicky: %s %+v", m.Status, x)
	}

	wantStatus(t, result, "vg/outside", report.VolumeOK)
	if x := manifest(t, s.backupsOf(t, "vg/outside")[0]).Extents[0]; x.State != catalog.StateImage || !strings.Contains(x.Reason, "journal") {
		t.Errorf("outside: %+v", x)
	}
	if sumOf(t, journal) != journalSum {
		t.Error("the backup wrote to a live journal")
	}

	v := wantStatus(t, result, "vg/hostile", report.VolumeOK)
	if x := manifest(t, s.backupsOf(t, "vg/hostile")[0]).Extents[0]; x.State != catalog.StateImage || x.SizeBytes != 32<<20 || len(v.Warnings) == 0 {
		t.Errorf("hostile: %+v %+v", x, v.Warnings)
	}

	v = wantStatus(t, result, "vg/hollow", report.VolumeOK)
	if x := manifest(t, s.backupsOf(t, "vg/hollow")[0]).Extents[0]; x.State != catalog.StateImage || !strings.Contains(x.Reason, "inodes in use") ||
		len(v.Warnings) != 1 {
		t.Errorf("hollow: %+v %+v", x, v.Warnings)
	}

	v = wantStatus(t, result, "vg/small", report.VolumeFailed)
	if v.Error == nil || !strings.Contains(v.Error.Message, "snapshot overflowed") || v.Ledger.FailedBytes != v.SizeBytes {
		t.Errorf("small: %+v %+v", v.Error, v.Ledger)
	}
	if v.LastGood == nil || catalog.FormatTime(*v.LastGood) != filepath.Base(earlier[len(earlier)-1]) {
		t.Errorf("small: the newest good backup is of %v, want that in %q", v.LastGood, earlier)
	}
	if now := s.backupsOf(t, "vg/small"); fmt.Sprint(now) != fmt.Sprint(earlier) {
		t.Errorf("backups of small: %q, before: %q", now, earlier)
	}
	for _, name := range []string{"busy-ext4", "busy-xfs", "panicky", "outside", "hostile", "hollow", "small", "journal"} {
		checkSums(t, s.backupsOf(t, "vg/"+name)[0])
	}
}

// makePanicky makes an ext4 that asks the kernel to panic at the first error, and an error in one of its folders.
func makePanicky(t *testing.T, device string) {
	t.Helper()
	makeExt(t, device, "-O", "^metadata_csum")
	lab.Do(t, "tune2fs", "-e", "panic", device)
	dir := t.TempDir()
	lab.Do(t, "mount", device, dir)
	for _, name := range []string{"corrupt", "sound"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name, "file"), []byte(name))
	}
	lab.Do(t, "umount", dir)
	block := strings.TrimSpace(lab.Do(t, "debugfs", "-R", "bmap /corrupt 0", device))
	lab.Do(t, "dd", "if=/dev/urandom", "of="+device, "bs=4096", "count=1", "seek="+block, "conv=notrunc,fsync", "status=none")
}

// makeHollow makes an ext4 whose folders have lost what they held: its inodes are in use still.
func makeHollow(t *testing.T, device string) {
	t.Helper()
	makeExt(t, device)
	dir := t.TempDir()
	lab.Do(t, "mount", device, dir)
	if err := os.Mkdir(filepath.Join(dir, "lost"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		writeFile(t, filepath.Join(dir, "lost", fmt.Sprint(i)), []byte("of use once found"))
	}
	lab.Do(t, "umount", dir)
	lab.Do(t, "debugfs", "-w", "-R", "unlink /lost", device)
}

// dirtyOutside leaves an ext4 whose journal lies on another device as a crash would: with something to replay.
func dirtyOutside(t *testing.T, device string) {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "mount", device, dir)
	writeJournalled(t, filepath.Join(dir, "file"))
	copied := filepath.Join(t.TempDir(), "image")
	lab.Do(t, "fsfreeze", "-f", dir)
	lab.Do(t, "fsfreeze", "-u", dir)
	writeJournalled(t, filepath.Join(dir, "after"))
	lab.Do(t, "cp", "--sparse=always", device, copied)
	lab.Do(t, "umount", dir)
	lab.Do(t, "dd", "if="+copied, "of="+device, "bs=1M", "conv=fsync", "status=none")
}

// makeHostile writes an extended partition whose boot records lead round in a circle.
func makeHostile(t *testing.T, device string) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	record := func(at int64, entries ...[3]uint32) {
		sector := make([]byte, 512)
		for i, e := range entries {
			b := sector[446+16*i:]
			b[4] = byte(e[0])
			binary.LittleEndian.PutUint32(b[8:], e[1])
			binary.LittleEndian.PutUint32(b[12:], e[2])
		}
		sector[510], sector[511] = 0x55, 0xaa
		if _, err := f.WriteAt(sector, at*512); err != nil {
			t.Fatal(err)
		}
	}
	record(0, [3]uint32{5, 2048, 32768})
	record(2048, [3]uint32{0x83, 2, 2}, [3]uint32{5, 100, 100})
	record(2148, [3]uint32{0x83, 2, 2}, [3]uint32{5, 0, 100})
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// fillDeviceFile gives a filesystem a file that takes a while to archive.
func fillDeviceFile(t *testing.T, device string) {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "mount", device, dir)
	lab.Do(t, "dd", "if=/dev/urandom", "of="+filepath.Join(dir, "data"), "bs=1M", "count=48", "status=none")
	lab.Do(t, "umount", dir)
}

// overflow waits for the snapshot of a volume and then writes more to the volume than the snapshot can hold, to blocks
// that it has anyway.
func overflow(ctx context.Context, t *testing.T, device string) {
	name := filepath.Base(filepath.Dir(device)) + "-" + filepath.Base(device)
	for { // its device is there before it holds what the volume had
		table, err := exec.CommandContext(ctx, "dmsetup", "table", name).Output()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		if strings.Contains(string(table), " snapshot-origin ") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	f, err := os.OpenFile(device, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Error(err)
		return
	}
	// Direct input and output want whole pages at whole pages.
	page, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Error(err)
		return
	}
	for i := range int64(24) {
		if _, err := f.WriteAt(page, (64+i)<<20); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(f.Close(), unix.Munmap(page)); err != nil {
		t.Error(err)
	}
}

// writeJournalled writes a file that only the journal knows of, as yet.
func writeJournalled(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteString("safe")
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keepWriting makes files whose names say what is in them, each complete on disk before it gets its name.
func keepWriting(ctx context.Context, t *testing.T, dir string) {
	for i := 0; ctx.Err() == nil; i = (i + 1) % 200 {
		time.Sleep(5 * time.Millisecond) // leaves some of the machine's one processor to the run
		content := []byte(strings.Repeat(fmt.Sprintf("%d of %s ", i, dir), 1+i*10))
		path := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256(content)))
		f, err := os.Create(path + ".tmp")
		if err == nil {
			_, err = f.Write(content)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err == nil {
			err = os.Rename(path+".tmp", path)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// checkConsistent unpacks a backup of a volume that was written to, and looks into each file.
func checkConsistent(t *testing.T, folder, name string) {
	t.Helper()
	if x := manifest(t, folder).Extents[0]; x.State != catalog.StateFiles || x.DamagedCount != 0 {
		t.Fatalf("%s: %+v", name, x)
	}
	dir := t.TempDir()
	lab.Do(t, "tar", "-xzf", filepath.Join(folder, name+".tar.gz"), "-C", dir)
	if content, err := os.ReadFile(filepath.Join(dir, "before the snapshot")); err != nil || string(content) != "safe" {
		t.Errorf("%s: what the journal had is lost: %q %v", name, content, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if len(file.Name()) != 64 {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%x", sha256.Sum256(content)) != file.Name() {
			t.Errorf("%s: %s holds %d wrong bytes", name, file.Name(), len(content))
		}
	}
}

// sumOf returns the checksum of a device, past any cache.
func sumOf(t *testing.T, device string) string {
	t.Helper()
	return lab.Do(t, "sh", "-c", "dd iflag=direct bs=1M status=none if="+device+" | sha256sum")
}

// Nothing is written below a mountpoint without its disk, nor for another machine; a disk that fills up loses tonight's
// backup of that volume alone; a volume group without room is said so. The mail has each reason, and waits while the
// mail server is away.
func TestLabDestinationsInTrouble(t *testing.T) {
	lab.VG(t, "vg", 500<<20)
	little, large := lab.LV(t, "vg", "little", 16<<20), lab.LV(t, "vg", "large", 96<<20)
	makeExt(t, little)
	makeExt(t, large)
	fillDeviceFile(t, large)
	s := newSite(t, "[snapshot]\nmin_size = \"8MiB\"\n")
	mail := startMail(t)
	s.append(t, mail.config())
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	required := strings.ReplaceAll(string(text), `require_mount = "none"`, "")
	writeFile(t, s.config, []byte(required))
	if err := os.MkdirAll(s.backups, 0o700); err != nil {
		t.Fatal(err)
	}
	wantMail := func(parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(mail.last(), part) {
				t.Errorf("the mail lacks %q:\n%s", part, mail.last())
			}
		}
	}

	result := s.run(t, exitNothing)
	if left, err := os.ReadDir(s.backups); err != nil || len(left) > 0 || len(result.Volumes) != 0 || result.Destinations[0].BackupBytes != -1 {
		t.Errorf("not mounted: %v %v %+v", left, err, result.Volumes)
	}
	wantMail("FAILED", "not mounted")

	device := lab.LV(t, "vg", "store", 40<<20) // the destination lies on a volume of this host
	makeExt(t, device)
	lab.Do(t, "mount", device, s.backups)
	t.Cleanup(func() { lab.Do(t, "umount", s.backups) })
	mail.stop()
	result = s.run(t, exitNotDelivered, "little")
	wantStatus(t, result, "vg/little", report.VolumeOK)
	mail.start()

	if code, out, errs := voltar(t, "check", "--config", s.config); code != 0 || !strings.Contains(out, "2 of 3 are selected") {
		t.Errorf("check: %d %s %s", code, out, errs)
	}
	result = s.run(t, exitAttention)
	wantStatus(t, result, "vg/little", report.VolumeOK)
	v := wantStatus(t, result, "vg/large", report.VolumeFailed)
	if v.Error == nil || !strings.Contains(v.Error.Message, "no space") || v.Error.Hint == "" || v.LastGood == nil || !v.LastGood.IsZero() {
		t.Errorf("large: %+v", v.Error)
	}
	if subjects := mail.subjects(); len(subjects) != 3 || !strings.Contains(subjects[1], "OK 1 volume") || !strings.Contains(subjects[2], "FAILED 1 of 2") {
		t.Errorf("mails: %q", subjects)
	}
	wantMail("large", "space")
	if len(s.backupsOf(t, "vg/large")) != 0 {
		t.Errorf("left of large: %q", s.backupsOf(t, "vg/large"))
	}
	checkSums(t, s.backupsOf(t, "vg/little")...)
	if len(s.backupsOf(t, "vg/little")) != 2 {
		t.Errorf("%q", s.backupsOf(t, "vg/little"))
	}
	excluded := map[string]string{}
	for _, x := range result.Excluded {
		excluded[x.Name] = x.Rule
	}
	if excluded["vg/store"] != "holds-destination" {
		t.Errorf("left out: %v", excluded)
	}
	// On a night on which it is not mounted, its volume looks like a guest's.
	lab.Do(t, "umount", s.backups)
	if code, out, errs := voltar(t, "check", "--config", s.config); code != exitAttention || !strings.Contains(out, "2 of 3 are selected") {
		t.Errorf("check without the disk: %d %s %s", code, out, errs)
	}
	lab.Do(t, "mount", device, s.backups)

	lab.Do(t, "lvcreate", "--yes", "--extents", "100%FREE", "--name", "filler", "vg")
	result = s.run(t, exitNothing, "little")
	if v := volume(t, result, "vg/little"); v.Error == nil || !strings.Contains(v.Error.Message, "too little free space") || v.Error.Hint == "" {
		t.Errorf("without room for the snapshot: %+v", v.Error)
	}
	lab.Do(t, "lvremove", "--yes", "vg/filler")

	marker := filepath.Join(s.backups, "volume-host/voltar.json")
	owner, err := os.ReadFile(marker)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, marker, []byte(strings.Replace(string(owner), `"machine_id": "`, `"machine_id": "f`, 1)))
	result = s.run(t, exitNothing, "little")
	if len(result.Errors) != 1 || !strings.Contains(result.Errors[0].Message, "machine") || len(s.backupsOf(t, "vg/little")) != 2 {
		t.Errorf("foreign marker: %+v", result.Errors)
	}
	writeFile(t, marker, owner)

	// A second destination that cannot be written to leaves the first alone.
	s.append(t, "[[destination]]\nname = \"away\"\ntype = \"disk\"\npath = \"/nowhere/mounted\"\n")
	result = s.run(t, exitAttention, "little")
	v = wantStatus(t, result, "vg/little", report.VolumePartial)
	if len(v.Copies) != 2 || v.Copies[0].Error != nil || v.Copies[1].Error == nil || v.Copies[0].Kept != 3 {
		t.Errorf("%+v", v.Copies)
	}
}
