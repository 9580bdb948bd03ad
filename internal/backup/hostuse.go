package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"voltar/internal/durable"
	"voltar/internal/store"
	"voltar/internal/store/patient"
	"voltar/lvm"
)

// hostUse is a use that this host itself makes of a volume.
type hostUse struct{ rule, reason string }

// located is a store whose objects lie in a folder of this host.
type located interface{ Folder() string }

// folderOf returns the folder of a destination. isThere is false where it has none on this host, and where it cannot be used now,
// as while its disk is not mounted or hangs: its path leads elsewhere then.
func folderOf(ctx context.Context, s store.Store) (path string, isThere bool) {
	place, ok := store.As[located](s)
	if !ok {
		return "", false
	}
	if placed, ok := store.As[store.Placed](s); ok {
		if _, err := placed.Place(ctx); err != nil { // which is told to whoever writes there
			return "", false
		}
	}
	return place.Folder(), true
}

// volumesUnder returns the volumes on which a folder of a destination lies, which may hang.
func (e *Engine) volumesUnder(ctx context.Context, s store.Store, folder string, inventory lvm.Inventory) ([]lvm.Volume, error) {
	return patient.Ask(ctx, s, func(context.Context) ([]lvm.Volume, error) { return e.LVM.VolumesUnderPath(inventory, folder) })
}

// devicesUnder returns what a folder of a destination lies on, which may hang: nothing then, as nothing is written there any more.
func (e *Engine) devicesUnder(ctx context.Context, s store.Store, folder string) ([]lvm.Dev, error) {
	devices, err := patient.Ask(ctx, s, func(context.Context) ([]lvm.Dev, error) { return e.LVM.DevicesUnderPath(folder) })
	if errors.Is(err, store.ErrDown) {
		return nil, nil
	}
	return devices, err
}

// hostUses returns, by LV UUID, the volumes that must not be backed up because the backup itself, or this host's memory,
// lies on them: through any stack of partitions, maps, arrays and loop devices.
func (e *Engine) hostUses(ctx context.Context, inventory lvm.Inventory) (map[string]hostUse, error) {
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
	under, err := e.LVM.VolumesUnderPath(inventory, e.StateDir)
	if err := add(under, err, hostUse{RuleState, e.StateDir + " lies on it"}); err != nil {
		return nil, fmt.Errorf("find what holds %s: %w", e.StateDir, err)
	}
	places := places(e.StateDir, e.Log)
	for _, d := range e.opts.Destinations {
		folder, isThere := folderOf(ctx, d.Store)
		if !isThere {
			for _, uuid := range places[d.Store.String()] {
				uses[uuid] = hostUse{RuleDestination, fmt.Sprintf("destination %s, which is not there now, lay on it", d.Name)}
			}
			continue
		}
		under, err := e.volumesUnder(ctx, d.Store, folder, inventory)
		if err := add(under, err, hostUse{RuleDestination, fmt.Sprintf("destination %s lies on it", d.Name)}); err != nil {
			return nil, fmt.Errorf("find what holds destination %s: %w", d.Name, err)
		}
	}
	return uses, nil
}

// placesFile, in the state folder, remembers on which volumes the destinations lie: one that is not mounted looks like a
// guest's, and would be backed up to the others. JSON: the name of each store, and the UUIDs of its volumes.
const placesFile = "places.json"

// places returns what is remembered.
func places(stateDir string, log *slog.Logger) map[string][]string {
	var known map[string][]string
	text, err := os.ReadFile(filepath.Join(stateDir, placesFile))
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("it is not known where the destinations lay", "err", err)
	}
	if known == nil {
		known = map[string][]string{}
	}
	return known
}

// rememberPlaces notes where those destinations lie that are there.
func (r *run) rememberPlaces(ctx context.Context, inventory lvm.Inventory) {
	known, changed := places(r.StateDir, r.Log), false
	for _, t := range r.targets {
		folder, isThere := folderOf(ctx, t.Store)
		if !isThere || t.Err() != nil {
			continue
		}
		under, err := r.volumesUnder(ctx, t.Store, folder, inventory)
		if err != nil {
			r.warnOf(fmt.Errorf("find what holds destination %s: %w", t.Name, err))
			continue
		}
		var uuids []string
		for _, v := range under {
			uuids = append(uuids, v.UUID)
		}
		if where := t.Store.String(); !slices.Equal(known[where], uuids) {
			known[where], changed = uuids, true
		}
	}
	if !changed {
		return
	}
	text, err := json.Marshal(known)
	if err == nil {
		err = durable.WriteFile(filepath.Join(r.StateDir, placesFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		r.warn(fmt.Sprintf("where the destinations lie could not be noted: %v", err), "")
	}
}
