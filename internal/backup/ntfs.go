package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// typeNTFS is blkid's word for it.
const typeNTFS = "ntfs"

// hibernationFile is where Windows puts its memory when it hibernates or starts fast next time. What it has of the disk in
// there goes before what is on the disk.
const hibernationFile = "hiberfil.sys"

// unlisted are the attributes of files that the driver knows and does not list: of NTFS the security descriptor, which says
// who may do what, and the DOS attributes (hidden, system, archive, read-only).
func (x *extent) unlisted() []string {
	if x.found.Type != typeNTFS {
		return nil
	}
	return []string{"system.ntfs_security", "system.dos_attrib"}
}

// checkAwake refuses a mounted NTFS of a Windows that sleeps.
func (x *extent) checkAwake(root *os.File) error {
	if x.found.Type != typeNTFS {
		return nil
	}
	asleep, err := hibernated(root)
	if err != nil {
		return fmt.Errorf("look for a hibernated Windows on %s: %w", x.label(), err)
	}
	if asleep {
		return &leftAloneError{"a Windows hibernates on it; shut it down without fast start-up (shutdown /s /f /t 0)"}
	}
	return nil
}

// hibernated says whether a root directory has the memory of a Windows that is to go on with it. The file is there while
// it runs, too, and then begins with other bytes.
func hibernated(root *os.File) (bool, error) {
	dir, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	list, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if !strings.EqualFold(name, hibernationFile) {
			continue
		}
		file, err := dir.Open(name)
		if err != nil {
			return false, err
		}
		defer file.Close()
		head := make([]byte, 4)
		if _, err := io.ReadFull(file, head); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return false, nil
			}
			return false, err
		}
		return strings.EqualFold(string(head), "hibr"), nil
	}
	return false, nil
}
