package owned

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"voltar/internal/journal"
)

// Loop gives a file or device a loop device with sectors of some size.
func (o *Owner) Loop(ctx context.Context, path string, sectorBytes int) (device string, undo Undo, err error) {
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindLoop, Path: path})
	if err != nil {
		return "", nil, err
	}
	if device, err = o.Loops.Attach(ctx, path, sectorBytes); err != nil {
		return "", nil, errors.Join(err, o.Journal.Gone(record))
	}
	undo = o.gone(record, func(ctx context.Context) error { return o.Loops.Detach(ctx, device, path) })
	return device, undo, o.Journal.Made(record, journal.Facts{Device: device})
}

// recoverLoop detaches the loop device of a restore that died. One that died while it attached it did not write down
// which: then all are detached that lie over the same file, whose name is the restore's own.
func (h *Host) recoverLoop(ctx context.Context, by maker, t journal.Thing) (string, error) {
	if by.rebooted {
		return "", nil
	}
	devices, err := h.Loops.Over(ctx, t.Path)
	if err != nil {
		return "", err
	}
	var removed []string
	for _, device := range devices {
		if t.Device != "" && device != t.Device {
			continue
		}
		if err := h.Loops.Detach(ctx, device, t.Path); err != nil {
			return "", err
		}
		removed = append(removed, device)
	}
	if len(removed) == 0 {
		return "", nil
	}
	return fmt.Sprintf("loop device %s over %s", strings.Join(removed, ", "), t.Path), nil
}
