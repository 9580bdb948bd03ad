package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/report"
	"voltar/retention"
)

// retain applies the policy of each destination on which tonight's backup of the volume stands.
func (v *volumeRun) retain(ctx context.Context) {
	for _, b := range v.out.branches {
		if !b.stands {
			continue
		}
		if err := v.retainOn(ctx, b); err != nil {
			v.warnOf(say.WithHint(fmt.Errorf("old backups on %s: %w", b.target.Name, err), "`voltar prune` tries again"))
		}
		b.copy.Kept = len(b.target.history(v.identity()))
	}
}

func (v *volumeRun) retainOn(ctx context.Context, b *branch) error {
	if isZero(b.target.Policy) || ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pruneTimeout)
	defer cancel()
	decisions, err := retention.Apply(v.run.Now(), time.Local, forRetention(b.target.history(v.identity())), b.target.Policy)
	if err != nil {
		return err
	}
	removed, err := b.target.prune(ctx, b.target.history(v.identity()), decisions)
	b.copy.Removed = append(b.copy.Removed, removed...)
	return errors.Join(err, v.hold(ctx, b.target))
}

// hold lengthens the locks of what is kept, on a destination that locks.
func (v *volumeRun) hold(ctx context.Context, t *target) error {
	var all []error
	for _, b := range t.history(v.identity()) {
		all = append(all, catalog.Hold(ctx, t.Store, b, v.run.Now()))
	}
	return errors.Join(all...)
}

func (v *volumeRun) identity() catalog.Identity {
	return v.source().Identity()
}

// lastComplete returns the newest backup of the volume on a destination that lacks nothing, or nil.
func (v *volumeRun) lastComplete(t *target) *catalog.Backup {
	for _, b := range t.history(v.identity()) {
		if b.Manifest.Status == catalog.StatusComplete && b.ID != v.id && !clock.IsAhead(b.ID.Time, v.run.Now()) {
			return &b
		}
	}
	return nil
}

// makeRoom looks whether a backup as large as the last one fits. Where it does not, those that the policy condemns
// without counting tonight's go before it instead of after; the last good one always stays.
func (v *volumeRun) makeRoom(ctx context.Context, b *branch) error {
	last := v.lastComplete(b.target)
	if last == nil {
		return nil
	}
	v.result.PreviousStoredBytes = max(v.result.PreviousStoredBytes, last.SizeBytes)
	usage, err := b.target.Store.Usage(ctx)
	if err != nil {
		return err
	}
	if usage.FreeBytes < 0 || usage.FreeBytes >= last.SizeBytes {
		return nil
	}
	if !isZero(b.target.Policy) {
		decisions, err := retention.Condemned(v.run.Now(), time.Local, forRetention(b.target.history(v.identity())), b.target.Policy)
		if err != nil {
			return err
		}
		removed, err := b.target.prune(ctx, b.target.history(v.identity()), decisions)
		b.copy.Removed = append(b.copy.Removed, removed...)
		if err != nil {
			return err
		}
		if usage, err = b.target.Store.Usage(ctx); err != nil {
			return err
		}
	}
	if usage.FreeBytes < last.SizeBytes {
		return say.WithHint(fmt.Errorf("%w: %s free, and the last backup took %s",
			store.ErrNoSpace, report.FormatSize(usage.FreeBytes), report.FormatSize(last.SizeBytes)),
			"make room, or keep fewer backups")
	}
	return nil
}

// retainGone reports volumes that have backups and are no longer on the host, and ends those backups where the
// configuration gives them an end. A volume counts as gone only when its group is here, and whole: a disk that is
// missing tonight may be back tomorrow.
func (r *run) retainGone(ctx context.Context, plan *Plan) {
	live := map[catalog.Identity]bool{}
	named := map[string]bool{}
	whole := map[string]bool{}
	for _, vg := range plan.VGs {
		whole[vg.UUID] = !vg.Partial && plan.Warnings == ""
	}
	for _, v := range plan.Volumes {
		live[catalog.VolumeIdentity(v.VGUUID, v.UUID)] = true
		named[v.String()] = true
	}
	for _, t := range r.targets {
		if t.out() != nil {
			continue
		}
		gone := catalog.Gone(t.histories(), live)
		var over []catalog.History
		for _, h := range gone {
			if r.opts.VanishedKeep > 0 && whole[h.Backups[0].Manifest.Source.VGUUID] && r.Now().Sub(h.Backups[0].ID.Time) > r.opts.VanishedKeep {
				over = append(over, h)
			}
		}
		ended := r.endVanished(ctx, t, over)
		for _, h := range gone {
			note := "on " + t.Name
			if named[h.Ref.String()] {
				note += ", of the volume that had this name before; it was made anew since"
			}
			r.report.Gone = append(r.report.Gone, report.Gone{
				Name: h.Ref.String(), Backups: len(h.Backups), Newest: h.Backups[0].ID.Time, Note: note + ended[h.Identity],
			})
		}
	}
}

// endVanished removes all backups of volumes that are gone for longer than vanished_keep, and says so of each.
func (r *run) endVanished(ctx context.Context, t *target, over []catalog.History) map[catalog.Identity]string {
	said := map[catalog.Identity]string{}
	for _, h := range over {
		var decisions []retention.Decision
		for _, b := range forRetention(h.Backups) {
			decisions = append(decisions, retention.Decision{Backup: b, Reason: "its volume is gone, and vanished_keep is over"})
		}
		if _, err := t.prune(ctx, h.Backups, decisions); err != nil {
			r.warnOf(say.WithHint(fmt.Errorf("backups of %s, which is gone, on %s: %w",
				h.Ref, t.Name, err), "`voltar forget` tries again"))
		}
		said[h.Identity] = fmt.Sprintf("; %d removed, as vanished_keep is over", len(h.Backups)-len(t.history(h.Identity)))
	}
	return said
}
