package extent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/btrfs"
	"voltar/internal/catalog"
	"voltar/internal/mount"
	"voltar/internal/owned"
)

func (x *Extent) Label() string {
	switch {
	case x.LV != nil:
		return fmt.Sprintf("%s (%s/%s)", x.Name, x.LV.VG, x.LV.Name)
	case x.Name == "":
		return "the whole " + cmp.Or(x.whole, "volume")
	}
	return x.Name
}

// Archive writes every extent of a volume into a backup, and the partition table as sfdisk reads it. What it finds is entered
// in the extents of the layout.
func (r *Reader) Archive(ctx context.Context, files *Files, l *Layout) error {
	a := &archiver{Reader: r, Files: files}
	a.changes = a.findChanges(ctx)
	for _, x := range l.Extents {
		if err := a.store(ctx, x); err != nil {
			return err
		}
	}
	if l.Table == nil {
		return nil
	}
	_, err := files.Out.Write(ctx, files.Names.Table(), tableMaxBytes, func(w io.Writer) error {
		return l.Table.SfdiskScript(w, r.Volume.Path)
	})
	return err
}

// tableMaxBytes bounds the listing of a partition table.
const tableMaxBytes = 1 << 20

// archiver puts the extents of a snapshot into a backup.
type archiver struct {
	*Reader
	*Files
	changes *changes // nil where nothing is known
}

// store writes one extent into the backup: as files when it is a filesystem to mount, as an image otherwise or when the
// mount fails. A swap area is its UUID and label.
func (a *archiver) store(ctx context.Context, x *Extent) error {
	switch {
	case x.State != "": // decided by the survey
		return nil
	case x.pv != nil:
		return a.storePV(ctx, x)
	case x.image != "" && x.found.Usage == "filesystem" && a.As == AsFiles:
		return fmt.Errorf("%s cannot be stored as files: %s", x.Label(), x.image)
	case x.image != "":
		return a.storeImage(ctx, x, x.image)
	case x.found.Type == "swap":
		x.State, x.Reason = catalog.StateSwap, "only UUID and label are kept"
		return nil
	}
	if done, err := a.storeUnread(ctx, x); done || err != nil {
		return err
	}
	err := hintBounds(a.storeFiles(ctx, x))
	var unmountable *unmountableError
	var left *leftAloneError
	if errors.As(err, &left) && a.As != AsFiles {
		return a.storeImage(ctx, x, left.Error())
	}
	if limit, beyond := beyondBounds(err); beyond && a.As != AsFiles {
		reason := limit.Error() + ": stored as an image"
		a.Warn(fmt.Sprintf("%s has %s (met at %.200q)", x.Label(), reason, limit.Path),
			"look in the guest at what makes it so large; `exclude` leaves such folders out, and `as = \"files\"` fails instead of making an image")
		return a.storeImage(ctx, x, reason)
	}
	if errors.As(err, &unmountable) && a.As != AsFiles {
		a.Warn(fmt.Sprintf("%s cannot be mounted: %v", x.Label(), unmountable.error),
			"it is stored as an image; check the filesystem in the guest")
		return a.storeImage(ctx, x, "cannot be mounted: "+unmountable.Error())
	}
	return err
}

// unmountableError is a filesystem that the kernel refused: the guest's trouble, not that of the run.
type unmountableError struct{ error }

func (e *unmountableError) Unwrap() error { return e.error }

// storeFiles mounts an extent read-only and archives its tree.
func (a *archiver) storeFiles(ctx context.Context, x *Extent) (err error) {
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()

	if err := a.awaitBtrfs(ctx, x, &held); err != nil {
		return err
	}
	device, err := a.mapExtent(ctx, x, &held)
	if err != nil {
		return fmt.Errorf("map %s: %w", x.Label(), err)
	}
	a.forgetBtrfs(x, device.Path, &held)
	x.noteMap(device.Path, &held)
	x.replayed = true
	mounted, err := a.Mounts.Mount(ctx, device.Path, x.found.Type)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, mount.ErrHung) && !errors.Is(err, mount.ErrWrongDevice) {
			return &unmountableError{err}
		}
		return fmt.Errorf("%s: %w", x.Label(), err)
	}
	held.Push(func(context.Context) error { return mounted.Close() })
	a.noteSubvolumes(x, mounted.Root())
	return a.storeTree(ctx, x, mounted)
}

// storeTree archives the tree of a mounted extent, with its index and boot area.
func (a *archiver) storeTree(ctx context.Context, x *Extent, mounted *mount.Mount) error {
	root := mounted.Root()
	var use unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &use); err != nil {
		return fmt.Errorf("statfs %s: %w", x.Label(), err)
	}
	if x.found.Type == typeBtrfs {
		reserved, err := btrfs.ReservedBytes(root)
		if err != nil {
			return err
		}
		use.Bfree = min(use.Bfree+uint64(reserved/use.Bsize), use.Blocks)
	}
	if err := checkNotEmpty(peek(root), use); err != nil {
		a.Warn(fmt.Sprintf("%s: %v", x.Label(), err), "check the filesystem in the guest; its image has what a repair may find")
		return &leftAloneError{err.Error()}
	}
	x.UsedBytes = usedBytes(use, x.SizeBytes)

	opts := archive.TreeOptions{Limits: treeLimits(use, a.MaxDuration), TempDir: a.StateDir}
	err := a.writeTree(ctx, x, root, x.treeMaxBytes(use), opts, func(stats archive.TreeStats) error {
		if err := checkNotEmpty(stats, use); err != nil {
			return fmt.Errorf("archive %s: %w", x.Label(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.warnAttributes(x)
	kernelErrors, err := mounted.Errors()
	if err != nil {
		return err
	}
	x.noteKernelErrors(ctx, root, opts, kernelErrors)
	return a.storeBootArea(ctx, x)
}

func (a *archiver) warnAttributes(x *Extent) {
	if lost, hint := x.AttributesNotStored(); lost != "" {
		a.Warn(x.Label()+": "+lost, hint+"; `as = \"image\"` stores all")
	}
}

// treeMaxBytes is what the archive of a filesystem most likely stays below: its used bytes, and headers for each inode. Files
// that share data (reflinks) have more; those of btrfs may share all, and be compressed: nothing is known of them.
func (x *Extent) treeMaxBytes(use unix.Statfs_t) int64 {
	const headerBytes = 4 << 10
	if x.found.Type == typeBtrfs {
		return 0
	}
	return int64(use.Blocks-use.Bfree)*use.Bsize + int64(use.Files-use.Ffree)*headerBytes + 64<<20
}

// storeBootArea keeps the first sectors of a filesystem raw: boot code that no archive of files has.
func (a *archiver) storeBootArea(ctx context.Context, x *Extent) error {
	if x.bootBytes == 0 {
		return nil
	}
	name := a.Names.BootArea(x.Name)
	_, stats, err := a.writeImage(ctx, x, imageRange{name: name, sizeBytes: x.bootBytes})
	if err != nil {
		return fmt.Errorf("boot area of %s: %w", x.Label(), err)
	}
	x.BootArea = name
	x.noteImage(stats)
	return nil
}

// storeImage stores the bytes of an extent as they are.
func (a *archiver) storeImage(ctx context.Context, x *Extent, reason string) error {
	x.Archive = a.imageName(x)
	x.Index, x.UsedBytes = nil, 0
	part := imageRange{name: x.Archive, sizeBytes: x.SizeBytes, filesystem: true}
	write := a.writeImage
	if x.SizeBytes > archive.ImageMemberBytes {
		write = a.writeLargeImage
	}
	file, stats, err := write(ctx, x, part)
	if err != nil {
		return fmt.Errorf("image of %s: %w", x.Label(), err)
	}
	x.State, x.Reason = catalog.StateImage, reason+x.unused
	x.noteImage(stats)
	x.StoredBytes = file.SizeBytes
	return nil
}

// writeLargeImage is writeImage for an image of many members. Those that did not change are carried over, and a list of all goes
// beside the image.
func (a *archiver) writeLargeImage(
	ctx context.Context, x *Extent, part imageRange,
) (_ catalog.File, stats archive.ImageStats, err error) {
	x.Members = a.Names.Members(x.Name)
	list, err := a.Out.Create(ctx, x.Members, 0)
	if err != nil {
		return catalog.File{}, stats, err
	}
	defer list.Abort()
	previous := a.Previous.Open(ctx, x.Name, catalog.StateImage, a.Level)
	defer func() { err = errors.Join(err, previous.Close()) }()
	part.members, part.previous = list, previous
	before, ok := a.Previous.Extent(ctx, x.Name, catalog.StateImage)
	if ok && before.OffsetBytes == x.OffsetBytes && before.SizeBytes == x.SizeBytes {
		part.before = &before
	}
	file, stats, err := a.writeImage(ctx, x, part)
	if err != nil {
		return file, stats, err
	}
	if previous != nil {
		x.noteCarried(a.Previous.From(), stats.Carried, stats.Members, stats.ArchiveBytes)
		x.Carried.UnreadBytes = stats.UnreadBytes
	}
	_, err = list.Commit(ctx)
	return file, stats, err
}

// imageName is that of an extent's image; boot code has a name of its own.
func (a *archiver) imageName(x *Extent) string {
	if x.Name == bootExtent {
		return a.Names.Boot()
	}
	return a.Names.Image(x.Name)
}

// imageRange is a part of an extent that is stored as it is.
type imageRange struct {
	name       string // of the file
	offset     int64  // within the extent
	sizeBytes  int64
	filesystem bool              // it is the whole extent, with whatever filesystem lies there
	members    io.Writer         // takes the list of its members; nil makes none
	previous   *archive.Previous // nil carries nothing over
	before     *catalog.Extent   // what the previous backup has as an image of the same place; nil for nothing
}

// writeImage stores a range of an extent. What of it could not be read is in the stats, and no error.
func (a *archiver) writeImage(
	ctx context.Context, x *Extent, part imageRange,
) (_ catalog.File, _ archive.ImageStats, err error) {
	var held owned.Stack
	defer func() { err = errors.Join(err, held.Release(ctx)) }()
	path, offset, err := a.locate(ctx, x, &held)
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
	allocated := a.allocated(ctx, path, offset, part.sizeBytes)
	if part.filesystem {
		allocated = x.inUse(source, allocated)
	}
	var unchanged func(archive.Range) bool
	if part.before != nil {
		unchanged = a.unchangedIn(x, part.before)
	}
	var stats archive.ImageStats
	maxBytes := part.sizeBytes + part.sizeBytes/1000 + 1<<20 // headers, where nothing can be made smaller
	file, err := a.Out.Write(ctx, part.name, maxBytes, func(w io.Writer) (err error) {
		stats, err = archive.WriteImage(ctx, source, part.sizeBytes, w, archive.ImageOptions{
			Level: a.Level, Pool: a.Pool, OnProgress: a.OnProgress,
			Allocated: allocated, Previous: part.previous, Members: part.members, Made: a.Made,
			Unchanged: unchanged,
		})
		return err
	})
	return file, stats, err
}

// noteImage enters in the ledger what of an image was read and what could not be.
func (x *Extent) noteImage(stats archive.ImageStats) {
	x.ReadBytes += stats.ReadBytes
	x.DamagedCount += stats.DamagedCount
	for _, d := range stats.Damaged {
		x.Damaged = append(x.Damaged, catalog.Damage{OffsetBytes: d.OffsetBytes, LengthBytes: d.LengthBytes, Reason: d.Reason})
	}
}

// storePV stores a physical volume of the guest without its Extents: label and metadata, so that copying them back brings
// back the volume group and its logical volumes with their names and UUIDs.
func (a *archiver) storePV(ctx context.Context, x *Extent) error {
	x.Archive = a.Names.Image(partName(x, "pv"))
	file, stats, err := a.writeImage(ctx, x, imageRange{name: x.Archive, sizeBytes: x.pv.HeadBytes})
	if err != nil {
		return fmt.Errorf("head of %s: %w", x.Label(), err)
	}
	x.noteImage(stats)
	x.StoredBytes = file.SizeBytes
	if x.pv.TailBytes > 0 {
		x.pv.Tail = a.Names.Image(partName(x, "pvtail"))
		file, stats, err := a.writeImage(ctx, x, imageRange{name: x.pv.Tail, offset: x.pv.tailOffset, sizeBytes: x.pv.TailBytes})
		if err != nil {
			return fmt.Errorf("tail of %s: %w", x.Label(), err)
		}
		x.noteImage(stats)
		x.StoredBytes += file.SizeBytes
	}
	x.State, x.PV = catalog.StateLVM, &x.pv.GuestPV
	x.Reason = fmt.Sprintf("a physical volume of the guest's volume group %s: its logical volumes follow", x.pv.VG)
	return nil
}
