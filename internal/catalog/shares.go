package catalog

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// A guest's volume group on several volumes of the host. One of their backups, its home, has the logical volumes; each of
// them has label and metadata of the physical volumes on its own volume. They name each other.

// Partners are the backups without which this one cannot be brought back whole, and the other way round: those of other
// volumes of the host, of the same moment, that share a volume group of the guest. They are in the order of ID.Compare.
func (m *Manifest) Partners() []ID {
	var list []ID
	add := func(text string) {
		if id, err := ParseID(text); err == nil { // Check has refused others
			list = append(list, id)
		}
	}
	for _, x := range m.Extents {
		if x.PV == nil {
			continue
		}
		if x.PV.Home != "" {
			add(x.PV.Home)
		}
		for _, other := range x.PV.Others {
			add(other.Backup)
		}
	}
	slices.SortFunc(list, ID.Compare)
	return slices.CompactFunc(list, func(a, b ID) bool { return a.Compare(b) == 0 })
}

// Shares are those that other volumes have in a volume group of the guest whose logical volumes this backup has.
func (m *Manifest) Shares(vgUUID string) []OtherShare {
	for _, x := range m.Extents {
		if x.PV != nil && x.PV.VGUUID == vgUUID && len(x.PV.Others) > 0 {
			return x.PV.Others
		}
	}
	return nil
}

// Elsewhere says of an offset of a segment in which of the logical volume's Others it is, or "" for the backed-up volume.
func (lv *GuestLV) Elsewhere(s GuestSegment, at int) string {
	if len(s.On) == 0 || s.On[at] == 0 {
		return ""
	}
	return lv.Others[s.On[at]-1]
}

// OwnBytes is how much of a logical volume lies on the backed-up volume.
func (lv *GuestLV) OwnBytes() int64 {
	var own int64
	for _, s := range lv.Segments {
		for i := range s.Offsets {
			if lv.Elsewhere(s, i) == "" {
				own += s.AreaBytes()
			}
		}
	}
	return own
}

// AreaBytes is how much of each of its areas a segment takes.
func (s GuestSegment) AreaBytes() int64 { return s.SizeBytes / int64(len(s.Offsets)) }

// placed tells whether each offset is in one of so many other volumes, or in the backed-up one.
func (s GuestSegment) placed(others int) bool {
	return len(s.On) == 0 || len(s.On) == len(s.Offsets) && slices.Min(s.On) >= 0 && slices.Max(s.On) <= others
}

// checkShares checks what says how volume groups of the guest lie on other volumes: whoever restores writes there.
func (m *Manifest) checkShares() error {
	var errs []error
	for i := range m.Extents {
		if err := m.checkShare(&m.Extents[i]); err != nil {
			errs = append(errs, fmt.Errorf("extent %q: %w", m.Extents[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manifest) checkShare(x *Extent) error {
	if pv := x.PV; pv != nil {
		if pv.Home != "" && len(pv.Others) > 0 {
			return errors.New("the logical volumes of its group are said to be in this backup and in another")
		}
		if pv.Home != "" {
			return m.checkPartner(pv.Home)
		}
		for _, other := range pv.Others {
			if err := m.checkPartner(other.Backup); err != nil {
				return err
			}
			for _, place := range other.PVs {
				if place.OffsetBytes < 0 || place.SizeBytes < 0 || place.OffsetBytes > math.MaxInt64-place.SizeBytes {
					return fmt.Errorf("a physical volume lies out of range: %+v", place)
				}
			}
		}
	}
	if x.LV == nil {
		return nil
	}
	shares := m.Shares(x.LV.VGUUID)
	for _, s := range x.LV.Segments {
		for i, offset := range s.Offsets {
			if !s.placed(len(x.LV.Others)) {
				return nil // Extent.check says so
			}
			if other := x.LV.Elsewhere(s, i); other != "" && !within(shares, other, offset, s.AreaBytes()) {
				return fmt.Errorf("%d bytes at %d of %s are not on a physical volume of its group", s.AreaBytes(), offset, other)
			}
		}
	}
	return nil
}

// within tells whether a range lies on a physical volume of a share.
func within(shares []OtherShare, backup string, offset, sizeBytes int64) bool {
	for _, share := range shares {
		for _, place := range share.PVs {
			if share.Backup == backup && offset >= place.OffsetBytes && offset-place.OffsetBytes <= place.SizeBytes-sizeBytes {
				return true
			}
		}
	}
	return false
}

// checkPartner wants the name of a backup of another volume.
func (m *Manifest) checkPartner(text string) error {
	id, err := ParseID(text)
	if err != nil {
		return err
	}
	if id.Ref.Kind != SourceVolume || id.Ref == m.Source.Ref() {
		return fmt.Errorf("%q is not a backup of another volume", text)
	}
	return nil
}
