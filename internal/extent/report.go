package extent

import (
	"cmp"
	"fmt"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/report"
)

// shownDamaged is how many damaged files the report names; the manifest has a thousand.
const shownDamaged = 20

// Describe makes a volume's part of the report from its extents.
func Describe(line *report.Volume, extents []*Extent) {
	line.Extents, line.Ledger, line.Carried = nil, report.Ledger{}, nil
	for _, x := range extents {
		line.Extents = append(line.Extents, report.Extent{
			Name: x.Label(), What: x.what(), State: string(x.State), Reason: x.Reason, SizeBytes: x.SizeBytes,
			StoredBytes: x.StoredBytes, Entries: x.Entries, ByHandBytes: x.ByHandBytes(),
		})
		line.Entries += x.Entries
		line.ReadBytes += x.ReadBytes
		line.DamagedCount += x.DamagedCount
		for _, d := range x.Damaged {
			if len(line.DamagedFiles) < shownDamaged {
				line.DamagedFiles = append(line.DamagedFiles, damageLine(x, d))
			}
		}
		addCarried(line, x.Carried)
		addToLedger(&line.Ledger, x)
	}
}

// addCarried adds what of one archive was carried over to what the volume's line says.
func addCarried(line *report.Volume, c *catalog.Carried) {
	if c == nil {
		return
	}
	if line.Carried == nil {
		line.Carried = &report.Carried{From: c.From}
	}
	line.Carried.Bytes += c.Bytes
	line.Carried.Members += c.Members
	line.Carried.NewBytes += c.NewBytes
	line.Carried.NewMembers += c.NewMembers
	line.Carried.UnreadBytes += c.UnreadBytes
}

// Whole is a source that nobody has looked at yet.
func Whole(source catalog.Source) []*Extent {
	return []*Extent{{Extent: catalog.Extent{SizeBytes: source.SizeBytes}, whole: string(source.Kind)}}
}

// Failed enters each byte of a volume that has no backup in the ledger as failed, or as left out where a rule had said so.
func Failed(extents []*Extent, reason string) (failed []*Extent) {
	for _, x := range extents {
		switch {
		case x.LV != nil: // those of the guest's own LVM lie in others
		case x.State == catalog.StateExcluded:
			failed = append(failed, x)
		default:
			failed = append(failed, &Extent{whole: x.whole, Extent: catalog.Extent{
				Name: x.Name, SizeBytes: x.SizeBytes, State: catalog.StateFailed, Reason: reason, Filesystem: x.Filesystem,
			}})
		}
	}
	return failed
}

// what names the content of an extent for people.
func (x *Extent) what() string {
	switch {
	case x.Filesystem != nil:
		return x.Filesystem.Type
	case x.Name != "" && x.Number == 0:
		return "unpartitioned"
	}
	return "unknown"
}

func damageLine(x *Extent, d catalog.Damage) string {
	what := cmp.Or(d.Path, string(d.PathB64))
	if what == "" && d.LengthBytes == 0 {
		return x.Label() + ": " + d.Reason
	}
	if what == "" {
		what = fmt.Sprintf("%s at byte %d", say.Size(d.LengthBytes), d.OffsetBytes)
	}
	where := "/" + strings.TrimPrefix(what, "/")
	if d.Path == "" && len(d.PathB64) == 0 {
		where = what
	}
	if x.Name != "" { // else it is the whole volume, which has no parts to name
		where = x.Label() + ":" + where
	}
	return where + ": " + d.Reason
}

// addToLedger accounts for each byte of an extent that lies on the volume. What a filesystem does not use is free; its own
// structures count with its files.
func addToLedger(ledger *report.Ledger, x *Extent) {
	size := x.SizeBytes
	if x.LV != nil {
		ledger.FreeBytes -= size // of its physical volume, where it counted as free
	}
	switch x.State {
	case catalog.StateLVM:
		ledger.ImageBytes += x.PV.HeadBytes + x.PV.TailBytes
		ledger.FreeBytes += size - x.PV.HeadBytes - x.PV.TailBytes
	case catalog.StateFiles:
		used := min(x.UsedBytes, x.SizeBytes)
		excluded := min(x.ExcludedBytes, used)
		ledger.FilesBytes += used - excluded
		ledger.ExcludedBytes += excluded
		ledger.FreeBytes += size - used
	case catalog.StateImage:
		used := size
		if x.UsedBytes > 0 { // its filesystem has told
			used = min(x.UsedBytes, size)
		}
		ledger.ImageBytes += used
		ledger.FreeBytes += size - used
	case catalog.StateSwap:
		ledger.FreeBytes += size
	case catalog.StateExcluded:
		ledger.ExcludedBytes += size
	default:
		ledger.FailedBytes += size
	}
}
