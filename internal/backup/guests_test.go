package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/guests"
	"voltar/internal/hostcmd"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/lvm"
)

// tell is a disk of a guest as a command tells of it.
type tell struct{ Volume, Guest, Name, Disk, Group string }

// planOf is the plan of a host with volumes, all of which are backed up, and with guests.
func planOf(t *testing.T, tells []tell, volumes ...string) *Plan {
	t.Helper()
	var inventory lvm.Inventory
	for _, name := range volumes {
		vg, lv, _ := strings.Cut(name, "/")
		inventory.Volumes = append(inventory.Volumes, lvm.Volume{VG: vg, Name: lv, UUID: "uuid-" + lv, VGUUID: "uuid-" + vg, Active: true})
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	for _, line := range tells {
		if err := encoder.Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "guests")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Plan{Inventory: inventory}
	p.Guests, p.GuestTroubles = guests.Find(t.Context(),
		guests.Sources{Command: []string{"cat", file}, Runner: hostcmd.New(hostcmd.Options{})}, inventory)
	if len(p.GuestTroubles) > 0 {
		t.Fatal(p.GuestTroubles)
	}
	for _, v := range inventory.Volumes {
		p.Choices = append(p.Choices, Choice{Volume: v})
	}
	return p
}

// A guest's name stands for its disks: all that nothing excludes. A volume's own name wins, and what is ambiguous is refused.
func TestGuestsAreNamed(t *testing.T) {
	plan := planOf(t, []tell{
		{"vg/web-root", "1", "web", "vda", ""}, {"vg/web-data", "1", "web", "vdb", ""}, {"vg/web-swap", "1", "web", "vdc", ""},
		{"vg/db", "2", "db", "vda", ""}, {"vg/other", "3", "db2", "vda", ""},
		{"vg/t1", "4", "twin", "vda", ""}, {"vg/t2", "5", "twin", "vda", ""}, {"vg/scratch", "6", "excluded", "vda", ""},
	}, "vg/web-root", "vg/web-data", "vg/web-swap", "vg/db", "vg/db2", "vg/other", "vg/t1", "vg/t2", "vg/scratch", "vg/lonely")
	s := newSite(t)
	s.opts.Select = Select{Match: matchVolume, MatchGroup: matchGroup, Exclude: []string{"*-swap", "scratch"}, Include: []string{"nothing else"}}
	for word, want := range map[string]string{
		"web":         "web-root web-data",
		"1":           "web-root web-data",
		"web:vdb":     "web-data",
		"web:vdc":     "error: all disks of web:vdc are left out",
		"web:vdx":     "error: it has vda (vg/web-root), vdb (vg/web-data), vdc (vg/web-swap)",
		"db":          "db",
		"db2":         "db2",
		"@guest/db2":  "other",
		"@guest/web":  "web-root web-data",
		"@guest/ewb":  `error: did you mean "web"`,
		"twin":        "error: name one by its ID: 4, 5",
		"4":           "t1",
		"vg/t*":       "t1 t2",
		"we*":         "web-root web-data web-swap",
		"excluded":    "error: all disks of excluded are left out; vg/scratch by rule select.exclude",
		"scratch":     "scratch",
		"web lonely":  "web-root web-data lonely",
		"web vg/web*": "web-root web-data web-swap",
	} {
		w, err := s.want(plan, strings.Fields(word))
		var got []string
		for i, v := range plan.Volumes {
			c := &plan.Choices[i]
			if c.Rule, c.Reason = w.rule(s.opts.Select, v); c.Rule == "" {
				got = append(got, v.Name)
			}
		}
		if err == nil {
			err = w.check(plan)
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = "error: " + say.Text(err)
		}
		refused, isRefused := strings.CutPrefix(want, "error: ")
		switch {
		case !isRefused && text != want:
			t.Errorf("%q: %q, want %q", word, text, want)
		case isRefused && (err == nil || !errors.Is(err, ErrUsage) || !strings.Contains(text, refused)):
			t.Errorf("%q: %q, want an error of %q", word, text, refused)
		}
	}
}

// An image that a disk goes on from is told where the configuration leaves it out, and not where others were named.
func TestChains(t *testing.T) {
	for reason, told := range map[string]bool{"": false, `pattern "snap_*"`: true, reasonNotNamed: false} {
		plan := planOf(t, []tell{{"san/disk", "1", "web", "scsi0", ""}, {"san/snap_disk", "1", "web", "scsi0@friday", ""}}, "san/disk", "san/snap_disk")
		if reason != "" {
			plan.Choices[1].Rule, plan.Choices[1].Reason = RuleExclude, reason
		}
		plan.noteChains()
		if (len(plan.GuestTroubles) > 0) != told || told && !strings.HasPrefix(plan.GuestTroubles[0].What, "san/snap_disk, which the disk scsi0 of web (1)") {
			t.Errorf("%q: %+v", reason, plan.GuestTroubles)
		}
	}
}

// A volume is an orphan if it could be a guest's disk, the host has guests, and none has it.
func TestOrphans(t *testing.T) {
	names := func(p *Plan) []string { return say.Names(p.Orphans(), lvm.Volume.String) }
	plan := planOf(t, []tell{{"vg/web", "1", "web", "vda", ""}}, "vg/web", "vg/of-nobody", "vg/pool", "vg/excluded")
	plan.Choices[2].Rule, plan.Choices[3].Rule = RulePool, RuleExclude
	if got := names(plan); !slices.Equal(got, []string{"vg/of-nobody", "vg/excluded"}) {
		t.Errorf("orphans: %q", got)
	}
	if got := names(planOf(t, nil, "vg/web")); len(got) > 0 {
		t.Errorf("a host without guests has the orphans %q", got)
	}
	if g := plan.GuestOf(plan.Volumes[0]); g == nil || g.String() != "web:vda" || g.Kind != "command" {
		t.Errorf("the guest %+v", g)
	}
}

// The disks of a guest are a unit by themselves, unless a group is configured or there is no space for it.
func TestGuestsAreUnits(t *testing.T) {
	tells := []tell{
		{"vg/web-root", "1", "web", "vda", ""}, {"vg/web-data", "1", "web", "vdb", ""},
		{"vg/db-data", "2", "db", "vda", ""}, {"vg/db-log", "2", "db", "vdb", ""},
		{"vg/single", "3", "single", "vda", ""}, {"vg/twin-a", "4", "web", "vda", ""}, {"vg/twin-b", "4", "web", "vdb", ""},
		{"vg/farm-a", "5", "farm-a", "vda", "farm"}, {"vg/farm-b", "6", "farm-b", "vda", "farm"},
	}
	volumes := []string{"vg/alone", "vg/configured"}
	for _, line := range tells {
		volumes = append(volumes, line.Volume)
	}
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		together  bool
		freezes   bool
		freeBytes int64
		want      string
	}{
		"off": {false, false, 1 << 30, "alone, configured db-data (db group), web-root, web-data, db-log, single, twin-a, twin-b, farm-a, farm-b"},
		"together": {true, false, 1 << 30,
			"alone, configured db-data (db group), web-root web-data (web (1)), db-log, single, twin-a twin-b (web (4)), farm-a farm-b (farm)"},
		"no space for two": {true, false, 100 * mib,
			"alone, configured db-data (db group), web-root!, web-data, db-log, single, twin-a!, twin-b, farm-a!, farm-b"},
		"frozen": {true, true, 1 << 30, "alone, configured db-data (db group), web-root web-data (web (1)) frozen 1, db-log, single frozen 3, " +
			"twin-a twin-b (web (4)) frozen 4, farm-a farm-b (farm) frozen 5 6"},
	} {
		plan := planOf(t, tells, volumes...)
		plan.VGs = []lvm.VG{{Name: "vg", FreeBytes: tt.freeBytes, ExtentBytes: 4 * mib}}
		for i := range plan.Choices {
			plan.Choices[i].Volume.SizeBytes = 400 * mib
		}
		s := newSite(t)
		s.opts.Settings = func(v lvm.Volume) Settings {
			settings := Settings{SnapshotSize: lvm.SizePolicy{FloorBytes: 64 * mib}}
			switch v.Name {
			case "configured", "db-data":
				settings.Group = "db group"
			case "db-log": // frozen by somebody's own word
				settings.Freeze = []quiesce.Freeze{{Name: "own"}}
			}
			return settings
		}
		s.opts.GuestUnits.Together = tt.together
		if tt.freezes {
			s.opts.GuestUnits.Freezes = func(g guests.Guest) []quiesce.Freeze { return []quiesce.Freeze{{Name: g.ID}} }
		}
		var units []string
		for _, u := range s.opts.units(plan) {
			text := strings.Join(say.Names(u.volumes, func(v lvm.Volume) string { return v.Name }), " ")
			if u.group.Name != "" {
				text += " (" + u.group.Name + ")"
			}
			if u.apart != "" {
				text += "!"
			}
			if len(u.group.Freeze) > 0 {
				text += " frozen " + strings.Join(say.Names(u.group.Freeze, func(f quiesce.Freeze) string { return f.Name }), " ")
			}
			if u.group.guest != "" && !u.group.GoOn {
				t.Errorf("%s: a disk of %s takes the others with it", name, text)
			}
			units = append(units, text)
		}
		if got := strings.Join(units, ", "); got != tt.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, tt.want)
		}
	}
}

// What a run does for each guest is told in a line.
func TestGuestNotes(t *testing.T) {
	plan := planOf(t, []tell{{"vg/a", "1", "web", "vda", ""}, {"vg/b", "1", "web", "vdb", ""}, {"vg/c", "2", "web", "vda", ""}, {"vg/d", "3", "x", "vda", ""}},
		"vg/a", "vg/b", "vg/c", "vg/d")
	plan.Choices[3].Rule = RuleExclude
	plan.VGs = []lvm.VG{{Name: "vg", FreeBytes: 1 << 40, ExtentBytes: 4 << 20}}
	plan.Guests.Guests[0].Elsewhere = []string{"vdc (/srv/x.qcow2)"}
	s := newSite(t)
	s.opts.Settings = func(lvm.Volume) Settings { return Settings{} }
	s.opts.GuestUnits.Together = true
	s.opts.GuestUnits.Freezes = func(g guests.Guest) []quiesce.Freeze {
		if g.ID == "2" {
			return nil
		}
		return []quiesce.Freeze{{Method: quiesce.MethodVirsh}}
	}
	want := []GuestNote{
		{"web (1)", "vda, vdb, at one moment, frozen by virsh", []string{"vdc (/srv/x.qcow2)"}},
		{"web (2)", "vda, not frozen: it is shut off now", nil},
	}
	if diff := cmp.Diff(want, s.GuestNotes(plan)); diff != "" {
		t.Error(diff)
	}
}

// A definition that differs from the one of its last backup is told, once. Those of other guests stay noted.
func TestDefinitionsAreCompared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	guest := func(id, text string) guests.Guest {
		return guests.Guest{ID: id, Kind: guests.KindLibvirt, Definition: []guests.File{{Name: "domain.xml", Content: []byte(text)}}}
	}
	night := func(want bool, gs ...guests.Guest) {
		t.Helper()
		d, err := readDefinitions(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range gs {
			if d.note(g); d.note(g) != want { // each of its disks says so
				t.Errorf("%s changed: %t", g.ID, !want)
			}
		}
		if err := d.save(); err != nil {
			t.Fatal(err)
		}
	}
	night(false, guest("1", "a"), guest("2", "a"))
	night(false, guest("1", "a"))
	night(true, guest("1", "b"), guest("2", "b"))
	night(false, guest("1", "b"), guest("2", "b"))
	transient := guest("1", "c")
	transient.Transient = true
	night(false, transient)
	path := filepath.Join(dir, "definitions.json")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := readDefinitions(dir); err == nil || d.note(guest("1", "z")) {
		t.Errorf("a torn file tells of changes, and %v", err)
	}
}
