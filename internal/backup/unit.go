package backup

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"voltar/internal/admit"
	"voltar/internal/catalog"
	"voltar/internal/quiesce"
	"voltar/internal/quiet"
	"voltar/internal/say"
	"voltar/lvm"
)

// Group is a consistency group: its members are made quiet together and snapshotted back to back.
type Group struct {
	Name   string
	Freeze []quiesce.Freeze // beside what the members have of their own
	// GoOn lets the rest go on when one member fails before its snapshot stands. Otherwise all fail: a set of volumes with
	// a part from another night is of no use to a database.
	GoOn bool
}

// unit is what is snapshotted at one moment: one volume, or the members of a consistency group.
type unit struct {
	run     *run
	group   Group // without a name for a volume of its own
	members []*member
}

// member is a volume of a unit and what it is backed up with.
type member struct {
	*account
	volume   lvm.Volume
	vg       lvm.VG
	settings Settings
	quiet    *quiet.Member
}

// units are the selected volumes, each by itself or with its group. A group's place is that of its first member. What is done
// for a volume alone ends with ctx.
func (r *run) units(ctx context.Context, plan *Plan) []unit {
	var list []unit
	for _, volume := range plan.Selected() {
		m := r.newMember(ctx, plan, volume)
		group := r.opts.group(m.settings.Group)
		at := slices.IndexFunc(list, func(u unit) bool { return group.Name != "" && u.group.Name == group.Name })
		if at < 0 {
			list = append(list, unit{run: r, group: group})
			at = len(list) - 1
		}
		list[at].members = append(list[at].members, m)
	}
	return list
}

func (r *run) newMember(ctx context.Context, plan *Plan, volume lvm.Volume) *member {
	m := &member{volume: volume, settings: r.opts.Settings(volume)}
	m.vg, _ = plan.VG(volume.VG)
	m.account = r.newAccount(ctx, sourceOf(volume, m.vg))
	group := r.opts.group(m.settings.Group)
	m.quiet = &quiet.Member{
		Volume: volume, Group: group.Name, Wants: slices.Concat(m.settings.Freeze, group.Freeze),
		Tell: m.lessQuiet, Failed: func() bool { return m.failure != nil },
	}
	return m
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
// each member from its snapshot, each failing alone.
func (u unit) backUp(ctx context.Context, ticket *admit.Ticket) {
	ready := u.admit(ticket)
	reading := map[*member]*reading{}
	for _, s := range alive(u.snapshot(ctx, ready, ownSnapshot)) {
		reading[s.member] = s.beginReading()
	}
	var group errgroup.Group
	group.SetLimit(u.run.opts.Parallel)
	for _, m := range u.members {
		group.Go(func() error {
			if s, stands := reading[m]; stands {
				m.fail(s.backUp(m.scope.ctx))
			}
			m.letGo(ctx)
			m.runLastHooks(ctx)
			m.line.Quiesce = m.quiet.String()
			m.finish(ctx)
			return nil
		})
	}
	_ = group.Wait() // members keep their own errors
}

// failTogether fails the whole group when one member has failed, unless its policy lets the rest go on.
func (u unit) failTogether() {
	if u.group.Name == "" || u.group.GoOn {
		return
	}
	i := slices.IndexFunc(u.members, func(m *member) bool { return m.failure != nil })
	if i < 0 {
		return
	}
	failed := u.members[i]
	for _, m := range u.members {
		m.fail(say.WithHint(fmt.Errorf("group %s is backed up as a whole or not at all, and %s failed: %w",
			u.group.Name, failed.name(), forOthers(failed.failure)),
			"on_failure = \"go-on\" of the group lets the rest go on"))
	}
}

// alive are those of the values of a stage whose volumes have not failed.
func alive[T interface{ failed() bool }](list []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(one T) bool { return one.failed() })
}

func (m *member) failed() bool { return m.failure != nil }
