package lvm

import (
	"errors"
	"os"
	"slices"
	"strings"

	"voltar/internal/hostcmd"
)

// Each command of lvm2 looks at all devices of the host first, and a host of 300 volumes has a thousand of them. lvcreate and lvremove
// are kept to the physical volumes of the group that they change, as the last Inventory had them, by a devices/filter of
// their own (lvm.conf(5)): lvm2 then opens no other device, and takes no guest's for one of the host. It narrows what the
// host's own configuration lets lvm2 see: its global_filter holds as well, and the names are those that lvm2 reported under both.
//
// A group is left unbounded where its physical volumes are not known for certain: one of them is missing or there twice, its name
// is another group's too, other hosts change it, or the report had a gap. So are all of them where a devices file is in use
// (lvmdevices(8)), which bounds lvm2 already and makes it ignore filters.
//
// The disks of a group may change while a run goes on. lvcreate refuses to work in a group of which it does not see all, and
// is called again without the bound. lvremove does not refuse: it would write into the metadata of the group that
// the disk which it does not see is missing. So it selects the volume by the number of missing disks, too.

// devicesFile is there where lvm2 knows its devices by a list.
const devicesFile = "/etc/lvm/devices/system.devices"

// noteBounds works out which groups of a report can be bounded.
func (c *Client) noteBounds(inv Inventory) {
	bounds := map[string]string{}
	if _, err := os.Stat(c.devicesFile); errors.Is(err, os.ErrNotExist) && !inv.Incomplete {
		for _, vg := range inv.VGs {
			if filter := inv.boundOf(vg); filter != "" {
				bounds[vg.UUID] = filter
			}
		}
	}
	c.bounds.Store(&bounds)
}

// bound returns the setting that bounds a command on a group, or "".
func (c *Client) bound(vgUUID string) string {
	if bounds := c.bounds.Load(); bounds != nil {
		return (*bounds)[vgUUID]
	}
	return ""
}

// boundOf returns the setting for one group, or "" where it is not safe.
func (inv Inventory) boundOf(vg VG) string {
	isNamesake := func(other VG) bool { return other.Name == vg.Name && other.UUID != vg.UUID }
	if !vg.IsWhole() || vg.Shared || vg.Clustered || vg.Foreign || vg.Exported || slices.ContainsFunc(inv.VGs, isNamesake) {
		return ""
	}
	var patterns []string
	for _, pv := range inv.PVs {
		if pv.VGUUID != vg.UUID {
			continue
		}
		isTwin := func(other PV) bool { return other.UUID == pv.UUID && (other.Name != pv.Name || other.Duplicate) }
		if pv.Missing || pv.Dev.Major <= 0 || !strings.HasPrefix(pv.Name, "/dev/") || slices.ContainsFunc(inv.PVs, isTwin) {
			return ""
		}
		patterns = append(patterns, `"a|^`+strings.Map(orAny, pv.Name)+`$|"`)
	}
	if len(patterns) == 0 {
		return ""
	}
	// The list of devices that other commands go by is not to be made from a view as narrow as this.
	return `devices{hints="none" filter=[` + strings.Join(patterns, ",") + `,"r|.*|"]}`
}

// orAny has a regular expression take any character for one that could mean something there.
func orAny(r rune) rune {
	if r == '/' || r == '-' || r == '_' || r == ':' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
		return r
	}
	return '.'
}

// isOutOfSight knows lvm2's words for a group of which it does not see all, in the C locale; there is no exit status for it.
func isOutOfSight(err error) bool {
	return said(err, "not found") || said(err, "while PVs are missing") || said(err, "find device with uuid")
}

// said tells whether the command that failed wrote certain words.
func said(err error, words string) bool {
	var failure *hostcmd.Error
	return errors.As(err, &failure) && strings.Contains(failure.Stderr, words)
}
