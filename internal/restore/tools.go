package restore

import (
	"context"
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

// checkMaps refuses a restore that takes maps of the device-mapper on a host that can make none: what is all of its target needs none, nor
// does an image of a partition.
func (p *planner) checkMaps(ctx context.Context) error {
	var mapped []piece
	guest := false
	for _, s := range p.plan.Steps {
		if x, takes := p.plan.takesMap(s); takes {
			mapped, guest = append(mapped, x), guest || x.LV != nil
		}
	}
	if len(mapped) == 0 {
		return nil
	}
	_, err := p.Maps.List(ctx, "LVM-voltar-")
	if err == nil {
		return nil
	}
	instead := "without that, --to-dir DIR restores the files"
	if !guest {
		instead += ", and the steps of RESTORE.txt in the folder of the backup make the disk, with loop devices"
	}
	return say.WithHint(fmt.Errorf("%w: %s takes the device-mapper, which does not work here: %w", ErrUsage, mapped[0].label(), err),
		"`modprobe dm-mod`, and install the package dmsetup; "+instead)
}

// takesMap returns the piece for which a step makes a map.
func (p *Plan) takesMap(s Step) (piece, bool) {
	var x piece
	switch s := s.(type) {
	case *restoreFilesystem:
		x = s.piece
	case *makeSwap:
		x = s.piece
	case *writeImage:
		if s.piece.LV == nil { // it is written at its offset
			return piece{}, false
		}
		x = s.piece
	default:
		return piece{}, false
	}
	return x, !p.isWhole(x)
}
