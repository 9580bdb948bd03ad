package backup

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"voltar/internal/mount"
)

// noteKernelErrors enters in the ledger what the kernel found damaged in a filesystem while it was read. Not every such
// error fails a read: a folder may then look emptier than it is, and what is missing has no name.
func (x *extent) noteKernelErrors(root *os.File, found []mount.Error) {
	if len(found) == 0 {
		return
	}
	paths := pathsOf(root, found)
	for _, e := range found {
		x.DamagedCount++
		x.Damaged = append(x.Damaged, damageOf(paths[e.Inode], "the filesystem is damaged, files may be missing: "+e.Message))
	}
}

// pathsOf finds the first name of each inode that an error is about. That takes another walk through the tree, where
// what cannot be read is passed over: the errors stand without their names too.
func pathsOf(root *os.File, found []mount.Error) map[uint64]string {
	wanted, paths := map[uint64]bool{}, map[uint64]string{}
	for _, e := range found {
		if e.Inode != 0 {
			wanted[e.Inode] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	_ = fs.WalkDir(os.DirFS(fmt.Sprintf("/proc/self/fd/%d", root.Fd())), ".", func(path string, entry fs.DirEntry, err error) error {
		if entry == nil {
			return fs.SkipAll
		}
		info, infoErr := entry.Info()
		if infoErr == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && wanted[st.Ino] {
				paths[st.Ino] = path
				delete(wanted, st.Ino)
			}
		}
		switch {
		case len(wanted) == 0:
			return fs.SkipAll
		case err != nil:
			return fs.SkipDir
		}
		return nil
	})
	return paths
}
