package backup

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
func (v *volumeRun) surveyGuestLVM(ctx context.Context, device *os.File, l *layout) error {
	var pvs []*extent
	var disks []guestlvm.Disk
	for _, x := range l.extents {
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
		if p.Lacking && v.settings.Group == "" {
			pvs[p.Disk].image += adviceGroup
		}
	}
	for _, vg := range vgs {
		if err := v.addGuestVG(ctx, device, l, vg, pvs); err != nil {
			return fmt.Errorf("volume group %s of the guest: %w", vg.Name, err)
		}
	}
	return nil
}

// adviceGroup ends the reason for the image of a physical volume whose group lies on other volumes too.
const adviceGroup = "; images of all its volumes fit together only when a [[group]] takes them at one moment"

// addGuestVG makes extents of a volume group: its logical volumes become part of the volume's layout. device is the
// volume's snapshot.
func (v *volumeRun) addGuestVG(ctx context.Context, device *os.File, l *layout, vg guestlvm.VG, pvs []*extent) error {
	var own []*extent
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
	var list []*extent
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
		if err := v.probeGuest(ctx, device, x); err != nil {
			return err
		}
	}
	at := 1 + slices.IndexFunc(l.extents, func(x *extent) bool { return x == last })
	l.extents = slices.Insert(l.extents, at, list...)
	return nil
}

// partName names a part of a physical volume: p2.lv1, or lv1 where that is the whole volume.
func partName(pv *extent, part string) string {
	if pv.Name == "" {
		return part
	}
	return pv.Name + "." + part
}

// guestExtent is a logical volume of the guest, with its place on the host's volume.
func guestExtent(vg guestlvm.VG, lv guestlvm.LV, pvs []*extent) *extent {
	guest := &catalog.GuestLV{VG: vg.Name, VGUUID: vg.UUID, Name: lv.Name, UUID: lv.UUID}
	for _, s := range lv.Segments {
		segment := catalog.GuestSegment{SizeBytes: s.SizeBytes, StripeBytes: s.StripeBytes}
		for _, a := range s.Areas {
			segment.Offsets = append(segment.Offsets, pvs[vg.PVs[a.PV].Disk].OffsetBytes+a.OffsetBytes)
		}
		guest.Segments = addSegment(guest.Segments, segment)
	}
	return &extent{Extent: catalog.Extent{SizeBytes: lv.SizeBytes, OffsetBytes: guest.Segments[0].Offsets[0], LV: guest}}
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
func (x *extent) inPieces() bool {
	return x.LV != nil && (len(x.LV.Segments) > 1 || len(x.LV.Segments[0].Offsets) > 1)
}

// guestTarget is the map of a logical volume of the guest. Its name says nothing of the guest's, which another guest may
// have too, and its UUID keeps the host's LVM from it.
func (v *volumeRun) guestTarget(x *extent) partmap.Target {
	target := partmap.Target{
		Name: fmt.Sprintf("voltar-%s-%.8s-%s", v.run.id, v.volume.UUID, x.Name),
		UUID: fmt.Sprintf("%s%s-%s", owned.MapUUIDPrefix(v.run.id), v.volume.UUID, x.Name),
	}
	for _, s := range x.LV.Segments {
		segment := partmap.Segment{SizeBytes: s.SizeBytes, StripeBytes: s.StripeBytes}
		for _, offset := range s.Offsets {
			segment.Sources = append(segment.Sources, partmap.Source{Device: v.snapshot.DMPath, OffsetBytes: offset})
		}
		target.Segments = append(target.Segments, segment)
	}
	return target
}

// probeGuest finds out what a logical volume of the guest holds.
func (v *volumeRun) probeGuest(ctx context.Context, device *os.File, x *extent) (err error) {
	if !x.inPieces() {
		return v.probe(ctx, device, x.OffsetBytes, x)
	}
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()
	// libblkid passes over maps whose UUID has the form that LVM gives its internal devices, LVM-ID-NAME. For those that are
	// mounted that is well, as udev's rules ask it; this one is here to be looked at.
	target := v.guestTarget(x)
	target.UUID = "LVM-" + strings.ReplaceAll(strings.TrimPrefix(target.UUID, "LVM-"), "-", ".")
	mapped, err := v.makeMap(ctx, target, &held)
	if err != nil {
		return fmt.Errorf("map %s: %w", x.label(), err)
	}
	file, err := os.Open(mapped.Path)
	if err != nil {
		return err
	}
	held.Push(func(context.Context) error { return file.Close() })
	return v.probe(ctx, file, 0, x)
}

// locate returns the device that an extent can be read from and where on it the extent begins. One that is in pieces is
// mapped for that, unless it is already.
func (v *volumeRun) locate(ctx context.Context, x *extent, held *owned.Stack) (device string, offsetBytes int64, err error) {
	if !x.inPieces() {
		return v.snapshot.DMPath, x.OffsetBytes, nil
	}
	if x.mapped == "" {
		mapped, err := v.mapExtent(ctx, x, held)
		if err != nil {
			return "", 0, fmt.Errorf("map %s: %w", x.label(), err)
		}
		return mapped.Path, 0, nil
	}
	return x.mapped, 0, nil
}

// noteMap remembers the map of an extent for as long as it stands.
func (x *extent) noteMap(device string, held *owned.Stack) {
	x.mapped = device
	held.Push(func(context.Context) error { x.mapped = ""; return nil })
}

// storePV stores a physical volume of the guest without its extents: label and metadata, so that copying them back brings
// back the volume group and its logical volumes with their names and UUIDs.
func (v *volumeRun) storePV(ctx context.Context, x *extent) error {
	x.Archive = v.names.Image(partName(x, "pv"))
	file, stats, err := v.writeImage(ctx, x, imageRange{x.Archive, 0, x.pv.HeadBytes, false})
	if err != nil {
		return fmt.Errorf("head of %s: %w", x.label(), err)
	}
	x.noteImage(stats)
	v.stored[x.Name] = file.SizeBytes
	if x.pv.TailBytes > 0 {
		x.pv.Tail = v.names.Image(partName(x, "pvtail"))
		file, stats, err := v.writeImage(ctx, x, imageRange{x.pv.Tail, x.pv.tailOffset, x.pv.TailBytes, false})
		if err != nil {
			return fmt.Errorf("tail of %s: %w", x.label(), err)
		}
		x.noteImage(stats)
		v.stored[x.Name] += file.SizeBytes
	}
	x.State, x.PV = catalog.StateLVM, &x.pv.GuestPV
	x.Reason = fmt.Sprintf("a physical volume of the guest's volume group %s: its logical volumes follow", x.pv.VG)
	return nil
}
