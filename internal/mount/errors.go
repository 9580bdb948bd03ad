package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errorCounter reads how many errors the kernel has recorded for a mounted filesystem. It is that of the ext4 driver
// (Documentation/ABI/testing/sysfs-fs-ext4: errors_count), which hides some from readers: a damaged block of a folder is
// passed over, and the folder looks emptier than it is. The other drivers fail the read; for them there is no counter.
type errorCounter struct{ path string } // "" counts nothing

func newErrorCounter(driver string, rdev uint64) (errorCounter, error) {
	if driver != "ext4" {
		return errorCounter{}, nil
	}
	path, err := ext4Attribute(rdev, "errors_count")
	if err != nil {
		return errorCounter{}, fmt.Errorf("cannot find the error counter: %w", err)
	}
	return errorCounter{path}, nil
}

// ext4Attribute is where sysfs has an attribute of a mounted ext4 (Documentation/ABI/testing/sysfs-fs-ext4).
func ext4Attribute(rdev uint64, name string) (string, error) {
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev)))
	if err != nil {
		return "", err
	}
	return filepath.Join("/sys/fs/ext4", filepath.Base(device), name), nil
}

func (c errorCounter) read() (int64, error) {
	if c.path == "" {
		return 0, nil
	}
	text, err := os.ReadFile(c.path)
	if err != nil {
		return 0, fmt.Errorf("cannot read the error counter: %w", err)
	}
	count, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read the error counter %s: %w", c.path, err)
	}
	return count, nil
}

// Error is something that the kernel has found wrong in a mounted filesystem.
type Error struct {
	Inode   uint64 // 0 when it is about none
	Message string // of the kernel
}

// Errors returns what the kernel has found wrong in the filesystem since it was mounted, such as no read has failed for
// among it. Call it after reading and before calling what was read whole. What the kernel's log no longer has is one error
// for all.
func (m *Mount) Errors() ([]Error, error) {
	now, err := m.errors.read()
	if err != nil {
		return nil, fmt.Errorf("look for errors of %s: %w", m.device, err)
	}
	if now == m.errorsBefore {
		return nil, nil
	}
	var found []Error
	for _, message := range m.kernel.messages() {
		if inode, ok := errorInode(message); ok {
			found = append(found, Error{inode, message})
		}
	}
	if len(found) == 0 {
		found = []Error{{Message: fmt.Sprintf("the kernel counts %d errors", now-m.errorsBefore)}}
	}
	return found, nil
}

// errorInode reads which inode a message is about: "EXT4-fs error (device dm-3): ext4_lookup:1785: inode #12: …".
func errorInode(message string) (inode uint64, isError bool) {
	if !strings.HasPrefix(message, "EXT4-fs error") {
		return 0, false
	}
	if _, after, ok := strings.Cut(message, "inode #"); ok {
		digits, _, _ := strings.Cut(after, ":")
		inode, _ = strconv.ParseUint(digits, 10, 64) // 0 for what is no number
	}
	return inode, true
}
