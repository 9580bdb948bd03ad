package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What this host wrote is known again where it wrote it, to the byte, and nowhere else.
func TestWhatThisHostWroteIsKnown(t *testing.T) {
	s := newStore(t)
	w := NewWritten(filepath.Join(t.TempDir(), "written"))
	wrote := func(b Backup) bool {
		t.Helper()
		is, err := w.Wrote(s, b)
		check(t, err)
		return is
	}
	first := add(t, s, volume("v"), night)
	if wrote(first) {
		t.Error("it is known before it was noted")
	}
	check(t, w.Note(s, first, Space{Shares: true, NewBytes: 5}))
	again, err := EntryOf(first).Load(t.Context(), s)
	check(t, err)
	if !wrote(first) || !wrote(again) {
		t.Error("it is not known again")
	}
	// The next takes what this one took, and an eighth of its size, if that is less than all of it.
	large := EntryOf(first)
	large.SizeBytes = 800
	if needs := w.NeedsBytes(s, large); needs != 5+100 {
		t.Errorf("%d bytes are needed", needs)
	}
	large.SizeBytes = 4
	if needs := w.NeedsBytes(s, large); needs != 4 {
		t.Errorf("%d bytes are needed", needs)
	}
	unknown := large
	unknown.ID.Time = night.Add(-time.Hour)
	for _, needs := range []int64{w.NeedsBytes(s, unknown), w.NeedsBytes(newStore(t), large), (*Written)(nil).NeedsBytes(s, large)} {
		if needs != large.SizeBytes {
			t.Errorf("%d bytes are needed of what is not known", needs)
		}
	}
	if !w.Shared(s, first) || w.Shared(newStore(t), first) {
		t.Error("whether it shared blocks is not known")
	}
	other, forged := first, first
	other.ID.Time = night.Add(time.Hour)
	forged.ManifestSum[0]++
	if wrote(other) || wrote(forged) || wrote(add(t, s, volume("w"), night)) {
		t.Error("another backup, manifest or source is taken for it")
	}
	if is, err := w.Wrote(newStore(t), first); is || err != nil {
		t.Errorf("on another store: %t, %v", is, err)
	}
	second := add(t, s, volume("v"), night.Add(time.Hour))
	check(t, w.Note(s, second, Space{}))
	if wrote(first) || !wrote(second) {
		t.Error("the last one is not the one that is known")
	}
	if needs := w.NeedsBytes(s, EntryOf(second)); needs != second.SizeBytes {
		t.Errorf("%d bytes are needed after one that did not share", needs)
	}
	if w.Shared(s, first) || (*Written)(nil).Shared(s, first) {
		t.Error("the last one did not share")
	}
	for _, text := range []string{"", "{", fmt.Sprintf("%8000d", 1)} {
		check(t, os.WriteFile(w.path(s, second.Host, second.Identity()), []byte(text), 0o600))
		if is, err := w.Wrote(s, second); is || err == nil {
			t.Errorf("a note %.10q: %t, %v", text, is, err)
		}
	}
	check(t, os.RemoveAll(w.dir))
	if wrote(second) {
		t.Error("it is known without a note")
	}
	if is, err := (*Written)(nil).Wrote(s, second); is || err != nil {
		t.Errorf("%t, %v", is, err)
	}
	check(t, (*Written)(nil).Note(s, second, Space{}))
}

// The folder does not grow for ever: the oldest notes go.
func TestNotesOfWhatWasWrittenAreBounded(t *testing.T) {
	s := newStore(t)
	w := NewWritten(t.TempDir())
	w.limits.files = 20
	left := filepath.Join(w.dir, ".x.json.voltar-tmp-1") // by a writer that died
	check(t, os.WriteFile(left, nil, 0o600))
	check(t, os.Chtimes(left, time.Unix(1, 0), time.Unix(1, 0)))
	for i := range 20 {
		name := filepath.Join(w.dir, fmt.Sprintf("%05d.json", i))
		check(t, os.WriteFile(name, nil, 0o600))
		check(t, os.Chtimes(name, time.Unix(int64(i), 0), time.Unix(int64(i), 0)))
	}
	b := add(t, s, volume("v"), night)
	check(t, w.Note(s, b, Space{}))
	entries, err := os.ReadDir(w.dir)
	check(t, err)
	if len(entries) != 18 || entries[0].Name() != "00003.json" {
		t.Errorf("%d notes, the first %s", len(entries), entries[0].Name())
	}
	if is, err := w.Wrote(s, b); !is || err != nil {
		t.Errorf("the last one: %t, %v", is, err)
	}
}
