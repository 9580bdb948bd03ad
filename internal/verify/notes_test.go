package verify

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/durable"
)

// A finding stands until a look that is as close finds nothing.
func TestNotesStandUntilALookAsCloseIsGood(t *testing.T) {
	type look struct {
		level Level
		what  string
	}
	const backup, bad, other = "/backups/h/vg/a/1", "p1.tar.gz: its sum is another", "p1.idx.gz: it is not there"
	for _, c := range []struct {
		name  string
		looks []look
		what  string
		level Level
	}{
		{name: "good", looks: []look{{Full, ""}}},
		{name: "found", looks: []look{{Sums, bad}}, what: bad, level: Sums},
		{name: "good before", looks: []look{{Full, ""}, {Quick, bad}}, what: bad, level: Quick},
		{name: "good since", looks: []look{{Sums, bad}, {Sums, ""}}},
		{name: "good in full since", looks: []look{{Sums, bad}, {Full, ""}}},
		{name: "quickly found, and quickly good", looks: []look{{Quick, bad}, {Quick, ""}}},
		{name: "looked at quickly since", looks: []look{{Sums, bad}, {Quick, ""}}, what: bad, level: Sums},
		{name: "another sample was good", looks: []look{{Sample, bad}, {Sample, ""}}, what: bad, level: Sample},
		{name: "sums are good since the sample", looks: []look{{Sample, bad}, {Sums, ""}}},
		{name: "a sample is good since a quick look", looks: []look{{Quick, bad}, {Sample, ""}}},
		{name: "what sums do not see", looks: []look{{Full, bad}, {Sums, ""}}, what: bad, level: Full},
		{name: "something else since", looks: []look{{Full, bad}, {Quick, other}, {Sums, ""}}, what: other, level: Full},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			notes := NewNotes(filepath.Join(dir, "damage"), durable.Host(nil))
			want := map[string]Note{}
			for i, l := range c.looks {
				note := Note{Backup: backup, Found: time.Date(2026, 11, 20, 1, i, 0, 0, time.UTC), Level: l.level, What: l.what}
				if err := notes.Enter(note); err != nil {
					t.Fatal(err)
				}
				if l.what == c.what && c.what != "" {
					note.Level = c.level
					want[backup] = note
				}
			}
			got, err := notes.All()
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v, (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestNotesThatCannotBeUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "damage")
	notes := NewNotes(dir, durable.Host(nil))
	enter := func(backup, what string) error {
		return notes.Enter(Note{Backup: backup, Found: time.Unix(1e9, 0), Level: Sums, What: what})
	}
	if err := errors.Join(enter("/b/1", "x"), enter("/b/2", "y"), enter("/b/3", "z")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(notes.path("/b/1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, spoilt := range []string{"", "{", string(text), strings.Replace(string(text), "sums", "best", 1)} {
		if err := os.WriteFile(notes.path("/b/2"), []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := notes.All()
		if len(all) != 2 || err == nil || !strings.Contains(err.Error(), notes.path("/b/2")) {
			t.Errorf("%q: %v, %v", spoilt, all, err)
		}
	}
	if err := enter("/b/2", "again"); err != nil {
		t.Error(err)
	}
	if all, err := notes.All(); err != nil || len(all) != 3 || all["/b/2"].What != "again" {
		t.Errorf("%v, %v", all, err)
	}
	if err := errors.Join(notes.Forget("/b/2"), notes.Forget("/b/2"), enter("/b/1", ""), enter("/b/3", "")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	full := NewNotes(dir, durable.Host(func(op durable.Op, _ string) error {
		if op == durable.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	if err := full.Enter(Note{Backup: "/b/1", What: "x"}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "/b/1") {
		t.Errorf("without room: %v", err)
	}
}
