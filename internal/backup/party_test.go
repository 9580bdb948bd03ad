package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/guestlvm"
	"voltar/lvm"
	"voltar/report"
)

// members are volumes of a unit as they are when they were looked at.
func members(t *testing.T, names ...string) map[string]*volumeRun {
	t.Helper()
	all := map[string]*volumeRun{}
	for _, name := range names {
		v := &volumeRun{volume: lvm.Volume{VG: "vg", Name: name}}
		v.reading, v.stop = context.WithCancelCause(t.Context())
		v.id = catalog.ID{Ref: v.ref(), Time: firstNight}
		all[name] = v
	}
	return all
}

func list(all map[string]*volumeRun, names string) (list []*volumeRun) {
	for _, name := range strings.Fields(names) {
		list = append(list, all[name])
	}
	return list
}

func TestParties(t *testing.T) {
	for _, test := range []struct {
		name  string
		spans []string // members, the home first
		want  string
	}{
		{"nothing shared", nil, "a|b|c|d|e"},
		{"one group", []string{"b d"}, "a|b d|c|e"},
		{"two groups on the same", []string{"a b", "a b"}, "a b|c|d|e"},
		{"a chain", []string{"c d", "b c", "d e"}, "a|b c d e"},
		{"joined by a later one", []string{"b d", "a b"}, "a b d|c|e"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := members(t, "a", "b", "c", "d", "e")
			var spans []*span
			for _, names := range test.spans {
				spans = append(spans, &span{members: list(all, names)})
			}
			var got []string
			spansOf := 0
			for _, p := range newParties(list(all, "a b c d e"), spans) {
				var names []string
				for _, v := range p.members {
					names = append(names, v.volume.Name)
				}
				got = append(got, strings.Join(names, " "))
				spansOf += len(p.spans)
				if p.left.Load() != int64(len(p.members)) {
					t.Errorf("%s waits for %d", names, p.left.Load())
				}
			}
			if strings.Join(got, "|") != test.want || spansOf != len(spans) {
				t.Errorf("parties %q with %d groups, want %s with %d", got, spansOf, test.want, len(spans))
			}
		})
	}
}

// A member whose snapshot is lost, or that is cancelled, stops those that read from its snapshot, and no others.
func TestMembersStopEachOther(t *testing.T) {
	for _, test := range []struct {
		name  string
		cause error
		stops bool
	}{
		{"an overflow", lvm.ErrSnapshotOverflow, true},
		{"cancelled by a person", errCancelled, true},
		{"the ordinary end", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := members(t, "a", "b", "c")
			newParties(list(all, "a b c"), []*span{{members: list(all, "a b")}})
			all["b"].stop(test.cause)
			if test.stops {
				<-all["a"].reading.Done()
			}
			cause := context.Cause(all["a"].reading)
			var partner *partnerError
			if test.stops != errors.As(cause, &partner) || test.stops && partner.volume != "vg/b" {
				t.Errorf("a ends with %v", cause)
			}
			if errors.Is(cause, errCancelled) {
				t.Error("a is called cancelled itself")
			}
			if all["c"].reading.Err() != nil {
				t.Error("c ends too")
			}
		})
	}
}

// What one member had read wrongly fails the others, before anything of them is published.
func TestPartiesPassTogether(t *testing.T) {
	all := members(t, "a", "b", "c")
	all["b"].failure = lvm.ErrSnapshotOverflow
	p := &party{members: list(all, "a b c")}
	p.pass(t.Context()) // which has nowhere to publish to
	for _, name := range []string{"a", "c"} {
		var partner *partnerError
		if err := all[name].failure; !errors.As(err, &partner) || partner.volume != "vg/b" || !errors.Is(err, lvm.ErrSnapshotOverflow) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that had been read whole before it was cancelled is cancelled all the same.
	all = members(t, "a", "b")
	all["b"].stop(errCancelled)
	p = &party{members: list(all, "a b")}
	p.pass(t.Context())
	if !errors.Is(all["b"].failure, errCancelled) || errors.Is(all["a"].failure, errCancelled) || all["a"].failure == nil {
		t.Errorf("a: %v, b: %v", all["a"].failure, all["b"].failure)
	}
	// Whoever waits for it comes first, and all are told how they are backed up.
	if order := p.inOrderOfEnd(); order[0] != all["b"] || order[1] != all["a"] {
		t.Errorf("%s ends before %s", order[0].name(), order[1].name())
	}
	all["a"].party, all["b"].party = p, p
	for name, want := range map[string]string{"a": "`voltar run vg/a vg/b` backs them up together", "b": "`voltar run vg/b vg/a` backs them up together"} {
		if got := all[name].explainFailure(); got.Hint != want || !strings.Contains(got.Message, "cancelled by a person") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	all["b"].party = nil
	if got := all["b"].explainFailure(); got.Hint != "`voltar run vg/b` backs it up" {
		t.Errorf("alone: %+v", got)
	}
}

// Before the snapshots stand, a group fails as a whole for one that is cancelled, and says which that was.
func TestGroupFailsForOneThatIsCancelled(t *testing.T) {
	all := members(t, "a", "b")
	all["b"].fail(errCancelled)
	(&run{Engine: &Engine{}}).failTogether(unit{group: "g", members: list(all, "a b")})
	if err := all["a"].failure; err == nil || errors.Is(err, errCancelled) || !strings.Contains(err.Error(), "vg/b failed: cancelled by a person") {
		t.Errorf("a: %v", err)
	}
	if !errors.Is(all["b"].failure, errCancelled) {
		t.Errorf("b: %v", all["b"].failure)
	}
}

// When a member has failed, which may hold a clone of another's disk, nothing of the rest is read together.
func TestNothingIsReadTogetherBesideAFailure(t *testing.T) {
	blank := filepath.Join(t.TempDir(), "blank")
	if err := os.WriteFile(blank, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		failure error
		says    string
	}{
		{"all are there", nil, "a physical volume of the guest: "},
		{"one failed", lvm.ErrSnapshotOverflow, "its own reason; the volumes of group g are not looked at together, as vg/c failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := members(t, "a", "b", "c")
			for _, v := range all {
				v.snapshot.DMPath = blank
				x := &extent{Extent: catalog.Extent{SizeBytes: 1 << 20}, image: "its own reason"}
				x.found.Type = typePV
				v.layout = &layout{extents: []*extent{x}}
			}
			all["c"].failure = test.failure
			spans, err := unit{group: "g", members: list(all, "a b c")}.findSpans()
			if err != nil || len(spans) > 0 {
				t.Fatalf("%d groups, %v", len(spans), err)
			}
			for _, name := range []string{"a", "b"} {
				if got := all[name].layout.extents[0].image; !strings.HasPrefix(got, test.says) {
					t.Errorf("%s is an image because %q, want %q", name, got, test.says)
				}
			}
		})
	}
}

// A backup that would be half of something is not published on a destination.
func TestDestinationsAreAgreedOn(t *testing.T) {
	all := members(t, "a", "b")
	for _, v := range all {
		v.out.branches = []*branch{{target: &target{Destination: Destination{Name: "disk"}}}, {target: &target{Destination: Destination{Name: "s3"}}}}
	}
	p := &party{members: list(all, "a b")}
	all["b"].out.branches[1].drop(errors.New("no route"))
	p.agree(0)
	if err := all["a"].out.branches[1].failure(); err == nil || !strings.Contains(err.Error(), "vg/b, which failed: no route") {
		t.Errorf("a on s3: %v", err)
	}
	if len(all["a"].out.alive()) != 1 || len(all["b"].out.alive()) != 1 {
		t.Error("the other destination dropped out too")
	}
	// Once a stands, it is not dropped for what befalls b.
	all["a"].out.branches[0].stands = true
	all["b"].out.branches[0].drop(errors.New("full"))
	p.agree(1)
	if all["a"].out.branches[0].failure() != nil || all["b"].out.failure() == nil {
		t.Error("what stands was dropped")
	}
	// Where it is the only one, nothing is published.
	all = members(t, "a", "b")
	for _, v := range all {
		v.out.branches = []*branch{{target: &target{Destination: Destination{Name: "disk"}}}}
	}
	all["b"].out.branches[0].drop(errors.New("full"))
	(&party{members: list(all, "a b")}).pass(t.Context()) // which has nowhere to publish to
	if err := all["a"].failure; err == nil || !strings.Contains(err.Error(), "vg/b, which failed: full") {
		t.Errorf("a: %v", err)
	}
}

// sharedGroup is a volume group of extents of 1 MiB on three physical volumes, the first of them on b.
func sharedGroup(all map[string]*volumeRun) (guestlvm.VG, []placedPV) {
	pv := func(v *volumeRun, offset int64) placedPV {
		return placedPV{&extent{Extent: catalog.Extent{OffsetBytes: offset, SizeBytes: 64 << 20}}, v}
	}
	pvs := []placedPV{pv(all["a"], 1<<20), pv(all["b"], 0), pv(all["c"], 5<<20)}
	vg := guestlvm.VG{Name: "guest", UUID: "g", PVs: []guestlvm.PV{{Disk: 1, UUID: "on-b", StartBytes: 1 << 20}, {Disk: 0, UUID: "on-a", StartBytes: 1 << 20},
		{Disk: 2, UUID: "on-c", StartBytes: 1 << 20}}}
	for _, p := range vg.PVs {
		pvs[p.Disk].pv = &guestPV{GuestPV: catalog.GuestPV{UUID: p.UUID, VG: vg.Name, VGUUID: vg.UUID, HeadBytes: 1 << 20}}
	}
	return vg, pvs
}

func TestGuestExtentAcrossVolumes(t *testing.T) {
	all := members(t, "a", "b", "c")
	vg, pvs := sharedGroup(all)
	area := func(pv int, mib int64) guestlvm.Area { return guestlvm.Area{PV: pv, OffsetBytes: mib << 20} }
	x := all["a"].guestExtent(vg, guestlvm.LV{Name: "root", SizeBytes: 16 << 20, Segments: []guestlvm.Segment{
		{SizeBytes: 4 << 20, Areas: []guestlvm.Area{area(1, 1)}},
		{SizeBytes: 4 << 20, Areas: []guestlvm.Area{area(0, 6)}}, // goes on at the same offset, on another volume
		{SizeBytes: 8 << 20, StripeBytes: 64 << 10, Areas: []guestlvm.Area{area(0, 30), area(2, 1)}},
	}}, pvs)
	want := []catalog.GuestSegment{
		{SizeBytes: 4 << 20, Offsets: []int64{2 << 20}},
		{SizeBytes: 4 << 20, Offsets: []int64{6 << 20}, On: []int{1}},
		{SizeBytes: 8 << 20, StripeBytes: 64 << 10, Offsets: []int64{30 << 20, 6 << 20}, On: []int{1, 2}},
	}
	if got := x.LV.Segments; !reflect.DeepEqual(got, want) {
		t.Errorf("segments %+v, want %+v", got, want)
	}
	if !x.inPieces() || x.LV.OwnBytes() != 4<<20 || pvs[1].pv.lentBytes != 8<<20 || pvs[2].pv.lentBytes != 4<<20 || pvs[0].pv.lentBytes != 0 {
		t.Errorf("own %d, lent by b %d, by c %d", x.LV.OwnBytes(), pvs[1].pv.lentBytes, pvs[2].pv.lentBytes)
	}
	for name, v := range all {
		v.snapshot.DMPath = "/dev/mapper/" + name
	}
	all["a"].run = &run{id: "r"}
	var devices []string
	for _, s := range all["a"].guestTarget(x).Segments {
		for _, source := range s.Sources {
			devices = append(devices, source.Device[len("/dev/mapper/"):])
		}
	}
	if got := strings.Join(devices, ""); got != "abbc" {
		t.Errorf("mapped from %s", got)
	}

	s := newSpan(unit{members: list(all, "a b c")}, vg, pvs)
	s.lvs = []*extent{x}
	s.nameBackups()
	if s.home() != all["a"] || pvs[0].pv.Home != "" || len(pvs[0].pv.Others) != 2 || x.LV.Others[0] != idOf("b", 0) || x.LV.Others[1] != idOf("c", 0) {
		t.Errorf("home %s: %+v, volume on %q", s.home().name(), pvs[0].pv.GuestPV, x.LV.Others)
	}
	for _, pv := range pvs[1:] {
		if pv.pv.Home != idOf("a", 0) || len(pv.pv.Others) > 0 || !strings.Contains(pv.Reason, "in the backup "+idOf("a", 0)) {
			t.Errorf("%s: %+v %q", pv.volume.name(), pv.pv.GuestPV, pv.Reason)
		}
	}
	// All of it is in the ledgers once.
	x.State, x.UsedBytes, x.ExcludedBytes = catalog.StateFiles, 9<<20, 1<<20
	sum := func(l report.Ledger) int64 {
		return l.FilesBytes + l.ImageBytes + l.FreeBytes + l.ExcludedBytes + l.FailedBytes + l.ElsewhereBytes
	}
	for i, extents := range [][]*extent{{pvs[0].extent, x}, {pvs[1].extent}, {pvs[2].extent}} {
		extents[0].State, extents[0].PV = catalog.StateLVM, &extents[0].pv.GuestPV
		var l report.Ledger
		for _, x := range extents {
			addToLedger(&l, x)
		}
		if sum(l) != 64<<20 || l.FreeBytes < 0 || l.ElsewhereBytes != extents[0].pv.lentBytes {
			t.Errorf("ledger %d: %+v", i, l)
		}
	}
}
