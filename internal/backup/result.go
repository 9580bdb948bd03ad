package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/report"
)

// shownDamaged is how many damaged files the report names; the manifest has a thousand.
const shownDamaged = 20

// surprisingEntries is from how many files and folders on a difference from the last backup can be a surprise.
const surprisingEntries = 100

// surpriseFactor is how much smaller than the last a backup may be before a person is told.
const surpriseFactor = 2

// source describes the volume in the manifest.
func (v *volumeRun) source() catalog.Source {
	if v.origin != nil {
		return *v.origin
	}
	return catalog.Source{
		Kind: catalog.SourceVolume, Name: v.volume.Name, VG: v.volume.VG, VGUUID: v.volume.VGUUID, LVUUID: v.volume.UUID,
		LVKind: string(v.volume.Kind), SizeBytes: v.volume.SizeBytes, Tags: v.volume.Tags, ThinPool: v.thinPool(),
		VGExtentBytes: v.vg.ExtentBytes, LogicalSector: v.logicalSector, PhysicalSector: v.physicalSector,
	}
}

func (v *volumeRun) thinPool() string {
	if v.volume.IsThin() {
		return v.volume.Pool
	}
	return ""
}

// progress passes on how much was read since the last call.
func (v *volumeRun) progress(p archive.Progress) {
	read := p.ContentBytes - v.progressed
	if read < 0 {
		read = p.ContentBytes // the next archive has begun
	}
	v.progressed = p.ContentBytes
	if v.run.Progress != nil {
		v.run.Progress.VolumeRead(v.name(), read)
	}
}

// describe makes the volume's part of the report from its ledger.
func (v *volumeRun) describe() {
	r := &v.result
	r.Extents, r.Ledger = nil, report.Ledger{}
	for _, x := range v.layout.extents {
		r.Extents = append(r.Extents, report.Extent{
			Name: x.label(), What: x.what(), State: string(x.State), Reason: x.Reason, SizeBytes: x.SizeBytes,
			StoredBytes: v.stored[x.Name], Entries: x.Entries, ByHandBytes: x.ByHandBytes(),
		})
		r.Entries += x.Entries
		r.ReadBytes += x.readBytes
		r.DamagedCount += x.DamagedCount
		for _, d := range x.Damaged {
			if len(r.DamagedFiles) < shownDamaged {
				r.DamagedFiles = append(r.DamagedFiles, damageLine(x, d))
			}
		}
		addToLedger(&r.Ledger, x)
	}
}

// what names the content of an extent for people.
func (x *extent) what() string {
	switch {
	case x.Filesystem != nil:
		return x.Filesystem.Type
	case x.Name != "" && x.Number == 0:
		return "unpartitioned"
	}
	return "unknown"
}

func damageLine(x *extent, d catalog.Damage) string {
	what := cmp.Or(d.Path, string(d.PathB64))
	if what == "" && d.LengthBytes == 0 {
		return x.label() + ": " + d.Reason
	}
	if what == "" {
		what = fmt.Sprintf("%s at byte %d", say.Size(d.LengthBytes), d.OffsetBytes)
	}
	return fmt.Sprintf("%s:/%s: %s", x.label(), strings.TrimPrefix(what, "/"), d.Reason)
}

// addToLedger accounts for each byte of an extent that lies on the volume. What a filesystem does not use is free; its own
// structures count with its files.
func addToLedger(ledger *report.Ledger, x *extent) {
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

// compare warns when tonight's backup differs surprisingly from the last one.
func (v *volumeRun) compare() {
	before := v.prepared.LastEntries()
	if after := v.result.Entries; before > surprisingEntries && after < before/surpriseFactor {
		v.warn(fmt.Sprintf("only %d files and folders, where the last backup had %d", after, before),
			"look whether that is as it should be, before the older backups are gone")
	}
}

// finish hands in the result of the volume.
func (v *volumeRun) finish(ctx context.Context) {
	r := &v.result
	r.Ended = v.run.Now().UTC()
	if v.prepared != nil {
		r.Copies = v.prepared.Copies()
	}
	if v.origin == nil {
		r.Quiesce = v.quiesced.String()
	}
	r.Status = v.status(ctx)
	if r.Status == report.VolumeFailed || r.Status == report.VolumeDamaged {
		r.LastGood = v.run.targets.LastGood(v.ref(), v.result.Backup)
	}
	if v.failure != nil {
		r.Error = v.explainFailure()
		v.describeFailure(r.Error.Message)
	}
	v.run.hand(*r)
}

// describeFailure enters each byte of a volume that has no backup in the ledger as failed, or as left out where a rule
// had said so.
func (v *volumeRun) describeFailure(reason string) {
	if v.layout == nil {
		v.layout = &layout{extents: []*extent{{Extent: catalog.Extent{SizeBytes: v.volume.SizeBytes}}}}
	}
	// Those of the guest's own LVM lie in others.
	v.layout.extents = slices.DeleteFunc(v.layout.extents, func(x *extent) bool { return x.LV != nil })
	for _, x := range v.layout.extents {
		if x.State != catalog.StateExcluded {
			x.Extent = catalog.Extent{Name: x.Name, SizeBytes: x.SizeBytes, State: catalog.StateFailed, Reason: reason, Filesystem: x.Filesystem}
			x.readBytes = 0
		}
	}
	v.stored = nil
	v.result.Entries, v.result.ReadBytes, v.result.DamagedCount, v.result.DamagedFiles = 0, 0, 0, nil
	v.describe()
}

// status sums up what became of the volume.
func (v *volumeRun) status(ctx context.Context) report.VolumeStatus {
	switch {
	case v.failure != nil && ctx.Err() != nil && v.snapshot.Name == "":
		return report.VolumeSkipped
	case v.failure != nil:
		return report.VolumeFailed
	case v.result.DamagedCount > 0:
		return report.VolumeDamaged
	}
	for _, c := range v.result.Copies {
		if c.Error != nil {
			return report.VolumePartial
		}
	}
	return report.VolumeOK
}
