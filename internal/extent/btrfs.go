package extent

import (
	"context"
	"os"
	"unicode/utf8"

	"voltar/internal/btrfs"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/owned"
)

// typeBtrfs is blkid's word for it.
const typeBtrfs = "btrfs"

// leftAloneError is why a filesystem that could be mounted is stored as an image all the same: its state, or that this host
// uses another copy of it.
type leftAloneError struct{ reason string }

func (e *leftAloneError) Error() string { return e.reason }

// awaitBtrfs waits until no other volume of a run is being read that holds a copy of the same btrfs: the kernel knows its
// devices by their UUID and takes the one for the other. Guests made of one template share it. A copy that something
// else has mounted here is a *leftAloneError.
func (a *archiver) awaitBtrfs(ctx context.Context, x *Extent, held *owned.Stack) error {
	if x.found.Type != typeBtrfs {
		return nil
	}
	lock, err := a.Locks.Lock(ctx, journal.ScopeBtrfs, x.found.UUID)
	if err != nil {
		return err
	}
	held.Push(func(context.Context) error { return lock.Unlock() })
	mounted, err := btrfs.Mounted(x.found.UUID)
	if err == nil && mounted {
		return &leftAloneError{"this host has a btrfs of the same UUID mounted, and the kernel would take one for the other"}
	}
	return err
}

// forgetBtrfs sees to it that the kernel does not go on taking a device for a part of the filesystem once it was read.
func (a *archiver) forgetBtrfs(x *Extent, device string, held *owned.Stack) {
	if x.found.Type == typeBtrfs {
		held.Push(func(context.Context) error { return btrfs.Forget(device) })
	}
}

// noteSubvolumes enters the subvolumes of a mounted btrfs in the manifest. Where they cannot be told, they are folders:
// their files are in the archive all the same.
func (a *archiver) noteSubvolumes(x *Extent, root *os.File) {
	if x.found.Type != typeBtrfs {
		return
	}
	list, err := btrfs.List(root)
	if err != nil {
		a.Warn(x.Label()+": "+err.Error(), "its subvolumes come back as ordinary folders; look at it in the guest with `btrfs check`")
		return
	}
	for _, s := range list {
		entry := catalog.Subvolume{Path: s.Path, ID: s.ID, ReadOnly: s.ReadOnly, Default: s.Default}
		if !utf8.ValidString(s.Path) {
			entry.Path, entry.PathB64 = "", []byte(s.Path)
		}
		x.Filesystem.Subvolumes = append(x.Filesystem.Subvolumes, entry)
	}
}
