package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/say"
)

// A guest's name stands for its disks, and with a time for its backups of one run. What was another guest's does not go with it.
func TestMeant(t *testing.T) {
	night := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	entry := func(lv string, days, seconds int, run, guest, disk string) catalog.Entry {
		e := catalog.Entry{
			ID:  catalog.ID{Ref: catalog.Ref{Kind: catalog.SourceVolume, VG: "vg", Name: lv}, Time: night.AddDate(0, 0, days).Add(time.Duration(seconds) * time.Second)},
			Run: run, Identity: catalog.Identity(lv),
		}
		if guest != "" {
			e.Guest = catalog.Guest{ID: "id-" + guest, Name: guest, Kind: "libvirt", Disk: disk}
		}
		return e
	}
	entries := []catalog.Entry{
		entry("a", 0, 0, "r0", "web", "vda"), entry("b", 0, 2, "r0", "web", "vdb"), entry("a", 1, 0, "r1", "web", "vda"), entry("b", 1, 2, "r1", "web", "vdb"),
		entry("used", 0, 0, "r0", "old", "vda"), entry("used", 1, 0, "r1", "new", "vda"),
	}
	for words, want := range map[string]string{
		"web":                         "vg/a vg/b",
		"web:vdb id-web vg/x":         "vg/b vg/a vg/x",
		"web@2026-11-20":              "vg/a@2026-11-20T010000Z vg/b@2026-11-20T010002Z",
		"web@2026-11-21T010002Z":      "vg/a@2026-11-21T010000Z vg/b@2026-11-21T010002Z",
		"web@2026-11":                 "refused: more than one run, say which: 2026-11-2",
		"web@2027":                    "web@2027",
		"vg/a a* nosuch":              "vg/a a* nosuch",
		"@guest/web:vda@2026-11-20":   "vg/a@2026-11-20T010000Z",
		"new":                         "vg/used",
		"old@2026":                    "vg/used@2026-11-20T010000Z",
		"id-old:vda":                  "vg/used",
		"web web@2026-11-20 vg/a@201": "vg/a vg/b vg/a@2026-11-20T010000Z vg/b@2026-11-20T010002Z vg/a@201",
	} {
		m := meant{entries: entries}
		err := m.expand(strings.Fields(words), func(word string) bool { return strings.HasPrefix(word, "vg/a") })
		got := strings.Join(m.words, " ")
		if err != nil {
			got = "refused: " + err.Error() + strings.Join(say.Hints(err), "")
		}
		if refusal, isRefused := strings.CutPrefix(want, "refused: "); isRefused {
			for part := range strings.SplitSeq(refusal, ", ") {
				if !strings.Contains(got, part) {
					t.Errorf("%s: %s, want %s", words, got, part)
				}
			}
		} else if got != want {
			t.Errorf("%s means %s, want %s", words, got, want)
		}
		isForeign := m.refuseForeign() != nil
		if want := slices.ContainsFunc(m.guests, func(g string) bool { return g == "new" || strings.Contains(g, "old") }); isForeign != want {
			t.Errorf("%s: refused %t, want %t", words, isForeign, want)
		}
	}
}
