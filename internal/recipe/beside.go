package recipe

import (
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
)

// beside is another volume of the host on which a volume group of the guest lies too. Its own backup brings back label and
// metadata there; the logical volumes are filled by this one.
type beside struct {
	catalog.OtherShare
	Variable string // of the shell, that has its device
}

// Beside are the other volumes that the commands write to.
func (v view) Beside() []beside {
	var list []beside
	for _, x := range v.Extents {
		if x.PV == nil {
			continue
		}
		for _, share := range x.PV.Others {
			at := slices.IndexFunc(list, func(b beside) bool { return b.Backup == share.Backup })
			if at < 0 {
				list = append(list, beside{catalog.OtherShare{Backup: share.Backup}, fmt.Sprintf("BESIDE%d", len(list)+1)})
				at = len(list) - 1
			}
			list[at].PVs = append(list[at].PVs, share.PVs...)
		}
	}
	return list
}

// Volume is VG/LV.
func (b beside) Volume() string {
	volume, _, _ := strings.Cut(b.Backup, "@")
	return volume
}

// Device is that of the volume.
func (b beside) Device() string { return quote("/dev/" + b.Volume()) }

// Checks are the commands that fail unless each physical volume is where it should be: its label, in one of the first
// four sectors, has its UUID without hyphens.
func (b beside) Checks() []string {
	var list []string
	for _, pv := range b.PVs {
		list = append(list, fmt.Sprintf(`dd if="$%s" bs=2048 iflag=skip_bytes skip=%d count=1 status=none | grep -aqF %s`,
			b.Variable, pv.OffsetBytes, quote(strings.ReplaceAll(pv.UUID, "-", ""))))
	}
	return list
}

// deviceOf is what an offset of a segment is in.
func (s step) deviceOf(segment catalog.GuestSegment, at int) string {
	backup := s.LV.Elsewhere(segment, at)
	for _, b := range s.beside {
		if b.Backup == backup {
			return "$" + b.Variable
		}
	}
	return "$TARGET"
}

// Home is the backup that has the logical volumes of a physical volume, where that is another than this one.
func (s step) Home() string {
	if s.PV == nil {
		return ""
	}
	return s.PV.Home
}
