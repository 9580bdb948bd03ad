package say

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	keys := []string{"days", "weeks", "dry-run", "restore", "report", "to", "from"}
	for word, want := range map[string]string{
		"day": "days", "Days": "days", "dasy": "days", "dry-rum": "dry-run", "restroe": "restore", "repotr": "report",
		"form": "from", "frobnicate": "", "xy": "", "ot": "to", "": "", strings.Repeat("day", 1000): "",
	} {
		if got := Nearest(word, keys); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
}
