package backup

import (
	"context"
	"fmt"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/lvm"
)

// letGo lets go of everything that the source held, and applies retention where its backup stands.
func (a *account) letGo(ctx context.Context) {
	if err := a.held.Release(ctx); err != nil {
		a.warnOf(say.WithHint(err, "the next run, or `voltar cleanup`, tries again"))
		a.remains = append(a.remains, err.Error())
	}
	a.scope.end()
	a.previous.FollowRot(ctx)
	a.warnAll(a.previous.Problems(a.failure == nil))
	if a.failure == nil {
		a.warnAll(a.placed.Retain(ctx))
	}
	a.line.Copies = a.placed.Copies()
}

// present is what the host has, and the configuration, of which no backups are forgotten.
func (o *Options) present(plan lvm.Inventory) keep.Present {
	p := keep.Present{Volumes: map[catalog.Identity]string{}, Groups: map[string]bool{}, Configured: map[catalog.Identity]bool{}}
	p.Incomplete = plan.Incomplete
	for _, vg := range plan.VGs {
		// Not by what lvm2 says besides: there are lines that it prints every night.
		p.Groups[vg.UUID] = vg.IsWhole() && !plan.Incomplete
	}
	for _, v := range plan.Volumes {
		p.Volumes[catalog.VolumeIdentity(v.VGUUID, v.UUID)] = v.String()
	}
	for _, s := range o.Sources.every() {
		p.Configured[s.Identity()] = true
	}
	return p
}

// restoredAs tells, of volumes that are gone, as which volume of the host each was restored, by the tags that a restore leaves. A volume
// that is here was not, and where two volumes carry the same tag, as copies of a volume group do, nobody can tell which one it is.
func restoredAs(inventory lvm.Inventory) map[catalog.Identity]catalog.Identity {
	claims := map[catalog.Identity][]catalog.Identity{}
	live := map[catalog.Identity]bool{}
	for _, v := range inventory.Volumes {
		identity := catalog.VolumeIdentity(v.VGUUID, v.UUID)
		live[identity] = true
		for _, tag := range v.Tags {
			if was, ok := strings.CutPrefix(tag, journal.TagWas); ok {
				claims[catalog.Identity(was)] = append(claims[catalog.Identity(was)], identity)
			}
		}
	}
	restored := map[catalog.Identity]catalog.Identity{}
	for was, as := range claims {
		if len(as) == 1 && !live[was] {
			restored[was] = as[0]
		}
	}
	return restored
}

// retainGone reports volumes that have backups and are no longer on the host, and ends those backups where the
// configuration gives them an end.
func (r *run) retainGone(ctx context.Context, plan *Plan) {
	present := r.opts.present(plan.Inventory)
	for _, t := range r.targets {
		if t.Err() != nil {
			continue
		}
		gone, warnings := r.placing.Keeper().Gone(ctx, t.Kept(), present, r.vanished())
		r.report.Gone = append(r.report.Gone, gone...)
		r.warnAll(warnings)
	}
}

func (r *run) vanished() keep.Vanished {
	return keep.Vanished{Keep: r.opts.VanishedKeep, StateDir: r.StateDir}
}

// renewLocks lengthens the locks of what stays on each destination, of sources without a backup tonight as well.
func (r *run) renewLocks(ctx context.Context) {
	for _, t := range r.targets {
		if t.Err() != nil {
			continue
		}
		warnings, err := r.placing.Keeper().Renew(ctx, t.Kept(), r.vanished())
		r.warnAll(warnings)
		if err != nil {
			r.warnOf(say.WithHint(fmt.Errorf("locks of backups on %s: %w", t.Name, err), "the next run tries again; a lock is renewed "+
				"when half of its time is over"))
		}
	}
}
