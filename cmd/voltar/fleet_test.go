package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/durable"
	"voltar/internal/history"
	"voltar/report"
)

// newFleet returns a site whose two destinations hold the backups of three hosts.
func newFleet(t *testing.T) (s site, far string) {
	t.Helper()
	far = filepath.Join(t.TempDir(), "far")
	s = newSite(t, folderDestination("far", far, ""))
	near, offsite := browsetest.Open(t, s.backups), browsetest.Open(t, far)
	fill := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text\n"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	hour := func(n int) time.Time { return browsetest.Night.Add(time.Duration(n) * time.Hour) }
	damaged := func(m *catalog.Manifest) { m.Status = catalog.StatusDamaged }
	browsetest.Make(t, near, browsetest.Spec{LV: "fresh", Whole: true, Fill: fill, Time: hour(24)})
	browsetest.Make(t, offsite, browsetest.Spec{LV: "fresh", Whole: true, Fill: fill, Time: hour(24),
		Edit: func(m *catalog.Manifest) { m.Host.Name = "another" }})
	browsetest.Make(t, near, browsetest.Spec{LV: "old", Whole: true, Fill: fill, Time: hour(2)})
	browsetest.Make(t, near, browsetest.Spec{LV: "worse", Whole: true, Fill: fill, Time: hour(0)})
	browsetest.Make(t, near, browsetest.Spec{LV: "worse", Whole: true, Fill: fill, Time: hour(24), Edit: damaged})
	browsetest.Make(t, near, browsetest.Spec{LV: "never", Whole: true, Fill: fill, Time: hour(24), Edit: damaged})
	for _, host := range []string{browsetest.Host, "silent"} {
		if err := catalog.Claim(t.Context(), near, catalog.Host{Name: host, MachineID: "machine"}, hour(0)); err != nil {
			t.Fatal(err)
		}
	}
	// The same volume of another host, with a marker of its own.
	if err := catalog.Claim(t.Context(), offsite, catalog.Host{Name: "another", MachineID: "other"}, hour(0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(far, browsetest.Host, "vg"), filepath.Join(far, "another", "vg")); err != nil {
		t.Fatal(err)
	}
	browsetest.Make(t, offsite, browsetest.Spec{LV: "old", Whole: true, Fill: fill, Time: hour(3)})
	if err := catalog.Claim(t.Context(), offsite, catalog.Host{Name: browsetest.Host, MachineID: "machine"}, hour(0)); err != nil {
		t.Fatal(err)
	}
	return s, far
}

func TestFleet(t *testing.T) {
	s, far := newFleet(t)
	now := browsetest.Night.Add(30 * time.Hour)
	fleet := func(t *testing.T, args ...string) (int, []catalog.FleetLine, string) {
		t.Helper()
		code, out, errs := voltarAt(t, now, append([]string{"report", "--fleet", "--json", "--config", s.config}, args...)...)
		var lines []catalog.FleetLine
		if err := json.Unmarshal([]byte(out), &lines); err != nil && code != exitNothing && code != exitUsage {
			t.Fatalf("%d, %v in %q\n%s", code, err, out, errs)
		}
		return code, lines, errs
	}
	short := func(lines []catalog.FleetLine) string {
		var all []string
		for _, l := range lines {
			text := l.Host + "/" + strings.TrimPrefix(l.Volume, "vg/")
			if l.Late {
				text += " late"
			}
			all = append(all, text+" on "+strings.Join(l.On, "+"))
		}
		return strings.Join(all, ", ")
	}
	code, lines, _ := fleet(t)
	want := "silent/ late on , volume-host/never late on , volume-host/worse late on disk, volume-host/old late on far, " +
		"another/fresh on far, volume-host/fresh on disk"
	if got := short(lines); code != exitAttention || got != want {
		t.Errorf("%d: %s\nwant %s", code, got, want)
	}
	if l := lines[2]; l.AgeSeconds != 30*3600 || l.Status != "damaged" || !l.Newest.After(l.Good) || lines[1].AgeSeconds != -1 {
		t.Errorf("%+v", lines)
	}
	code, lines, _ = fleet(t, "--older-than", "2d", "--except", "silent", "--except", "volume-host/vg/nev*")
	if code != exitDone || len(lines) != 4 {
		t.Errorf("with exceptions: %d, %s", code, short(lines))
	}
	code, lines, _ = fleet(t, "--from", "far", "--except", "volume-host")
	if got := short(lines); code != exitDone || got != "another/fresh on far" {
		t.Errorf("of one destination: %d, %s", code, got)
	}
	for _, args := range [][]string{{"--older-than", "soon"}, {"--except", "vg/lv"}, {"--except", "["}, {"last"}} {
		if code, _, errs := fleet(t, args...); code != exitUsage {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	if code, _, _ := voltarAt(t, now, "report", "--older-than", "1d", "--config", s.config); code != exitUsage {
		t.Errorf("--older-than without --fleet: %d", code)
	}

	code, out, _ := voltarAt(t, now, "report", "--fleet", "--config", s.config)
	for _, text := range []string{"silent       -         none", "the host has no backups", "vg/worse", "1 d 6 h 0 m", "is damaged",
		"4 of 6 volumes, on 2 of 3 hosts, have no good backup younger than 26 h."} {
		if code != exitAttention || !strings.Contains(strings.ReplaceAll(out, "30 h", "1 d 6 h 0 m"), text) {
			t.Errorf("%d, no %q in\n%s", code, text, out)
		}
	}
	page := filepath.Join(t.TempDir(), "page.html")
	code, out, errs := voltarAt(t, now, "report", "--fleet", "--html", page, "--config", s.config)
	shown, err := os.ReadFile(page)
	info, statErr := os.Stat(page)
	if code != exitAttention || out != "" || err != nil || statErr != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%d, %v, %v, mode %v\n%s%s", code, err, statErr, info.Mode(), out, errs)
	}
	for _, text := range []string{"4 of 6 volumes need attention", "3 hosts", "(no backups)", "vg/never", "NO GOOD BACKUP", "is damaged",
		"<s class=n style=--n:28></s><s class=g style=--n:1></s><s class=d style=--n:1></s>"} {
		if !strings.Contains(string(shown), text) {
			t.Errorf("no %q on the page", text)
		}
	}
	if code, _, errs := voltarAt(t, now, "report", "--fleet", "--send", "--config", s.config); code != exitUsage {
		t.Errorf("--send with --fleet: %d %s", code, errs)
	}
	code, out, _ = voltarAt(t, now, "report", "--fleet", "--from", "far", "--older-than", "3d", "--config", s.config)
	if code != exitDone || !strings.Contains(out, "All 2 volumes on 2 hosts have a good backup younger than 3 d 0 h.") {
		t.Errorf("all well: %d\n%s", code, out)
	}

	// A destination that is not there hides nothing of the others, and needs a person.
	if err := os.RemoveAll(far); err != nil {
		t.Fatal(err)
	}
	writeFile(t, far, nil)
	code, lines, errs = fleet(t, "--older-than", "2d", "--except", "silent", "--except", "volume-host/vg/never")
	if code != exitAttention || len(lines) != 3 || !strings.Contains(errs, "destination far") {
		t.Errorf("with a destination away: %d, %s\n%s", code, short(lines), errs)
	}
	if code, _, errs := fleet(t, "--from", "far"); code != exitNothing || !strings.Contains(errs, "destination far") {
		t.Errorf("with nothing to ask: %d %s", code, errs)
	}
}

// An empty disk in place of the right one is no fleet that is well.
func TestFleetOnEmptyDisk(t *testing.T) {
	s := newSite(t, "")
	if err := os.MkdirAll(s.backups, 0o750); err != nil {
		t.Fatal(err)
	}
	fleet := func(want string, args ...string) {
		t.Helper()
		code, out, errs := voltarAt(t, browsetest.Night.Add(30*time.Hour), append([]string{"report", "--fleet", "--config", s.config}, args...)...)
		if code != exitAttention || !strings.Contains(errs, "destination disk: there is no host on it: "+s.backups) || strings.Contains(out, "All 0") {
			t.Errorf("%q: %d\n%s\n%s", args, code, out, errs)
		}
		if !strings.Contains(out+errs, want) {
			t.Errorf("%q: no %q in\n%s\n%s", args, want, out, errs)
		}
	}
	fleet("There is no volume to tell of.")
	fleet("There is no volume to tell of.", "--except", "another")

	past := report.Run{ID: "past", Host: browsetest.Host, Command: "run", Started: browsetest.Night, Ended: browsetest.Night,
		Destinations: []report.Destination{{Name: "disk", Where: s.backups}},
		Volumes:      []report.Volume{{Name: "vg/lv", Status: report.VolumeOK, Copies: []report.Copy{{Destination: "disk", Path: "vg/lv"}}}}}
	if err := history.New(filepath.Join(s.dir, "state", "history"), durable.Host(nil), time.Now).Save(past); err != nil {
		t.Fatal(err)
	}
	missing := "the backups of volume-host are missing: its run of " + shortTime(browsetest.Night)
	fleet(missing)
	fleet("volume-host  -       none")
	fleet("There is no volume to tell of.", "--except", browsetest.Host)

	// Another host's backups there hide nothing.
	if err := catalog.Claim(t.Context(), browsetest.Open(t, s.backups), catalog.Host{Name: "another", MachineID: "other"}, browsetest.Night); err != nil {
		t.Fatal(err)
	}
	code, out, errs := voltarAt(t, browsetest.Night, "report", "--fleet", "--except", "another", "--config", s.config)
	if code != exitAttention || !strings.Contains(errs, missing) || strings.Contains(errs, "no host") || !strings.Contains(out, "1 of 1 volume, on 1 of 1 host") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

func TestListAllHosts(t *testing.T) {
	s, _ := newFleet(t)
	code, out, errs := voltar(t, "list", "--all-hosts", "--json", "--config", s.config)
	var lines []catalog.Line
	if err := json.Unmarshal([]byte(out), &lines); err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s", code, err, errs)
	}
	var got []string
	for _, l := range lines {
		got = append(got, l.Host+" "+strings.TrimPrefix(l.Backup, "vg/")+" "+l.Destination+" "+l.Status)
	}
	want := `another fresh@2026-11-21T010001Z far complete
volume-host fresh@2026-11-21T010001Z disk complete
volume-host never@2026-11-21T010001Z disk damaged
volume-host old@2026-11-20T030001Z disk complete
volume-host worse@2026-11-20T010001Z disk complete
volume-host worse@2026-11-21T010001Z disk damaged
volume-host old@2026-11-20T040001Z far complete`
	if strings.Join(got, "\n") != want {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	code, out, _ = voltar(t, "list", "--all-hosts", "fresh", "--from", "far", "--config", s.config)
	if code != 0 || !strings.HasPrefix(out, "HOST ") || !strings.Contains(out, "another  vg/fresh@") || strings.Count(out, "\n") != 2 {
		t.Errorf("%d\n%s", code, out)
	}
}
