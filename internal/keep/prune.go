package keep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/retention"
)

// Line is one backup and what became of it, or would become of it.
type Line struct {
	Destination string `json:"destination"`
	Backup      string `json:"backup"`
	Keep        bool   `json:"keep"`
	Reason      string `json:"reason"`
	SizeBytes   int64  `json:"size"`
}

// Prune applies the policy of a destination to the sources that are wanted; nil takes all. With dryRun nothing is removed.
// What could not be removed is in the error, and its line says that it stays. A source that cannot be decided on does not keep
// it from the others; an empty policy does, and a store that is given up.
func (k *Keeper) Prune(ctx context.Context, d Destination, wanted func(catalog.Ref) bool, dryRun bool) (lines []Line, err error) {
	var all []error
	histories := d.Stock.Histories(wanted)
	for i, h := range histories {
		k.tell(i, len(histories))
		verdicts, err := k.Decide(ctx, d, h.Identity)
		for _, e := range verdicts.Lacking {
			warning := warnLacking(d, e)
			all = append(all, say.WithHint(errors.New(warning.Message), warning.Hint))
		}
		if err != nil {
			all = append(all, err)
			if errors.Is(err, retention.ErrEmptyPolicy) || errors.Is(err, store.ErrDown) || ctx.Err() != nil {
				return lines, errors.Join(all...)
			}
			continue
		}
		some, err := k.carryOut(ctx, d, verdicts.List, dryRun)
		lines, all = append(lines, some...), append(all, err)
	}
	k.tell(len(histories), len(histories))
	return lines, errors.Join(all...)
}

// tell says how many sources are done.
func (k *Keeper) tell(done, of int) {
	if k.OnSource != nil {
		k.OnSource(done, of)
	}
}

// Present is what the host has, and the configuration: backups of it are not forgotten.
type Present struct {
	Volumes    map[catalog.Identity]string // their names
	Groups     map[string]bool             // volume groups by their UUIDs: whether nothing of them is missing
	Configured map[catalog.Identity]bool   // directories, dumps and streams
	Incomplete bool                        // lvm2 could not read everything: volumes may be there that are in none of these
}

// names tells whether a volume of the host has a name.
func (p Present) names(name string) bool {
	for _, known := range p.Volumes {
		if known == name {
			return true
		}
	}
	return false
}

// Forget removes all backups that have a name that is wanted and are of what is no longer there: of volumes that are not on
// the host, and of directories, dumps and streams that are not in the configuration.
func (k *Keeper) Forget(ctx context.Context, d Destination, present Present, wanted func(catalog.Ref) bool, dryRun bool) ([]Line, error) {
	var lines []Line
	var all []error
	histories := d.Stock.Histories(wanted)
	for i, h := range histories {
		k.tell(i, len(histories))
		keep, reason := present.forgets(h)
		var verdicts []Verdict
		for _, e := range h.Entries {
			if wanted(e.ID.Ref) {
				verdicts = append(verdicts, Verdict{Entry: e, Keep: keep, Reason: reason})
			}
		}
		some, err := k.carryOut(ctx, d, verdicts, dryRun)
		lines, all = append(lines, some...), append(all, err)
	}
	k.tell(len(histories), len(histories))
	return lines, errors.Join(all...)
}

// ForgetNamed removes backups that a person names. The newest good one of its source on the destination, as its files are now, goes
// by force alone. What stays is in the error as well.
func (k *Keeper) ForgetNamed(ctx context.Context, d Destination, named []catalog.Entry, force, dryRun bool) ([]Line, error) {
	var all []error
	var verdicts []Verdict
	for _, e := range named {
		v := Verdict{Entry: e, Reason: "it was named"}
		if !force {
			if _, err := d.Stock.MarkLacking(ctx, d.Store, e.Identity); err != nil {
				return nil, err
			}
			if newest, found := k.newestGood(d, e.Identity); found && newest.ID == e.ID {
				v.Keep, v.Reason = true, "it is the newest good backup"
				all = append(all, say.WithHint(fmt.Errorf("%s is the newest good backup of %s on %s: it was kept", e.ID, e.ID.Ref, d.Name),
					"--force removes it all the same"))
			}
		}
		verdicts = append(verdicts, v)
	}
	lines, err := k.carryOut(ctx, d, verdicts, dryRun)
	for i, line := range lines {
		if line.Keep && !verdicts[i].Keep && !dryRun && err == nil {
			all = append(all, fmt.Errorf("%s on %s stays: %s", line.Backup, d.Name, line.Reason))
		}
	}
	return lines, errors.Join(append(all, err)...)
}

// newestGood is the newest good backup of a source that is not dated ahead.
func (k *Keeper) newestGood(d Destination, source catalog.Identity) (newest catalog.Entry, found bool) {
	for _, e := range d.Stock.History(source) {
		if e.IsGood() && !e.IsAhead(k.Now()) {
			return e, true
		}
	}
	return newest, false
}

// forgets decides on the backups of one source.
func (p Present) forgets(h catalog.History) (keep bool, reason string) {
	if h.Ref.Kind != catalog.SourceVolume {
		if p.Configured[h.Identity] {
			return true, fmt.Sprintf("the configuration has this %s", h.Ref.Kind)
		}
		return false, fmt.Sprintf("the configuration has no such %s", h.Ref.Kind)
	}
	if name, isLive := p.Volumes[h.Identity]; isLive {
		return true, "its volume is on this host: " + name
	}
	if p.Incomplete {
		return true, "lvm2 could not read everything, so whether its volume is gone cannot be told"
	}
	if whole, isHere := p.Groups[h.Identity.VGUUID()]; isHere && !whole {
		return true, "its volume group lacks disks, so whether its volume is gone cannot be told"
	}
	if p.names(h.Ref.String()) {
		return false, "its volume is gone, and another has its name"
	}
	return false, "its volume is gone"
}

// carryOut removes what verdicts condemn, unless it is a dry run, and says what became of each.
func (k *Keeper) carryOut(ctx context.Context, d Destination, verdicts []Verdict, dryRun bool) (lines []Line, err error) {
	stays := map[string]string{} // what was condemned and is still there, and why
	if !dryRun {
		condemned := Verdicts{List: verdicts}.Condemned()
		for _, v := range condemned {
			stays[v.Entry.ID.String()] = "it could not be removed"
		}
		var outcomes []outcome
		outcomes, err = k.remove(ctx, d, condemned)
		for _, o := range outcomes {
			switch id := o.verdict.Entry.ID.String(); {
			case o.removed != nil:
				delete(stays, id)
			case o.held != nil && o.held.Until.IsZero():
				stays[id] = "object lock holds it"
			case o.held != nil:
				stays[id] = "object lock holds it until " + o.held.Until.UTC().Format(time.DateOnly)
			}
		}
	}
	for _, v := range verdicts {
		line := Line{Destination: d.Name, Backup: v.Entry.ID.String(), Keep: v.Keep, Reason: v.Reason, SizeBytes: v.Entry.SizeBytes}
		if why, ok := stays[line.Backup]; ok {
			line.Keep, line.Reason = true, why+": "+v.Reason
		}
		lines = append(lines, line)
	}
	return lines, err
}
