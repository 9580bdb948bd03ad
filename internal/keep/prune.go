package keep

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	FreedBytes  int64  `json:"freed"` // by its removal: less than its size where backups share their place, 0 of what stays
	held        bool   // it was to go, and object lock holds it
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

// Named is a backup that a person names.
type Named struct {
	Entry catalog.Entry
	Group string          // with which it was made at one moment, or ""
	With  []catalog.Entry // the others on the destination that were
}

// ForgetNamed removes backups that a person names. By force alone go the newest good one of its source on the destination, as its
// files are now, and one that was made at one moment with another that stays. All are decided on before the first goes. What stays is
// in the error as well.
func (k *Keeper) ForgetNamed(ctx context.Context, d Destination, named []Named, force, dryRun bool) ([]Line, error) {
	verdicts, all, err := k.decideNamed(ctx, d, named, force)
	if err != nil {
		return nil, err
	}
	var lines []Line
	sources := bySource(verdicts)
	for i, of := range sources {
		k.tell(i, len(sources))
		some, err := k.carryOut(ctx, d, of, dryRun)
		for _, line := range some {
			if line.held {
				all = append(all, fmt.Errorf("%s on %s stays: %s", line.Backup, d.Name, line.Reason))
			}
		}
		lines, all = append(lines, some...), append(all, err)
	}
	k.tell(len(sources), len(sources))
	if !dryRun {
		all = append(all, tornGroups(d, verdicts, lines)...)
	}
	return lines, errors.Join(all...)
}

// tornGroups says of each backup that was to go with the others of its group, and is still there, that these are gone.
func tornGroups(d Destination, verdicts []Verdict, lines []Line) (torn []error) {
	stays := map[string]bool{}
	for _, line := range lines {
		stays[line.Backup] = line.Keep
	}
	for _, v := range verdicts {
		id := v.Entry.ID.String()
		gone := ""
		for _, other := range v.with {
			if kept, isNamed := stays[other.ID.String()]; isNamed && !kept {
				gone = other.ID.String()
			}
		}
		if !v.Keep && stays[id] && gone != "" {
			torn = append(torn, say.WithHint(
				fmt.Errorf("%s on %s stays alone: %s, which was made at one moment with it, is gone", id, d.Name, gone),
				"what can be restored is no longer of one moment; `voltar forget "+id+" --from "+d.Name+"` removes it, too"))
		}
	}
	return torn
}

// bySource parts verdicts by their sources, in the order in which these come.
func bySource(verdicts []Verdict) (parts [][]Verdict) {
	at := map[catalog.Identity]int{}
	for _, v := range verdicts {
		i, isKnown := at[v.Entry.Identity]
		if !isKnown {
			i, parts = len(parts), append(parts, nil)
			at[v.Entry.Identity] = i
		}
		parts[i] = append(parts[i], v)
	}
	return parts
}

// decideNamed decides on each backup that is named, once. What stays says why.
func (k *Keeper) decideNamed(ctx context.Context, d Destination, named []Named, force bool) (verdicts []Verdict, stay []error, err error) {
	goes := map[string]bool{} // by the IDs of what is named
	newest := map[catalog.Identity]string{}
	for _, n := range named {
		id, source := n.Entry.ID.String(), n.Entry.Identity
		if _, isKnown := newest[source]; !isKnown && !force {
			if newest[source], err = k.newestGood(ctx, d, source); err != nil {
				return nil, nil, err
			}
		}
		goes[id] = newest[source] != id
	}
	decided := map[string]bool{}
	for _, n := range named {
		id := n.Entry.ID.String()
		if decided[id] {
			continue
		}
		decided[id] = true
		if force {
			n.With = nil
		}
		v, why := n.decide(d, goes)
		v.with = n.With
		verdicts = append(verdicts, v)
		if why != nil {
			stay = append(stay, why)
		}
	}
	return verdicts, stay, nil
}

// decide keeps the newest good backup, and one that was made with another that stays; goes are those that are named, and whether they go
// by themselves.
func (n Named) decide(d Destination, goes map[string]bool) (Verdict, error) {
	id := n.Entry.ID
	if !goes[id.String()] {
		return Verdict{Entry: n.Entry, Keep: true, Reason: "it is the newest good backup"}, say.WithHint(
			fmt.Errorf("%s is the newest good backup of %s on %s: it was kept", id, id.Ref, d.Name), "--force removes it all the same")
	}
	var staying, unnamed []string
	for _, other := range n.With {
		if goes[other.ID.String()] {
			continue
		}
		staying = append(staying, other.ID.String())
		if _, isNamed := goes[other.ID.String()]; !isNamed {
			unnamed = append(unnamed, other.ID.String())
		}
	}
	if len(staying) == 0 {
		reason := "it was named"
		if n.Entry.Identity == "" {
			reason = "it was named; what it holds cannot be told: its manifest cannot be read: " + n.Entry.Damage
		}
		return Verdict{Entry: n.Entry, Reason: reason}, nil
	}
	hint := "--force removes it all the same"
	if len(unnamed) > 0 {
		hint = "name the others too, or --force: " + strings.Join(unnamed, " ")
	}
	return Verdict{Entry: n.Entry, Keep: true, Reason: "it was made at one moment with " + staying[0] + ", which stays"}, say.WithHint(
		fmt.Errorf("%s on %s was made at one moment with others of the group %s, which stay: it was kept", id, d.Name, n.Group), hint)
}

// newestGood returns the ID of the newest good backup of a source that is not dated ahead, or "". Those of other machines count only
// where this one has none. Backups that turn out to lack files are marked as damaged in the stock.
func (k *Keeper) newestGood(ctx context.Context, d Destination, source catalog.Identity) (id string, err error) {
	if _, err := d.Stock.MarkLacking(ctx, d.Store, source); err != nil {
		return "", err
	}
	for _, e := range d.Stock.History(source) {
		if !e.IsGood() || e.IsAhead(k.Now()) {
			continue
		}
		if e.MachineID == k.MachineID {
			return e.ID.String(), nil
		}
		if id == "" {
			id = e.ID.String()
		}
	}
	return id, nil
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
	held := map[string]bool{}
	condemned := Verdicts{List: verdicts}.Condemned()
	freed := map[string]int64{}
	if dryRun {
		var frees []int64
		frees, err = Frees(ctx, d, condemned)
		for i, v := range condemned {
			if freed[v.Entry.ID.String()] = v.Entry.SizeBytes; frees != nil {
				freed[v.Entry.ID.String()] = frees[i]
			}
		}
	} else {
		for _, v := range condemned {
			stays[v.Entry.ID.String()] = "it could not be removed"
		}
		var outcomes []outcome
		outcomes, err = k.remove(ctx, d, condemned)
		for _, o := range outcomes {
			switch id := o.verdict.Entry.ID.String(); {
			case o.partly:
				stays[id] = "it is no backup any more, and some of its files could not be removed"
			case o.removed != nil:
				delete(stays, id)
				freed[id] = o.removed.FreedBytes
			case o.held != nil && o.held.Until.IsZero():
				stays[id], held[id] = "object lock holds it", true
			case o.held != nil:
				stays[id], held[id] = "object lock holds it until "+o.held.Until.UTC().Format(time.DateOnly), true
			}
		}
	}
	for _, v := range verdicts {
		line := Line{Destination: d.Name, Backup: v.Entry.ID.String(), Keep: v.Keep, Reason: v.Reason, SizeBytes: v.Entry.SizeBytes}
		line.FreedBytes = freed[line.Backup]
		if why, ok := stays[line.Backup]; ok {
			line.Keep, line.Reason, line.held = true, why+": "+v.Reason, held[line.Backup]
		}
		lines = append(lines, line)
	}
	return lines, err
}
