package backup

import (
	"path"
	"testing"

	"voltar/lvm"
)

// A guest's group is taken only by a pattern that names it, not by one for any group.
func TestNamesOutright(t *testing.T) {
	match := func(pattern, vg, lv string) bool {
		ok, err := path.Match(pattern, vg+"/"+lv)
		return err == nil && ok || pattern == lv
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
