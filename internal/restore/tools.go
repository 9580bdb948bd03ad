package restore

import (
	"fmt"
	"slices"

	"voltar/internal/probe"
	"voltar/internal/say"
)

// packages are where Debian has the tools that make filesystems.
var packages = map[string]string{
	"mke2fs": "e2fsprogs", "tune2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.fat": "dosfstools", "mkfs.vfat": "dosfstools",
	"mkfs.btrfs": "btrfs-progs", "mkswap": "util-linux",
}

// checkTools refuses a restore for which this host lacks the tool that makes the filesystem.
func (p *planner) checkTools(fsType string, recipe probe.Recipe) error {
	for _, argv := range slices.Concat(recipe.Commands, recipe.Last) {
		if _, err := p.Runner.LookPath(argv[0]); err != nil {
			return say.WithHint(fmt.Errorf("%w: %s is made by %s, which this host lacks", ErrUsage, fsType, argv[0]),
				fmt.Sprintf("install the package %s", packages[argv[0]]))
		}
	}
	return nil
}
