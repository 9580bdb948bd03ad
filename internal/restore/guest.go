package restore

import (
	"fmt"
	"slices"

	"voltar/internal/btrfs"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/partmap"
)

// Logical volumes of a guest's own LVM. The head of each of its physical volumes is copied back, which brings the volume
// group with all names and UUIDs; its logical volumes are then mapped by the segments in the manifest and filled.

// checkGroups refuses to restore a part of a guest's volume group: its physical volumes describe each other.
func (p *planner) checkGroups() error {
	for _, x := range p.m.Extents {
		if x.PV != nil && p.wanted(x) && !p.wantsGroup(x.PV.VGUUID) {
			return say.WithHint(fmt.Errorf("%w: %q holds a part of the guest's volume group %s", ErrUsage, x.Name, x.PV.VG),
				"name all partitions of the group: "+inWords(p.groupNames(x.PV.VGUUID)))
		}
	}
	return nil
}

// groupNames are the extents that hold a volume group.
func (p *planner) groupNames(vgUUID string) []string {
	var names []string
	for _, x := range p.m.Extents {
		if x.PV != nil && x.PV.VGUUID == vgUUID {
			names = append(names, x.Name)
		}
	}
	return names
}

// wantsGroup tells whether all of a volume group is to be restored.
func (p *planner) wantsGroup(vgUUID string) bool {
	return len(p.req.Partitions) == 0 ||
		!slices.ContainsFunc(p.groupNames(vgUUID), func(name string) bool { return !slices.Contains(p.req.Partitions, name) })
}

// addPV adds the head of a physical volume, and its tail where metadata lie there too.
func (p *planner) addPV(x piece) {
	head := x
	head.SizeBytes = x.PV.HeadBytes
	p.add(&writeImage{head})
	p.plan.TotalBytes += head.SizeBytes
	if x.PV.Tail == "" {
		return
	}
	tail := x
	tail.Archive, tail.SizeBytes = x.PV.Tail, x.PV.TailBytes
	tail.OffsetBytes = x.OffsetBytes + x.SizeBytes - tail.SizeBytes
	p.add(&writeImage{tail})
	p.plan.TotalBytes += tail.SizeBytes
}

// guestSegments are those of the map of a logical volume on the target.
func (w *work) guestSegments(lv *catalog.GuestLV) []partmap.Segment {
	var segments []partmap.Segment
	for _, s := range lv.Segments {
		segment := partmap.Segment{SizeBytes: s.SizeBytes, StripeBytes: s.StripeBytes}
		for _, offset := range s.Offsets {
			segment.Sources = append(segment.Sources, partmap.Source{Device: w.device, OffsetBytes: offset})
		}
		segments = append(segments, segment)
	}
	return segments
}

// subvolumes are those to make on a btrfs; none for others.
func subvolumes(fs *catalog.Filesystem) []btrfs.Subvolume {
	var list []btrfs.Subvolume
	for _, s := range fs.Subvolumes {
		list = append(list, btrfs.Subvolume{Path: s.Name(), ReadOnly: s.ReadOnly, Default: s.Default})
	}
	return list
}
