package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/btrfs"
	"voltar/internal/catalog"
	"voltar/internal/mount"
	"voltar/internal/owned"
	"voltar/partmap"
)

func (x *extent) label() string {
	switch {
	case x.LV != nil:
		return fmt.Sprintf("%s (%s/%s)", x.Name, x.LV.VG, x.LV.Name)
	case x.Name == "":
		return "the whole volume"
	}
	return x.Name
}

// store writes one extent into the backup: as files when it is a filesystem to mount, as an image otherwise or when the
// mount fails. A swap area is its UUID and label.
func (v *volumeRun) store(ctx context.Context, x *extent) error {
	switch {
	case x.State != "": // decided by the survey
		return nil
	case x.pv != nil:
		return v.storePV(ctx, x)
	case x.image != "" && x.found.Usage == "filesystem" && v.settings.As == AsFiles:
		return fmt.Errorf("%s cannot be stored as files: %s", x.label(), x.image)
	case x.image != "":
		return v.storeImage(ctx, x, x.image)
	case x.found.Type == "swap":
		x.State, x.Reason = catalog.StateSwap, "a swap area: its UUID and label"
		return nil
	}
	err := hintBounds(v.storeFiles(ctx, x))
	var unmountable *unmountableError
	var left *leftAloneError
	if errors.As(err, &left) && v.settings.As != AsFiles {
		return v.storeImage(ctx, x, left.Error())
	}
	if limit, beyond := beyondBounds(err); beyond && v.settings.As != AsFiles {
		reason := limit.Error() + ": stored as an image"
		v.warn(fmt.Sprintf("%s has %s (met at %.200q)", x.label(), reason, limit.Path),
			"look in the guest at what makes it so large; `exclude` leaves such folders out, and `as = \"files\"` fails instead of making an image")
		return v.storeImage(ctx, x, reason)
	}
	if errors.As(err, &unmountable) && v.settings.As != AsFiles {
		v.warn(fmt.Sprintf("%s cannot be mounted: %v", x.label(), unmountable.error),
			"it is stored as an image; check the filesystem in the guest")
		return v.storeImage(ctx, x, "cannot be mounted: "+unmountable.Error())
	}
	return err
}

// unmountableError is a filesystem that the kernel refused: the guest's trouble, not that of the run.
type unmountableError struct{ error }

func (e *unmountableError) Unwrap() error { return e.error }

// storeFiles mounts an extent read-only and archives its tree.
func (v *volumeRun) storeFiles(ctx context.Context, x *extent) (err error) {
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()

	if err := v.awaitBtrfs(ctx, x, &held); err != nil {
		return err
	}
	device, err := v.mapExtent(ctx, x, &held)
	if err != nil {
		return fmt.Errorf("map %s: %w", x.label(), err)
	}
	v.forgetBtrfs(x, device.Path, &held)
	x.noteMap(device.Path, &held)
	mounted, err := v.run.Mounts.Mount(ctx, device.Path, x.found.Type)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, mount.ErrHung) && !errors.Is(err, mount.ErrWrongDevice) {
			return &unmountableError{err}
		}
		return fmt.Errorf("%s: %w", x.label(), err)
	}
	held.Push(func(context.Context) error { return mounted.Close() })
	v.noteSubvolumes(x, mounted.Root())
	return v.storeTree(ctx, x, mounted)
}

// mapExtent gives an extent a device of its own; one that is the whole volume has the snapshot's.
func (v *volumeRun) mapExtent(ctx context.Context, x *extent, held *owned.Stack) (*partmap.Mapped, error) {
	if x.Number == 0 && x.LV == nil {
		return &partmap.Mapped{Path: v.snapshot.DMPath, Major: uint32(v.snapshot.KernelMajor), Minor: uint32(v.snapshot.KernelMinor)}, nil
	}
	return v.makeMap(ctx, v.mapTarget(x), held)
}

// makeMap makes a map, and sees to its removal.
func (v *volumeRun) makeMap(ctx context.Context, target partmap.Target, held *owned.Stack) (*partmap.Mapped, error) {
	mapped, undo, err := v.run.owner.Map(ctx, target)
	if err == nil {
		held.Push(undo)
	}
	return mapped, err
}

// mapTarget is the map of a partition, under the name that kpartx would give it, or of a guest's logical volume.
func (v *volumeRun) mapTarget(x *extent) partmap.Target {
	if x.LV != nil {
		return v.guestTarget(x)
	}
	return partmap.Target{
		Name: partmap.MapName(partmap.DMName(v.snapshot.VG, v.snapshot.Name), x.Number),
		UUID: fmt.Sprintf("%s%s-%d", owned.MapUUIDPrefix(v.run.id), v.volume.UUID, x.Number),
		Segments: []partmap.Segment{{
			SizeBytes: x.SizeBytes, Sources: []partmap.Source{{Device: v.snapshot.DMPath, OffsetBytes: x.OffsetBytes}},
		}},
	}
}

// storeTree archives the tree of a mounted extent, with its index and boot area.
func (v *volumeRun) storeTree(ctx context.Context, x *extent, mounted *mount.Mount) error {
	root := mounted.Root()
	var use unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &use); err != nil {
		return fmt.Errorf("statfs %s: %w", x.label(), err)
	}
	if x.found.Type == typeBtrfs {
		reserved, err := btrfs.ReservedBytes(root)
		if err != nil {
			return err
		}
		use.Bfree = min(use.Bfree+uint64(reserved/use.Bsize), use.Blocks)
	}
	if err := checkNotEmpty(peek(root), use); err != nil {
		v.warn(fmt.Sprintf("%s: %v", x.label(), err), "check the filesystem in the guest; its image has what a repair may find")
		return &leftAloneError{err.Error()}
	}
	x.UsedBytes = int64(use.Blocks-use.Bfree) * use.Bsize

	opts := archive.TreeOptions{Limits: treeLimits(use, v.run.opts.MaxDuration), TempDir: v.run.StateDir}
	err := v.writeTree(ctx, x, root, x.treeMaxBytes(use), opts, func(stats archive.TreeStats) error {
		if err := checkNotEmpty(stats, use); err != nil {
			return fmt.Errorf("archive %s: %w", x.label(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n := x.NotStored[archive.NotStoredXattrSize]; n > 0 {
		v.warn(fmt.Sprintf("%s: %d extended attributes are not stored: their files have more of them than an archive takes", x.label(), n),
			"768 KiB on one file; docs/format.md, Limits. `as = \"image\"` stores all")
	}
	kernelErrors, err := mounted.Errors()
	if err != nil {
		return err
	}
	x.noteKernelErrors(ctx, root, opts, kernelErrors)
	return v.storeBootArea(ctx, x)
}

// writeTree archives a tree, of at most maxBytes (0 when nothing is known), with its index. What check refuses does not
// count. The options say what is special about the tree; the rest of them are the volume's.
func (v *volumeRun) writeTree(
	ctx context.Context, x *extent, root *os.File, maxBytes int64, opts archive.TreeOptions, check func(archive.TreeStats) error,
) error {
	x.Archive = v.names.Archive(x.Name)
	x.Index = &catalog.Index{Name: v.names.Index(x.Name)}
	index, err := v.out.Create(ctx, x.Index.Name, 0)
	if err != nil {
		return err
	}
	defer index.Abort()
	opts.Level, opts.Pool, opts.Exclude, opts.OnProgress = v.settings.Level, v.run.Pool, v.exclude, v.progress
	opts.TempDir = v.run.StateDir
	var stats archive.TreeStats
	file, err := v.out.Write(ctx, x.Archive, maxBytes, func(w io.Writer) (err error) {
		stats, err = archive.WriteTree(ctx, root, w, index, opts)
		return err
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", x.label(), err)
	}
	if err := check(stats); err != nil {
		return err
	}
	if _, err := index.Commit(ctx); err != nil {
		return err
	}
	x.State = catalog.StateFiles
	x.Index.BlocksOffset = stats.IndexBlocksOffset
	x.noteTree(stats)
	v.stored[x.Name] = file.SizeBytes
	return nil
}

// treeMaxBytes is what the archive of a filesystem most likely stays below: its used bytes, and headers for each inode. Files
// that share data (reflinks) have more; those of btrfs may share all, and be compressed: nothing is known of them.
func (x *extent) treeMaxBytes(use unix.Statfs_t) int64 {
	const headerBytes = 4 << 10
	if x.found.Type == typeBtrfs {
		return 0
	}
	return int64(use.Blocks-use.Bfree)*use.Bsize + int64(use.Files-use.Ffree)*headerBytes + 64<<20
}

// noteTree enters in the ledger what the archive of a tree holds.
func (x *extent) noteTree(stats archive.TreeStats) {
	x.Entries, x.ContentBytes, x.readBytes = stats.Entries, stats.ContentBytes, stats.ContentBytes
	x.UniqueBytes = 0
	if stats.SharedBytes > 0 {
		x.UniqueBytes = stats.ContentBytes - stats.SharedBytes
	}
	x.ExcludedEntries, x.ExcludedBytes = stats.ExcludedEntries, stats.ExcludedBytes
	x.NotStored, x.LongPaths = stats.NotStored, stats.LongPaths
	x.DamagedCount = stats.DamagedCount
	for _, d := range stats.Damaged {
		x.Damaged = append(x.Damaged, damageOf(d.Path, d.Reason))
	}
}

func damageOf(path, reason string) catalog.Damage {
	if utf8.ValidString(path) {
		return catalog.Damage{Path: path, Reason: reason}
	}
	return catalog.Damage{PathB64: []byte(path), Reason: reason}
}

// storeBootArea keeps the first sectors of a filesystem raw: boot code that no archive of files has.
func (v *volumeRun) storeBootArea(ctx context.Context, x *extent) error {
	if x.bootBytes == 0 {
		return nil
	}
	name := v.names.BootArea(x.Name)
	_, stats, err := v.writeImage(ctx, x, imageRange{name, 0, x.bootBytes, false})
	if err != nil {
		return fmt.Errorf("boot area of %s: %w", x.label(), err)
	}
	x.BootArea = name
	x.noteImage(stats)
	return nil
}

// storeImage stores the bytes of an extent as they are.
func (v *volumeRun) storeImage(ctx context.Context, x *extent, reason string) error {
	x.Archive = v.imageName(x)
	x.Index, x.UsedBytes = nil, 0
	file, stats, err := v.writeImage(ctx, x, imageRange{x.Archive, 0, x.SizeBytes, true})
	if err != nil {
		return fmt.Errorf("image of %s: %w", x.label(), err)
	}
	x.State, x.Reason = catalog.StateImage, reason+x.unused
	x.noteImage(stats)
	v.stored[x.Name] = file.SizeBytes
	return nil
}

// imageName is that of an extent's image; boot code has a name of its own.
func (v *volumeRun) imageName(x *extent) string {
	if x.Name == bootExtent {
		return v.names.Boot()
	}
	return v.names.Image(x.Name)
}

// imageRange is a part of an extent that is stored as it is.
type imageRange struct {
	name       string // of the file
	offset     int64  // within the extent
	sizeBytes  int64
	filesystem bool // it is the whole extent, with whatever filesystem lies there
}

// writeImage stores a range of an extent. What of it could not be read is in the stats, and no error.
func (v *volumeRun) writeImage(
	ctx context.Context, x *extent, part imageRange,
) (_ catalog.File, _ archive.ImageStats, err error) {
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()
	path, offset, err := v.locate(ctx, x, &held)
	if err != nil {
		return catalog.File{}, archive.ImageStats{}, err
	}
	offset += part.offset
	device, err := os.Open(path)
	if err != nil {
		return catalog.File{}, archive.ImageStats{}, err
	}
	held.Push(func(context.Context) error { return device.Close() })
	source := io.NewSectionReader(device, offset, part.sizeBytes)
	allocated := v.allocated(ctx, path, offset, part.sizeBytes)
	if part.filesystem {
		allocated = x.inUse(source, allocated)
	}
	var stats archive.ImageStats
	maxBytes := part.sizeBytes + part.sizeBytes/1000 + 1<<20 // headers, where nothing can be made smaller
	file, err := v.out.Write(ctx, part.name, maxBytes, func(w io.Writer) (err error) {
		stats, err = archive.WriteImage(ctx, source, part.sizeBytes, w, archive.ImageOptions{
			Level: v.settings.Level, Pool: v.run.Pool, OnProgress: v.progress,
			Allocated: allocated,
		})
		return err
	})
	return file, stats, err
}

// noteImage enters in the ledger what of an image was read and what could not be.
func (x *extent) noteImage(stats archive.ImageStats) {
	x.readBytes += stats.ReadBytes
	x.DamagedCount += stats.DamagedCount
	for _, d := range stats.Damaged {
		x.Damaged = append(x.Damaged, catalog.Damage{OffsetBytes: d.OffsetBytes, LengthBytes: d.LengthBytes, Reason: d.Reason})
	}
}
