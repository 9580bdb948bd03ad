package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/probe"
	"voltar/partmap"
)

// unpartitionedMaxBytes is the largest gap between partitions that is stored. Gaps hold boot code, alignment and traces
// of old tables; a larger one is space that nobody uses, most often that of a disk that grew.
const unpartitionedMaxBytes = 1 << 30

// bootExtent is the name of what lies before the first partition.
const bootExtent = "boot"

// ruleUnpartitioned names the reason for which a large gap is left out.
const ruleUnpartitioned = "unpartitioned: no partition lays claim to it"

// typeISO is blkid's word for what is on optical discs.
const typeISO = "iso9660"

// layout is what is on a volume.
type layout struct {
	table   *partmap.Table // nil when there is none that can be read
	extents []*extent      // by offset, covering the whole volume
}

// extent is one contiguous part of a volume on its way into the backup.
type extent struct {
	catalog.Extent
	found     probe.Result
	image     string // why it is stored as an image; "" for a filesystem to mount
	unused    string // what its image leaves out, or why it has all: the end of that reason
	bootBytes int64  // at its beginning that belong to boot loaders and no file
	readBytes int64  // of it that were read for the backup
	pv        *guestPV
	mapped    string // device of a logical volume that is in pieces, while it is mapped
}

// survey reads the partition table of a snapshot and probes each partition. A table that makes no sense is no error: the
// whole volume becomes one image.
func (v *volumeRun) survey(ctx context.Context) (*layout, error) {
	device, err := os.Open(v.snapshot.DMPath)
	if err != nil {
		return nil, err
	}
	defer device.Close()
	if err := v.readSectors(device); err != nil {
		return nil, err
	}
	whole := func(reason string) *layout {
		x := &extent{Extent: catalog.Extent{SizeBytes: v.volume.SizeBytes}, image: reason}
		return &layout{extents: []*extent{x}}
	}
	table, err := partmap.Read(device, v.volume.SizeBytes, partmap.Options{SectorBytes: v.logicalSector})
	var invalid *partmap.InvalidError
	switch {
	case errors.Is(err, partmap.ErrNoTable):
		l := whole("")
		if err := v.probe(ctx, device, 0, l.extents[0]); err != nil {
			return nil, err
		}
		return l, v.surveyGuestLVM(ctx, device, l)
	case errors.As(err, &invalid):
		l := whole("")
		if err := v.probe(ctx, device, 0, l.extents[0]); err != nil {
			return nil, err
		}
		if l.extents[0].found.Type == typeISO { // its table is for computers that boot from a stick, and has a partition around itself
			return l, nil
		}
		v.warn("the partition table makes no sense: "+invalid.Error(), "the whole volume is stored as an image")
		return whole("partition table: " + invalid.Error()), nil
	case err != nil:
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	for _, note := range table.Notes {
		v.warn("partition table: "+note, "look at it in the guest with `sfdisk --verify`")
	}
	for _, loss := range table.Losses() {
		v.warn("partition table: "+loss, "the image of the boot area and the manifest have it all; the listing for sfdisk has not")
	}
	l := &layout{table: table, extents: tableExtents(table)}
	for _, x := range l.extents {
		if x.Number == 0 {
			continue
		}
		if err := v.probe(ctx, device, x.OffsetBytes, x); err != nil {
			return nil, err
		}
	}
	return l, v.surveyGuestLVM(ctx, device, l)
}

// readSectors learns the sector sizes that the guest sees.
func (v *volumeRun) readSectors(device *os.File) (err error) {
	if v.logicalSector, err = unix.IoctlGetInt(int(device.Fd()), unix.BLKSSZGET); err != nil {
		return fmt.Errorf("sector size of %s: %w", device.Name(), err)
	}
	if v.physicalSector, err = unix.IoctlGetInt(int(device.Fd()), unix.BLKPBSZGET); err != nil {
		return fmt.Errorf("physical sector size of %s: %w", device.Name(), err)
	}
	return nil
}

// tableExtents cuts a volume along its partitions and the gaps between them.
func tableExtents(table *partmap.Table) []*extent {
	var list []*extent
	for _, p := range table.Partitions {
		if p.Extended {
			continue // its logical partitions are extents, its tables are made again from the listing
		}
		list = append(list, &extent{Extent: catalog.Extent{
			Name: fmt.Sprintf("p%d", p.Number), Number: p.Number,
			OffsetBytes: p.OffsetBytes(), SizeBytes: p.SizeBytes(),
			PartType: p.Type, PartUUID: p.UUID, PartName: p.Name,
		}})
	}
	for i, gap := range table.Gaps() {
		x := &extent{Extent: catalog.Extent{Name: fmt.Sprintf("gap%d", i), OffsetBytes: gap.OffsetBytes, SizeBytes: gap.SizeBytes}}
		x.image = "outside of all partitions"
		switch {
		case gap.OffsetBytes == 0:
			x.Name, x.image = bootExtent, "boot code and all that lies before the first partition"
		case gap.SizeBytes > unpartitionedMaxBytes:
			x.State, x.Reason = catalog.StateExcluded, ruleUnpartitioned
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *extent) int { return cmp.Compare(a.OffsetBytes, b.OffsetBytes) })
	return list
}

// probe finds out what an extent, which begins at an offset of a device, holds and whether it can be mounted.
func (v *volumeRun) probe(ctx context.Context, device *os.File, offsetBytes int64, x *extent) error {
	found, err := v.run.Prober.Probe(ctx, device.Name(), offsetBytes, x.SizeBytes)
	if v.settings.As == AsImage {
		x.image, x.found = "the configuration says so", found
		return nil //nolint:nilerr // of what blkid cannot read, the image says more
	}
	switch {
	case err != nil:
		return err
	case found.Ambivalent:
		x.image = "it looks like more than one thing: " + strings.Join(found.Candidates, ", ")
		return nil
	case !found.Found():
		x.image = "nothing that is known"
		return nil
	}
	x.found = found
	x.Filesystem = &catalog.Filesystem{Type: found.Type, UUID: found.UUID, Label: found.Label}
	fs, err := probe.ReadFilesystem(io.NewSectionReader(device, offsetBytes, x.SizeBytes), x.SizeBytes, found.Type)
	switch {
	case errors.Is(err, probe.ErrUnsupported):
		x.image = found.Type + " is not mounted"
		return nil
	case err != nil:
		x.image = err.Error()
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			v.warn(fmt.Sprintf("look at the filesystem of %s: %v", x.label(), err), "its disk may be failing; it is stored as an image")
		}
		return nil // a superblock that makes no sense is the guest's, and makes an image of the extent
	}
	if found.Type == "swap" {
		return x.describe(fs)
	}
	if ok, reason := fs.Mountable(); !ok {
		x.image = reason
	}
	return x.describe(fs)
}

// describe enters in the manifest what makes the filesystem again.
func (x *extent) describe(fs *probe.Filesystem) error {
	x.bootBytes = min(fs.BootAreaBytes(), x.SizeBytes)
	x.Filesystem.BlockBytes = fs.BlockBytes
	x.Filesystem.Params = fs.Params()
	recipe, err := fs.Mkfs(probe.MkfsOptions{})
	if err != nil {
		return fmt.Errorf("how to make %s again: %w", x.label(), err)
	}
	x.Filesystem.Mkfs, x.Filesystem.MkfsEnv, x.Filesystem.MkfsNotes = recipe.Commands, recipe.Env, recipe.Notes
	x.Filesystem.MkfsLast = recipe.Last
	return nil
}
