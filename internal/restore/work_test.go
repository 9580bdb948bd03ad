package restore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"voltar/internal/journal"
	"voltar/internal/say"
)

// A volume that a run has is had from it by `voltar cancel`; from another restore there is no such way.
func TestHintHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		hint string
	}{
		{"by a run", &journal.HeldError{Scope: journal.ScopeVolume, Name: "vg/lv", Holder: journal.Holder{PID: 1, Command: "voltar run"}},
			"`voltar cancel vg/lv`"},
		{"by a restore", &journal.HeldError{Scope: journal.ScopeVolume, Name: "vg/lv", Holder: journal.Holder{PID: 1, Command: "voltar restore"}}, ""},
		{"by a drill", &journal.HeldError{Scope: journal.ScopeScratch, Name: "/x", Holder: journal.Holder{PID: 1, Command: "voltar drill"}},
			"one after the other"},
		{"by nobody", fmt.Errorf("cannot lock"), ""},
	} {
		got := hintHeld(c.err)
		if hint := strings.Join(say.Hints(got), "; "); !errors.Is(got, c.err) || !strings.Contains(hint, c.hint) || (hint == "") != (c.hint == "") {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
