// Package placementtest makes backups of a few bytes for tests of what is done with whole ones.
package placementtest

import (
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/store"
)

// Host is the host that the backups are of.
var Host = catalog.Host{Name: "volume-host", MachineID: "machine-1"}

// FirstNight is when the first backup was made.
var FirstNight = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// Make makes a backup of a volume in a store, in a night counted from the first.
func Make(t testing.TB, s store.Store, volume string, night int, edit func(*catalog.Manifest)) catalog.Backup {
	t.Helper()
	m := &catalog.Manifest{
		Format: catalog.Format, Voltar: "1.0.0", Status: catalog.StatusComplete, Host: Host, Run: "earlier",
		Source: catalog.Source{
			Kind: catalog.SourceVolume, VG: "vg", VGUUID: "vg-uuid", Name: volume, LVUUID: "uuid-" + volume, SizeBytes: 1 << 20,
		},
		Time: FirstNight.AddDate(0, 0, night),
	}
	m.Started, m.Ended = m.Time, m.Time.Add(time.Minute)
	name := catalog.NamesOf(m.Source.Ref(), false).Archive("")
	m.Extents = []catalog.Extent{{
		SizeBytes: m.Source.SizeBytes, State: catalog.StateFiles, Archive: name, Filesystem: &catalog.Filesystem{Type: "ext4"},
	}}
	texts := []string{strings.Repeat(volume, 1000), "sums"}
	m.Files = []catalog.File{fileOf(name, texts[0]), fileOf(volume+".checksum", texts[1])}
	if edit != nil {
		edit(m)
	}
	draft, err := catalog.Begin(t.Context(), s, Host.Name, m.ID(), "20261120T010001Z-3f9a0c", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		w, err := draft.Create(t.Context(), m.Files[i].Name, store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := draft.Commit(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fileOf(name, text string) catalog.File {
	sums := archive.NewSums()
	_, _ = sums.Write([]byte(text)) // never fails
	d := sums.Sum()
	return catalog.File{Name: name, SizeBytes: d.SizeBytes, SHA1: d.SHA1, SHA256: d.SHA256}
}
