package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// pvReadBytes is how much has been read of the disks of a volume group.
func pvReadBytes(t *testing.T, vg string) (bytes int64) {
	t.Helper()
	for _, pv := range strings.Fields(lab.Do(t, "pvs", "--noheadings", "-o", "pv_name", "-S", "vg_name="+vg)) {
		fields := strings.Fields(string(readFile(t, filepath.Join("/sys/class/block", filepath.Base(pv), "stat"))))
		bytes += atoi(t, fields[2]) * 512
	}
	return bytes
}

// lastsOf are the snapshots that are set aside, by their origins.
func lastsOf(t *testing.T, vg string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(lab.Do(t, "lvs", "--noheadings", "--separator", " ", "-o", "origin,lv_name,lv_attr,lv_tags", vg)) {
		f := strings.Fields(line)
		if len(f) == 4 && strings.Contains(f[3], "voltar.last.") {
			if f[2][1] != 'r' || f[2][4] != '-' || f[2][9] != 'k' {
				t.Errorf("%s is not set aside: %s", f[1], f[2])
			}
			found[f[0]] = f[1]
		}
	}
	return found
}

func newestOf(t *testing.T, s site, name string) string {
	t.Helper()
	folders := s.backupsOf(t, name)
	return folders[len(folders)-1]
}

func atoi(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What did not change of a thin volume since the last night is not read, as the pool knows it, and the backup is whole all the same.
func TestLabWhatDidNotChangeIsNotRead(t *testing.T) {
	lab.VG(t, "thin", 400*mib)
	shell(t, `lvcreate -y -q --type thin-pool -L 320M -c 64k -n pool thin
		lvcreate -y -q -V 96M -T thin/pool -n files
		lvcreate -y -q -V 64M -T thin/pool -n raw
		mkfs.ext4 -q /dev/thin/files
		dd if=/dev/urandom of=/dev/thin/raw bs=1M count=40 conv=fsync status=none`)
	mounted := t.TempDir()
	inFiles := func(script string) {
		t.Helper()
		shell(t, `mount /dev/thin/files "$1"; cd "$1"; `+script+`; cd /; umount "$1"; sync`, mounted)
	}
	inFiles("dd if=/dev/urandom of=large bs=1M count=30 status=none; mkdir etc; cp -a /etc/passwd etc/; ln large etc/link")
	s := newSite(t, "")
	base := string(readFile(t, s.config))
	configure := func(more string) { writeFile(t, s.config, []byte(base+more)) }
	configure("[snapshot]\nkeep_last = true\n")
	night := func(wantRead, most int64) report.Run {
		t.Helper()
		before := pvReadBytes(t, "thin")
		result := s.run(t, exitDone)
		// lvm2 and the tools of thin pools read metadata besides: 5 MB, more or less, in some twenty commands.
		if read := pvReadBytes(t, "thin") - before; read < wantRead || read > most+16*mib {
			t.Errorf("%d bytes are read of the disk, not %d to %d and some metadata", read, wantRead, most)
		}
		for _, v := range result.Volumes {
			if v.Status != report.VolumeOK || len(v.Warnings) > 0 {
				t.Errorf("%s: %s %+v", v.Name, v.Status, v.Warnings)
			}
		}
		shell(t, `gzip -dc "$1"/raw.img.gz | cmp - /dev/thin/raw`, newestOf(t, s, "thin/raw"))
		tree := t.TempDir()
		shell(t, `tar -xzf "$1"/files.tar.gz -C "$2"; mount -o ro /dev/thin/files "$3"
			diff -r --no-dereference -x lost+found "$2" "$3"; umount "$3"`, newestOf(t, s, "thin/files"), tree, mounted)
		checkSums(t, newestOf(t, s, "thin/raw"), newestOf(t, s, "thin/files"))
		return result
	}

	night(70*mib, 74*mib)
	first := lastsOf(t, "thin")
	if len(first) != 2 {
		t.Fatalf("set aside: %v", first)
	}
	result := night(0, 0)
	for _, v := range result.Volumes {
		if c := v.Carried; c == nil || c.NewBytes > mib || c.UnreadBytes < 30*mib || v.ReadBytes > mib {
			t.Errorf("%s: %d bytes are read, carried over: %+v", v.Name, v.ReadBytes, c)
		}
	}
	second := lastsOf(t, "thin")
	if len(second) != 2 || second["raw"] == first["raw"] {
		t.Errorf("set aside: %v, and before: %v", second, first)
	}

	shell(t, `printf changed | dd of=/dev/thin/raw bs=1 seek=9000000 conv=notrunc,fsync status=none`)
	night(4*mib, 4*mib)
	inFiles("printf changed | dd of=large bs=1 seek=20000000 conv=notrunc status=none")
	night(30*mib, 35*mib)
	shell(t, `blkdiscard -o 8M -l 8M /dev/thin/raw`)
	night(0, 8*mib)
	shell(t, "lvextend -q -L 80M thin/raw")
	night(30*mib, 45*mib)
	night(0, 8*mib)

	// Whatever was in the snapshot that is set aside: whoever writes to it has it differ.
	kept := lastsOf(t, "thin")["raw"]
	shell(t, `lvchange -y -prw thin/"$1"; lvchange -y -ay -K thin/"$1"; dd if=/dev/urandom of=/dev/thin/"$1" bs=1M count=1 seek=4 conv=fsync,notrunc status=none
		lvchange -y -an thin/"$1"; lvchange -y -pr thin/"$1"`, kept)
	night(mib, 4*mib)

	t.Run("a rotten archive", func(t *testing.T) {
		folder := newestOf(t, s, "thin/files")
		file := filepath.Join(folder, "files.tar.gz")
		data := readFile(t, file)
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v := volumeResult(t, s.run(t, exitDone), "thin/files")
		if v.Status != report.VolumeOK || len(v.Warnings) == 0 || !strings.Contains(v.Warnings[0].Message, "is damaged") {
			t.Errorf("%s: %+v", v.Status, v.Warnings)
		}
		shell(t, `mount -o ro /dev/thin/files "$2"; tar -xzOf "$1"/files.tar.gz etc/link | cmp - "$2"/large; umount "$2"`,
			newestOf(t, s, "thin/files"), mounted)
	})

	t.Run("other settings", func(t *testing.T) {
		configure("[archive]\nexclude = [\"/etc/*\"]\n[snapshot]\nkeep_last = true\n")
		v := volumeResult(t, s.run(t, exitDone), "thin/files")
		if v.ReadBytes < 30*mib || strings.Contains(shell(t, `tar -tzf "$1"/files.tar.gz`, newestOf(t, s, "thin/files")), "passwd") {
			t.Errorf("%d bytes are read", v.ReadBytes)
		}
	})

	t.Run("switched off, and out of the selection", func(t *testing.T) {
		configure("[select]\nexclude = [\"thin/raw\"]\n[snapshot]\nkeep_last = false\n")
		s.run(t, exitDone)
		if left := lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "-S", `lv_tags={"voltar"}`, "thin"); strings.TrimSpace(left) != "" {
			t.Errorf("left: %s", left)
		}
	})

	t.Run("nothing to take over the next night", func(t *testing.T) {
		configure("[archive]\nfresh = \"0d\"\n[snapshot]\nkeep_last = true\n")
		s.run(t, exitDone)
		if left := lastsOf(t, "thin"); len(left) != 0 {
			t.Errorf("set aside: %v", left)
		}
	})

	t.Run("a pool without room", func(t *testing.T) {
		configure("[snapshot]\nkeep_last = true\nthin_data_percent = 25\n")
		result := s.run(t, exitDone)
		if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].Message, "would not fit") || len(lastsOf(t, "thin")) > 1 {
			t.Errorf("%+v, set aside: %v", result.Warnings, lastsOf(t, "thin"))
		}
	})
	configure("")
	s.run(t, exitDone)
}

// nestFolders makes so many folders in one another.
func nestFolders(t *testing.T, dir string, count int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	for range count {
		if err == nil {
			err = unix.Mkdirat(at, "d", 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		below, openErr := unix.Openat(at, "d", unix.O_DIRECTORY, 0)
		_ = unix.Close(at)
		at, err = below, openErr
	}
	_ = unix.Close(at)
}

// A filesystem that becomes an image after it was mounted has its journal replayed by then: the image is of that, and not of what the pool
// had compared before. The guest runs: nothing freezes its filesystem.
func TestLabImageAfterAMountIsReadAnew(t *testing.T) {
	lab.VG(t, "thin", 300*mib)
	shell(t, `lvcreate -y -q --type thin-pool -L 260M -c 64k -n pool thin
		lvcreate -y -q -V 128M -T thin/pool -n guest
		mkfs.ext4 -q -b 1024 -N 16384 -O ^flex_bg -E lazy_itable_init=0,lazy_journal_init=0 /dev/thin/guest
		dmsetup create inside --table "0 262144 linear /dev/thin/guest 0"`)
	t.Cleanup(func() { shell(t, "dmsetup remove inside") })
	mounted := t.TempDir()
	mount := func() { shell(t, `mount /dev/mapper/inside "$1"`, mounted) }
	umount := func() { shell(t, `umount "$1"`, mounted) }
	mount()
	shell(t, `cd "$1"; for i in $(seq 30); do mkdir d$i; done; mkdir deep`, mounted)
	nestFolders(t, filepath.Join(mounted, "deep"), 4150)
	umount()
	mount()
	if err := writeThrough(filepath.Join(mounted, "d1/first")); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "[snapshot]\nkeep_last = true\n[select]\ninclude = [\"thin/guest\"]\n")
	s.run(t, exitDone)
	umount()
	mount()
	for i := range 30 {
		if err := writeThrough(filepath.Join(mounted, fmt.Sprintf("d%d/new", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	v := wantStatus(t, s.run(t, exitDone), "thin/guest", report.VolumeOK)
	if x := extentOf(t, manifest(t, newestOf(t, s, "thin/guest")), ""); x.State != catalog.StateImage || v.Carried == nil || v.Carried.Bytes == 0 {
		t.Errorf("%s, carried over: %+v", x.State, v.Carried)
	}
	umount()
	image := filepath.Join(t.TempDir(), "image")
	shell(t, `gzip -dc "$1"/guest.img.gz >"$2"; e2fsck -fn "$2"; mount -o ro,loop "$2" "$3"`, newestOf(t, s, "thin/guest"), image, mounted)
	found := strings.TrimSpace(shell(t, `ls "$1"/d*/new | wc -l`, mounted))
	umount()
	if found != "30" {
		t.Errorf("of 30 files that were on the disk, the image has %s", found)
	}
	writeFile(t, s.config, []byte(strings.Replace(string(readFile(t, s.config)), "keep_last = true", "keep_last = false", 1)))
	s.run(t, exitDone)
}

// A snapshot that somebody makes a volume of is that: it is backed up, and not removed.
func TestLabSnapshotThatBecameAVolume(t *testing.T) {
	lab.VG(t, "thin", 200*mib)
	shell(t, `lvcreate -y -q --type thin-pool -L 128M -c 64k -n pool thin
		lvcreate -y -q -V 32M -T thin/pool -n raw
		dd if=/dev/urandom of=/dev/thin/raw bs=1M count=20 conv=fsync status=none`)
	s := newSite(t, "[snapshot]\nkeep_last = true\n")
	s.run(t, exitDone)
	shell(t, `lvchange -y -an thin/raw; lvrename -q thin raw raw.old; lvchange -y -prw -kn thin/"$1"; lvrename -q thin "$1" raw; lvchange -y -ay thin/raw
		dd if=/dev/urandom of=/dev/thin/raw bs=1M count=1 conv=fsync,notrunc status=none; lvchange -y -an thin/raw; lvchange -y -ay thin/raw`,
		lastsOf(t, "thin")["raw"])
	for range 2 {
		wantStatus(t, s.run(t, exitDone), "thin/raw", report.VolumeOK)
		shell(t, `gzip -dc "$1"/raw.img.gz | cmp - /dev/thin/raw`, newestOf(t, s, "thin/raw"))
	}
	writeFile(t, s.config, []byte(strings.Replace(string(readFile(t, s.config)), "keep_last = true", "keep_last = false", 1)))
	s.run(t, exitDone)
	lab.Do(t, "lvremove", "-f", "-y", "thin/raw") // which the lab would take for a leftover
}

// Whenever a run dies while it sets a snapshot aside, or takes away the one before: the next leaves one, and a whole backup.
func TestLabKilledWhileASnapshotIsSetAside(t *testing.T) {
	lab.VG(t, "thin", 200*mib)
	shell(t, `lvcreate -y -q --type thin-pool -L 128M -c 64k -n pool thin
		lvcreate -y -q -V 32M -T thin/pool -n raw
		dd if=/dev/urandom of=/dev/thin/raw bs=1M count=20 conv=fsync status=none`)
	s := newSite(t, "[snapshot]\nkeep_last = true\n")
	s.run(t, exitDone)
	for _, moment := range []struct{ name, command, script string }{
		{"before it loses its device", "lvchange", `case " $* " in *" -an "*) kill -KILL $PPID; exit 1;; esac; exec lvm lvchange "$@"`},
		{"when it has lost its device", "lvchange", `lvm lvchange "$@"; case " $* " in *" -an "*) kill -KILL $PPID;; esac`},
		{"before it has its tag", "lvchange", `case " $* " in *" -ky "*) kill -KILL $PPID; exit 1;; esac; exec lvm lvchange "$@"`},
		{"when it has its tag", "lvchange", `lvm lvchange "$@"; case " $* " in *" -ky "*) kill -KILL $PPID;; esac`},
		{"before the older one is gone", "lvremove", "kill -KILL $PPID"},
		{"when the older one is gone", "lvremove", `lvm lvremove "$@"; kill -KILL $PPID`},
	} {
		t.Run(moment.name, func(t *testing.T) {
			replaceLVM(t, moment.command, "#!/bin/sh\n"+moment.script+"\n")
			p := start(t, s.runArgs()...)
			if code := p.wait(t); code != -1 {
				t.Fatalf("exit code %d\n%s", code, &p.stderr)
			}
			restoreLVM(t, moment.command)
			for range 2 {
				s.run(t, exitDone)
				all := strings.Fields(lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "-S", `lv_tags={"voltar"}`, "thin"))
				if aside := lastsOf(t, "thin"); len(all) != 1 || len(aside) != 1 || aside["raw"] != all[0] {
					t.Errorf("there are %v, set aside are %v", all, aside)
				}
				shell(t, `gzip -dc "$1"/raw.img.gz | cmp - /dev/thin/raw`, newestOf(t, s, "thin/raw"))
			}
		})
	}
	writeFile(t, s.config, []byte(strings.Replace(string(readFile(t, s.config)), "keep_last = true", "keep_last = false", 1)))
	s.run(t, exitDone)
}
