package extent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/guestlvm"
	"voltar/internal/owned"
	"voltar/partmap"
)

// typePV is blkid's word for a physical volume of LVM.
const typePV = "LVM2_member"

// guestPV is what is stored of a physical volume of the guest itself: all but its extents.
type guestPV struct {
	catalog.GuestPV
	tailOffset int64 // within the extent
}

// surveyGuestLVM looks into the guest's physical volumes. Those whose volume group is all on this volume become head and
// logical volumes, each an extent of its own behind the last of its physical volumes; others stay images.
func (r *Reader) surveyGuestLVM(ctx context.Context, device *os.File, l *Layout) error {
	var pvs []*Extent
	var disks []guestlvm.Disk
	for _, x := range l.Extents {
		if x.found.Type == typePV && x.State == "" {
			pvs = append(pvs, x)
			disks = append(disks, guestlvm.Disk{Reader: io.NewSectionReader(device, x.OffsetBytes, x.SizeBytes), SizeBytes: x.SizeBytes})
		}
	}
	if len(pvs) == 0 {
		return nil
	}
	vgs, problems := guestlvm.Read(disks)
	for _, p := range problems {
		pvs[p.Disk].image = "a physical volume of the guest: " + p.Reason
		if p.Lacking && !r.Grouped {
			pvs[p.Disk].image += adviceGroup
		}
	}
	for _, vg := range vgs {
		if err := r.addGuestVG(ctx, device, l, vg, pvs); err != nil {
			return fmt.Errorf("volume group %s of the guest: %w", vg.Name, err)
		}
	}
	return nil
}

// adviceGroup ends the reason for the image of a physical volume whose group lies on other volumes too.
const adviceGroup = "; images of all its volumes fit together only when a [[group]] takes them at one moment"

// addGuestVG makes extents of a volume group: its logical volumes become part of the volume's layout. device is the
// volume's snapshot.
func (r *Reader) addGuestVG(ctx context.Context, device *os.File, l *Layout, vg guestlvm.VG, pvs []*Extent) error {
	var own []*Extent
	for _, pv := range vg.PVs {
		x := pvs[pv.Disk]
		x.image = ""
		x.pv = &guestPV{GuestPV: catalog.GuestPV{UUID: pv.UUID, VG: vg.Name, VGUUID: vg.UUID, HeadBytes: pv.StartBytes}}
		if pv.HasTail {
			x.pv.tailOffset, x.pv.TailBytes = pv.EndBytes, x.SizeBytes-pv.EndBytes
		}
		own = append(own, x)
	}
	first, last := own[0], own[len(own)-1]
	var list []*Extent
	for i, lv := range vg.LVs {
		x := guestExtent(vg, lv, pvs)
		x.Name = partName(first, fmt.Sprintf("lv%d", i+1))
		list = append(list, x)
		switch {
		case lv.PartOf != "":
			x.image = "a part of the guest's logical volume " + lv.PartOf
			continue
		case !lv.Visible:
			x.image = "hidden by the guest's LVM"
			continue
		}
		if err := r.probeGuest(ctx, device, x); err != nil {
			return err
		}
	}
	at := 1 + slices.IndexFunc(l.Extents, func(x *Extent) bool { return x == last })
	l.Extents = slices.Insert(l.Extents, at, list...)
	return nil
}

// partName names a part of a physical volume: p2.lv1, or lv1 where that is the whole volume.
func partName(pv *Extent, part string) string {
	if pv.Name == "" {
		return part
	}
	return pv.Name + "." + part
}

// guestExtent is a logical volume of the guest, with its place on the host's volume.
func guestExtent(vg guestlvm.VG, lv guestlvm.LV, pvs []*Extent) *Extent {
	guest := &catalog.GuestLV{VG: vg.Name, VGUUID: vg.UUID, Name: lv.Name, UUID: lv.UUID}
	for _, s := range lv.Segments {
		segment := catalog.GuestSegment{SizeBytes: s.SizeBytes, StripeBytes: s.StripeBytes}
		for _, a := range s.Areas {
			segment.Offsets = append(segment.Offsets, pvs[vg.PVs[a.PV].Disk].OffsetBytes+a.OffsetBytes)
		}
		guest.Segments = addSegment(guest.Segments, segment)
	}
	return &Extent{Extent: catalog.Extent{SizeBytes: lv.SizeBytes, OffsetBytes: guest.Segments[0].Offsets[0], LV: guest}}
}

// addSegment adds a segment to a list, or lengthens the last one where it goes on there.
func addSegment(list []catalog.GuestSegment, s catalog.GuestSegment) []catalog.GuestSegment {
	if n := len(list); n > 0 && len(s.Offsets) == 1 && len(list[n-1].Offsets) == 1 &&
		list[n-1].Offsets[0]+list[n-1].SizeBytes == s.Offsets[0] {
		list[n-1].SizeBytes += s.SizeBytes
		return list
	}
	return append(list, s)
}

// inPieces tells whether an extent can only be read through a map.
func (x *Extent) inPieces() bool {
	return x.LV != nil && (len(x.LV.Segments) > 1 || len(x.LV.Segments[0].Offsets) > 1)
}

// guestTarget is the map of a logical volume of the guest. Its name says nothing of the guest's, which another guest may
// have too, and its UUID keeps the host's LVM from it.
func (r *Reader) guestTarget(x *Extent) partmap.Target {
	target := partmap.Target{
		Name: fmt.Sprintf("voltar-%s-%.8s-%s", r.Run, r.Volume.UUID, x.Name),
		UUID: fmt.Sprintf("%s%s-%s", owned.MapUUIDPrefix(r.Run), r.Volume.UUID, x.Name),
	}
	for _, s := range x.LV.Segments {
		segment := partmap.Segment{SizeBytes: s.SizeBytes, StripeBytes: s.StripeBytes}
		for _, offset := range s.Offsets {
			segment.Sources = append(segment.Sources, partmap.Source{Device: r.Snapshot.DMPath, OffsetBytes: offset})
		}
		target.Segments = append(target.Segments, segment)
	}
	return target
}

// probeGuest finds out what a logical volume of the guest holds.
func (r *Reader) probeGuest(ctx context.Context, device *os.File, x *Extent) (err error) {
	if !x.inPieces() {
		return r.probe(ctx, device, x.OffsetBytes, x)
	}
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()
	// libblkid passes over maps whose UUID has the form that LVM gives its internal devices, LVM-ID-NAME. For those that are
	// mounted that is well, as udev's rules ask it; this one is here to be looked at.
	target := r.guestTarget(x)
	target.UUID = "LVM-" + strings.ReplaceAll(strings.TrimPrefix(target.UUID, "LVM-"), "-", ".")
	mapped, err := r.makeMap(ctx, target, &held)
	if err != nil {
		return fmt.Errorf("map %s: %w", x.Label(), err)
	}
	file, err := os.Open(mapped.Path)
	if err != nil {
		return err
	}
	held.Push(func(context.Context) error { return file.Close() })
	return r.probe(ctx, file, 0, x)
}

// locate returns the device that an extent can be read from and where on it the extent begins. One that is in pieces is
// mapped for that, unless it is already.
func (r *Reader) locate(ctx context.Context, x *Extent, held *owned.Stack) (device string, offsetBytes int64, err error) {
	if !x.inPieces() {
		return r.Snapshot.DMPath, x.OffsetBytes, nil
	}
	if x.mapped == "" {
		mapped, err := r.mapExtent(ctx, x, held)
		if err != nil {
			return "", 0, fmt.Errorf("map %s: %w", x.Label(), err)
		}
		return mapped.Path, 0, nil
	}
	return x.mapped, 0, nil
}

// noteMap remembers the map of an extent for as long as it stands.
func (x *Extent) noteMap(device string, held *owned.Stack) {
	x.mapped = device
	held.Push(func(context.Context) error { x.mapped = ""; return nil })
}
