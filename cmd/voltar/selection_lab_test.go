package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/backup"
	"voltar/internal/lab"
	"voltar/report"
)

// Every volume of a host with all kinds of them is in or out by the rule that should say so, and what is named or tagged
// is backed up: in parallel, a linked clone too, and an inactive volume only where the configuration wants it.
func TestLabSelection(t *testing.T) {
	lab.VG(t, "vg", 500<<20)
	lab.VG(t, "other", 60<<20)
	makeSelection(t)
	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n")

	want := map[string]string{
		"vg/web-1": "", "vg/web-2": "", "other/web-1": "", "vg/base": "", "vg/clone": "", "vg/tagged": "",
		"vg/off": backup.RuleInactive, "vg/hidden": backup.RuleSnapshot, "vg/web-1-mine": backup.RuleSnapshot,
		"vg/pool": backup.RulePool, "vg/swap": backup.RuleSwap, "vg/snap_nightly": backup.RuleExclude,
		"vg/never": backup.RuleExcludeTag,
	}
	wantRules(t, s, want)
	wantRules(t, s, map[string]string{
		"vg/web-1": "", "vg/web-2": "", "other/web-1": "", "vg/base": backup.RuleInclude, "vg/off": backup.RuleInactive,
		"vg/swap": backup.RuleSwap, "vg/snap_nightly": backup.RuleInclude,
	}, "web-?")
	narrow := newSite(t, `[select]
volume_groups = ["v*"]
include = ["vg/web-*", "tagged", "off", "clone"]
exclude = ["web-2"]
exclude_tags = ["scratch"]
activate_inactive = true
[[volume]]
match = "vg/clone"
as = "skip"
`)
	wantRules(t, narrow, map[string]string{
		"vg/web-1": "", "vg/web-2": backup.RuleExclude, "other/web-1": backup.RuleGroups, "vg/base": backup.RuleInclude,
		"vg/clone": backup.RuleSkip, "vg/tagged": backup.RuleExcludeTags, "vg/off": "",
	})
	tagged := newSite(t, "[select]\ninclude_tags = [\"scratch\"]\n")
	wantRules(t, tagged, map[string]string{"vg/tagged": "", "vg/web-1": backup.RuleIncludeTags})

	before := hostState(t)
	wantPreview(t, s)
	for _, c := range []struct{ name, says string }{
		{"web-1", "several volume groups"}, {"nowhere", "no volume"}, {"swap", "swaps"}, {"none-*", "no volume"},
	} {
		code, _, errs := voltar(t, "run", "--config", s.config, c.name)
		if code != exitUsage || !strings.Contains(errs, c.says) {
			t.Errorf("run %s: exit code %d, %q", c.name, code, errs)
		}
	}
	result := s.run(t, 0, "vg/web-*", "clone")
	if len(result.Volumes) != 3 || result.PlannedVolumes != 3 {
		t.Fatalf("%+v", result.Volumes)
	}
	for _, name := range []string{"vg/web-1", "vg/web-2", "vg/clone"} {
		wantStatus(t, result, name, report.VolumeOK)
	}
	listing := lab.Do(t, "tar", "-tzf", filepath.Join(s.backupsOf(t, "vg/clone")[0], "clone.tar.gz"))
	if !strings.Contains(listing, "lives on the clone") {
		t.Errorf("the linked clone was stored as\n%s", listing)
	}
	wantStatus(t, narrow.run(t, 0, "off"), "vg/off", report.VolumeOK)
	if after := hostState(t); after != before {
		t.Errorf("after the runs:\n%s\nbefore:\n%s", after, before)
	}
}

// makeSelection makes volumes of every kind.
func makeSelection(t *testing.T) {
	t.Helper()
	for _, name := range []string{"vg/web-1", "vg/web-2", "vg/off", "vg/tagged", "vg/never", "vg/swap", "vg/snap_nightly", "other/web-1"} {
		vg, lv, _ := strings.Cut(name, "/")
		device := lab.LV(t, vg, lv, 8<<20)
		if lv != "swap" {
			lab.Do(t, "mke2fs", "-q", device)
		}
	}
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "48M", "--name", "pool", "vg")
	lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "32M", "--name", "base", "vg/pool")
	makeExt(t, "/dev/vg/base")
	lab.Do(t, "lvcreate", "--yes", "--snapshot", "--setactivationskip", "n", "--name", "clone", "vg/base")
	lab.Do(t, "lvcreate", "--yes", "--snapshot", "--name", "hidden", "vg/base")
	dir := t.TempDir()
	lab.Do(t, "mount", "/dev/vg/clone", dir)
	writeFile(t, filepath.Join(dir, "lives on the clone"), nil)
	lab.Do(t, "umount", dir)
	lab.Do(t, "lvcreate", "--yes", "--snapshot", "--size", "4M", "--name", "web-1-mine", "vg/web-1")
	t.Cleanup(func() { lab.Do(t, "lvremove", "--yes", "vg/web-1-mine", "vg/hidden", "vg/clone") })
	lab.Do(t, "lvchange", "--addtag", "scratch", "vg/tagged")
	lab.Do(t, "lvchange", "--addtag", "voltar.exclude", "vg/never")
	lab.Do(t, "lvchange", "--activate", "n", "vg/off")
	lab.Do(t, "mkswap", "/dev/vg/swap")
	lab.Do(t, "swapon", "/dev/vg/swap")
	t.Cleanup(func() { lab.Do(t, "swapoff", "/dev/vg/swap") })
}

// wantRules compares what `voltar volumes` says with the rules wanted, "" for volumes that are in.
func wantRules(t *testing.T, s site, want map[string]string, patterns ...string) {
	t.Helper()
	code, out, errs := voltar(t, append([]string{"volumes", "--json", "--config", s.config}, patterns...)...)
	var lines []volumeLine
	if err := json.Unmarshal([]byte(out), &lines); code != 0 || err != nil {
		t.Fatal(code, err, out, errs)
	}
	got := map[string]volumeLine{}
	for _, line := range lines {
		got[line.Name] = line
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		line, found := got[name]
		if !found || line.Rule != want[name] || line.Selected != (want[name] == "") || line.Selected != (line.Reason == "") {
			t.Errorf("%s: %+v, want rule %q", name, line, want[name])
		}
	}
}

// wantPreview checks that a plan names volumes, space and destinations, and changes nothing.
func wantPreview(t *testing.T, s site) {
	t.Helper()
	code, out, errs := voltar(t, "run", "--dry-run", "--json", "--config", s.config)
	var preview backup.Preview
	if err := json.Unmarshal([]byte(out), &preview); code != 0 || err != nil {
		t.Fatal(code, err, out, errs)
	}
	if len(preview.Volumes) != 6 || len(preview.Groups) != 2 || len(preview.Destinations) != 1 {
		t.Errorf("%s", out)
	}
	for _, v := range preview.Volumes {
		thin := v.Name == "vg/base" || v.Name == "vg/clone"
		if (v.SnapshotBytes == 0) != thin || v.Problem != "" {
			t.Errorf("%+v", v)
		}
	}
	for _, g := range preview.Groups {
		if g.FreeBytes <= 0 || g.WantedBytes <= 0 {
			t.Errorf("%+v", g)
		}
	}
	if code, text, _ := voltar(t, "run", "--config", s.config, "--dry-run"); code != 0 || !strings.Contains(text, "Nothing was done") {
		t.Errorf("%d %s", code, text)
	}
	for _, path := range []string{filepath.Join(s.backups, "volume-host"), filepath.Join(s.dir, "state")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the plan made %s", path)
		}
	}
}

// Over several nights each volume keeps what its policy says, a night without a backup prunes nothing, and the backups of
// a volume that is gone stay until someone forgets it.
func TestLabRetentionOverNights(t *testing.T) {
	lab.VG(t, "vg", 100<<20)
	lab.Do(t, "mke2fs", "-q", lab.LV(t, "vg", "little", 8<<20))
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "file"), []byte("text"))
	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n[retention]\ndays = 3\n[[directory]]\nname = \"tree\"\npath = \""+tree+"\"\n")
	today := time.Now().Truncate(24 * time.Hour).Add(-30 * 24 * time.Hour).Add(13 * time.Hour) // noon, whatever the time zone
	night := func(daysAgo int) time.Time { return today.AddDate(0, 0, -daysAgo) }
	wantNights := func(what string, daysAgo ...int) {
		t.Helper()
		var want, got []string
		for _, n := range daysAgo {
			want = append(want, night(n).UTC().Format("2006-01-02T150405Z"))
		}
		for _, folder := range s.backupsOf(t, "vg/little") {
			got = append(got, filepath.Base(folder))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: there are %v, want %v", what, got, want)
		}
	}
	s.runAt(t, night(9), 0)
	s.runAt(t, night(4), 0)
	wantNights("the fourth night", 4)
	s.runAt(t, night(2), 0)
	wantNights("the second night", 4, 2)

	lab.Do(t, "lvcreate", "--yes", "--extents", "100%FREE", "--name", "filler", "vg")
	s.runAt(t, night(0), exitNothing, "little")
	wantNights("a night without a backup", 4, 2)
	lab.Do(t, "lvremove", "--yes", "vg/filler")

	result := s.runAt(t, night(0), 0)
	wantNights("tonight", 2, 0)
	c := volume(t, result, "vg/little").Copies[0]
	if c.Kept != 2 || len(c.Removed) != 1 || !strings.Contains(c.Removed[0].Reason, "3 days") || c.Removed[0].FreedBytes == 0 {
		t.Errorf("%+v", c)
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, []byte(strings.Replace(string(text), "days = 3", "days = 0\nkeep_last = 1", 1)))
	if code, _, errs := voltar(t, "prune", "vg/typo", "--config", s.config); code != exitUsage || !strings.Contains(errs, "no backups of what is named") {
		t.Errorf("prune of what is not there: %d %s", code, errs)
	}
	// The newest does not count as the last good one while verify knows that it is damaged.
	archives, err := filepath.Glob(filepath.Join(s.backupsOf(t, "vg/little")[1], "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("%q, %v", archives, err)
	}
	whole, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	rotten := slices.Clone(whole)
	rotten[len(rotten)/2] ^= 1
	writeFile(t, archives[0], rotten)
	if code, out, errs := voltar(t, "verify", "--config", s.config); code != exitAttention {
		t.Errorf("verify of a damaged archive: %d %s %s", code, out, errs)
	}
	if code, out, errs := voltar(t, "prune", "vg/little", "--config", s.config); code != 0 || strings.Count(out, "removed") != 0 {
		t.Errorf("%d %s %s", code, out, errs)
	}
	wantNights("after prune with a damaged one", 2, 0)
	writeFile(t, archives[0], whole)
	if code, out, errs := voltar(t, "verify", "--config", s.config); code != 0 {
		t.Errorf("verify of the archive, which is whole again: %d %s %s", code, out, errs)
	}

	code, out, errs := voltar(t, "prune", "--dry-run", "--config", s.config)
	if code != 0 || strings.Count(out, "would remove") != 2 || strings.Count(out, "kept") != 2 { // of the volume and of the tree
		t.Errorf("%d %s %s", code, out, errs)
	}
	wantNights("after prune --dry-run", 2, 0)
	if code, out, errs = voltar(t, "prune", "--config", s.config); code != 0 || strings.Count(out, "removed") != 2 {
		t.Errorf("%d %s %s", code, out, errs)
	}
	wantNights("after prune", 0)

	if code, out, _ = voltar(t, "forget", "vg/little", "--config", s.config); code != 0 || !strings.Contains(out, "on this host") {
		t.Errorf("forget of a volume that is there: %d %s", code, out)
	}
	wantNights("after forget", 0)
	for _, name := range []string{"tree", "*"} {
		code, out, _ = voltar(t, "forget", name, "--config", s.config)
		if code != 0 || !strings.Contains(out, "kept") || strings.Contains(out, "removed") || len(s.backupsOf(t, "@directory/tree")) == 0 {
			t.Errorf("forget %s, where a directory is configured: %d %s", name, code, out)
		}
	}
	lab.Do(t, "lvremove", "--yes", "vg/little")
	lab.Do(t, "mke2fs", "-q", lab.LV(t, "vg", "little", 12<<20)) // another volume under the old name
	result = s.run(t, 0)
	if len(result.Gone) != 1 || result.Gone[0].Name != "vg/little" || result.Gone[0].Backups != 1 ||
		!strings.Contains(result.Gone[0].Note, "had this name before") {
		t.Errorf("gone: %+v", result.Gone)
	}
	if v := volume(t, result, "vg/little"); v.PreviousStoredBytes != -1 || v.Copies[0].Kept != 1 {
		t.Errorf("a volume made anew under an old name: %+v", v)
	}
	if code, out, errs = voltar(t, "forget", "vg/little", "--config", s.config); code != 0 || !strings.Contains(out, "another has its name") {
		t.Error(code, out, errs)
	}
	if left := s.backupsOf(t, "vg/little"); len(left) != 1 || filepath.Base(left[0]) == night(0).UTC().Format("2006-01-02T150405Z") {
		t.Errorf("after forget of the volume that is gone: %q", left)
	}
	lab.Do(t, "lvremove", "--yes", "vg/little")
	s.restore(t, 0, "vg/little") // which goes on with the history, though LVM gives it another UUID
	result = s.run(t, 0)
	if v := volume(t, result, "vg/little"); len(result.Gone) != 0 || v.PreviousStoredBytes <= 0 || v.Copies[0].Kept != 1 {
		t.Errorf("a volume that was restored: %+v; gone: %+v", v, result.Gone)
	}
	if code, out, errs = voltar(t, "forget", "vg/little", "--config", s.config); code != 0 || !strings.Contains(out, "on this host") {
		t.Errorf("forget of a volume that was restored: %d %s %s", code, out, errs)
	}
}
