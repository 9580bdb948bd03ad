package backup

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"voltar/internal/catalog"
	"voltar/internal/guestlvm"
)

// Volume groups of a guest whose physical volumes lie on several members of a unit. One of the members, the home, has
// their logical volumes in its backup; each has label and metadata of its own physical volumes. The home is the one that
// comes first in the unit, so that none is the home of another whose home it has itself.

// span is such a volume group.
type span struct {
	name    string
	uuid    string
	members []*volumeRun // the home first
	pvs     []placedPV
	lvs     []*extent // of the home
}

func (s *span) home() *volumeRun { return s.members[0] }

// surveyTogether looks for volume groups on the physical volumes of all members that are in no group by themselves, and
// returns the members in the parties that stand or fall together.
func (r *run) surveyTogether(u unit) []*party {
	spans, err := u.findSpans()
	if err != nil {
		for _, v := range u.alive() {
			v.fail(err)
		}
	}
	return newParties(u.members, spans)
}

// findSpans reads the physical volumes of all members together.
func (u unit) findSpans() (spans []*span, err error) {
	var pvs []placedPV
	var disks []guestlvm.Disk
	devices := map[*volumeRun]*os.File{}
	defer func() {
		for _, device := range devices {
			err = errors.Join(err, device.Close())
		}
	}()
	for i, v := range u.members {
		if len(u.members) == 1 || v.failure != nil || !slices.ContainsFunc(v.layout.extents, (*extent).isStrayPV) {
			continue
		}
		device, err := os.Open(v.snapshot.DMPath)
		if err != nil {
			v.fail(v.endReading(v.reading, err))
			continue
		}
		devices[v] = device
		more, moreDisks := v.guestPVs(device, v.layout, i)
		pvs, disks = append(pvs, more...), append(disks, moreDisks...)
	}
	if len(devices) < 2 {
		return nil, nil
	}
	if failed := u.firstFailed(); failed != nil {
		// It may hold a clone of one of these, and what is left of two guests would be taken for one.
		for _, pv := range pvs {
			pv.image += fmt.Sprintf("; the volumes of group %s are not looked at together, as %s failed", u.group, failed.name())
		}
		return nil, nil
	}
	vgs, problems := guestlvm.Read(disks)
	for _, p := range problems {
		pvs[p.Disk].image = "a physical volume of the guest: " + p.Reason
		if p.Lacking {
			pvs[p.Disk].image += "; group " + u.group + " lacks a volume that it lies on"
		}
	}
	for _, vg := range vgs {
		s := newSpan(u, vg, pvs)
		spans = append(spans, s)
		home := s.home()
		if s.lvs, err = home.addGuestVG(home.reading, devices[home], home.layout, vg, pvs); err != nil {
			home.fail(home.endReading(home.reading, fmt.Errorf("volume group %s of the guest: %w", vg.Name, err)))
		}
	}
	return spans, nil
}

func (u unit) firstFailed() *volumeRun {
	for _, v := range u.members {
		if v.failure != nil {
			return v
		}
	}
	return nil
}

func newSpan(u unit, vg guestlvm.VG, pvs []placedPV) *span {
	s := &span{name: vg.Name, uuid: vg.UUID}
	for _, pv := range vg.PVs {
		s.pvs = append(s.pvs, pvs[pv.Disk])
	}
	for _, v := range u.members {
		if slices.ContainsFunc(s.pvs, func(pv placedPV) bool { return pv.volume == v }) {
			s.members = append(s.members, v)
		}
	}
	return s
}

// nameBackups enters in the ledgers which backup has what, once they all have a time.
func (s *span) nameBackups() {
	home := s.home()
	for _, x := range s.lvs {
		for i, other := range x.others {
			x.LV.Others[i] = other.id.String()
		}
	}
	var own *catalog.GuestPV // the first of the home's
	var others []catalog.OtherShare
	for _, pv := range s.pvs {
		if pv.volume == home {
			if own == nil {
				own = &pv.pv.GuestPV
			}
			continue
		}
		pv.pv.Home = home.id.String()
		pv.Reason = fmt.Sprintf("a physical volume of the guest's volume group %s: its logical volumes are in the backup %s", s.name, pv.pv.Home)
		at := slices.IndexFunc(others, func(o catalog.OtherShare) bool { return o.Backup == pv.volume.id.String() })
		if at < 0 {
			others, at = append(others, catalog.OtherShare{Backup: pv.volume.id.String()}), len(others)
		}
		others[at].PVs = append(others[at].PVs, catalog.PVPlace{UUID: pv.pv.UUID, OffsetBytes: pv.OffsetBytes, SizeBytes: pv.SizeBytes})
	}
	own.Others = others
}
