package extent

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"voltar/archive"
	"voltar/internal/say"
)

// What a tree may have, by what its filesystem can hold. A filesystem in order stays far below; one that was made to cost
// more than its size (folders that contain each other, files that share their blocks) does not. docs/reliability.md names them.
const (
	sharingFactor = 4       // content beyond the volume's size that files may legally share (reflinks, snapshots of btrfs)
	sharingBytes  = 1 << 30 // and for small volumes: headers, paths and attributes of many small files
	namesPerInode = 64      // hard links; folders have one name each, so that on average this is plenty
	leastEntries  = 1 << 16 // whatever the filesystem says
	bytesPerEntry = 256     // of the volume, where the filesystem does not count inodes
)

// treeLimits bounds the archive of a filesystem's tree. Of the time that its volume may take, half is left for an image.
func treeLimits(use unix.Statfs_t, most time.Duration) archive.Limits {
	sizeBytes := int64(min(use.Blocks, 1<<40)) * use.Bsize
	entries := leastEntries + sizeBytes/bytesPerEntry
	if use.Files > 0 { // FAT, exFAT, NTFS and btrfs do not count inodes
		entries = leastEntries + int64(min(use.Files-min(use.Ffree, use.Files), 1<<40))*namesPerInode
	}
	return archive.Limits{StreamBytes: sharingFactor*sizeBytes + sharingBytes, Entries: entries, Duration: most / 2}
}

// usedBytes is what a filesystem says is used of it: nothing less than 0, and at most what it lies on.
func usedBytes(use unix.Statfs_t, sizeBytes int64) int64 {
	blocks := use.Blocks - min(use.Bfree, use.Blocks)
	return min(int64(min(blocks, 1<<40))*use.Bsize, sizeBytes)
}

// beyondBounds returns why a tree was not archived whose filesystem is sound to the kernel but holds more than readers, or
// this host, can do with. Its image has all of it.
func beyondBounds(err error) (*archive.LimitError, bool) {
	var limit *archive.LimitError
	return limit, errors.As(err, &limit)
}

// hintBounds says what to do about a tree beyond a bound that has no image.
func hintBounds(err error) error {
	limit, beyond := beyondBounds(err)
	if !beyond {
		return err
	}
	return say.WithHint(err, fmt.Sprintf("`exclude` leaves out what is too much; it was met at %.200q", limit.Path))
}
