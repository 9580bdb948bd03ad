package restore

import (
	"errors"
	"fmt"
	"slices"

	"voltar/internal/mount"
	"voltar/internal/probe"
	"voltar/internal/say"
)

// packages are where Debian has the tools that make filesystems.
var packages = map[string]string{
	"mke2fs": "e2fsprogs", "tune2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.fat": "dosfstools", "mkfs.vfat": "dosfstools",
	"mkfs.btrfs": "btrfs-progs", "mkswap": "util-linux", "mkfs.exfat": "exfatprogs", "tune.exfat": "exfatprogs",
	"mkfs.ntfs": "ntfs-3g", "ntfslabel": "ntfs-3g", "mkfs.f2fs": "f2fs-tools", "mkfs.jfs": "jfsutils", "jfs_tune": "jfsutils",
}

// checkTools refuses a restore for which this host lacks the tool that makes the filesystem, or a kernel that fills it.
func (p *planner) checkTools(fsType string, recipe probe.Recipe) error {
	for _, argv := range slices.Concat(recipe.Commands, recipe.Last) {
		if _, err := p.Runner.LookPath(argv[0]); err != nil {
			return say.WithHint(fmt.Errorf("%w: %s is made by %s, which this host lacks", ErrUsage, fsType, argv[0]),
				fmt.Sprintf("install the package %s", packages[argv[0]]))
		}
	}
	if mount.Optional(fsType) {
		if err := mount.Available(fsType); errors.Is(err, mount.ErrNoDriver) {
			return say.WithHint(fmt.Errorf("%w: %s cannot be mounted: %w", ErrUsage, fsType, err),
				"restore it on a host whose kernel has the module, or its files with --to-dir")
		}
	}
	return nil
}
