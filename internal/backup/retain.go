package backup

import (
	"context"
	"fmt"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/lvm"
)

// retain applies the policy of each destination on which tonight's backup of the volume stands.
func (v *volumeRun) retain(ctx context.Context) {
	for _, b := range v.out.branches {
		if !b.stands {
			continue
		}
		result, err := v.run.keeper().Retain(ctx, b.target.kept(), v.identity())
		v.tellKept(b, result)
		if err != nil {
			v.warnOf(say.WithHint(fmt.Errorf("old backups on %s: %w", b.target.Name, err), "`voltar prune` tries again"))
		}
		b.copy.Kept = len(b.target.stock.History(v.identity()))
	}
}

// tellKept enters in the report what retention did on a destination.
func (v *volumeRun) tellKept(b *branch, result keep.Result) {
	b.copy.Removed = append(b.copy.Removed, result.Removed...)
	b.target.hold(result.Held)
	for _, w := range result.Warnings {
		v.warn(w.Message, w.Hint)
	}
}

func (v *volumeRun) identity() catalog.Identity {
	return v.source().Identity()
}

// lastComplete returns the newest backup of the volume on a destination that lacked nothing when it was made.
func (v *volumeRun) lastComplete(t *target) (_ catalog.Entry, ok bool) {
	for _, e := range t.stock.History(v.identity()) {
		if e.Status == catalog.StatusComplete && e.ID != v.id && !e.IsAhead(v.run.Now()) {
			return e, true
		}
	}
	return catalog.Entry{}, false
}

// makeRoom looks whether a backup as large as the last one fits. Where it does not, old ones go before it.
func (v *volumeRun) makeRoom(ctx context.Context, b *branch) error {
	last, ok := v.lastComplete(b.target)
	if !ok {
		return nil
	}
	v.result.PreviousStoredBytes = max(v.result.PreviousStoredBytes, last.SizeBytes)
	result, err := v.run.keeper().MakeRoom(ctx, b.target.kept(), v.identity(), last.SizeBytes)
	v.tellKept(b, result)
	return err
}

// present is what the host has, and the configuration, of which no backups are forgotten.
func (e *Engine) present(plan lvm.Inventory) keep.Present {
	p := keep.Present{Volumes: map[catalog.Identity]string{}, Groups: map[string]bool{}, Configured: map[catalog.Identity]bool{}}
	for _, vg := range plan.VGs {
		p.Groups[vg.UUID] = !vg.Partial && plan.Warnings == ""
	}
	for _, v := range plan.Volumes {
		p.Volumes[catalog.VolumeIdentity(v.VGUUID, v.UUID)] = v.String()
	}
	for _, s := range e.allSources() {
		p.Configured[s.Identity()] = true
	}
	return p
}

// retainGone reports volumes that have backups and are no longer on the host, and ends those backups where the
// configuration gives them an end.
func (r *run) retainGone(ctx context.Context, plan *Plan) {
	present := r.present(plan.Inventory)
	vanished := keep.Vanished{Keep: r.opts.VanishedKeep, StateDir: r.StateDir}
	for _, t := range r.targets {
		if t.out() != nil {
			continue
		}
		gone, warnings := r.keeper().Gone(ctx, t.kept(), present, vanished)
		r.report.Gone = append(r.report.Gone, gone...)
		for _, w := range warnings {
			r.warn(w.Message, w.Hint)
		}
	}
}
