package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/hostcmd"
)

// Dev is the number of a block device.
type Dev struct {
	Major, Minor int
}

// String is MAJOR:MINOR, as sysfs and mountinfo write it.
func (d Dev) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

func devOf(number uint64) Dev {
	return Dev{Major: int(unix.Major(number)), Minor: int(unix.Minor(number))}
}

// ParseDev reads MAJOR:MINOR.
func ParseDev(s string) (Dev, error) {
	major, minor, found := strings.Cut(strings.TrimSpace(s), ":")
	a, errA := strconv.ParseUint(major, 10, 31)
	b, errB := strconv.ParseUint(minor, 10, 31)
	if !found || errA != nil || errB != nil {
		return Dev{}, fmt.Errorf("cannot read %.40q as a device number", s)
	}
	return Dev{Major: int(a), Minor: int(b)}, nil
}

// VolumesUnder returns those volumes of inv that the devices consist of, directly or through any stack of partitions,
// device-mapper maps, md arrays and loop devices over files. It includes internal volumes, pools, and the origin
// where a device is a snapshot.
func (c *Client) VolumesUnder(inv Inventory, devs ...Dev) ([]Volume, error) {
	under, err := c.DevicesUnder(devs...)
	if err != nil {
		return nil, err
	}
	uuids := map[string]bool{}
	for _, dev := range under {
		if uuid := c.lvUUID(dev); uuid != "" {
			uuids[uuid] = true
		}
	}
	return filter(inv.Volumes, func(v Volume) bool { return uuids[v.UUID] }), nil
}

// VolumesUnderPath returns those volumes of inv that a file or folder lies on, or that a device node stands for; see
// VolumesUnder. A path that does not exist yet lies where its nearest existing folder does.
func (c *Client) VolumesUnderPath(inv Inventory, path string) ([]Volume, error) {
	devs, err := c.DevicesOfPath(path)
	if err != nil {
		return nil, err
	}
	return c.VolumesUnder(inv, devs...)
}

// DevicesUnderPath returns what a file or folder lies on, with all that it consists of.
func (c *Client) DevicesUnderPath(path string) ([]Dev, error) {
	devs, err := c.DevicesOfPath(path)
	if err != nil {
		return nil, err
	}
	return c.DevicesUnder(devs...)
}

// SwapVolumes returns those volumes of inv that this host swaps to.
func (c *Client) SwapVolumes(inv Inventory) ([]Volume, error) {
	data, err := os.ReadFile(filepath.Join(c.proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the host's swap devices: %w", err)
	}
	var devs []Dev
	for _, path := range parseSwaps(string(data)) {
		found, err := c.DevicesOfPath(path)
		if err != nil {
			return nil, fmt.Errorf("find the host's swap %s: %w", path, err)
		}
		devs = append(devs, found...)
	}
	return c.VolumesUnder(inv, devs...)
}

// parseSwaps returns the paths in /proc/swaps.
func parseSwaps(table string) []string {
	var paths []string
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[0], "/") {
			paths = append(paths, strings.TrimSuffix(unescapeOctal(fields[0]), " (deleted)"))
		}
	}
	return paths
}

// unescapeOctal undoes the kernel's \ooo for white space and backslashes in mountinfo and swaps.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// DevicesUnder returns the devices and all that they consist of, each once.
func (c *Client) DevicesUnder(devs ...Dev) ([]Dev, error) {
	var found []Dev
	for todo := slices.Clone(devs); len(todo) > 0; {
		dev := todo[0]
		todo = todo[1:]
		if slices.Contains(found, dev) {
			continue
		}
		found = append(found, dev)
		below, err := c.below(dev)
		if err != nil {
			return nil, fmt.Errorf("find what device %s consists of: %w", dev, err)
		}
		todo = append(todo, below...)
	}
	return found, nil
}

// below returns what a device lies on directly.
func (c *Client) below(dev Dev) ([]Dev, error) {
	// The link is resolved first, as the folder above a partition's is its disk.
	dir, err := filepath.EvalSymlinks(c.sysDir(dev))
	if err != nil {
		return nil, fmt.Errorf("cannot find the device in sysfs: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk, err := readDev(filepath.Dir(dir))
		return []Dev{disk}, err
	}
	file, err := os.ReadFile(filepath.Join(dir, "loop/backing_file"))
	if err == nil {
		return c.DevicesOfPath(strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), " (deleted)"))
	}
	return readDevs(filepath.Join(dir, "slaves"))
}

func (c *Client) sysDir(dev Dev) string { return filepath.Join(c.sys, "dev/block", dev.String()) }

func readDev(dir string) (Dev, error) {
	data, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return Dev{}, fmt.Errorf("cannot read a device number: %w", err)
	}
	return ParseDev(string(data))
}

// readDevs reads the numbers of the devices that a folder of sysfs links to; no folder means none.
func readDevs(dir string) ([]Dev, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list devices: %w", err)
	}
	var devs []Dev
	for _, entry := range entries {
		dev, err := readDev(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		devs = append(devs, dev)
	}
	return devs, nil
}

// deviceBytes is the size of a block device.
func (c *Client) deviceBytes(dev Dev) (int64, error) {
	text, err := os.ReadFile(filepath.Join(c.sysDir(dev), "size"))
	if err != nil {
		return 0, fmt.Errorf("cannot read the size of device %s: %w", dev, err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || sectors <= 0 || sectors > maxSectors {
		return 0, fmt.Errorf("cannot read the size of device %s: %.40q sectors", dev, text)
	}
	return sectors * sectorBytes, nil
}

// lvUUID returns the UUID of the logical volume that a device-mapper device is, or is a layer of; empty for others.
func (c *Client) lvUUID(dev Dev) string {
	data, err := os.ReadFile(filepath.Join(c.sysDir(dev), "dm/uuid"))
	if err != nil {
		return ""
	}
	return uuidOfDM(strings.TrimSpace(string(data)))
}

// uuidOfDM reads `LVM-`, 32 characters for the group, 32 for the volume, and a suffix for its inner layers.
func uuidOfDM(dmUUID string) string {
	ids, found := strings.CutPrefix(dmUUID, "LVM-")
	if !found || len(ids) < 64 || (len(ids) > 64 && ids[64] != '-') || strings.Contains(ids[:64], "-") {
		return ""
	}
	lv := ids[32:64]
	return strings.Join([]string{lv[:6], lv[6:10], lv[10:14], lv[14:18], lv[18:22], lv[22:26], lv[26:]}, "-")
}

// DevicesOfPath returns the block devices that a file or folder lies on, or the one that a device node stands for. A
// path that does not exist yet lies where its nearest existing folder does. A filesystem without a block device, such
// as NFS or tmpfs, has none.
func (c *Client) DevicesOfPath(path string) ([]Dev, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", path, err)
	}
	target, err := filepath.EvalSymlinks(path)
	for errors.Is(err, fs.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		target, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return []Dev{devOf(st.Rdev)}, nil
	}
	if dev := devOf(st.Dev); dev.Major != 0 {
		return []Dev{dev}, nil
	}
	mounts, err := c.mounts("self")
	if err != nil {
		return nil, err
	}
	m, ok := mountOf(mounts, target)
	if !ok || !strings.HasPrefix(m.source, "/dev/") {
		return nil, nil
	}
	return c.filesystemDevices(m.source)
}

// filesystemDevices returns the devices of a filesystem that hides them behind an anonymous number: btrfs may have
// many.
func (c *Client) filesystemDevices(source string) ([]Dev, error) {
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", source, err)
	}
	dev := devOf(st.Rdev)
	folders, err := filepath.Glob(filepath.Join(c.sys, "fs/btrfs/*/devices"))
	if err != nil {
		return nil, fmt.Errorf("cannot list btrfs filesystems: %w", err)
	}
	for _, folder := range folders {
		devs, err := readDevs(folder)
		if err != nil {
			return nil, err
		}
		if slices.Contains(devs, dev) {
			return devs, nil
		}
	}
	return []Dev{dev}, nil
}

// mount is one line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	dev           Dev
	point, source string
}

func (c *Client) mounts(pid string) ([]mount, error) {
	data, err := os.ReadFile(filepath.Join(c.proc, pid, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot read mounts: %w", err)
	}
	return parseMountinfo(string(data)), nil
}

func parseMountinfo(table string) []mount {
	var mounts []mount
	for line := range strings.Lines(table) {
		before, after, found := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 2 {
			continue
		}
		dev, err := ParseDev(left[2])
		if err != nil {
			continue
		}
		mounts = append(mounts, mount{dev: dev, point: unescapeOctal(left[4]), source: unescapeOctal(right[1])})
	}
	return mounts
}

// mountOf returns the mount that path lies in: the deepest, and of those on one point the last.
func mountOf(mounts []mount, path string) (mount, bool) {
	var best mount
	for _, m := range mounts {
		inside := path == m.point || strings.HasPrefix(path, strings.TrimSuffix(m.point, "/")+"/")
		if inside && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best, best.point != ""
}

// IsSuspended asks the kernel whether a volume's device is suspended just now.
func (c *Client) IsSuspended(v Volume) (bool, error) {
	dev, active := v.Dev()
	if !active {
		return false, fmt.Errorf("%s: %w", v, ErrInactive)
	}
	text, err := os.ReadFile(filepath.Join(c.sysDir(dev), "dm/suspended"))
	if err != nil {
		return false, fmt.Errorf("cannot tell whether %s is suspended: %w", v, err)
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

// MountsOn returns where filesystems that lie on a device, directly or through maps and partitions, are mounted in this
// mount namespace: one place for each filesystem.
func (c *Client) MountsOn(dev Dev) ([]string, error) {
	mounts, err := c.mounts("self")
	if err != nil {
		return nil, err
	}
	seen := map[Dev]bool{}
	var points []string
	for _, m := range mounts {
		if m.dev.Major == 0 {
			m.dev = blockDev(m.source) // btrfs has numbers of its own; the zero Dev is none
		}
		if m.dev == (Dev{}) || seen[m.dev] {
			continue
		}
		seen[m.dev] = true
		under, err := c.DevicesUnder(m.dev)
		if err != nil {
			return nil, fmt.Errorf("find what is mounted at %s: %w", m.point, err)
		}
		if slices.Contains(under, dev) {
			points = append(points, m.point)
		}
	}
	return points, nil
}

// Holder is something that keeps a device from being removed.
type Holder struct {
	What string // device, mount, swap, process
	Name string // the map's or device's name, the mountpoint, the swap's path, the program
	PID  int    // of processes, and of one process in the namespace of a mount
}

// String is for messages.
func (h Holder) String() string {
	switch {
	case h.What == "mount" && h.PID != 0:
		return fmt.Sprintf("mount %s (seen by process %d)", h.Name, h.PID)
	case h.PID != 0:
		return fmt.Sprintf("%s %d (%s)", h.What, h.PID, h.Name)
	}
	return h.What + " " + h.Name
}

// HoldersOf returns what it can find of those that hold a device: maps and arrays on it, loop devices over it, mounts
// in any mount namespace, swap, and processes with an open descriptor. Processes come and go while it looks, so that
// what it cannot read it passes over.
func (c *Client) HoldersOf(dev Dev) []Holder {
	var holders []Holder
	add := func(h Holder) {
		same := func(o Holder) bool { return o.What == h.What && o.Name == h.Name }
		if h.What == "process" || !slices.ContainsFunc(holders, same) {
			holders = append(holders, h)
		}
	}
	entries, _ := os.ReadDir(filepath.Join(c.sysDir(dev), "holders"))
	for _, entry := range entries {
		name := entry.Name()
		if dm, err := os.ReadFile(filepath.Join(c.sysDir(dev), "holders", name, "dm/name")); err == nil {
			name += " (" + strings.TrimSpace(string(dm)) + ")"
		}
		add(Holder{What: "device", Name: name})
	}
	loops, _ := filepath.Glob(filepath.Join(c.sys, "block/loop*/loop/backing_file"))
	for _, file := range loops {
		if path, err := os.ReadFile(file); err == nil && nodeIs(strings.TrimSpace(string(path)), dev) {
			add(Holder{What: "device", Name: filepath.Base(filepath.Dir(filepath.Dir(file)))})
		}
	}
	if swaps, err := os.ReadFile(filepath.Join(c.proc, "swaps")); err == nil {
		for _, path := range parseSwaps(string(swaps)) {
			if nodeIs(path, dev) {
				add(Holder{What: "swap", Name: path})
			}
		}
	}
	seen := map[string]bool{}
	for _, pid := range c.pids() {
		namespace, err := os.Readlink(filepath.Join(c.proc, pid, "ns/mnt"))
		number, _ := strconv.Atoi(pid)
		if err != nil || !seen[namespace] {
			seen[namespace] = true
			mounts, _ := c.mounts(pid)
			for _, m := range mounts {
				if m.dev == dev || (m.dev.Major == 0 && nodeIs(m.source, dev)) {
					add(Holder{What: "mount", Name: m.point, PID: number})
				}
			}
		}
		if c.hasOpen(pid, dev) {
			name, _ := os.ReadFile(filepath.Join(c.proc, pid, "comm"))
			add(Holder{What: "process", Name: strings.TrimSpace(string(name)), PID: number})
		}
	}
	return holders
}

func (c *Client) pids() []string {
	entries, _ := os.ReadDir(c.proc)
	var pids []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

// hasOpen looks at a process's descriptors. Only links into /dev are followed, as a dead network filesystem would keep
// others waiting.
func (c *Client) hasOpen(pid string, dev Dev) bool {
	dir := filepath.Join(c.proc, pid, "fd")
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		link := filepath.Join(dir, entry.Name())
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "/dev/") && blockDev(link) == dev {
			return true
		}
	}
	return false
}

func nodeIs(path string, dev Dev) bool {
	return strings.HasPrefix(path, "/dev/") && blockDev(path) == dev
}

// blockDev returns the number of a block device's node; the zero Dev is none.
func blockDev(path string) Dev {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Dev{}
	}
	return devOf(st.Rdev)
}

// openCount is how often a device-mapper device is open.
func (c *Client) openCount(ctx context.Context, dev Dev) (int, error) {
	args := []string{"info", "-c", "--noheadings", "-o", "open",
		"-j", strconv.Itoa(dev.Major), "-m", strconv.Itoa(dev.Minor)}
	res, err := c.run.Run(ctx, hostcmd.Cmd{Name: "dmsetup", Args: args, Env: c.env, Timeout: settleTimeout})
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(res.Stdout)))
}
