package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"voltar/internal/journal"
	"voltar/lvm"
)

// recoverLoop detaches the loop device of a restore that died. One that died while it attached it did not write down
// which: then all are detached that lie over the same file, whose name is the restore's own.
func (e *Engine) recoverLoop(ctx context.Context, by owner, t journal.Thing) (string, error) {
	if by.rebooted {
		return "", nil
	}
	devices, err := e.Loops.Over(ctx, t.Path)
	if err != nil {
		return "", err
	}
	var removed []string
	for _, device := range devices {
		if t.Device != "" && device != t.Device {
			continue
		}
		if err := e.Loops.Detach(ctx, device, t.Path); err != nil {
			return "", err
		}
		removed = append(removed, device)
	}
	if len(removed) == 0 {
		return "", nil
	}
	return fmt.Sprintf("loop device %s over %s", strings.Join(removed, ", "), t.Path), nil
}

// recoverRestored leaves the volume of a restore that died as it is: its tag says that it is incomplete.
func (e *Engine) recoverRestored(ctx context.Context, t journal.Thing) (string, error) {
	v, err := e.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) || errors.Is(err, lvm.ErrVGNotFound) {
		return "", nil
	}
	if err != nil || t.LVUUID != "" && v.UUID != t.LVUUID {
		return "", err
	}
	if v.HasTag(journal.TagIncomplete) {
		e.Log.Warn("a restore of this volume was interrupted", "volume", v.String(), "tag", journal.TagIncomplete,
			"hint", "restore it again with --force, or remove it")
	}
	return "", nil
}
