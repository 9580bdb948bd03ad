package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/config"
	"voltar/internal/guests"
	"voltar/internal/hostcmd"
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
	s.opts.Select = Select{Match: config.MatchVolume, Exclude: []string{"*-swap", "scratch"}, Include: []string{"nothing else"}}
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
