package extent

import (
	"context"
	"os"

	"voltar/archive"
	"voltar/internal/mount"
)

// noteKernelErrors enters in the ledger what the kernel found damaged in a filesystem while it was read. Not every such
// error fails a read: a folder may then look emptier than it is, and what is missing has no name.
func (x *Extent) noteKernelErrors(ctx context.Context, root *os.File, limits archive.TreeOptions, found []mount.Error) {
	if len(found) == 0 {
		return
	}
	paths := pathsOf(ctx, root, limits, found)
	for _, e := range found {
		x.DamagedCount++
		x.Damaged = append(x.Damaged, damageOf(paths[e.Inode], "the filesystem is damaged, files may be missing: "+e.Message))
	}
}

// pathsOf finds the first name of each inode that an error is about. That takes another walk through the tree, where
// what cannot be read is passed over, and so is what lies beyond the limits: the errors stand without their names too.
func pathsOf(ctx context.Context, root *os.File, limits archive.TreeOptions, found []mount.Error) map[uint64]string {
	var inodes []uint64
	for _, e := range found {
		if e.Inode != 0 {
			inodes = append(inodes, e.Inode)
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	paths, _ := archive.FindInodes(ctx, root, inodes, limits) // as far as it came
	return paths
}
