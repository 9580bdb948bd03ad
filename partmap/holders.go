package partmap

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// BusyError is the failure to remove a map in use. Its message names who uses it.
type BusyError struct {
	Name      string
	OpenCount int
	Holders   []string // in words: "a mount at /mnt (seen by process 12, bash)"; empty when nothing that can be seen holds it
	Err       error    // of the last attempt
}

func (e *BusyError) Error() string {
	who := "nothing that /proc and /sys show, which may be a detached mount"
	if len(e.Holders) > 0 {
		who = strings.Join(e.Holders, "; ")
	}
	return fmt.Sprintf("cannot unmap %s: it is in use (open count %d) by %s", e.Name, e.OpenCount, who)
}

// Hint says what a person can do about it.
func (e *BusyError) Hint() string { return "end what uses it, then run `voltar cleanup`" }

func (e *BusyError) Unwrap() error { return e.Err }

// holders looks for who uses a map: other block devices, mounts of any namespace, swap, open descriptors. It is for a
// message, so that what cannot be looked at (a process that has just ended) is passed over.
func holders(m *Mapped) []string {
	sys := fmt.Sprintf("/sys/dev/block/%d:%d/holders", m.Major, m.Minor)
	list := deviceHolders(os.DirFS(sys), func(name string) string {
		b, err := os.ReadFile(filepath.Join("/sys/block", name, "dm/name"))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	})
	aliases := []string{m.Path, fmt.Sprintf("/dev/dm-%d", m.Minor)}
	list = append(list, mountHolders(os.DirFS("/proc"), m.Major, m.Minor, aliases)...)
	list = append(list, swapHolders(os.DirFS("/proc"), aliases)...)
	return append(list, openHolders("/proc", m.Major, m.Minor)...)
}

// deviceHolders lists the block devices that stand on a device.
func deviceHolders(holdersDir fs.FS, dmName func(string) string) []string {
	entries, err := fs.ReadDir(holdersDir, ".")
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		what := "the device " + e.Name()
		if name := dmName(e.Name()); name != "" {
			what += " (map " + name + ")"
		}
		list = append(list, what)
	}
	return list
}

// mountHolders lists the mounts of a device in all mount namespaces, each path once, with one process that sees it.
// Filesystems with device numbers of their own (btrfs) are found by the source they name.
func mountHolders(proc fs.FS, major, minor uint32, aliases []string) []string {
	number := fmt.Sprintf("%d:%d", major, minor)
	seen := map[string]bool{}
	var list []string
	for _, pid := range processes(proc) {
		b, err := fs.ReadFile(proc, pid+"/mountinfo")
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			fields := strings.Fields(string(line))
			dash := slices.Index(fields, "-")
			if len(fields) < 5 || dash < 0 || dash+2 >= len(fields) {
				continue
			}
			where := fields[4]
			if fields[2] != number && !slices.Contains(aliases, fields[dash+2]) || seen[where] {
				continue
			}
			seen[where] = true
			list = append(list, fmt.Sprintf("a mount at %s (seen by process %s, %s)", where, pid, command(proc, pid)))
		}
	}
	return list
}

// swapHolders tells whether the host swaps to a device.
func swapHolders(proc fs.FS, aliases []string) []string {
	f, err := proc.Open("swaps")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && slices.Contains(aliases, fields[0]) {
			return []string{"the host's swap"}
		}
	}
	return nil
}

// openHolders lists the processes that have a device open. A link's target is looked at first: a stat of just any
// descriptor could hang on a dead network filesystem.
func openHolders(proc string, major, minor uint32) []string {
	procFS := os.DirFS(proc)
	var list []string
	for _, pid := range processes(procFS) {
		fds, err := os.ReadDir(filepath.Join(proc, pid, "fd"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			path := filepath.Join(proc, pid, "fd", fd.Name())
			target, err := os.Readlink(path)
			if err != nil || !strings.HasPrefix(target, "/dev/") {
				continue
			}
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK &&
				unix.Major(st.Rdev) == major && unix.Minor(st.Rdev) == minor {
				list = append(list, fmt.Sprintf("process %s (%s)", pid, command(procFS, pid)))
				break
			}
		}
	}
	return list
}

func processes(proc fs.FS) []string {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil
	}
	var pids []string
	for _, e := range entries {
		if c := e.Name()[0]; c >= '0' && c <= '9' {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

func command(proc fs.FS, pid string) string {
	b, err := fs.ReadFile(proc, pid+"/comm")
	if err != nil {
		return "ended"
	}
	return strings.TrimSpace(string(b))
}
