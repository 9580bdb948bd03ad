package backup

import (
	"fmt"

	"voltar/lvm"
)

// hostUse is a use that this host itself makes of a volume.
type hostUse struct{ rule, reason string }

// located is a store whose objects lie in a folder of this host.
type located interface{ Folder() string }

// hostUses returns, by LV UUID, the volumes that must not be backed up because the backup itself, or this host's memory,
// lies on them: through any stack of partitions, maps, arrays and loop devices.
func (e *Engine) hostUses(inventory lvm.Inventory) (map[string]hostUse, error) {
	uses := map[string]hostUse{}
	add := func(volumes []lvm.Volume, err error, use hostUse) error {
		for _, v := range volumes {
			uses[v.UUID] = use
		}
		return err
	}
	swaps, err := e.LVM.SwapVolumes(inventory)
	if err := add(swaps, err, hostUse{RuleSwap, "this host swaps to it"}); err != nil {
		return nil, fmt.Errorf("find swap areas: %w", err)
	}
	under, err := e.LVM.VolumesUnderPath(inventory, e.opts.StateDir)
	if err := add(under, err, hostUse{RuleState, e.opts.StateDir + " lies on it"}); err != nil {
		return nil, fmt.Errorf("find what holds %s: %w", e.opts.StateDir, err)
	}
	for _, d := range e.opts.Destinations {
		place, ok := d.Store.(located)
		if !ok {
			continue
		}
		under, err := e.LVM.VolumesUnderPath(inventory, place.Folder())
		if err := add(under, err, hostUse{RuleDestination, fmt.Sprintf("destination %s lies on it", d.Name)}); err != nil {
			return nil, fmt.Errorf("find what holds destination %s: %w", d.Name, err)
		}
	}
	return uses, nil
}
