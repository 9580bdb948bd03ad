package backup

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/config"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/internal/store/patient"
	"voltar/lvm"
	"voltar/report"
)

// A volume group that the configuration names and nobody has is told, once for each name, and by whole runs alone.
func TestMissingVolumeGroupsAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		vgs  []lvm.VG
		want []report.Problem
	}{
		"a typo": {[]lvm.VG{{Name: "nova-volumes"}, {Name: "ssd"}}, []report.Problem{{
			Message: `the configuration's select.volume_groups has "nova-volume", and no volume group of this host has that name: did you mean "nova-volumes"?`,
			Hint:    "correct it in the configuration: this host has nova-volumes, ssd",
		}}},
		"no group": {nil, []report.Problem{
			{Message: `the configuration's select.volume_groups has "nova-volume", and no volume group of this host has that name`,
				Hint: "correct it in the configuration: this host has no volume group"},
			{Message: `the configuration's select.volume_groups has "s*", and no volume group of this host has that name`,
				Hint: "correct it in the configuration: this host has no volume group"},
		}},
		"both are there": {[]lvm.VG{{Name: "nova-volume"}, {Name: "ssd"}}, nil},
	} {
		s := newSite(t)
		s.opts.Select = Select{VolumeGroups: []string{"nova-volume", "s*"}, Match: matchVolume, MatchGroup: matchGroup}
		r := &run{Engine: s.Engine, record: &record{log: s.Log}}
		r.noteMissingGroups(c.vgs)
		if diff := cmp.Diff(c.want, r.report.Warnings); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// matchVolume and matchGroup match patterns as the configuration does, where no guests are known.
func matchVolume(pattern string, v lvm.Volume) bool { return config.MatchVolume(pattern, v.VG, v.Name) }

func matchGroup(pattern, vg string) bool { return config.MatchVolume(pattern, "", vg) }

// A guest's group is taken only by a pattern that names it, not by one for any group.
func TestNamesOutright(t *testing.T) {
	match := func(pattern string, v lvm.Volume) bool {
		ok, err := path.Match(pattern, v.VG+"/"+v.Name)
		return err == nil && ok || pattern == v.Name
	}
	v := lvm.Volume{VG: "guest", Name: "root"}
	for name, tt := range map[string]struct {
		sel      Select
		patterns []string
		want     bool
	}{
		"nothing":                   {},
		"named":                     {patterns: []string{"guest/root"}, want: true},
		"its group":                 {patterns: []string{"guest/*"}, want: true},
		"any group":                 {patterns: []string{"*/root"}},
		"its name alone":            {patterns: []string{"root"}},
		"another of its group":      {patterns: []string{"guest/swap"}},
		"included":                  {sel: Select{Include: []string{"guest/root"}}, want: true},
		"included with any":         {sel: Select{Include: []string{"*"}}},
		"selected group":            {sel: Select{VolumeGroups: []string{"guest"}}, want: true},
		"selected groups":           {sel: Select{VolumeGroups: []string{"g*"}}},
		"included, but not tonight": {sel: Select{Include: []string{"guest/root"}}, patterns: []string{"vg/*"}},
	} {
		tt.sel.Match = match
		if got := tt.sel.namesOutright(v, tt.patterns); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A mistyped name may stand for a directory or dump by its short name as well as for a volume.
func TestAMistypedNameMayBeASource(t *testing.T) {
	match := func(pattern string, v lvm.Volume) bool { return pattern == v.Name }
	plan := &Plan{Choices: []Choice{{Volume: lvm.Volume{VG: "vg", Name: "web"}}}}
	for typed, want := range map[string]string{"srcc": `did you mean "src"?`, "wbe": `did you mean "web"?`} {
		err := Select{Match: match}.checkPatterns(plan, []string{typed}, []string{"src"})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("of %s: %v, want %s", typed, err, want)
		}
	}
}

// A destination is full when nothing can be stored there, and not when its room cannot be told.
func TestNoRoom(t *testing.T) {
	for name, tt := range map[string]struct {
		usage store.Usage
		full  bool
	}{
		"full":              {store.Usage{TotalBytes: 1 << 40}, true},
		"a few blocks":      {store.Usage{TotalBytes: 1 << 40, FreeBytes: 8192}, true},
		"room":              {store.Usage{TotalBytes: 1 << 40, FreeBytes: 1 << 30}, false},
		"not to be told":    {store.Usage{TotalBytes: -1, FreeBytes: -1}, false},
		"a size of nothing": {store.Usage{}, false},
	} {
		if err := NoRoom(tt.usage); errors.Is(err, store.ErrNoSpace) != tt.full {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A dry run knows which destinations nothing can be written to.
func TestPreviewKnowsUnusableDestinations(t *testing.T) {
	s := newSite(t, "disk", "gone")
	s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: t.TempDir()}}})
	s.on("gone").Store = store.Unavailable("gone", &store.WholeError{Err: say.WithHint(errors.New("it is gone"), "bring it back")})
	p, err := s.Preview(t.Context(), []string{"@directory/tree"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Destinations) != 2 || p.Destinations[0].Unusable || !p.Destinations[1].Unusable ||
		p.Destinations[1].Problem != "it is gone" || p.Destinations[1].Hint != "bring it back" {
		t.Errorf("destinations %+v", p.Destinations)
	}
}

// Below a mountpoint that is none, a destination's path leads to the volume of another folder.
func TestFolderOfADestinationThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		opts    disk.Options
		isThere bool
	}{
		"there":       {disk.Options{Path: dir}, true},
		"still to be": {disk.Options{Path: filepath.Join(dir, "new")}, true},
		"unmounted":   {disk.Options{Path: dir, RequireMount: dir}, false},
	} {
		s, err := disk.Open(c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if path, isThere := folderOf(t.Context(), patient.Wrap(s, 0, "")); isThere != c.isThere || isThere != (path == c.opts.Path) {
			t.Errorf("%s: %q, %t", name, path, isThere)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
