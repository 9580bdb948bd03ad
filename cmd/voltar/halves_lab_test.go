package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// pairSite is a host with two volumes, on which a volume group of one guest lies, and the nights of their backups.
type pairSite struct {
	site
	far    string    // folder of the other destination
	both   site      // its configuration has both destinations
	alone  site      // has the other alone
	slow   site      // takes its time
	now    time.Time // after the last night
	nights []time.Time
}

const pairHome, pairOut = "host/disk1", "host/disk2"

func newPairSite(t *testing.T) *pairSite {
	t.Helper()
	lab.VG(t, "host", 180*mib)
	for _, name := range []string{"disk1", "disk2"} {
		lab.LV(t, "host", name, 40*mib)
	}
	s := &pairSite{site: newSite(t, "[snapshot]\nmin_size = \"16MiB\"\n[[group]]\nname = \"guest\"\nvolumes = [\"host/disk*\"]\n")}
	s.now = time.Now().UTC().Truncate(time.Second)
	s.nights = []time.Time{s.now.Add(-48 * time.Hour), s.now.Add(-24 * time.Hour)}
	s.far = filepath.Join(s.dir, "far")
	s.both, s.slow = s.with(t, "both", folderDestination("far", s.far, "")), s.with(t, "slow", "[limits]\nread_rate = \"512KiB\"\n")
	s.alone = s.with(t, "alone", "")
	writeFile(t, s.alone.config, bytes.ReplaceAll(readFile(t, s.config), []byte(s.backups), []byte(s.far)))
	return s
}

// with is the site with another configuration, which has more.
func (s *pairSite) with(t *testing.T, name, more string) site {
	t.Helper()
	other := s.site
	other.config = filepath.Join(s.dir, name+".toml")
	writeFile(t, other.config, append(readFile(t, s.config), more...))
	return other
}

// inGuest opens the volume group for the length of a script, as the guest would.
func inGuest(t *testing.T, script string) string {
	t.Helper()
	return shell(t, `A=$(losetup -f --show /dev/host/disk1); B=$(losetup -f --show /dev/host/disk2)
		trap 'vgchange -q -an guest >&2 || :; losetup -d $A; losetup -d $B' EXIT
		`+script)
}

// contents is what the guest finds.
func contents(t *testing.T) string {
	t.Helper()
	return inGuest(t, `vgchange -q -ay guest >&2; lvs --noheadings -o name,uuid,size guest; sha1sum < /dev/guest/raw
		M=$(mktemp -d); mount -o ro /dev/guest/root $M; (cd $M; find . -type f | sort | xargs sha1sum); umount $M; rmdir $M`)
}

// id names the backup of a night.
func (s *pairSite) id(volume string, night int) string {
	return volume + "@" + catalog.FormatTime(s.nights[night])
}

// folder is that of a backup on a destination.
func (s *pairSite) folder(on, volume string, night int) string {
	return filepath.Join(on, "volume-host", volume, catalog.FormatTime(s.nights[night]))
}

// gone does something while a file or folder is away.
func gone(t *testing.T, path string, do func()) {
	t.Helper()
	if err := os.Rename(path, path+".gone"); err != nil {
		t.Fatal(err)
	}
	do()
	if err := os.Rename(path+".gone", path); err != nil {
		t.Fatal(err)
	}
}

// wantListed checks what is listed, as "disk1 0 complete".
func (s *pairSite) wantListed(t *testing.T, from string, want ...string) {
	t.Helper()
	code, out, errs := voltar(t, "list", "--json", "--config", s.both.config, "--from", from)
	var lines []backupLine
	if err := json.Unmarshal([]byte(out), &lines); code != exitDone || err != nil {
		t.Fatalf("list: %d, %v\n%s\n%s", code, err, out, errs)
	}
	var got []string
	for _, line := range lines {
		night := slices.IndexFunc(s.nights, line.Time.Equal)
		volume, _, _ := strings.Cut(line.Backup, "@")
		got = append(got, strings.TrimPrefix(volume, "host/")+" "+string(rune('0'+night))+" "+line.Status)
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("listed on %s are %q, want %q\n%s", from, got, want, out)
	}
}

// wantHidden looks whether the host's LVM sees the guest's.
func wantHidden(t *testing.T) {
	t.Helper()
	seen := lab.Do(t, "vgs", "--noheadings", "-o", "name") + lab.Do(t, "pvs", "--noheadings", "-o", "name,vg_name")
	if strings.Contains(seen, "guest") || strings.Contains(seen, "disk") || strings.Contains(seen, "voltar") {
		t.Errorf("the host sees the guest's volume group: %s", seen)
	}
}

// archiving starts a run that takes its time, and returns when it archives what lies on both volumes.
func (s *pairSite) archiving(t *testing.T) *process {
	t.Helper()
	p := start(t, s.slow.runArgs()...)
	if !p.until("type=ext4") {
		t.Fatal(p.wait(t), p.stderr.String())
	}
	if names := mapsNow(t); !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "voltar-") }) {
		t.Errorf("nothing is mapped across both: %q", names)
	}
	return p
}

// A guest's volume group on two volumes, from a run that is killed to the way back: what belongs together is made, cancelled, copied,
// removed and restored together, or refused with what to do.
func TestLabTwoVolumesGoTogether(t *testing.T) {
	s := newPairSite(t)
	inGuest(t, `pvcreate -q --metadatasize 64k --dataalignment 128k $A $B; vgcreate -q guest $A $B
		lvcreate -q -y -n root -L 16M guest $A; lvextend -q -L +12M guest/root $B
		lvcreate -q -y -n raw -L 4M guest $B; dd if=/dev/urandom of=/dev/guest/raw bs=1M count=4 status=none
		mkfs.ext4 -q -b 4096 /dev/guest/root; M=$(mktemp -d); mount /dev/guest/root $M
		dd if=/dev/urandom of=$M/random bs=1M count=8 status=none; umount $M; rmdir $M`)
	first := contents(t)
	before := hostState(t)

	t.Run("killed", func(t *testing.T) { s.killed(t, before) })
	t.Run("cancelled", func(t *testing.T) { s.cancelled(t, before) })
	inGuest(t, `vgchange -q -ay guest >&2; lvextend -q -L +4M guest/raw $A; M=$(mktemp -d); mount /dev/guest/root $M
		echo second >$M/second; umount $M; rmdir $M`)
	t.Run("made up", func(t *testing.T) {
		result := s.both.runAt(t, s.nights[1], exitDone)
		if caught := result.Destinations[1].CaughtUp; len(caught) != 2 {
			t.Errorf("made up are %+v", caught)
		}
		s.wantListed(t, "far", "disk1 0 complete", "disk1 1 complete", "disk2 0 complete", "disk2 1 complete")
	})
	t.Run("copied", s.copied)
	t.Run("pruned", s.pruned)
	t.Run("refused", s.refused)
	t.Run("restored", func(t *testing.T) {
		// From the copy alone, and not half of the one night and half of the other.
		s.alone.restore(t, exitDone, s.id(pairOut, 0), "--force")
		_, errs := s.alone.restore(t, exitUsage, s.id(pairHome, 1), "--beside", pairOut, "--force")
		if !strings.Contains(errs, "a backup of another moment") || !strings.Contains(errs, "`voltar restore "+s.id(pairOut, 1)+" ") {
			t.Errorf("of two nights: %s", errs)
		}
		s.alone.restore(t, exitDone, s.id(pairHome, 0), "--beside", pairOut, "--force")
		if got := contents(t); got != first {
			t.Errorf("came back as\n%s\nwant\n%s", got, first)
		}
		if after := hostState(t); after != before {
			t.Errorf("after the restore:\n%s\nbefore:\n%s", after, before)
		}
		wantHidden(t)
	})
}

// killed kills a run outright in the middle of what lies on both volumes, and makes the backups of the first night.
func (s *pairSite) killed(t *testing.T, before string) {
	p := s.archiving(t)
	wantHidden(t)
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	wantHidden(t)
	if left := hostState(t); strings.Count(left, "voltar.run.") < 2 || !strings.Contains(left, "\nvoltar-") {
		t.Errorf("the kill left too little to test anything:\n%s", left)
	}
	for _, b := range s.backupsOf(t, "host/*") {
		if _, err := os.Stat(filepath.Join(b, catalog.ManifestName)); err == nil {
			t.Errorf("%s counts as a backup", b)
		}
	}
	result := s.runAt(t, s.nights[0], exitDone)
	if cleaned := strings.Join(result.Recovered, "\n"); strings.Count(cleaned, "snapshot host/disk") != 2 || !strings.Contains(cleaned, "map voltar-") ||
		!strings.Contains(cleaned, "unfinished backup volume-host/"+pairHome) {
		t.Errorf("cleaned up: %s", cleaned)
	}
	if after := hostState(t); after != before {
		t.Errorf("after the next run:\n%s\nbefore:\n%s", after, before)
	}
	wantHidden(t)
	s.wantListed(t, "disk", "disk1 0 complete", "disk2 0 complete")
}

// cancelled takes one of the volumes out of a run.
func (s *pairSite) cancelled(t *testing.T, before string) {
	p := s.archiving(t)
	code, out, errs := voltar(t, "cancel", "--config", s.slow.config, pairOut)
	if code != exitDone || !strings.Contains(out, pairOut+" is free; nothing of "+pairHome+" is kept") {
		t.Errorf("cancel: %d %q %s", code, out, errs)
	}
	lab.Do(t, "lvextend", "-q", "--size", "+4M", pairOut) // refused while a classic snapshot stands
	code = p.wait(t)
	result := parseRun(t, code, exitNothing, p.stdout.Bytes(), p.stderr.String())
	for name, says := range map[string]string{pairOut: "cancelled by a person", pairHome: "lies on it and on host/disk2, which failed: cancelled by a person"} {
		v := wantStatus(t, result, name, report.VolumeFailed)
		if v.Error == nil || !strings.Contains(v.Error.Message, says) || !strings.Contains(v.Error.Hint, "backs them up together") || v.Backup != "" {
			t.Errorf("%s: %+v", name, v.Error)
		}
	}
	lab.Do(t, "lvreduce", "-q", "--force", "--size", "-4M", pairOut)
	if after := hostState(t); after != before {
		t.Errorf("after the run:\n%s\nbefore:\n%s", after, before)
	}
	if left := s.backupsOf(t, "host/*"); len(left) != 2 {
		t.Errorf("backups afterwards: %q", left)
	}
	wantHidden(t)
}

// copied loses the first night on one destination, and copies it again by the name of one volume.
func (s *pairSite) copied(t *testing.T) {
	for _, volume := range []string{pairHome, pairOut} {
		if err := os.RemoveAll(s.folder(s.far, volume, 0)); err != nil {
			t.Fatal(err)
		}
	}
	blocked := filepath.Join(s.folder(s.far, pairHome, 0), "stray")
	if err := os.MkdirAll(filepath.Dir(blocked), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, blocked, nil)
	for _, test := range []struct {
		dryRun bool
		code   int
		want   map[string]backup.CopyState
	}{
		{true, exitDone, map[string]backup.CopyState{pairHome: backup.CopyMissing, pairOut: backup.CopyMissing}},
		{false, exitAttention, map[string]backup.CopyState{pairHome: backup.CopyFailed, pairOut: backup.CopyDone}}, // ends in the middle
		{false, exitDone, map[string]backup.CopyState{pairHome: backup.CopyDone, pairOut: backup.CopyThere}},
	} {
		args := []string{"copy", "--json", "--config", s.both.config, "--from", "disk", "--to", "far", s.id(pairOut, 0)}
		if test.dryRun {
			args = append(args, "--dry-run")
		}
		code, out, errs := voltarAt(t, s.now, args...)
		var lines []backup.CopyLine
		if err := json.Unmarshal([]byte(out), &lines); err != nil || code != test.code {
			t.Fatalf("copy: %d, want %d, %v in %q\n%s", code, test.code, err, out, errs)
		}
		got := map[string]backup.CopyState{}
		for _, line := range lines {
			volume, _, _ := strings.Cut(line.Backup, "@")
			got[volume] = line.State
			if isHalf := test.code != exitDone && volume == pairOut; isHalf != strings.Contains(line.Reason, "lacks there "+s.id(pairHome, 0)) {
				t.Errorf("%+v", line)
			}
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("copied are %v, want %v", got, test.want)
		}
		if test.code != exitDone {
			s.wantListed(t, "far", "disk1 0 unfinished", "disk1 1 complete", "disk2 0 half", "disk2 1 complete")
			if err := os.Remove(blocked); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.wantListed(t, "far", "disk1 0 complete", "disk1 1 complete", "disk2 0 complete", "disk2 1 complete")
}

// pruned applies a small policy to one destination, with a member that cannot be read and without.
func (s *pairSite) pruned(t *testing.T) {
	config := s.with(t, "small", "[retention]\ndays = 0\nkeep_last = 1\n").config
	prune := func(args ...string) map[string]bool {
		t.Helper()
		kept := map[string]bool{}
		code, out, errs := voltarAt(t, s.now, append([]string{"prune", "--json", "--config", config}, args...)...)
		var lines []backup.PruneLine
		if err := json.Unmarshal([]byte(out), &lines); code != exitDone || err != nil {
			t.Fatalf("prune: %d, %v in %q\n%s", code, err, out, errs)
		}
		for _, line := range lines {
			kept[line.Backup] = line.Keep
		}
		return kept
	}
	check := func(want map[string]bool, args ...string) {
		t.Helper()
		dry := prune(append(args, "--dry-run")...)
		if done := prune(args...); !maps.Equal(dry, done) || !maps.Equal(done, want) {
			t.Errorf("prune %q keeps %v, the dry run %v; want %v", args, done, dry, want)
		}
		for id, keep := range want {
			volume, when, _ := strings.Cut(id, "@")
			if _, err := os.Stat(filepath.Join(s.backups, "volume-host", volume, when)); (err == nil) != keep {
				t.Errorf("prune %q: %s is to be there: %v; %v", args, id, keep, err)
			}
		}
	}
	check(map[string]bool{s.id(pairHome, 0): true, s.id(pairHome, 1): true}, pairHome)
	manifest := filepath.Join(s.folder(s.backups, pairOut, 0), catalog.ManifestName)
	gone(t, manifest, func() {
		writeFile(t, manifest, []byte("garbage"))
		check(map[string]bool{s.id(pairHome, 0): true, s.id(pairHome, 1): true, s.id(pairOut, 1): true})
		s.wantListed(t, "disk", "disk1 0 half", "disk2 0 unreadable", "disk1 1 complete", "disk2 1 complete")
	})
	check(map[string]bool{s.id(pairHome, 0): false, s.id(pairHome, 1): true, s.id(pairOut, 0): false, s.id(pairOut, 1): true})
	s.wantListed(t, "disk", "disk1 1 complete", "disk2 1 complete")
}

// refused asks for the newest of the copy while a part of it is missing or damaged.
func (s *pairSite) refused(t *testing.T) {
	before, sums := hostState(t), sumOf(t, "/dev/host/disk1")+sumOf(t, "/dev/host/disk2")
	older := func(volume string) string {
		return "`voltar restore " + s.id(volume, 0) + " --config " + s.both.config + " --from far`"
	}
	want := func(what string, wantCode int, says []string, args ...string) {
		t.Helper()
		_, errs := s.both.restore(t, wantCode, append(args, "--from", "far", "--force")...)
		for _, text := range says {
			if !strings.Contains(errs, text) {
				t.Errorf("%s: %s\nwant %q", what, errs, text)
			}
		}
	}
	gone(t, s.folder(s.far, pairHome, 1), func() {
		want("the home is missing", exitUsage, []string{s.id(pairHome, 1) + ", which is missing", older(pairOut)}, pairOut)
		out, _ := s.both.restore(t, exitDone, pairOut, "--from", "far", "--force", "--keep-going", "--dry-run")
		if !strings.Contains(out, "lost: the logical volumes of the guest's volume group guest") {
			t.Errorf("what is left: %s", out)
		}
	})
	gone(t, s.folder(s.far, pairOut, 1), func() {
		want("the other is missing", exitUsage, []string{s.id(pairOut, 1) + ", which has the part there, is missing", older(pairHome)}, pairHome)
	})
	archives, err := filepath.Glob(filepath.Join(s.folder(s.far, pairHome, 1), "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives: %q %v", archives, err)
	}
	gone(t, archives[0], func() {
		want("a part of the home is missing", exitUsage, []string{"cannot be used", filepath.Base(archives[0]) + " is missing", older(pairOut)}, pairOut)
	})
	images, err := filepath.Glob(filepath.Join(s.folder(s.far, pairOut, 1), "*.img.gz"))
	if err != nil || len(images) != 1 {
		t.Fatalf("images: %q %v", images, err)
	}
	data := readFile(t, images[0])
	gone(t, images[0], func() {
		data[len(data)/2] ^= 1
		writeFile(t, images[0], data)
		want("it is damaged", exitNothing, []string{"the backup is damaged", "and that of the same moment of " + pairHome}, pairOut)
	})
	if after := sumOf(t, "/dev/host/disk1") + sumOf(t, "/dev/host/disk2"); after != sums {
		t.Error("a restore that was refused has written")
	}
	if after := hostState(t); after != before {
		t.Errorf("after the refusals:\n%s\nbefore:\n%s", after, before)
	}
}
