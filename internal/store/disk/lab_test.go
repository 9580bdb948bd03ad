package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/internal/store"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{})) }

// A disk that is really full: the object fails with the numbers, what stood before still does, and the room comes back.
func TestLabFullDisk(t *testing.T) {
	device := lab.Disk(t, 48<<20)
	lab.Do(t, "mkfs.ext4", "-q", device)
	mount := lab.Mount(t, device, "rw")
	s, err := Open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := put(s, "h/v/1/earlier", "precious"); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	before, err := s.Usage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(ctx, "h/v/2/large", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for written := 0; err == nil && written < 100; written++ {
		_, err = w.Write(chunk)
	}
	if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), " free)") {
		t.Errorf("error %v, want ErrNoSpace with the numbers", err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	objects, err := s.List(ctx, "")
	if err != nil || len(objects) != 1 || objects[0].SizeBytes != int64(len("precious")) {
		t.Errorf("List = %v, %v", objects, err)
	}
	if after, err := s.Usage(ctx); err != nil || after.FreeBytes < before.FreeBytes-1<<20 {
		t.Errorf("%d bytes free before and %d after, %v", before.FreeBytes, after.FreeBytes, err)
	}
}

// Many small backups can use up a filesystem's inodes before its blocks.
func TestLabNoInodes(t *testing.T) {
	device := lab.Disk(t, 48<<20)
	lab.Do(t, "mkfs.ext4", "-q", "-N", "48", device) // 8 in each group
	s, err := Open(Options{Path: lab.Mount(t, device, "rw")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := 0; err == nil && i < 100; i++ {
		err = put(s, fmt.Sprintf("h/v/%d", i), "small")
	}
	if !errors.Is(err, store.ErrNoSpace) || !strings.Contains(err.Error(), "not one of its 48 inodes") {
		t.Errorf("error %v, want ErrNoSpace and what is used up", err)
	}
}

// A disk that is unmounted under a run: nothing more is written, not below the mountpoint either.
func TestLabUnmounted(t *testing.T) {
	device := lab.Disk(t, 16<<20)
	lab.Do(t, "mkfs.ext4", "-q", device)
	mount := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(s, "h/a", "x"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("written before the mount: %v", err)
	}
	if _, err := s.List(t.Context(), ""); !errors.Is(err, ErrNotMounted) {
		t.Errorf("listed before the mount: %v", err)
	}
	if got := tree(t, mount); len(got) != 0 {
		t.Errorf("below the mountpoint there is %q", got)
	}
	lab.Do(t, "mount", device, mount)
	if err := put(s, "h/a", "x"); err != nil {
		t.Error(err)
	}
	lab.Do(t, "umount", "--lazy", mount)
	if err := put(s, "h/b", "x"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("after it was unmounted: %v", err)
	}
	if got := tree(t, mount); len(got) != 0 {
		t.Errorf("below the mountpoint there is %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Errors of a disk come late, when the kernel writes back. None may get lost on the way to Commit.
func TestLabWriteErrorsReachCommit(t *testing.T) {
	device := lab.Disk(t, 128<<20)
	sectors := strings.TrimSpace(lab.Do(t, "blockdev", "--getsz", device))
	lab.Do(t, "modprobe", "dm-flakey")
	lab.Do(t, "dmsetup", "create", "flaky", "--table", "0 "+sectors+" linear "+device+" 0")
	t.Cleanup(func() { lab.Do(t, "dmsetup", "remove", "--retry", "flaky") })
	lab.Do(t, "mkfs.ext2", "-q", "/dev/mapper/flaky")
	mount := lab.Mount(t, "/dev/mapper/flaky", "errors=continue")
	load := func(table string) {
		t.Helper()
		lab.Do(t, "dmsetup", "suspend", "--noflush", "--nolockfs", "flaky")
		lab.Do(t, "dmsetup", "load", "flaky", "--table", table)
		lab.Do(t, "dmsetup", "resume", "flaky")
	}
	s, err := Open(Options{Path: mount})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	w, err := s.Create(ctx, "large", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := w.Write(chunk); err != nil {
		t.Fatal(err)
	}
	load("0 " + sectors + " flakey " + device + " 0 0 3600 1 error_writes")
	var writeErr error
	for n := 0; writeErr == nil && n < 50; n++ {
		_, writeErr = w.Write(chunk)
	}
	load("0 " + sectors + " linear " + device + " 0")
	if _, err := w.Commit(ctx); !errors.Is(err, syscall.EIO) {
		t.Errorf("Write said %v and Commit %v, want EIO", writeErr, err)
	}
	if objects, err := s.List(ctx, ""); err != nil || len(objects) != 0 {
		t.Errorf("List = %v, %v", objects, err)
	}
	if err := put(s, "small", "x"); err != nil {
		t.Errorf("once the disk is well again: %v", err)
	}
}

// On vfat, names that differ in capitals or in dots at their end are one: that is found out beforehand, and the second of two
// volumes is refused, while the first has its backup.
func TestLabNamesThatFallTogether(t *testing.T) {
	device := lab.Disk(t, 64<<20)
	lab.Do(t, "mkfs.vfat", device)
	mount := lab.Mount(t, device, "rw")
	s, err := Open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Mkdir(s.String(), 0o700); err != nil {
		t.Fatal(err)
	}
	notes, err := s.Probe(t.Context())
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "capitals") || !strings.Contains(notes[1], "dot at the end") {
		t.Errorf("Probe = %q, %v", notes, err)
	}
	us := catalog.Host{Name: "volume-host", MachineID: "0123"}
	night := time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)
	if err := catalog.Claim(t.Context(), s, us, night); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"Data", "data"}, {"vol", "vol."}, {"Mixed.Case", "mixed.case."}} {
		for i, want := range []error{nil, catalog.ErrNames} {
			id := catalog.ID{Ref: catalog.VolumeRef("vg", pair[i]), Time: night.Add(time.Duration(i) * time.Second)}
			d, err := catalog.Begin(t.Context(), s, us.Name, id, "20261120T010001Z-3f9a0c", nil)
			if !errors.Is(err, want) || errors.Is(err, catalog.ErrLeft) {
				t.Fatalf("%s beside %s: %v", pair[i], pair[0], err)
			}
			if err == nil {
				m := &catalog.Manifest{
					Format: catalog.Format, Status: catalog.StatusComplete, Host: us, Run: "20261120T010001Z-3f9a0c", Time: night, Started: night, Ended: night,
					Source:  catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: pair[i], VGUUID: "1", LVUUID: pair[i], SizeBytes: 1 << 20},
					Extents: []catalog.Extent{{SizeBytes: 1 << 20, State: catalog.StateSwap}},
				}
				if _, err := d.Commit(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	l, err := catalog.List(t.Context(), s, us.Name, catalog.Filter{})
	if err != nil || len(l.Backups) != 3 || len(l.Unreadable)+len(l.Unfinished)+len(l.Unknown) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// shareAll makes an object that shares all of another, as far as the filesystem can, and removes it again.
func shareAll(t *testing.T, s *Store, key, data string, can bool) {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(t.Context(), key+"2", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half := len(data) / 2
	for _, at := range []int{0, half} {
		if shared, err := w.(store.Sharer).Share([]byte(data[at:at+half]), r, int64(at)); err != nil || shared != can {
			t.Errorf("shared: %t, %v", shared, err)
		}
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := s.Usage(t.Context())
	if took := before.FreeBytes - after.FreeBytes; err != nil || can && took > int64(half) {
		t.Errorf("what is shared takes %d bytes, %v", took, err)
	}
	if got, err := os.ReadFile(filepath.Join(s.String(), key+"2")); err != nil || string(got) != data {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
	}
	if err := s.Delete(t.Context(), key+"2"); err != nil {
		t.Error(err)
	}
}

// Backup disks have file systems without permissions, or with other ideas of allocation, too.
func TestLabFileSystems(t *testing.T) {
	for name, mkfs := range map[string][]string{
		"vfat": {"mkfs.vfat"}, "xfs": {"mkfs.xfs", "-q"}, "btrfs": {"mkfs.btrfs", "-q"}, "ext2": {"mkfs.ext2", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			device := lab.Disk(t, 320<<20)
			lab.Do(t, mkfs[0], append(mkfs[1:], device)...)
			mount := lab.Mount(t, device, "rw")
			s, err := Open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			const key = "h/v/2026-11-20T010001Z/archive"
			data := strings.Repeat("0123456789abcdef", 40<<16) // 40 MiB: more than stays dirty
			for _, content := range []string{"earlier", data} {
				if err := put(s, key, content); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(filepath.Join(s.String(), key))
			if err != nil || string(got) != data {
				t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
			}
			shareAll(t, s, key, data, name == "xfs" || name == "btrfs")
			if err := s.Delete(context.Background(), key); err != nil {
				t.Error(err)
			}
			if left := tree(t, s.String()); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}
