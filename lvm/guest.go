package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// GuestGroups returns, by UUID, the volume groups of inv that look like a guest's rather than this host's, with the reason:
// one of their physical volumes lies on a logical volume, through any stack of partitions, maps and loop devices, or on a
// device that another process may write to, as QEMU does with a guest's disk. What this host changes in such a group, it
// changes behind the back of a system that runs.
func (c *Client) GuestGroups(inv Inventory) (map[string]string, error) {
	writers := c.writers()
	reasons := map[string]string{}
	for _, pv := range inv.PVs {
		if reasons[pv.VGUUID] != "" || pv.VGUUID == "" || pv.Missing || pv.Dev.Major <= 0 {
			continue
		}
		reason, err := c.guestReason(inv, pv, writers)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			reasons[pv.VGUUID] = reason
		}
	}
	return reasons, nil
}

func (c *Client) guestReason(inv Inventory, pv PV, writers map[Dev]Holder) (string, error) {
	under, err := c.DevicesUnder(pv.Dev)
	if err != nil {
		return "", fmt.Errorf("find what %s lies on: %w", pv.Name, err)
	}
	for _, dev := range under {
		if uuid := c.lvUUID(dev); uuid != "" {
			name := "a logical volume"
			if i := slices.IndexFunc(inv.Volumes, func(v Volume) bool { return v.UUID == uuid }); i >= 0 {
				name = "the logical volume " + inv.Volumes[i].String()
			}
			return fmt.Sprintf("its physical volume %s lies on %s: a guest's group, taken only when named as VG/LV", pv.Name, name), nil
		}
	}
	for _, dev := range under {
		if w, found := writers[dev]; found {
			return fmt.Sprintf("%s has its physical volume %s open for writing: a guest's group, taken only when named as VG/LV", w, pv.Name), nil
		}
	}
	return "", nil
}

// lvm2's own programs write to physical volumes for a moment, and its daemon may.
var lvmPrograms = []string{"lvm", "lvm.static", "dmeventd", "lvmpolld"}

// writers returns the block devices that processes other than this one and lvm2's have open for writing. Those that only read
// are no concern: multipathd, smartd and udevd have disks open all the time.
func (c *Client) writers() map[Dev]Holder {
	found := map[Dev]Holder{}
	own := strconv.Itoa(os.Getpid())
	for _, pid := range c.pids() {
		exe, err := os.Readlink(filepath.Join(c.proc, pid, "exe"))
		if pid == own || err == nil && slices.Contains(lvmPrograms, filepath.Base(exe)) {
			continue
		}
		entries, _ := os.ReadDir(filepath.Join(c.proc, pid, "fd"))
		for _, entry := range entries {
			link := filepath.Join(c.proc, pid, "fd", entry.Name())
			target, err := os.Readlink(link)
			if err != nil || !strings.HasPrefix(target, "/dev/") || !c.isForWriting(pid, entry.Name()) {
				continue
			}
			if dev := blockDev(link); dev != (Dev{}) {
				number, _ := strconv.Atoi(pid)
				name, _ := os.ReadFile(filepath.Join(c.proc, pid, "comm"))
				found[dev] = Holder{What: "process", Name: strings.TrimSpace(string(name)), PID: number}
			}
		}
	}
	return found
}

// isForWriting reads the flags of a descriptor (proc_pid_fdinfo(5)).
func (c *Client) isForWriting(pid, fd string) bool {
	info, err := os.ReadFile(filepath.Join(c.proc, pid, "fdinfo", fd))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		if octal, found := strings.CutPrefix(line, "flags:"); found {
			flags, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}
