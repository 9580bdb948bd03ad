package backup

import (
	"fmt"
	"slices"

	"voltar/internal/admit"
	"voltar/internal/guests"
	"voltar/internal/quiesce"
	"voltar/internal/say"
	"voltar/lvm"
)

// GuestUnits says what is done for the volumes of a guest that are in no configured group.
type GuestUnits struct {
	Together bool // they are a group by themselves
	// Freezes are what makes a guest quiet; nil freezes none.
	Freezes func(guests.Guest) []quiesce.Freeze
}

// planned are volumes that a run takes together.
type planned struct {
	group   Group // without a name for a volume of its own
	volumes []lvm.Volume
	apart   string // why the disks of a guest are not taken together, where that was wanted; told with the first of them
}

// groupOf is the group of a volume: the configured one, or that of its guest.
func (o *Options) groupOf(plan *Plan, v lvm.Volume) Group {
	if name := o.Settings(v).Group; name != "" {
		return o.group(name)
	}
	g, d, known := plan.Guests.Of(v)
	switch {
	case !known || d.Detached || !o.GuestUnits.Together:
		return Group{}
	case d.Group != "":
		return Group{Name: d.Group, guest: "group " + d.Group, GoOn: true}
	}
	name := g.Name
	if len(plan.Guests.Named(name)) > 1 || slices.ContainsFunc(o.Groups, func(g Group) bool { return g.Name == name }) {
		name = g.Title()
	}
	return Group{Name: name, guest: string(g.Kind) + " " + g.ID, GoOn: true}
}

// freezesOf are what makes the guest quiet whose disks the volumes of a unit are. Who says of one of them what is to be frozen, or names
// a group, has said all.
func (o *Options) freezesOf(plan *Plan, u planned) []quiesce.Freeze {
	configured := func(v lvm.Volume) bool {
		settings := o.Settings(v)
		return settings.Group != "" || len(settings.Freeze) > 0
	}
	if o.GuestUnits.Freezes == nil || slices.ContainsFunc(u.volumes, configured) {
		return nil
	}
	var freezes []quiesce.Freeze
	seen := map[string]bool{}
	for _, v := range u.volumes { // of several guests, where a command groups them
		g, d, known := plan.Guests.Of(v)
		if key := string(g.Kind) + " " + g.ID; known && !d.Detached && !seen[key] {
			seen[key] = true
			freezes = append(freezes, o.GuestUnits.Freezes(g)...)
		}
	}
	return freezes
}

// units are the selected volumes as a run takes them: each by itself, or with its group, whose place is that of its first volume. The
// disks of a guest for whose snapshots there is no room at one time are taken one after the other.
func (o *Options) units(plan *Plan) []planned {
	var list []planned
	for _, v := range plan.Selected() {
		group := o.groupOf(plan, v)
		at := slices.IndexFunc(list, func(u planned) bool {
			return group.Name != "" && u.group.Name == group.Name && u.group.guest == group.guest
		})
		if at < 0 {
			list = append(list, planned{group: group})
			at = len(list) - 1
		}
		list[at].volumes = append(list[at].volumes, v)
	}
	var units []planned
	for _, u := range list {
		switch {
		case u.group.guest != "" && len(u.volumes) == 1: // of one moment by itself
			units = append(units, planned{volumes: u.volumes})
		case u.group.guest != "" && !o.fits(plan, u.volumes):
			for i, v := range u.volumes {
				alone := planned{volumes: []lvm.Volume{v}}
				if i == 0 {
					alone.apart = fmt.Sprintf("the %d disks of %s are not of one moment: there is no space for all their snapshots at one time",
						len(u.volumes), u.group.Name)
				}
				units = append(units, alone)
			}
		default:
			units = append(units, u)
		}
	}
	for i, u := range units {
		units[i].group.Freeze = slices.Concat(u.group.Freeze, o.freezesOf(plan, u))
	}
	return units
}

// fits tells whether the snapshots of some volumes have room at one time while nothing else of the run holds any.
func (o *Options) fits(plan *Plan, volumes []lvm.Volume) bool {
	var request admit.Request
	for _, v := range volumes {
		request = append(request, o.wantOf(v, plan.VGOf(v)))
	}
	state := admit.State{Parallel: o.Parallel, SpareFraction: o.spareFraction(), Rooms: o.rooms(plan)}
	return !slices.ContainsFunc(state.Pass([]admit.Request{request})[0].Errs, func(err error) bool { return err != nil })
}

// rooms are the free spaces of volume groups before a run.
func (o *Options) rooms(plan *Plan) map[string]admit.Room {
	free := map[string]admit.Room{}
	for _, vg := range plan.VGs {
		free[vg.Name] = admit.Room{FreeBytes: vg.FreeBytes - o.Snapshot.KeepFreeBytes, ExtentBytes: vg.ExtentBytes}
	}
	return free
}

// GuestNote is what a run does for a guest.
type GuestNote struct {
	Guest string // its name, with its ID where another has it, too
	Does  string
	// NotHere are its disks that are no volumes of this host, and so in no backup.
	NotHere []string
}

// GuestNotes say for each guest that a run backs up something of what it does.
func (e *Engine) GuestNotes(plan *Plan) []GuestNote {
	var notes []GuestNote
	units := e.opts.units(plan)
	for _, g := range plan.Guests.Guests {
		isDisk := func(v lvm.Volume) bool {
			of, d, known := plan.Guests.Of(v)
			return known && !d.Detached && of.ID == g.ID && of.Kind == g.Kind
		}
		var names []string
		together, apart := 0, false
		var freezes []quiesce.Freeze
		for _, u := range units {
			own := 0
			for _, v := range u.volumes {
				if isDisk(v) {
					_, d, _ := plan.Guests.Of(v)
					names = append(names, d.Name)
					own++
				}
			}
			if together = max(together, own); own > 0 {
				freezes = u.group.Freeze
			}
			apart = apart || own > 0 && u.apart != ""
		}
		if len(names) == 0 {
			continue
		}
		n := GuestNote{Guest: g.Name, Does: say.Listed(names, shownGuests), NotHere: g.Elsewhere}
		if len(plan.Guests.Named(g.Name)) > 1 {
			n.Guest = g.Title()
		}
		switch {
		case apart:
			n.Does += ", one after the other, as there is no space for all snapshots at one time"
		case together > 1 && together == len(names):
			n.Does += ", at one moment"
		case len(names) > 1:
			n.Does += ", not at one moment"
		}
		if e.opts.GuestUnits.Freezes != nil {
			n.Does += ", " + howQuiet(g, freezes)
		}
		notes = append(notes, n)
	}
	return notes
}

// howQuiet says how a guest is made quiet.
func howQuiet(g guests.Guest, freezes []quiesce.Freeze) string {
	switch {
	case len(freezes) > 0:
		return "frozen by " + say.Listed(say.Names(freezes, func(f quiesce.Freeze) string { return string(f.Method) }), shownGuests)
	case !g.Running:
		return "not frozen: it is shut off now"
	}
	return "not frozen: it has no guest agent, and no [[guest]]"
}
