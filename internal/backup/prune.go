package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/report"
	"voltar/retention"
)

// errNoBackups is returned to who names volumes of which there is no backup.
var errNoBackups = say.WithHint(fmt.Errorf("%w: there are no backups of what is named", ErrUsage),
	"`voltar list` shows what there is")

// PruneLine is one backup and what becomes of it.
type PruneLine struct {
	Destination string `json:"destination"`
	Backup      string `json:"backup"`
	Keep        bool   `json:"keep"`
	Reason      string `json:"reason"`
	SizeBytes   int64  `json:"size"`
}

// Prune applies the policy of each destination to the volumes that match, or to all. With dryRun nothing is removed.
// What could not be removed is in the error; the lines are those that were decided on.
func (e *Engine) Prune(ctx context.Context, wanted func(catalog.Ref) bool, dryRun bool) (lines []PruneLine, err error) {
	lines, err = e.remove(ctx, "prune", wanted, dryRun, func(t *target, h catalog.History) ([]retention.Decision, error) {
		decisions, err := retention.Apply(e.Now(), time.Local, forRetention(h.Backups), t.Policy)
		if errors.Is(err, retention.ErrEmptyPolicy) {
			return nil, fmt.Errorf("%w: destination %s: %w", ErrUsage, t.Name, err)
		}
		return decisions, err
	})
	if err == nil && len(lines) == 0 && wanted != nil {
		return nil, errNoBackups
	}
	return lines, err
}

// Forget removes all backups of volumes that match and are no longer on the host.
func (e *Engine) Forget(ctx context.Context, wanted func(catalog.Ref) bool, dryRun bool) (lines []PruneLine, err error) {
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil {
		return nil, fmt.Errorf("look whether the volume is gone: %w", err)
	}
	live, named := map[catalog.Identity]string{}, map[string]bool{}
	for _, v := range inventory.Volumes {
		live[catalog.VolumeIdentity(v.VGUUID, v.UUID)] = v.String()
		named[v.String()] = true
	}
	lines, err = e.remove(ctx, "forget", wanted, dryRun, func(_ *target, h catalog.History) ([]retention.Decision, error) {
		name, isLive := live[h.Identity]
		var decisions []retention.Decision
		for _, b := range forRetention(h.Backups) {
			d := retention.Decision{Backup: b, Keep: isLive, Reason: "its volume is gone"}
			switch {
			case isLive:
				d.Reason = "its volume is on this host: " + name
			case named[h.Ref.String()]:
				d.Reason = "its volume is gone, and another has its name"
			}
			decisions = append(decisions, d)
		}
		return decisions, nil
	})
	if err == nil && len(lines) == 0 {
		return nil, errNoBackups
	}
	return lines, err
}

// remove decides on every history that is wanted, on every destination, and removes what is condemned.
func (e *Engine) remove(ctx context.Context, command string, wanted func(catalog.Ref) bool, dryRun bool,
	decide func(*target, catalog.History) ([]retention.Decision, error)) (lines []PruneLine, err error) {
	r := &run{Engine: e}
	if !dryRun { // which neither waits for a run nor leaves a line anywhere
		if r, err = e.begin(command); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.end(ctx)) }()
	}
	if wanted == nil {
		wanted = func(catalog.Ref) bool { return true }
	}
	var all []error
	for _, d := range e.opts.Destinations {
		t, err := r.openExisting(ctx, d)
		if err != nil {
			all = append(all, fmt.Errorf("destination %s: %w", d.Name, err))
			continue
		}
		for _, h := range catalog.Histories(t.all(wanted)) {
			decisions, err := decide(t, h)
			if err != nil {
				return nil, err
			}
			lines = append(lines, pruneLines(d, h, decisions)...)
			if dryRun {
				continue
			}
			if _, err := t.prune(ctx, h.Backups, decisions); err != nil {
				all = append(all, err)
			}
		}
	}
	return lines, errors.Join(all...)
}

// openExisting reads what a destination holds of this host, without claiming it.
func (r *run) openExisting(ctx context.Context, d Destination) (*target, error) {
	if err := catalog.CheckOwner(ctx, d.Store, r.us()); err != nil {
		return nil, err
	}
	listing, err := catalog.List(ctx, d.Store, r.opts.Host, catalog.Filter{Damage: r.opts.Damage, Now: r.Now()})
	if err != nil {
		return nil, err
	}
	return &target{
		Destination: d, run: r, backups: listing.Backups, unfinished: listing.Unfinished, unreadable: listing.Unreadable,
	}, nil
}

func pruneLines(d Destination, h catalog.History, decisions []retention.Decision) []PruneLine {
	sizes := map[string]int64{}
	for _, b := range h.Backups {
		sizes[b.ID.String()] = b.SizeBytes
	}
	var lines []PruneLine
	for _, decision := range decisions {
		lines = append(lines, PruneLine{
			Destination: d.Name, Backup: decision.Backup.ID, Keep: decision.Keep, Reason: decision.Reason,
			SizeBytes: sizes[decision.Backup.ID],
		})
	}
	return lines
}

// Cleanup removes what dead runs left on this host, and nothing else. What they left on destinations in lost is given up.
func (e *Engine) Cleanup(ctx context.Context, lost []string) (removed []string, problem *report.Problem, err error) {
	r, err := e.begin("cleanup")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	removed, failed := e.Recover(ctx, lost...)
	if failed != nil {
		problem = report.ProblemOf(failed)
	}
	return removed, problem, nil
}
