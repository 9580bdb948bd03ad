package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"voltar/internal/backup"
	"voltar/internal/lab"
)

// listKept runs `voltar snapshot list`.
func (s site) listKept(t *testing.T) map[string]backup.Kept {
	t.Helper()
	code, out, errs := voltar(t, "snapshot", "list", "--json", "--config", s.config)
	var list []backup.Kept
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v in %q\n%s", code, err, out, errs)
	}
	kept := map[string]backup.Kept{}
	for _, k := range list {
		kept[k.Volume] = k
	}
	return kept
}

// expect runs a subcommand of `voltar snapshot`, which must end with a code and say something.
func (s site) expect(t *testing.T, wantCode int, text string, args ...string) {
	t.Helper()
	args = append([]string{"snapshot", args[0], "--config", s.config}, args[1:]...)
	code, out, errs := voltar(t, args...)
	if code != wantCode || !strings.Contains(out+errs, text) {
		t.Errorf("%q: exit code %d, want %d, and %q in\n%s%s", args, code, wantCode, text, out, errs)
	}
}

// A set of snapshots over two volume groups, one of them with a thin pool, from its making to the way back.
func TestLabKeptSnapshots(t *testing.T) {
	notes := map[string]string{}
	mounted := map[string]func(){}
	mount := func(volume string) {
		dir := t.TempDir()
		lab.Do(t, "mount", "/dev/"+volume, dir)
		notes[volume] = filepath.Join(dir, "note")
		mounted[volume] = func() { lab.Do(t, "umount", dir); delete(mounted, volume) }
	}
	for _, volume := range []string{"vga/data", "vgb/log", "vgb/thin"} {
		vg, name, _ := strings.Cut(volume, "/")
		switch name {
		case "data":
			lab.VG(t, vg, 160*mib)
			lab.LV(t, vg, name, 32*mib)
		case "log":
			lab.VG(t, vg, 300*mib)
			lab.LV(t, vg, name, 32*mib)
		case "thin":
			lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "64m", "--name", "pool", vg)
			lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "32m", "--name", name, vg+"/pool")
		}
		makeExt(t, "/dev/"+volume)
		mount(volume)
		writeJournalled(t, notes[volume])
	}
	t.Cleanup(func() {
		for _, unmount := range mounted {
			unmount()
		}
	})
	s := newSite(t, `
[[volume]]
match = "vgb/log"
freeze = ["broken"]
[[guest]]
name = "broken"
method = "command"
freeze = ["false"]
thaw = ["true"]
`)
	read := func(volume string) string {
		t.Helper()
		text, err := os.ReadFile(notes[volume])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := read("vga/data")

	s.expect(t, exitUsage, "no name for snapshots", "create", "--name", "a/b")
	s.expect(t, exitUsage, `no snapshots of the name "storage"`, "remove", "storage")
	s.expect(t, exitNothing, "freeze broken", "create", "--name", "storage", "--size", "16MiB", "--must-be-quiet")
	if kept := s.listKept(t); len(kept) > 0 {
		t.Fatalf("a set that could not be made left %+v", kept)
	}
	if made := s.kept(t, "--name", "storage"); len(made) != 3 {
		t.Fatalf("made %+v", made)
	}
	s.expect(t, exitUsage, "snapshot remove storage", "create", "--name", "storage")

	// What is written to the origins fills those of the classic kind.
	for _, note := range notes {
		lab.Do(t, "dd", "if=/dev/urandom", "of="+note, "bs=1M", "count=6", "conv=fsync", "status=none")
	}
	kept := s.listKept(t)
	if k := kept["vga/data"]; k.UsedPercent < 30 || k.UsedPercent > 90 || k.Made.IsZero() || k.Thin || kept["vgb/thin"].UsedPercent > 0 && !kept["vgb/thin"].Thin {
		t.Errorf("listed are %+v", kept)
	}
	_, table, _ := voltar(t, "snapshot", "list", "--config", s.config, "storage")
	if !regexp.MustCompile(`(?m)^storage +vga/data +/dev/vga/data-storage +[\d.]+ [ms].* +16(\.0)? MiB +[3-8]\d\.\d% +ok$`).MatchString(table) {
		t.Errorf("the table is\n%s", table)
	}

	// Neither a run nor a cleanup touches them, nor takes them for volumes.
	result := s.run(t, 0)
	if len(result.Volumes) != 3 {
		t.Errorf("backed up %+v", result.Volumes)
	}
	if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 {
		t.Errorf("cleanup: exit code %d\n%s\n%s", code, out, errs)
	}
	if now := s.listKept(t); len(now) != 3 {
		t.Fatalf("left are %+v", now)
	}

	// One volume in use keeps all as they are.
	mounted["vgb/log"]()
	mounted["vgb/thin"]()
	s.expect(t, exitNothing, "vga/data is in use", "merge", "--force", "storage")
	if now := s.listKept(t); len(now) != 3 || now["vgb/log"].Merging {
		t.Fatalf("left are %+v", now)
	}
	s.expect(t, exitDone, "vga/data goes back to vga/data-storage when it is activated next", "merge", "--force", "--defer", "storage")
	if now := s.listKept(t); len(now) != 1 || !now["vga/data"].Merging {
		t.Fatalf("left are %+v", now)
	}
	for _, volume := range []string{"vgb/log", "vgb/thin"} {
		mount(volume)
		if read(volume) != before {
			t.Errorf("%s has not gone back", volume)
		}
	}
	if read("vga/data") == before {
		t.Error("a volume has gone back while it was mounted")
	}
	// A night in between says that there is no backup of it, and why.
	result = s.run(t, 0)
	if len(result.Volumes) != 2 || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].Message, "vga/data is not backed up") {
		t.Errorf("the report has %d volumes and the warnings %+v", len(result.Volumes), result.Warnings)
	}
	mounted["vga/data"]()
	lab.Do(t, "lvchange", "--activate", "n", "vga/data")
	lab.Do(t, "lvchange", "--activate", "y", "vga/data")
	waitFor(t, "the merge", func() bool { return len(s.listKept(t)) == 0 })
	mount("vga/data")
	if read("vga/data") != before {
		t.Error("vga/data has not gone back")
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the journal: %q %v", left, err)
	}
}
