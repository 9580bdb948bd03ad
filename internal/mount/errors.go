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
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev)))
	if err != nil {
		return errorCounter{}, fmt.Errorf("cannot find the error counter: %w", err)
	}
	return errorCounter{filepath.Join("/sys/fs/ext4", filepath.Base(device), "errors_count")}, nil
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

// Errors returns how many errors the kernel has found in the filesystem since it was mounted, those among them that no
// read has failed for, and what it said of them in its log. Call it after reading and before calling what was read whole.
func (m *Mount) Errors() (count int64, messages []string, err error) {
	now, err := m.errors.read()
	if err != nil {
		return 0, nil, fmt.Errorf("look for errors of %s: %w", m.device, err)
	}
	if count = now - m.errorsBefore; count > 0 {
		messages = m.kernel.messages()
	}
	return count, messages, nil
}
