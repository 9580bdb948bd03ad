package lvm

import (
	"fmt"
	"slices"
	"strings"
)

// Trouble is something about the volumes of a host that keeps some of them from being backed up, or is about to lose them.
type Trouble struct {
	What string
	Hint string // what a person can do about it
}

// maxNamed bounds how many volumes one trouble names.
const maxNamed = 10

// Troubles returns what lvm2 reports of groups that lack physical volumes, groups of one name and RAID that has lost a part,
// and what else it said.
func (inv Inventory) Troubles() []Trouble {
	var troubles []Trouble
	for _, vg := range inv.VGs {
		if !vg.IsWhole() {
			troubles = append(troubles, inv.missing(vg))
		}
	}
	for i, vg := range inv.VGs {
		if slices.ContainsFunc(inv.VGs[i+1:], func(o VG) bool { return o.Name == vg.Name }) {
			troubles = append(troubles, inv.sameName(vg.Name))
		}
	}
	for _, v := range inv.Volumes {
		if strings.HasPrefix(string(v.Kind), "raid") || v.Kind == "mirror" {
			if t, found := degraded(v); found {
				troubles = append(troubles, t)
			}
		}
	}
	if said := inv.otherWarnings(); said != "" {
		hint := "`vgs` says it, too; the volumes were found all the same"
		if inv.Incomplete {
			hint = "volumes may be missing for that reason"
		}
		troubles = append(troubles, Trouble{"lvm2 says: " + said, hint})
	}
	return troubles
}

// otherWarnings returns what lvm2 said but of the physical volumes that its report has as missing.
func (inv Inventory) otherWarnings() string {
	var other []string
	for line := range strings.Lines(inv.Warnings) {
		told := func(pv PV) bool { return pv.Missing && pv.UUID != "" && strings.Contains(line, pv.UUID) }
		if !slices.ContainsFunc(inv.PVs, told) {
			other = append(other, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(other, "; ")
}

// missing describes a group some of whose physical volumes are away. lvm2 changes nothing in such a group, so that there is no
// snapshot of any of its volumes.
func (inv Inventory) missing(vg VG) Trouble {
	var lost []string
	for _, v := range inv.Volumes {
		if v.VGUUID == vg.UUID && !v.Internal && strings.Contains(v.Health, "partial") {
			lost = append(lost, v.Name)
		}
	}
	var uuids []string
	for _, pv := range inv.PVs {
		if pv.VGUUID == vg.UUID && pv.Missing {
			uuids = append(uuids, pv.UUID)
		}
	}
	what := fmt.Sprintf("volume group %s lacks %d of its physical volumes%s: lvm2 makes no snapshot in it", vg.Name,
		max(vg.MissingPVs, 1), listed(" ", uuids))
	if len(lost) > 0 {
		what += "; parts of" + listed(" ", lost) + " are away"
	}
	return Trouble{what, fmt.Sprintf("bring the disks back (`pvs` names them, `vgextend --restoremissing %s DISK` takes one in again); "+
		"only where they are lost for good, `vgreduce --removemissing %s`", vg.Name, vg.Name)}
}

// sameName describes groups that share a name. lvm2 does nothing with a name that means two groups.
func (inv Inventory) sameName(name string) Trouble {
	var uuids []string
	for _, vg := range inv.VGs {
		if vg.Name == name {
			uuids = append(uuids, vg.UUID)
		}
	}
	return Trouble{
		fmt.Sprintf("%d volume groups have the name %s:%s", len(uuids), name, listed(" ", uuids)),
		"`pvs -o pv_name,vg_name,vg_uuid` shows on which disks each lies; rename the one that came last (`vgrename UUID NEWNAME`), " +
			"or keep lvm2 from its disks (devices/global_filter in lvm.conf)",
	}
}

// degraded describes a RAID volume that has lost a part or is about to, in lvm2's words (lvmraid(7)).
func degraded(v Volume) (Trouble, bool) {
	name := v.String()
	switch v.Health {
	case "partial":
		return Trouble{fmt.Sprintf("RAID volume %s has lost a disk", name),
			"when the disk is back, `lvchange --refresh " + name + "`; to replace it, `lvconvert --repair " + name + "`"}, true
	case "refresh needed":
		return Trouble{fmt.Sprintf("RAID volume %s runs without a disk that had errors and is there", name),
			"`lvchange --refresh " + name + "`; when it fails again, `lvconvert --replace DISK " + name + "`"}, true
	case "mismatches exist":
		return Trouble{fmt.Sprintf("the parts of RAID volume %s differ", name), "`lvchange --syncaction repair " + name + "`"}, true
	}
	return Trouble{}, false
}

// listed joins names behind a separator, the first of many only.
func listed(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	more := ""
	if len(names) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	return before + strings.Join(names[:min(len(names), maxNamed)], ", ") + more
}
