package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/lvm"
)

// checkRoom refuses a filesystem of its own size that cannot hold what is in the archive. Only with an index that is whole do files
// share their data again, and what was compressed takes its full size.
func (p *planner) checkRoom(x piece) error {
	if x.State != catalog.StateFiles || x.resized() || len(p.req.Paths) > 0 {
		return nil
	}
	if needed := x.NeededBytes(x.sharesAgain()); needed > x.targetBytes {
		why := "they were compressed"
		if x.UniqueBytes > 0 {
			why = "they shared data, and the index that told which is lost"
		}
		larger := "restore"
		if p.req.Promised != nil {
			larger = "restore this volume by itself (`voltar restore " + p.req.Backup.ID.String() + "`)"
		}
		return say.WithHint(fmt.Errorf("%w: %s of files do not fit %s: %s", ErrUsage, say.Size(needed),
			say.Size(x.targetBytes), why),
			larger+" to a larger target with --to-lv or --to-image and --size SIZE, whose last partition takes it, "+
				"or the files alone with --to-dir DIR")
	}
	if x.UniqueBytes > 0 && x.sharesAgain() {
		p.note("%s: files share %s of data; they share it again", x.label(), say.Size(x.ContentBytes-x.UniqueBytes))
	}
	return nil
}

// sharesAgain says whether files can share their data as they did.
func (p piece) sharesAgain() bool { return p.Index != nil && !p.Index.Rebuilt }

// checkTwins looks whether this host has already what must not be there twice: a btrfs of the same UUID, which mkfs and
// the kernel refuse. An XFS, or a volume group, is noted.
func (p *planner) checkTwins(ctx context.Context, l *layout, target string) error {
	groups := map[string]bool{}
	for _, x := range slices.Concat(l.pieces, l.guests) {
		switch {
		case !p.wanted(x.Extent):
		case x.State == catalog.StateLVM && !groups[x.PV.VGUUID]:
			groups[x.PV.VGUUID] = true
			if err := p.noteGroup(ctx, x.PV); err != nil {
				return err
			}
		case x.State != catalog.StateFiles || x.Filesystem == nil || x.Filesystem.UUID == "":
		case x.Filesystem.Type == "btrfs" || x.Filesystem.Type == "xfs":
			twins, err := p.twins(ctx, x.Filesystem.UUID, target)
			if err != nil {
				return err
			}
			if len(twins) == 0 {
				continue
			}
			where := strings.Join(twins, ", ")
			if x.Filesystem.Type == "btrfs" {
				return say.WithHint(fmt.Errorf("%w: %s: this host has a btrfs of the same UUID, %s, on %s, and mkfs.btrfs makes no second one",
					ErrUsage, x.label(), x.Filesystem.UUID, where),
					"restore over it with --force, on another host, or the files alone with --to-dir DIR; or give the other one a new UUID: "+
						"`btrfstune -u DEVICE`")
			}
			p.note("%s: this host has an XFS of the same UUID on %s: to mount both takes the option nouuid", x.label(), where)
		}
	}
	return nil
}

// twins are the devices of this host with a filesystem of a UUID, but for the target, which is overwritten.
func (p *planner) twins(ctx context.Context, uuid, target string) ([]string, error) {
	devices, err := p.Prober.DevicesOf(ctx, uuid)
	if err != nil {
		return nil, err
	}
	var own unix.Stat_t
	if target != "" {
		if err := unix.Stat(target, &own); err != nil {
			return nil, fmt.Errorf("cannot look at %s: %w", target, err)
		}
	}
	return slices.DeleteFunc(devices, func(device string) bool {
		var st unix.Stat_t
		if err := unix.Stat(device, &st); err != nil {
			return true // it is gone
		}
		return target != "" && (st.Rdev == own.Rdev || isPartOf(st.Rdev, own.Rdev))
	}), nil
}

// isPartOf says that a device is the kernel's partition of another.
func isPartOf(device, disk uint64) bool {
	number := func(rdev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)) }
	folder, err := filepath.EvalSymlinks("/sys/dev/block/" + number(device))
	if err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(folder, "partition")); err != nil {
		return false
	}
	parent, err := os.ReadFile(filepath.Join(filepath.Dir(folder), "dev"))
	return err == nil && strings.TrimSpace(string(parent)) == number(disk)
}

// noteGroup notes a volume group of this host that a guest's would be taken for.
func (p *planner) noteGroup(ctx context.Context, pv *catalog.GuestPV) error {
	inventory, err := p.inventory(ctx)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(inventory.VGs, func(vg lvm.VG) bool { return vg.UUID == pv.VGUUID || vg.Name == pv.VG }); i >= 0 {
		p.note("this host has a volume group %s: where its LVM sees into disks of guests (scan_lvs), the guest's is another of that name",
			inventory.VGs[i].Name)
	}
	return nil
}

// noteFree notes that a filesystem of this host may be too small for what is to be written to it.
func (p *planner) noteFree(path string, neededBytes int64) error {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if errors.Is(err, unix.ENOENT) && path != "/" {
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", path, err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < neededBytes {
			p.note("the filesystem of %s has %s free, and %s will be written", path, say.Size(free), say.Size(neededBytes))
		}
		return nil
	}
}
