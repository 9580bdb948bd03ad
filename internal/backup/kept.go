package backup

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"voltar/internal/say"
	"voltar/lvm"
	"voltar/report"
)

// TagKept with a name is on snapshots that were made for other tools; recovery leaves them alone.
const TagKept = "voltar.kept."

// tagMadeAt with a time says since when a kept snapshot stands.
const tagMadeAt = "voltar.at."

const keptTimeLayout = "20060102T150405Z"

// keptName is what a set of kept snapshots may be called: it becomes part of tags and volume names.
var keptName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,30}$`)

// Kept is one snapshot that was made for other tools.
type Kept struct {
	Name        string    `json:"name"` // of the set
	Volume      string    `json:"volume"`
	Snapshot    string    `json:"snapshot"`
	Device      string    `json:"device"`
	Made        time.Time `json:"made,omitzero"`
	SizeBytes   int64     `json:"size"` // copy-on-write space; of a thin snapshot the volume's
	UsedPercent float64   `json:"used_percent"`
	Thin        bool      `json:"thin,omitempty"`
	Invalid     bool      `json:"invalid,omitempty"` // it overflowed: nothing in it counts
	Merging     bool      `json:"merging,omitempty"`
	Active      bool      `json:"active"`
	Quiesce     string    `json:"quiesce,omitempty"` // as in the report; of snapshots that were just made

	volume lvm.Volume
}

// Keep makes a set of snapshots, of the volumes that the patterns name or of all that are selected, for other tools to
// use. All are made at one moment, together with what the configuration freezes for them, and all or none. They stay
// until RemoveKept or MergeKept ends them; no run does.
func (e *Engine) Keep(ctx context.Context, name string, patterns []string) (_ []Kept, problems []report.Problem, err error) {
	if !keptName.MatchString(name) {
		return nil, nil, fmt.Errorf("%w: %q is no name for snapshots: letters, digits and _ . + -, at most 31", ErrUsage, name)
	}
	// Made for a moment of others: it does not wait for a run, nor does a run keep it from the volumes.
	r, err := e.begin(ctx, "snapshot create", "snapshot "+name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	plan, err := e.Plan(ctx, patterns)
	if err != nil {
		return nil, nil, err
	}
	if len(plan.Selected()) == 0 {
		return nil, nil, ErrNothing
	}
	if taken := keptIn(plan.Inventory, name); len(taken) > 0 {
		return nil, nil, say.WithHint(fmt.Errorf("%w: there are snapshots of the name %q already", ErrUsage, name),
			fmt.Sprintf("`voltar snapshot remove %s` removes them", name))
	}
	all := unit{run: r} // whatever their groups: all or none
	for _, p := range e.opts.units(plan) {
		for _, volume := range p.volumes {
			all.volumes = append(all.volumes, r.newCandidate(ctx, plan, volume, p.group))
		}
	}
	made, err := all.keep(ctx, name)
	for _, c := range all.volumes {
		problems = append(problems, c.line.Warnings...)
	}
	return made, append(problems, r.report.Warnings...), err
}

// keep makes the snapshots of a unit and leaves them standing, or removes those that were made when one failed.
func (u unit) keep(ctx context.Context, name string) (made []Kept, err error) {
	var ready []*admitted
	for _, c := range u.volumes {
		a, err := c.readyToKeep(ctx)
		if c.fail(err); err == nil {
			ready = append(ready, a)
		}
	}
	var taken []*snapshotted
	if u.failure() == nil {
		taken = u.snapshot(ctx, ready, keptAs(name))
	}
	all := []error{u.failure()}
	for _, s := range taken {
		if all[0] != nil {
			all = append(all, u.run.LVM.RemoveOwn(context.WithoutCancel(ctx), s.snapshot))
			continue
		}
		k := keptOf(s.snapshot.Volume)
		k.Volume, k.Quiesce = s.name(), s.quiet.String()
		made = append(made, k)
	}
	for _, c := range u.volumes {
		all = append(all, c.held.Release(ctx))
		c.runLastHooks(ctx)
	}
	return made, errors.Join(all...)
}

// readyToKeep gets a volume ready for a snapshot that is made for a moment of others: it waits for nothing.
func (c *candidate) readyToKeep(ctx context.Context) (*admitted, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	return c.ready(ctx, func() (*lvm.Reservation, error) {
		want, floor := c.settings.SnapshotSize.Bounds(c.volume.SizeBytes, c.vg.ExtentBytes)
		space, err := c.run.space.Reserve(ctx, c.volume.VG, want, floor)
		if err == nil {
			c.held.Push(func(context.Context) error { space.Release(); return nil })
		}
		return space, err
	})
}

// failure joins the failures of the volumes.
func (u unit) failure() error {
	var all []error
	for _, c := range u.volumes {
		if c.failure != nil {
			all = append(all, fmt.Errorf("%s: %w", c.name(), c.failure))
		}
	}
	return errors.Join(all...)
}

// keptAs makes snapshots of a set, which stay. dmeventd looks after them, as lvm.conf says: no run does.
func keptAs(name string) maker {
	return func(ctx context.Context, a *admitted, request lvm.SnapshotRequest) (lvm.Snapshot, error) {
		request.Name, request.Monitor = a.volume.Name+"-"+name, true
		request.Tags = []string{tagMadeAt + a.run.Now().UTC().Format(keptTimeLayout), TagKept + name}
		return a.run.LVM.CreateSnapshot(ctx, a.volume, request)
	}
}

// ListKept returns the snapshots that were made for other tools: of one set, or all with "".
func (e *Engine) ListKept(ctx context.Context, name string) ([]Kept, error) {
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	return keptIn(inventory, name), nil
}

func keptIn(inventory lvm.Inventory, name string) []Kept {
	kept := []Kept{}
	for _, v := range inventory.Volumes {
		if k := keptOf(v); k.Name != "" && (name == "" || k.Name == name) {
			kept = append(kept, k)
		}
	}
	slices.SortFunc(kept, func(a, b Kept) int { return strings.Compare(a.Name+"\x00"+a.Volume, b.Name+"\x00"+b.Volume) })
	return kept
}

// keptOf describes a volume by its tags; without one of ours the name is empty.
func keptOf(v lvm.Volume) Kept {
	k := Kept{
		Volume: v.VG + "/" + v.Origin, Snapshot: v.String(), Device: v.Path, SizeBytes: v.SizeBytes, Thin: v.IsThin(),
		UsedPercent: v.DataPercent, Invalid: v.SnapshotInvalid, Merging: v.Merging, Active: v.Active, volume: v,
	}
	for _, tag := range v.Tags {
		if name, found := strings.CutPrefix(tag, TagKept); found {
			k.Name = name
		}
		if at, found := strings.CutPrefix(tag, tagMadeAt); found {
			k.Made, _ = time.Parse(keptTimeLayout, at) // one that somebody changed is not known
		}
	}
	return k
}

// kept returns a set, or an error when there is none of that name.
func (e *Engine) keptSet(ctx context.Context, name string) ([]Kept, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: which snapshots?", ErrUsage)
	}
	set, err := e.ListKept(ctx, name)
	if err == nil && len(set) == 0 {
		err = say.WithHint(fmt.Errorf("%w: there are no snapshots of the name %q", ErrUsage, name),
			"`voltar snapshot list` shows what there is")
	}
	return set, err
}

func (k Kept) expect() lvm.Expect { return lvm.Expect{UUID: k.volume.UUID, Tag: TagKept + k.Name} }

// RemoveKept removes a set of snapshots, and returns those that are gone. One that cannot be removed does not hold up the
// others.
func (e *Engine) RemoveKept(ctx context.Context, name string) (removed []Kept, err error) {
	set, err := e.keptSet(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []error
	for _, k := range set {
		if err := e.LVM.RemoveSnapshot(ctx, k.volume.VG, k.volume.Name, k.expect()); err != nil {
			all = append(all, err)
			continue
		}
		removed = append(removed, k)
	}
	return removed, errors.Join(all...)
}

// Merged is what became of one volume that went back to its snapshot.
type Merged struct {
	Kept
	Deferred bool `json:"deferred"` // it goes back when it is activated next
}

// MergeKept brings volumes back to what a set of snapshots holds, and ends the set. While a volume is in use nothing is
// done, to any of them, unless deferring is allowed: then it goes back when it is activated the next time, which can be
// at the next start of the host.
func (e *Engine) MergeKept(ctx context.Context, name string, mayDefer bool) (merged []Merged, err error) {
	set, err := e.keptSet(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := mergeable(ctx, e.LVM, set, mayDefer); err != nil {
		return nil, err
	}
	var all []error
	for _, k := range set {
		if k.Merging {
			merged = append(merged, Merged{k, true})
			continue
		}
		done, err := e.LVM.MergeSnapshot(ctx, k.volume.VG, k.volume.Name, k.expect())
		if err != nil {
			all = append(all, err)
			continue
		}
		merged = append(merged, Merged{k, done.Deferred})
	}
	return merged, errors.Join(all...)
}

// mergeable looks at the whole set before anything is changed.
func mergeable(ctx context.Context, host *lvm.Client, set []Kept, mayDefer bool) error {
	var all []error
	for _, k := range set {
		origin, err := host.Lookup(ctx, k.volume.VG, k.volume.Origin)
		switch {
		case err != nil:
			all = append(all, err)
		case k.Invalid:
			all = append(all, fmt.Errorf("%s: %w", k.Snapshot, lvm.ErrSnapshotOverflow))
		case (origin.Open || k.volume.Open) && !mayDefer && !k.Merging:
			all = append(all, say.WithHint(fmt.Errorf("%s is in use: it cannot go back now", k.Volume),
				"unmount it, or stop the guest; or --defer, to have it go back when it is activated next"))
		}
	}
	return errors.Join(all...)
}
