package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/check"
	"voltar/internal/lab"
)

// checked runs check and returns what it says, by what it is about.
func checked(t *testing.T, s site) map[string]string {
	t.Helper()
	_, out, errs := voltar(t, "check", "--json", "--config", s.config)
	var findings []check.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("%v in %s %s", err, out, errs)
	}
	said := map[string]string{}
	for _, f := range findings {
		mark := "FAIL "
		if f.OK {
			mark = "ok "
		}
		said[f.Check] += mark + f.Detail + "\n"
	}
	return said
}

// A host that has directories alone is whole; a directory that is missing is not.
func TestLabCheckKnowsDirectories(t *testing.T) {
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "file"), []byte("text"))
	s := newSite(t, "[[directory]]\nname = \"tree\"\npath = \""+tree+"\"\n")
	said := checked(t, s)
	if !strings.HasPrefix(said["volumes"], "ok there is no logical volume") || !strings.Contains(said["source"], "ok @directory/tree reads "+tree) {
		t.Errorf("of a host with a directory: %q", said)
	}
	if code, out, errs := voltar(t, "volumes", "--config", s.config); code != 0 || !strings.Contains(out, "@directory/tree") {
		t.Errorf("volumes: %d %s %s", code, out, errs)
	}
	s.run(t, 0, "tree")
	if err := os.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
	if said := checked(t, s); !strings.Contains(said["source"], "FAIL @directory/tree: open "+tree) {
		t.Errorf("of a directory that is missing: %q", said)
	}
}

// What is meant for some volumes and holds for none is told before the night.
func TestLabPatternsThatMatchNothingAreTold(t *testing.T) {
	lab.VG(t, "vg", 200<<20)
	makeExt(t, lab.LV(t, "vg", "web", 40<<20))
	s := newSite(t, "[[volume]]\nmatch = \"vg/wbe*\"\nexclude = [\"/tmp/*\"]\n[[volume]]\nmatch = \"vg/web\"\nexclude = [\"/tmp/*\"]\n")
	const pattern = `[[volume]] with match = "vg/wbe*"`
	said := checked(t, s)
	if !strings.Contains(said["volumes"], "ok 1 of 1") || strings.Count(said["volumes"], "FAIL") != 1 || !strings.Contains(said["volumes"], pattern) {
		t.Errorf("check says %q", said)
	}
	if code, out, errs := voltar(t, "run", "--dry-run", "--config", s.config); code != 0 || strings.Count(out, "matches no volume") != 1 || !strings.Contains(out, pattern) {
		t.Errorf("the dry run says %d %s %s", code, out, errs)
	}
	code, _, errs := voltar(t, "run", "--no-mail", "vg/wbe", "--config", s.config)
	if code != exitUsage || !strings.Contains(errs, `there is no volume "vg/wbe": did you mean "vg/web"?`) {
		t.Errorf("a mistyped volume: %d %s", code, errs)
	}
	// A name that two sources have is refused with both.
	s.append(t, "[[directory]]\nname = \"web\"\npath = \"/etc\"\n")
	code, _, errs = voltar(t, "run", "--no-mail", "web", "--config", s.config)
	if code != exitUsage || !strings.Contains(errs, "hint: name it as vg/web or @directory/web") {
		t.Errorf("a name of two sources: %d %s", code, errs)
	}
	// An empty plan says so.
	s = newSite(t, "[select]\nexclude = [\"*\"]\n")
	code, _, errs = voltar(t, "run", "--dry-run", "--config", s.config)
	if code != exitNothing || !strings.Contains(errs, "a run would back up nothing") || !strings.Contains(errs, "`voltar volumes`") {
		t.Errorf("an empty plan: %d %s", code, errs)
	}
}

// A filesystem that has room and no inode takes no backup.
func TestLabCheckTellsDestinationsWithoutInodes(t *testing.T) {
	disk := lab.Disk(t, 64<<20)
	makeExt(t, disk, "-N", "16")
	full := lab.Mount(t, disk, "defaults")
	s := newSite(t, "[[destination]]\nname = \"full\"\ntype = \"disk\"\npath = \""+full+"\"\n")
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(full, strings.Repeat("f", i+1)), nil, 0o600); err != nil {
			break
		}
	}
	if said := checked(t, s); !strings.Contains(said["destination"], "inodes free") {
		t.Errorf("check says %q", said)
	}
}

// A dry run of a restore shows its steps and what is in the way.
func TestLabDryRunOfARestoreOverAVolume(t *testing.T) {
	lab.VG(t, "vg", 300<<20)
	makeExt(t, lab.LV(t, "vg", "web", 40<<20))
	s := newSite(t, "")
	s.run(t, 0, "web")
	code, out, errs := voltar(t, "restore", "web", "--dry-run", "--config", s.config)
	if code != exitNothing || !strings.Contains(out, "  1. ") || !strings.Contains(out, "Nothing was done.") ||
		!strings.Contains(errs, "without --force this is refused: ") || !strings.Contains(errs, "hint: --force overwrites it") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if code, out, errs := voltar(t, "restore", "web", "--dry-run", "--force", "--config", s.config); code != 0 || strings.Contains(errs, "refused") {
		t.Errorf("with --force: %d\n%s%s", code, out, errs)
	}
	volumes := strings.Fields(lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "vg"))
	if !slices.Equal(volumes, []string{"web"}) {
		t.Errorf("there are volumes %q", volumes)
	}
}
