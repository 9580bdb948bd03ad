package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/partmap"
)

// Programs that look at every device, such as udev's, open a target for a moment.
const (
	useAttempts = 4
	useRetry    = 500 * time.Millisecond
)

// checkUnused returns an error that wraps ErrInUse when someone uses a device: the kernel for a mount, swap or another
// device, or a process that has it open, as a virtual machine has its disk.
func (e *Engine) checkUnused(ctx context.Context, device string) error {
	var users []string
	for attempt := range useAttempts {
		var err error
		if users, err = e.users(ctx, device); err != nil || len(users) == 0 {
			return err
		}
		if attempt == useAttempts-1 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(useRetry):
		}
	}
	return say.WithHint(fmt.Errorf("%w: %s is used by %s", ErrInUse, device, strings.Join(users, ", ")),
		"stop what uses it, or restore to another target")
}

// users names those who use a device.
func (e *Engine) users(ctx context.Context, device string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, say.WithHint(fmt.Errorf("%w: there is no device %s", ErrUsage, device),
				"`lsblk` lists the block devices; --to-image FILE makes a file")
		}
		return nil, fmt.Errorf("cannot look at %s: %w", device, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFBLK {
		hint := "`lsblk` lists the block devices"
		switch kind {
		case unix.S_IFREG:
			hint = "--to-image FILE is for files"
		case unix.S_IFDIR:
			hint = "--to-dir DIR is for folders, and takes the files alone"
		}
		return nil, say.WithHint(fmt.Errorf("%w: %s is no block device", ErrUsage, device), hint)
	}
	dev := lvm.Dev{Major: int(unix.Major(st.Rdev)), Minor: int(unix.Minor(st.Rdev))}
	var users []string
	for _, h := range e.LVM.HoldersOf(dev) {
		users = append(users, h.String())
	}
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		err = unix.Close(fd)
	case errors.Is(err, unix.EBUSY):
		err = nil
		if len(users) == 0 {
			users = append(users, "something that /proc and /sys do not show, which may be a detached mount")
		}
	default:
		err = fmt.Errorf("cannot open %s for writing: %w", device, err)
	}
	if err != nil || len(users) > 0 {
		return users, err
	}
	inventory, err := e.inventory(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range inventory.Volumes {
		if at, active := v.Dev(); active && at == dev && v.Open {
			users = append(users, "something that has it open and that /proc does not show")
		}
	}
	return users, nil
}

// contents names what lies on a device; nothing where it is blank.
func (e *Engine) contents(ctx context.Context, device string, sizeBytes int64) (holds []string, err error) {
	file, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	table, err := partmap.Read(file, sizeBytes, partmap.Options{})
	var invalid *partmap.InvalidError
	switch {
	case err == nil:
		holds = append(holds, fmt.Sprintf("a %s partition table with %s", table.Label, say.Counted(len(table.Partitions), "partition")))
	case errors.As(err, &invalid):
		holds = append(holds, "a partition table that makes no sense")
	case !errors.Is(err, partmap.ErrNoTable):
		return nil, fmt.Errorf("look what %s holds: %w", device, err)
	}
	found, err := e.Prober.Probe(ctx, device, 0, sizeBytes)
	if err != nil {
		return nil, fmt.Errorf("look what %s holds: %w", device, err)
	}
	switch {
	case found.Ambivalent:
		holds = append(holds, "several things at once: "+strings.Join(found.Candidates, ", "))
	case found.Type == "LVM2_member":
		holds = append(holds, "an LVM physical volume")
	case found.Type != "":
		what := found.Type
		if found.Label != "" {
			what += fmt.Sprintf(" labelled %q", found.Label)
		}
		holds = append(holds, what)
	case found.PTType != "" && len(holds) == 0:
		holds = append(holds, "a partition table of the kind "+found.PTType)
	}
	return holds, nil
}

// volumeContents adds what LVM knows of a volume that would be overwritten.
func volumeContents(v lvm.Volume, inventory lvm.Inventory) []string {
	if !v.HasClassicSnapshots() {
		return nil
	}
	var names []string
	for _, s := range inventory.SnapshotsOf(v) {
		names = append(names, s.String())
	}
	return []string{"snapshots, whose space what is written would fill: " + strings.Join(names, ", ")}
}

// inventory lists the volumes of the host; a host without LVM has none.
func (e *Engine) inventory(ctx context.Context) (lvm.Inventory, error) {
	if _, err := e.Runner.LookPath("lvs"); err != nil {
		return lvm.Inventory{}, nil //nolint:nilerr // no lvm2, no volumes
	}
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil {
		return lvm.Inventory{}, fmt.Errorf("list volumes: %w", err)
	}
	return inventory, nil
}

// deviceSize is the size of a block device in bytes.
func deviceSize(device string) (_ int64, err error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.Seek(0, io.SeekEnd)
}

// readTable reads the partition table of a device.
func readTable(device string, sizeBytes int64, sectorBytes int) (_ *partmap.Table, err error) {
	file, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return partmap.Read(file, sizeBytes, partmap.Options{SectorBytes: sectorBytes})
}

// holdsLayout returns nil when a device has exactly the partitions that the layout asks for.
func (l *layout) holdsLayout(device string, sizeBytes int64, want *catalog.Table) error {
	table, err := readTable(device, sizeBytes, want.SectorBytes)
	if err != nil {
		return err
	}
	if difference := l.sameTable(table, want); difference != "" {
		return fmt.Errorf("the partition table of %s is not that of the backup: %s", device, difference)
	}
	for _, note := range table.Notes {
		if !slices.Contains(want.Notes, note) {
			return fmt.Errorf("the partition table of %s is not in order: %s", device, note)
		}
	}
	return nil
}
