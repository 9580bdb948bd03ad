package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/history"
	"voltar/internal/journal"
	"voltar/internal/lab"
)

// drill tries backups, and returns what became of each.
func (s site) drill(t *testing.T, wantCode int, args ...string) []drilledLine {
	t.Helper()
	code, out, errs := voltar(t, append([]string{"drill", "--json", "--config", s.config}, args...)...)
	var lines []drilledLine
	if err := json.Unmarshal([]byte(out), &lines); code != wantCode || err != nil {
		t.Fatalf("drill %q: exit code %d, want %d, %v\n%s\n%s", args, code, wantCode, err, errs, out)
	}
	return lines
}

// whatIsSeen is what a host shows of its volumes and of the filesystems on them.
func whatIsSeen(t *testing.T) string {
	t.Helper()
	return lab.Do(t, "sh", "-c", "lvs --noheadings -o name,uuid,attr; pvs --noheadings -o name,uuid; dmsetup ls | sort; losetup --list --noheadings; "+
		"find /dev/disk -type l -printf '%p %l\\n' 2>/dev/null | sort; blkid -c /dev/null | sort")
}

// Each layout is tried beside its living original, which nothing shows; the one that was never tried comes first, and what does not come back
// is told.
func restoreDrill(t *testing.T, s site, before map[string]facts) {
	seen := whatIsSeen(t)
	first := s.drill(t, 0, "--next")
	rest := s.drill(t, 0, "--next", "--number", "10")
	if len(first) != 1 || len(rest) != len(before) || rest[len(rest)-1].Backup != first[0].Backup {
		t.Errorf("tried first %+v, then %+v, want all %d, the first one last", first, rest, len(before))
	}
	for _, line := range slices.Concat(first, rest) {
		if !line.Good {
			t.Errorf("%+v", line)
		}
	}
	if now := whatIsSeen(t); now != seen {
		t.Errorf("the host shows\n%s\nand showed\n%s", now, seen)
	}
	for _, p := range s.proofs(t).Proofs {
		if p.Command == "restore" { // by the tests before
			continue
		}
		isPartitioned := p.Volume == "vg/gpt" || p.Volume == "vg/mbr"
		if p.To != "scratch" || slices.Contains(p.Checked, "table") != isPartitioned || p.Verdict != history.Proven || p.Seconds <= 0 || !slices.Contains(p.Checked, "sums") {
			t.Errorf("the record of a drill: %+v", p)
		}
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "state", "drill")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	archives, err := filepath.Glob(filepath.Join(s.folder(t, "vg", "plain"), "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatal(archives, err)
	}
	flip(t, archives[0], 5000)
	defer flip(t, archives[0], 5000)
	bad := s.drill(t, 3, "vg/plain")
	if len(bad) != 1 || bad[0].Good || !strings.Contains(bad[0].Error, filepath.Base(archives[0])) || !strings.Contains(bad[0].Hint, "verify --full") {
		t.Errorf("a flipped bit: %+v", bad)
	}
	code, out, errs := voltar(t, "drill", "--config", s.config, "vg/gpt", "vg/nosuch")
	if code != 3 || !strings.Contains(out, "proven: it came back as it was in") || !strings.Contains(errs, "vg/nosuch") {
		t.Errorf("one that is there and one that is not: %d\n%s\n%s", code, out, errs)
	}
}

// flip turns one bit of a file, or turns it back.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// A drill that is killed leaves what the next command names and removes, and its file goes with its loop device.
func drillKilled(t *testing.T, s site, signal unix.Signal, wantCode int) {
	seen, proofs := whatIsSeen(t), len(s.proofs(t).Proofs)
	if code := s.stopMidwayOf(t, signal, "drill", "vg/busy"); code != wantCode {
		t.Errorf("exit code %d after %v, want %d", code, signal, wantCode)
	}
	if now := s.proofs(t).Proofs; len(now) != proofs {
		t.Errorf("a drill that was stopped by %v counts as one: %+v", signal, now[0])
	}
	if signal == unix.SIGKILL {
		if restoreMaps(t) == nil {
			t.Error("a killed drill left no map: the test came too late or too early")
		}
		if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 || !strings.Contains(out, "voltar-drill-") {
			t.Errorf("cleanup: %d\n%s\n%s", code, out, errs)
		}
	}
	if now := whatIsSeen(t); now != seen {
		t.Errorf("after %v the host shows\n%s\nand showed\n%s", signal, now, seen)
	}
}

// wrap has a command do something more, until the end of the test: a script in which "real" is the command itself, and $target what its
// last argument leads to.
func wrap(t *testing.T, command, script string) {
	t.Helper()
	path, err := exec.LookPath(command)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".real"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(path+".real", path); err != nil {
			t.Error(err)
		}
	})
	text := "#!/bin/sh\nset -eu\nreal() { " + path + ".real \"$@\"; }\nfor target; do :; done\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// A drill finds what did not come back as it was, wherever on the volume that is, and names it: boot code, partition table, one byte of one
// file. What fails for want of space is no damage.
func TestLabDrillFindsWhatDiffers(t *testing.T) {
	lab.VG(t, "vg", 200*mib)
	device := lab.LV(t, "vg", "guest", 64*mib)
	fillDevice(t, device, mib) // boot code, and what lies behind it
	part := partitionedDisk(t, "vg-guest", "label: dos\nstart=2048, size=40M, type=83\n")[0]
	makeExt(t, part)
	within(t, part, "defaults", func(dir string) {
		writeFile(t, filepath.Join(dir, "named"), append(pages(8*mib), "what only this file has"...))
	})
	scratch := lab.Mount(t, func() string {
		disk := lab.Disk(t, 100*mib)
		lab.Do(t, "mkfs.ext4", "-q", disk)
		return disk
	}(), "defaults")
	if err := os.Chmod(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	s := restoreSiteWith(t, "[drill]\nfolder = \""+scratch+"\"\n")
	s.run(t, 0)
	if good := s.drill(t, 0, "vg/guest"); !good[0].Good {
		t.Fatalf("%+v", good)
	}
	if p := s.proofs(t).Proofs[0]; !slices.Equal(p.Checked, []string{"sums", "table", "images", "filesystem", "entries"}) {
		t.Errorf("checked %q", p.Checked)
	}
	const poke = `poke() { printf "$2" | dd of="$(ls /dev/mapper/voltar-drill-*)" bs=1 seek=$1 conv=notrunc,fsync status=none; }; `
	for _, c := range []struct {
		name, command, script, want string
		damaged                     bool // otherwise it is the host's trouble, and nothing was tried
	}{
		{"boot code", "mke2fs", poke + `real "$@"; poke 100 XY`, "image differs between bytes 0 and", true},
		{"behind the boot code", "mke2fs", poke + `real "$@"; poke 700000 XY`, "image differs between bytes", true},
		{"the table", "mke2fs", poke + `real "$@"; poke 450 '\007'`, "partition 1 has another type", true},
		{"a byte of a file", "e2fsck",
			`real "$@"; at=$(grep -obUaFm1 "what only this file has" "$target" | cut -d: -f1); ` +
				`printf W | dd of="$target" bs=1 seek="$at" conv=notrunc,fsync status=none`, `"named"`, true},
		{"no space", "mke2fs", `real "$@"; dd if=/dev/zero of=` + scratch + `/filler bs=64k status=none || :`, "has become full meanwhile", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen, proofs := whatIsSeen(t), len(s.proofs(t).Proofs)
			wrap(t, c.command, c.script)
			if c.damaged {
				bad := s.drill(t, 3, "vg/guest")
				if p := s.proofs(t).Proofs[0]; len(bad) != 1 || bad[0].Good || !strings.Contains(bad[0].Error, c.want) || p.Verdict != history.Damaged {
					t.Errorf("%+v, want %q; kept as %+v", bad, c.want, p)
				}
			} else {
				s.notTried(t, "vg/guest", exitNothing, c.want)
				if now := s.proofs(t).Proofs; len(now) != proofs {
					t.Errorf("kept as %+v", now[0])
				}
			}
			if now := whatIsSeen(t); now != seen {
				t.Errorf("the host shows\n%s\nand showed\n%s", now, seen)
			}
			if err := os.RemoveAll(filepath.Join(scratch, "filler")); err != nil {
				t.Fatal(err)
			}
			if left, err := filepath.Glob(filepath.Join(scratch, "*.scratch")); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		})
	}
	t.Run("another drill", func(t *testing.T) {
		locks, err := journal.NewLocks(filepath.Join(s.dir, "run"), journal.Holder{Command: "voltar drill", Started: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		lock, err := locks.TryLock(journal.ScopeScratch, scratch)
		if err != nil {
			t.Fatal(err)
		}
		for _, which := range []string{"vg/guest", "--next"} {
			s.notTried(t, which, exitLocked, "the scratch folder "+scratch+` is in use by "voltar drill"`)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a folder that cannot be written to", func(t *testing.T) {
		lab.Do(t, "mount", "-o", "remount,ro", scratch)
		s.notTried(t, "--next", exitNothing, "read-only file system")
		lab.Do(t, "mount", "-o", "remount,rw", scratch)
	})
	if good := s.drill(t, 0, "vg/guest"); !good[0].Good {
		t.Errorf("afterwards: %+v", good)
	}
	if proofs := s.proofs(t).Proofs; len(proofs) != 6 {
		t.Errorf("%d drills are kept, want the 6 that tried the backup: %+v", len(proofs), proofs)
	}
}

// notTried drills where the host is in the way.
func (s site) notTried(t *testing.T, which string, wantCode int, want string) {
	t.Helper()
	code, out, errs := voltar(t, "drill", which, "--config", s.config)
	if code != wantCode || out != "" || !strings.Contains(errs, "it was not tried: ") || !strings.Contains(errs, want) || strings.Contains(errs, "voltar restore") {
		t.Errorf("drill %s: %d, want %d, %q\n%s%s", which, code, wantCode, want, out, errs)
	}
}
