package backup

import (
	"fmt"

	"golang.org/x/sys/unix"

	"voltar/archive"
)

// What must hold before the manifest of a backup is written. Each condition guards against an archive that looks good
// and is not; docs/design.md lists them with the accident that each prevents.

// freshInodes is the most inodes that an empty filesystem uses: 11 on ext, where the first ten are reserved.
const freshInodes = 11

// freshBytes is the most that an empty filesystem without a count of inodes uses: btrfs's own trees, the log, tables and
// map of clusters of NTFS, the map of exFAT; FAT has one cluster.
func freshBytes(fsType string, use unix.Statfs_t) int64 {
	const mib, clusterBits = 1 << 20, 4096 * 8 // of the smallest clusters in use, one bit each
	sizeBytes := int64(use.Blocks) * use.Bsize
	switch fsType {
	case typeNTFS:
		return 4*mib + min(sizeBytes/128, 64*mib) + sizeBytes/clusterBits
	case "exfat":
		return mib + sizeBytes/clusterBits
	}
	return mib
}

// checkNotEmpty refuses an archive of nothing where the filesystem says that it holds something.
func checkNotEmpty(stats archive.TreeStats, fsType string, use unix.Statfs_t) error {
	if stats.Files+stats.ExcludedEntries > 0 || stats.Entries > 2 || stats.DamagedCount > 0 {
		return nil // more than the root and lost+found
	}
	if use.Files == 0 { // FAT, exFAT, NTFS and btrfs do not count inodes
		if used := int64(use.Blocks-use.Bfree) * use.Bsize; used > freshBytes(fsType, use) {
			return fmt.Errorf("the archive is empty, but the filesystem has %d bytes in use", used)
		}
		return nil
	}
	if used := int64(use.Files) - int64(use.Ffree); used > freshInodes+stats.Entries {
		return fmt.Errorf("the archive is empty, but the filesystem has %d inodes in use", used)
	}
	return nil
}
