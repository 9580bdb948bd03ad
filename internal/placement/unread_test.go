package placement

import (
	"path/filepath"
	"testing"

	"voltar/internal/catalog"
)

// What a backup says of a volume is believed without reading that only where this host wrote it last, of this very volume, in the run
// that was meant.
func TestBackupThatIsBelieved(t *testing.T) {
	s := newSite(t, "disk")
	backup := s.make(t, "disk", "v1", 1, nil)
	written := catalog.NewWritten(filepath.Join(s.dir, "written"))
	own := catalog.VolumeIdentity("vg-uuid", "uuid-v1")
	isOf := func(run string, volume catalog.Identity) bool {
		t.Helper()
		begun, end := s.begin()
		defer end()
		begun.Written = written
		targets, err := Open(t.Context(), begun, s.destinations)
		if err != nil {
			t.Fatal(err)
		}
		previous := &Previous{target: targets[0], entry: catalog.EntryOf(backup)}
		return previous.IsOf(t.Context(), run, volume)
	}
	if isOf("earlier", own) {
		t.Error("one that somebody else may have written is believed")
	}
	if err := written.Note(s.on("disk").Store, backup, catalog.Space{}); err != nil {
		t.Fatal(err)
	}
	if !isOf("earlier", own) {
		t.Error("the host's own is not believed")
	}
	if isOf("later", own) {
		t.Error("one of another run is believed")
	}
	if isOf("earlier", catalog.VolumeIdentity("vg-uuid", "uuid-v2")) { // as one that the volume was restored from
		t.Error("one of another volume is believed")
	}
	var none *Previous
	if none.IsOf(t.Context(), "earlier", own) {
		t.Error("none is believed")
	}
}
