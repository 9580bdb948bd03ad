package extent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/say"
)

// What must hold before the manifest of a backup is written. Each condition guards against an archive that looks good
// and is not; docs/design.md lists them with the accident that each prevents.

// freshInodes is the most inodes that an empty filesystem uses: 11 on ext, where the first ten are reserved.
const freshInodes = 11

// What an empty filesystem without a count of inodes uses at most: FAT one cluster, btrfs some nodes of its trees, of up to
// 64 KiB each and twice.
const (
	freshBytes      = 1 << 20
	freshBtrfsBytes = 2 << 20
)

// peek counts the top of a tree as an archive would, as far as it takes to know that the tree is not empty: its entries, and
// what lies in the folder that is its only entry, lost+found as a rule.
func peek(root *os.File) archive.TreeStats {
	stats := archive.TreeStats{Entries: 1, Dirs: 1}
	for folder := "."; ; {
		names, err := readNames(root, folder)
		if err != nil {
			return archive.TreeStats{DamagedCount: 1} // the archive will say what of
		}
		stats.Entries += int64(len(names))
		if len(names) != 1 || stats.Entries > 2 {
			return stats
		}
		var stat unix.Stat_t
		if err := unix.Fstatat(int(root.Fd()), names[0], &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return archive.TreeStats{DamagedCount: 1}
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			stats.Files++
			return stats
		}
		folder = names[0]
	}
}

// readNames returns the first names in a folder of a tree.
func readNames(root *os.File, folder string) ([]string, error) {
	fd, err := unix.Openat(int(root.Fd()), folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), folder)
	names, err := dir.Readdirnames(2)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, dir.Close())
}

// checkNotEmpty refuses an archive of nothing where the filesystem says that it holds something.
func checkNotEmpty(stats archive.TreeStats, use unix.Statfs_t) error {
	if stats.Files+stats.ExcludedEntries > 0 || stats.Entries > 2 || stats.DamagedCount > 0 {
		return nil // more than the root and lost+found
	}
	if use.Files == 0 { // FAT and btrfs do not count inodes
		fresh := int64(freshBytes)
		if use.Type == unix.BTRFS_SUPER_MAGIC {
			fresh = freshBtrfsBytes
		}
		if used := int64(use.Blocks-use.Bfree) * use.Bsize; used > fresh {
			return fmt.Errorf("no file can be found, but the filesystem has %s in use", say.Size(used))
		}
		return nil
	}
	if used := int64(use.Files) - int64(use.Ffree); used > freshInodes+stats.Entries {
		return fmt.Errorf("no file can be found, but the filesystem has %d inodes in use", used)
	}
	return nil
}
