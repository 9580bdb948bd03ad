package extent

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

// Layout is what is on a volume.
type Layout struct {
	Table   *partmap.Table // nil when there is none that can be read
	Extents []*Extent      // by offset, covering the whole volume
	// What the guest sees, in bytes.
	LogicalSector, PhysicalSector int
}

// Extent is one contiguous part of a volume on its way into the backup.
type Extent struct {
	catalog.Extent
	StoredBytes int64 // of its archive
	ReadBytes   int64 // that were read of it for the backup

	found     probe.Result
	whole     string // of what it is all, where that is no volume
	image     string // why it is stored as an image; "" for a filesystem to mount
	unused    string // what its image leaves out, or why it has all: the end of that reason
	bootBytes int64  // at its beginning that belong to boot loaders and no file
	pv        *guestPV
	mapped    string // device of a logical volume that is in pieces, while it is mapped
	replayed  bool   // a mount was tried, which may have written to the snapshot
}

// Survey reads the partition table of a snapshot and probes each partition. A table that makes no sense is no error: the
// whole volume becomes one image.
func (r *Reader) Survey(ctx context.Context) (*Layout, error) {
	device, err := os.Open(r.Snapshot.DMPath)
	if err != nil {
		return nil, err
	}
	defer device.Close()
	l := &Layout{}
	if l.LogicalSector, l.PhysicalSector, err = readSectors(device); err != nil {
		return nil, err
	}
	whole := func(reason string) *Layout {
		l.Extents = []*Extent{{Extent: catalog.Extent{SizeBytes: r.Snapshot.OriginBytes}, image: reason}}
		return l
	}
	table, err := partmap.Read(device, r.Snapshot.OriginBytes, partmap.Options{SectorBytes: l.LogicalSector})
	var invalid *partmap.InvalidError
	switch {
	case errors.Is(err, partmap.ErrNoTable):
		whole("")
		if err := r.probe(ctx, device, 0, l.Extents[0]); err != nil {
			return nil, err
		}
		return l, r.surveyGuestLVM(ctx, device, l)
	case errors.As(err, &invalid):
		whole("")
		if err := r.probe(ctx, device, 0, l.Extents[0]); err != nil {
			return nil, err
		}
		if l.Extents[0].found.Type == typeISO { // its table is for computers that boot from a stick, and has a partition around itself
			return l, nil
		}
		r.Warn("the partition table makes no sense: "+invalid.Error(), "the whole volume is stored as an image")
		return whole("partition table: " + invalid.Error()), nil
	case err != nil:
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	for _, note := range table.Notes {
		r.Warn("partition table: "+note, "look at it in the guest with `sfdisk --verify`")
	}
	for _, loss := range table.Losses() {
		r.Warn("partition table: "+loss, "the image of the boot area and the manifest have it all; the listing for sfdisk has not")
	}
	l.Table, l.Extents = table, tableExtents(table)
	for _, x := range l.Extents {
		if x.Number == 0 {
			continue
		}
		if err := r.probe(ctx, device, x.OffsetBytes, x); err != nil {
			return nil, err
		}
	}
	return l, r.surveyGuestLVM(ctx, device, l)
}

// readSectors learns the sector sizes that the guest sees.
func readSectors(device *os.File) (logical, physical int, err error) {
	if logical, err = unix.IoctlGetInt(int(device.Fd()), unix.BLKSSZGET); err != nil {
		return 0, 0, fmt.Errorf("sector size of %s: %w", device.Name(), err)
	}
	if physical, err = unix.IoctlGetInt(int(device.Fd()), unix.BLKPBSZGET); err != nil {
		return 0, 0, fmt.Errorf("physical sector size of %s: %w", device.Name(), err)
	}
	return logical, physical, nil
}

// tableExtents cuts a volume along its partitions and the gaps between them.
func tableExtents(table *partmap.Table) []*Extent {
	var list []*Extent
	for _, p := range table.Partitions {
		if p.Extended {
			continue // its logical partitions are extents, its tables are made again from the listing
		}
		list = append(list, &Extent{Extent: catalog.Extent{
			Name: fmt.Sprintf("p%d", p.Number), Number: p.Number,
			OffsetBytes: p.OffsetBytes(), SizeBytes: p.SizeBytes(),
			PartType: p.Type, PartUUID: p.UUID, PartName: p.Name,
		}})
	}
	for i, gap := range table.Gaps() {
		x := &Extent{Extent: catalog.Extent{Name: fmt.Sprintf("gap%d", i), OffsetBytes: gap.OffsetBytes, SizeBytes: gap.SizeBytes}}
		x.image = "outside of all partitions"
		switch {
		case gap.OffsetBytes == 0:
			x.Name, x.image = bootExtent, "boot code and all that lies before the first partition"
		case gap.SizeBytes > unpartitionedMaxBytes:
			x.State, x.Reason = catalog.StateExcluded, ruleUnpartitioned
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *Extent) int { return cmp.Compare(a.OffsetBytes, b.OffsetBytes) })
	return list
}

// probe finds out what an extent, which begins at an offset of a device, holds and whether it can be mounted.
func (r *Reader) probe(ctx context.Context, device *os.File, offsetBytes int64, x *Extent) error {
	found, err := r.Prober.Probe(ctx, device.Name(), offsetBytes, x.SizeBytes)
	if r.As == AsImage {
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
		x.image = "no known filesystem"
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
			r.Warn(fmt.Sprintf("look at the filesystem of %s: %v", x.Label(), err), "its disk may be failing; it is stored as an image")
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
func (x *Extent) describe(fs *probe.Filesystem) error {
	x.bootBytes = min(fs.BootAreaBytes(), x.SizeBytes)
	x.Filesystem.BlockBytes = fs.BlockBytes
	x.Filesystem.Params = fs.Params()
	recipe, err := fs.Mkfs(probe.MkfsOptions{})
	if err != nil {
		return fmt.Errorf("how to make %s again: %w", x.Label(), err)
	}
	x.Filesystem.Mkfs, x.Filesystem.MkfsEnv, x.Filesystem.MkfsNotes = recipe.Commands, recipe.Env, recipe.Notes
	x.Filesystem.MkfsLast = recipe.Last
	return nil
}
