package revive

import (
	"path"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/lvm"
)

// rewritten is a definition made fit for what was restored.
type rewritten struct {
	content []byte
	uuid    string   // libvirt's
	unknown []string // disks that do not come back; those of another guest are not among the content
	lacking []became // disks that come back, and the definition has no place for them
	notes   []string // what else a person has to know

	nvramFrom, nvramTo string // where the variables of the firmware are, and go for another machine
}

// became is what a disk became.
type became struct {
	name     string      // that the backup has: vda, scsi0
	from, to catalog.Ref // the volume that it was, and is
	storages []string    // of Proxmox VE that are in its volume group; none where this host has none
}

// device is where the volume is found on its host.
func (b became) device() string { return path.Join("/dev", b.to.VG, b.to.Name) }

// isAt tells whether a source in a definition of libvirt is the volume that the disk was, by its name.
func (b became) isAt(source string) bool {
	switch dm := lvm.DMName(b.from.VG, b.from.Name); path.Clean(source) {
	case path.Join("/dev", b.from.VG, b.from.Name), "/dev/mapper/" + dm, "/dev/disk/by-id/dm-name-" + dm, ofPool + b.from.Name:
		return true
	}
	return false
}

// isBeside tells whether a source is a volume of the same volume group, or of a pool, by its name.
func (b became) isBeside(source string) bool {
	source = path.Clean(source)
	return slices.ContainsFunc([]string{ofPool, "/dev/" + b.from.VG + "/", "/dev/mapper/" + lvm.DMName(b.from.VG, "")},
		func(prefix string) bool { return strings.HasPrefix(source, prefix) })
}
