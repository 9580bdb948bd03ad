package backup

import (
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/quiesce"
	"voltar/lvm"
)

// Nothing that is on the host or in the configuration is forgotten, whether a run takes it or has one of its own.
func TestPresentIsWhatIsThereAndConfigured(t *testing.T) {
	named := func(name string) []Dump { return []Dump{{Dump: quiesce.Dump{Name: name}}} }
	s := newCopySite(t, "disk")
	s.opts.Sources = Sources{Dumps: named("dump"), Streams: named("stream"), Directories: []Directory{{Name: "tree", Path: "/tree"}}}
	p := s.present(lvm.Inventory{
		VGs:     []lvm.VG{{Name: "vg", UUID: "whole"}, {Name: "half", UUID: "half", Partial: true}},
		Volumes: []lvm.Volume{{VG: "vg", VGUUID: "whole", Name: "v", UUID: "v-uuid"}},
	})
	for _, source := range []catalog.Source{
		{Kind: catalog.SourceDump, Name: "dump"}, {Kind: catalog.SourceStream, Name: "stream"}, {Kind: catalog.SourceDirectory, Name: "tree"},
	} {
		if !p.Configured[source.Identity()] {
			t.Errorf("%s is configured", source.Ref())
		}
	}
	if len(p.Configured) != 3 || p.Volumes[catalog.VolumeIdentity("whole", "v-uuid")] != "vg/v" || !p.Groups["whole"] || p.Groups["half"] {
		t.Errorf("%+v", p)
	}
	if p := s.present(lvm.Inventory{VGs: []lvm.VG{{UUID: "whole"}}, Warnings: "a disk is missing"}); p.Groups["whole"] {
		t.Error("a group is whole although lvm2 warns")
	}
}
