package restore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/lvm"
)

const (
	homeID = "host/disk1@2026-11-20T010001Z"
	outID  = "host/disk2@2026-11-20T010003Z"
)

// planOf plans to restore a backup of one whole physical volume.
func planOf(id string, pv catalog.GuestPV, req Request) *planner {
	parsed, _ := catalog.ParseID(id)
	pv.VG, pv.VGUUID = "guest", "g"
	m := &catalog.Manifest{
		Source:  catalog.Source{Kind: catalog.SourceVolume, VG: parsed.Ref.VG, Name: parsed.Ref.Name, SizeBytes: 64 << 20},
		Extents: []catalog.Extent{{SizeBytes: 64 << 20, State: catalog.StateLVM, PV: &pv}},
	}
	return &planner{req: req, m: m, plan: &Plan{Backup: id}}
}

// Whoever restores the first of two is told the command that restores the second.
func TestCommandForWhatIsAwaited(t *testing.T) {
	for _, test := range []struct {
		name   string
		target Target
		again  string
		want   string
	}{
		{"its own name", Target{Kind: ToVolume, VG: "host", LV: "disk2"}, "", "voltar restore " + homeID + " --beside host/disk2"},
		{"another name", Target{Kind: ToVolume, VG: "new", LV: "two"}, "--from s3", "voltar restore " + homeID + " --beside host/disk2=new/two --from s3"},
		{"a device", Target{Kind: ToDevice, Path: "/dev/sdz"}, "", "voltar restore " + homeID + " --beside host/disk2=/dev/sdz --force"},
		{"an image", Target{Kind: ToImage, Path: "/srv/two.img"}, "", "voltar restore " + homeID + " --beside host/disk2=/dev/loopN --force"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := planOf(outID, catalog.GuestPV{Home: homeID}, Request{Target: test.target, Again: test.again})
			p.noteAwaited(&place{what: "volume x"})
			if len(p.plan.awaits) != 1 || p.plan.awaits[0].Command != test.want || p.plan.awaits[0].Home != homeID {
				t.Fatalf("%+v", p.plan.awaits)
			}
			notes := strings.Join(p.plan.Notes, "\n")
			if !strings.Contains(notes, test.want) || strings.Contains(notes, "/srv/two.img.incomplete") != (test.target.Kind == ToImage) {
				t.Errorf("notes: %s", notes)
			}
		})
	}
	// What is not restored awaits nothing.
	p := planOf(outID, catalog.GuestPV{Home: homeID}, Request{Partitions: []string{"p1"}})
	p.m.Extents[0].Name, p.m.Extents[0].Number = "p2", 2
	if got := p.awaited(); got != nil {
		t.Errorf("awaits %+v", got)
	}
}

func TestRestoreAsksForWhatLiesBeside(t *testing.T) {
	share := catalog.OtherShare{Backup: outID, PVs: []catalog.PVPlace{{UUID: "b", SizeBytes: 1 << 20}}}
	p := planOf(homeID, catalog.GuestPV{Others: []catalog.OtherShare{share}}, Request{Again: "--from s3"})
	_, err := p.findBeside(t.Context(), &place{})
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "`voltar restore "+outID+" --from s3`") ||
		!strings.Contains(err.Error(), "`voltar restore "+homeID+" --beside host/disk2 --from s3`") {
		t.Errorf("without --beside: %v", err)
	}
	p = planOf(homeID, catalog.GuestPV{}, Request{Beside: []Beside{{Volume: catalog.VolumeRef("host", "disk2")}}})
	if _, err := p.findBeside(t.Context(), &place{}); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "nothing that is restored lies there") {
		t.Errorf("with one that is not needed: %v", err)
	}
	p = planOf(homeID, catalog.GuestPV{Others: []catalog.OtherShare{share}}, Request{
		Target: Target{Kind: ToFolder, Path: t.TempDir()}, Beside: []Beside{{Volume: catalog.VolumeRef("host", "disk2")}},
	})
	if err := p.planFolder(); !errors.Is(err, ErrUsage) {
		t.Errorf("into a folder: %v", err)
	}
}

// What would never come back whole is refused with what there is instead, unless what is left of it is wanted.
func TestRestoreOfAHalf(t *testing.T) {
	const older = "host/disk2@2026-11-19T010003Z"
	p := planOf(outID, catalog.GuestPV{Home: homeID}, Request{Lacks: map[string]string{homeID: "is missing"}, Older: older, Again: "--from s3"})
	if err := p.checkHomes(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), homeID+", which is missing") ||
		!strings.Contains(err.Error(), "`voltar restore "+older+" --from s3`, or give --keep-going") {
		t.Errorf("the home is missing: %v", err)
	}
	p.req.KeepGoing = true
	if err := p.checkHomes(); err != nil || len(p.plan.Losses) != 1 || !strings.Contains(p.plan.Losses[0], "group guest: the backup "+homeID+" is missing") || len(p.awaited()) > 0 {
		t.Errorf("what is left: %v, lost %q, awaits %+v", err, p.plan.Losses, p.awaited())
	}
	p = planOf(outID, catalog.GuestPV{Home: homeID}, Request{Partitions: []string{"p1"}, Lacks: map[string]string{homeID: "is missing"}})
	p.m.Extents[0].Name, p.m.Extents[0].Number = "p2", 2
	if err := p.checkHomes(); err != nil {
		t.Errorf("another partition: %v", err)
	}

	share := catalog.OtherShare{Backup: outID, PVs: []catalog.PVPlace{{UUID: "b", SizeBytes: 1 << 20}}}
	p = planOf(homeID, catalog.GuestPV{Others: []catalog.OtherShare{share}}, Request{Lacks: map[string]string{outID: "is missing"}})
	_, err := p.findBeside(t.Context(), &place{})
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), outID+", which has the part there, is missing") ||
		!strings.Contains(err.Error(), "no older backup of it") || !strings.Contains(err.Error(), "--to-dir") || strings.Contains(err.Error(), "first `voltar restore") {
		t.Errorf("the other is missing: %v", err)
	}
}

// A volume takes the logical volumes of the moment that it was brought back from, and of no other.
func TestVolumesAwaitOneMoment(t *testing.T) {
	for _, test := range []struct {
		name                  string
		tags                  string
		awaits, marked, other bool
	}{
		{"nothing", "", false, false, false},
		{"whole, with tags of its own", "web voltar.group=guest", false, false, false},
		{"waits for this", "voltar.incomplete voltar.awaits.g.2026-11-20T010001Z", true, true, false},
		{"waits for an older one", "voltar.incomplete voltar.awaits.g.2026-11-19T010001Z", false, true, true},
		{"for another volume group too", "voltar.incomplete voltar.awaits.g.2026-11-20T010001Z voltar.awaits.h.2026-11-19T010001Z", true, true, false},
		{"for another volume group alone", "voltar.incomplete voltar.awaits.h.2026-11-19T010001Z", false, true, false},
		{"interrupted", "voltar.incomplete", false, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := besidePlace{tags: []string{awaitTag("g", homeID)}}
			b.look(strings.Fields(test.tags))
			if b.awaits != test.awaits || b.marked != test.marked || b.other != test.other {
				t.Errorf("awaits %v, marked %v, other %v", b.awaits, b.marked, b.other)
			}
		})
	}
	if err := lvm.ValidTag(awaitTag("abcdef-0123-4567-89ab-cdef-0123-456789", homeID)); err != nil {
		t.Error(err)
	}
}

// Nothing is written beside the target where the physical volume is not that of the backup.
func TestBesideHoldsThePhysicalVolume(t *testing.T) {
	blank := filepath.Join(t.TempDir(), "blank")
	if err := os.WriteFile(blank, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		pv   catalog.PVPlace
		says string
	}{
		{"nothing is there", catalog.PVPlace{UUID: "b", SizeBytes: 1 << 20}, "does not hold the guest's physical volume b at byte 0"},
		{"it is too small", catalog.PVPlace{UUID: "b", OffsetBytes: 1, SizeBytes: 1 << 20}, "has 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := besidePlace{backup: outID, what: "device x", device: blank, pvs: []catalog.PVPlace{test.pv}}
			if err := b.check(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
}

// Zeros are written to what lies beside a target that is all zeros: it need not be.
func TestBlankTargetsEndAtTheirEdge(t *testing.T) {
	w := &work{zeros: true, device: "/dev/one", beside: map[string]string{outID: "/dev/two"}}
	lv := &catalog.GuestLV{Segments: []catalog.GuestSegment{{SizeBytes: 1 << 20, Offsets: []int64{0}}}}
	across := &catalog.GuestLV{Others: []string{outID}, Segments: []catalog.GuestSegment{{SizeBytes: 2 << 20, StripeBytes: 4096, Offsets: []int64{512, 1024}, On: []int{0, 1}}}}
	if !w.blank(piece{}) || !w.blank(piece{Extent: catalog.Extent{LV: lv}}) || w.blank(piece{Extent: catalog.Extent{LV: across}}) {
		t.Error("what is blank is told wrongly")
	}
	sources := w.guestSegments(across)[0].Sources
	if sources[0].Device != "/dev/one" || sources[0].OffsetBytes != 512 || sources[1].Device != "/dev/two" || sources[1].OffsetBytes != 1024 {
		t.Errorf("%+v", sources)
	}
}
