package backup

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"voltar/internal/admit"
	"voltar/internal/catalog"
	"voltar/internal/guests"
	"voltar/internal/quiesce"
	"voltar/internal/quiet"
	"voltar/internal/say"
	"voltar/lvm"
)

// Group is a consistency group: its volumes are made quiet together and snapshotted back to back.
type Group struct {
	Name   string
	Freeze []quiesce.Freeze // beside what the volumes have of their own
	// GoOn lets the rest go on when one volume fails before its snapshot stands. Otherwise all fail: a set of volumes with
	// a part from another night is of no use to a database.
	GoOn bool

	guest string // whose disks it is by itself; "" for one of the configuration
}

// unit is what is snapshotted at one moment: one volume, or those of a consistency group.
type unit struct {
	run     *run
	group   Group // without a name for a volume of its own
	volumes []*candidate
}

// candidate is a volume of a unit and what it is backed up with.
type candidate struct {
	*account
	volume   lvm.Volume
	vg       lvm.VG
	settings Settings
	quiet    *quiet.Volume
	guest    *guests.Guest // whose disk it is; nil where nobody knows
	lasts    []last        // snapshots of it that were set aside

	poolMetadata string // UUID of what a thin volume's pool keeps its metadata in
}

// units are the selected volumes as the run takes them. What is done for a volume alone ends with ctx.
func (r *run) units(ctx context.Context, plan *Plan) []unit {
	var list []unit
	for _, p := range r.opts.units(plan) {
		u := unit{run: r, group: p.group}
		for _, volume := range p.volumes {
			u.volumes = append(u.volumes, r.newCandidate(ctx, plan, volume, p.group))
		}
		if p.apart != "" {
			u.volumes[0].warn(p.apart, "a backup of each is made all the same; give the volume group more free space, or their snapshots less "+
				"(snapshot_size in a [[volume]], min_size in [snapshot])")
		}
		list = append(list, u)
	}
	return list
}

func (r *run) newCandidate(ctx context.Context, plan *Plan, volume lvm.Volume, group Group) *candidate {
	c := &candidate{volume: volume, settings: r.opts.Settings(volume)}
	c.settings.Group = group.Name
	c.vg, _ = plan.VG(volume.VG)
	c.lasts, c.poolMetadata = r.lasts.of(volume), poolMetadataOf(volume, plan.Inventory)
	source := sourceOf(volume, c.vg)
	source.Guest = plan.GuestOf(volume)
	if g, _, known := plan.Guests.Of(volume); known {
		c.guest = &g
	}
	c.account = r.newAccount(ctx, source)
	c.quiet = &quiet.Volume{
		LV: volume, Group: group.Name, Wants: slices.Concat(c.settings.Freeze, group.Freeze),
		Tell: c.lessQuiet, Failed: func() bool { return c.failure != nil },
	}
	return c
}

// sourceOf describes a volume in the manifest.
func sourceOf(v lvm.Volume, vg lvm.VG) catalog.Source {
	s := catalog.Source{
		Kind: catalog.SourceVolume, Name: v.Name, VG: v.VG, VGUUID: v.VGUUID, LVUUID: v.UUID, LVKind: string(v.Kind),
		SizeBytes: v.SizeBytes, Tags: v.Tags, VGExtentBytes: vg.ExtentBytes,
	}
	if v.IsThin() {
		s.ThinPool = v.Pool
	}
	return s
}

// group are the options of a group; a name that only a tag gives has none.
func (o *Options) group(name string) Group {
	for _, g := range o.Groups {
		if g.Name == name {
			return g
		}
	}
	return Group{Name: name}
}

// backUp waits until the unit may begin, makes it quiet, takes its snapshots back to back, lets it go on, and then backs up
// each volume from its snapshot, each failing alone.
func (u unit) backUp(ctx context.Context, ticket *admit.Ticket) {
	ready := u.admit(ticket)
	begun := map[*candidate]*reading{}
	for _, s := range alive(u.snapshot(ctx, ready, ownSnapshot)) {
		begun[s.candidate] = s.beginReading()
	}
	var group errgroup.Group
	group.SetLimit(u.run.opts.Parallel)
	for _, c := range u.volumes {
		group.Go(func() error {
			if s, stands := begun[c]; stands {
				c.fail(s.backUp(c.scope.ctx))
			}
			c.letGo(ctx)
			c.runLastHooks(ctx)
			c.line.Quiesce = c.quiet.String()
			c.finish(ctx)
			return nil
		})
	}
	_ = group.Wait() // volumes keep their own errors
}

// failTogether fails the whole group when one volume has failed, unless its policy lets the rest go on.
func (u unit) failTogether() {
	if u.group.Name == "" || u.group.GoOn {
		return
	}
	i := slices.IndexFunc(u.volumes, func(c *candidate) bool { return c.failure != nil })
	if i < 0 {
		return
	}
	failed := u.volumes[i]
	for _, c := range u.volumes {
		c.fail(say.WithHint(fmt.Errorf("group %s is backed up as a whole or not at all, and %s failed: %w",
			u.group.Name, failed.name(), forOthers(failed.failure)),
			"on_failure = \"go-on\" of the group lets the rest go on"))
	}
}

// alive are those of the values of a stage whose volumes have not failed.
func alive[T interface{ failed() bool }](list []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(one T) bool { return one.failed() })
}

func (c *candidate) failed() bool { return c.failure != nil }
