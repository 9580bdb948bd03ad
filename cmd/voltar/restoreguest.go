package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/drill"
	"voltar/internal/history"
	"voltar/internal/progress"
	"voltar/internal/restore"
	"voltar/internal/revive"
	"voltar/internal/say"
	"voltar/internal/setup"
	"voltar/lvm"
)

// guestOptions are those of a restore of a whole guest.
type guestOptions struct {
	name   string // GUEST[@TIME]; "" for the restore of a volume
	as     string // its new name, or VMID
	vg     string // where its volumes are made; "" for where they were
	define bool
}

// guestRestore is what a restore of a guest came to, or would do.
type guestRestore struct {
	Guest      string           `json:"guest"`
	Time       string           `json:"time"`
	Disks      []restore.Result `json:"disks"`
	Plans      []plannedRestore `json:"plans,omitempty"` // of --dry-run, instead of disks
	Definition string           `json:"definition,omitempty"`
	Commands   []string         `json:"commands,omitempty"` // which define it, if --define did not
	Defined    bool             `json:"defined"`
	Notes      []string         `json:"notes,omitempty"`
}

// revived is a guest on its way back.
type revived struct {
	moment     revive.Moment
	targets    []catalog.Ref
	requests   []restore.Request
	plans      []*restore.Plan
	definition *revive.Definition // nil if there is none
	notes      []string
	isDefined  bool // this host has one already, under the name that the guest gets
}

func (a *app) restoreGuest(ctx context.Context, o restoreOptions) error {
	s, err := a.setup(o.setupOptions)
	if err != nil {
		return err
	}
	req := o.request
	if req.Decrypt, err = a.decrypt(s, o.identities, false); err != nil {
		return err
	}
	bars := progress.NewWork(a.screen, s.Log, "restoring", "")
	host := s.OwnedHost()
	engine := s.RestoreEngine(host, bars)
	if !o.dryRun {
		s.Recover(ctx, host)
	}
	g, err := a.planGuest(ctx, s, engine, req, o)
	defer func() {
		for _, plan := range g.plans {
			_ = plan.Close() // files of backups that were read
		}
	}()
	if err != nil {
		return err
	}
	out := guestRestore{Guest: g.moment.Guest.Name, Time: catalog.FormatTime(g.moment.Time), Disks: []restore.Result{}}
	out.Notes = g.notes
	if g.isDefined {
		out.Notes = append(out.Notes, "this host has a definition of it, which stays as it is")
	}
	if o.dryRun {
		return a.printGuestPlan(g, out, o.json)
	}
	run := proofRun(s, o.host, history.RestoreCommand)
	defer func() { a.keepRestore(ctx, s, run) }()
	for i, plan := range g.plans {
		result, err := engine.Run(ctx, plan)
		if result != nil {
			out.Disks = append(out.Disks, *result)
			on := g.moment.Disks[i].On
			err = errors.Join(err, drill.NoteDamage(g.requests[i], err, s.MarkDamaged))
			addProof(&run, drill.Record(g.requests[i], on, result, err), on)
		}
		if err != nil {
			bars.Close()
			return errors.Join(g.explain(len(out.Disks), err), a.printGuest(out, o.json))
		}
	}
	bars.Close()
	err = a.define(ctx, s, g, o, &out)
	return errors.Join(a.printGuest(out, o.json), err)
}

// planGuest chooses the moment, and plans the restore of each disk before the first is touched.
func (a *app) planGuest(
	ctx context.Context, s *setup.Setup, engine *restore.Engine, req restore.Request, o restoreOptions,
) (g revived, err error) {
	if g.moment, err = a.guestMoment(ctx, s, o.sourceOptions, o.guest.name); err != nil {
		return g, err
	}
	inventory, err := engine.LVM.Inventory(ctx)
	if err != nil {
		return g, fmt.Errorf("list volumes: %w", err)
	}
	here := s.Guests(ctx, inventory)
	if err := g.moment.CheckHost(here, o.guest.as); err != nil {
		return g, usageError(err)
	}
	g.isDefined = o.guest.as == "" && g.moment.IsDefined(here)
	if g.targets, err = g.moment.Targets(o.guest.as, o.guest.vg); err != nil {
		return g, usageError(err)
	}
	var backups []catalog.Backup
	for _, d := range g.moment.Disks {
		b, err := d.Load(ctx, d.On.Store)
		if err != nil {
			return g, err
		}
		backups = append(backups, b)
	}
	g.definition, err = g.moment.Read(ctx, backups, req.Decrypt, o.guest.as, g.targets, here)
	if err := g.noteDefinition(err, o.guest.define); err != nil {
		return g, err
	}
	req.Promised = map[string]int64{}
	for i, d := range g.moment.Disks {
		req.Backup, req.Store, req.Destination = backups[i], d.On.Store, d.On.Name
		req.Target = restore.Target{Kind: restore.ToVolume, VG: g.targets[i].VG, LV: g.targets[i].Name, Classic: req.Target.Classic,
			ThinPool: req.Target.ThinPool}
		plan, err := engine.Plan(ctx, req)
		if err != nil {
			return g, errors.Join(fmt.Errorf("%s: %w", d.Guest, err), drill.NoteDamage(req, err, s.MarkDamaged))
		}
		g.plans, g.requests = append(g.plans, plan), append(g.requests, req)
	}
	return g, nil
}

// noteDefinition notes how the definition was read. The disks also come back without.
func (g *revived) noteDefinition(err error, define bool) error {
	switch {
	case err == nil:
		g.notes = g.definition.Notes
		return nil
	case errors.Is(err, revive.ErrUsage):
		return usageError(err)
	case !errors.Is(err, revive.ErrNoDefinition):
		return err
	case define && !g.isDefined:
		return say.WithHint(err, "leave --define out: the disks come back without it, and `voltar list` shows whether there are older backups")
	}
	for _, trouble := range say.Joined(err) {
		g.notes = append(g.notes, trouble.Error())
	}
	return nil
}

// guestMoment chooses which backups of a guest, GUEST[@TIME], are meant.
func (a *app) guestMoment(ctx context.Context, s *setup.Setup, o sourceOptions, guest string) (revive.Moment, error) {
	stores, err := s.StoresFrom(o.from)
	if err != nil {
		return revive.Moment{}, err
	}
	if len(stores) == 0 {
		return revive.Moment{}, s.NoDestination("--from DIR/")
	}
	stores, vanished := s.WithoutVanished(ctx, stores)
	for _, err := range vanished {
		say.Log(s.Log.Warn, err)
	}
	on := setup.Named(stores)
	found := catalog.ListEach(ctx, on, s.HostOr(o.host), catalog.Filter{Damage: s.Damage(), Now: s.Now(), Known: s.Known()})
	var failed []error
	for _, l := range found {
		if l.Err != nil {
			failed = append(failed, catalog.At(l.Destination, l.Err))
		}
	}
	name, when, _ := cutTime(guest)
	m, err := revive.Choose(on, found, name, when, s.Now())
	if err != nil {
		return m, errors.Join(append(failed, err)...)
	}
	for _, err := range failed {
		say.Log(s.Log.Warn, err)
	}
	return m, nil
}

// momentNamed is guestMoment of a name that is no volume's; without disks if it is no guest's either.
func (a *app) momentNamed(ctx context.Context, s *setup.Setup, o sourceOptions, name string) revive.Moment {
	stores, err := s.StoresFrom(o.from)
	if err != nil || volumesNamed(ctx, s, s.HostOr(o.host), stores, []string{name})(name) {
		return revive.Moment{}
	}
	m, err := a.guestMoment(ctx, s, o, name)
	if err != nil {
		return revive.Moment{}
	}
	return m
}

// explain says how far a guest came that did not come back whole.
func (g *revived) explain(tried int, err error) error {
	names := say.Names(g.targets, catalog.Ref.String)
	if done := names[:max(tried-1, 0)]; len(done) > 0 {
		err = fmt.Errorf("%w\nback: %s; not back: %s", err, strings.Join(done, ", "), strings.Join(names[len(done):], ", "))
	}
	hint := "the same command with --force brings all of them back"
	if errors.Is(err, lvm.ErrNoSpace) {
		hint = "make space (`vgextend`, `lvremove`); then " + hint
	}
	return say.WithHint(err, hint)
}

// define writes the definition, and gives it to libvirt or Proxmox VE if that is asked for.
func (a *app) define(ctx context.Context, s *setup.Setup, g revived, o restoreOptions, out *guestRestore) error {
	if g.definition == nil {
		return nil
	}
	folder := filepath.Join(s.Config.StateDir, "guests", g.moment.FolderName(o.guest.as))
	if err := g.definition.Write(folder); err != nil {
		return fmt.Errorf("write the definition of %s: %w", g.moment.Guest.Name, err)
	}
	out.Definition = folder
	if g.isDefined {
		out.Notes = append(out.Notes, "the definition as it was backed up lies in "+folder)
		return nil
	}
	if !o.guest.define {
		out.Commands = g.definition.Show()
		return nil
	}
	notes, err := g.definition.Define(ctx, s.Runner)
	out.Notes = append(out.Notes, notes...)
	out.Defined = err == nil
	return err
}

func (a *app) printGuestPlan(g revived, out guestRestore, asJSON bool) error {
	for i, plan := range g.plans {
		if asJSON {
			out.Plans = append(out.Plans, planned(plan))
			continue
		}
		say.Printf(a.stdout, "%s becomes %s.\n", g.moment.Disks[i].Guest, g.targets[i])
		if err := a.printRestorePlan(plan, false); err != nil {
			return err
		}
	}
	if asJSON {
		return a.printJSON(out)
	}
	a.printNotes(out.Notes)
	return nil
}

func (a *app) printGuest(out guestRestore, asJSON bool) error {
	if asJSON {
		return a.printJSON(out)
	}
	for i := range out.Disks {
		if err := a.printRestore(&out.Disks[i], false); err != nil {
			return err
		}
	}
	a.printNotes(out.Notes)
	switch {
	case out.Defined:
		say.Printf(a.stdout, "%s is back, and defined.\n", out.Guest)
	case len(out.Commands) > 0:
		say.Printf(a.stdout, "The disks of %s are back. These commands define it (--define gives them):\n", out.Guest)
		for _, command := range out.Commands {
			say.Printf(a.stdout, "    %s\n", command)
		}
	}
	return nil
}
