package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"voltar/internal/admit"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/report"
)

// run is one run while it lasts.
type run struct {
	*Engine
	*record // the report
	id      string
	locks   *journal.Locks
	lock    *journal.Lock // of the configuration
	owner   *owned.Owner
	placing *placement.Run // what package placement knows of the run
	targets placement.Targets
	roster  roster
	lasts   *lasts

	definitions *definitions
}

// newReport is the report of a run that is just beginning.
func (o *Options) newReport(command string, now time.Time) report.Run {
	started := now.UTC()
	return report.Run{
		Schema: report.Schema, ID: journal.NewRunID(started), Host: o.Host.Name, Version: o.Version,
		Config: o.ConfigPath, Command: command, Started: started, Retention: o.policyInWords(),
	}
}

// begin takes the lock of the configuration, or another one that is named, and opens the run's journal.
func (e *Engine) begin(ctx context.Context, command string, lock ...string) (_ *run, err error) {
	r := &run{Engine: e, record: &record{log: e.Log, progress: e.Progress, report: e.opts.newReport(command, e.Now())}}
	r.id = r.report.ID
	started := r.report.Started
	holder := journal.Holder{Run: r.id, Command: "voltar " + command, Started: started}
	if r.locks, err = journal.NewLocks(e.opts.RunDir, holder); err != nil {
		return nil, e.stateHint(err)
	}
	if r.lock, err = owned.LockConfiguration(ctx, r.locks, cmp.Or(append(lock, e.opts.ConfigPath, "none")...)); err != nil {
		return nil, e.stateHint(err)
	}
	ledger, err := journal.Begin(e.Journals(), journal.Info{
		Run: r.id, Host: e.opts.Host.Name, Command: "voltar " + command, Config: e.opts.ConfigPath, Started: started,
	})
	if err != nil {
		return nil, errors.Join(e.stateHint(err), r.lock.Unlock())
	}
	r.owner = &owned.Owner{Host: e.Host, Run: r.id, Journal: ledger}
	r.placing = e.placing()
	r.placing.ID, r.placing.Owner, r.placing.Locks = r.id, r.owner, r.locks
	if e.Progress != nil {
		e.Progress.RunStarted(r.id)
	}
	return r, nil
}

// stateHint says what to do when this user may not write the locks and the journal, or the filesystem of the journal and the history
// is full.
func (e *Engine) stateHint(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return say.WithHint(err, fmt.Sprintf("make space on the filesystem of %s (state_dir), where journals, reports and temporary files lie",
			e.StateDir))
	}
	return say.AsRoot(err)
}

// policyInWords names the policy of each destination, once where they share it.
func (o *Options) policyInWords() string {
	var words []string
	for _, d := range o.Destinations {
		policy := d.Policy.String()
		if keep.IsEmpty(d.Policy) {
			policy = "everything"
		}
		if !slices.Contains(words, policy) {
			words = append(words, policy)
		}
	}
	return strings.Join(words, "; ")
}

// placing is what package placement has to know to look at destinations; what changes them is of a run.
func (e *Engine) placing() *placement.Run {
	return &placement.Run{
		Host: e.opts.Host, Log: e.Log, Now: e.Now, Damage: e.opts.Damage, Known: e.opts.Known, Written: e.opts.Written,
		MarkDamaged: e.opts.MarkDamaged, FoundSound: e.opts.FoundSound,
	}
}

// end settles what is left, closes the journal, which goes when nothing is in it, and gives the lock back.
func (r *run) end(ctx context.Context) error {
	r.owner.Settle(ctx)
	return errors.Join(r.owner.Journal.Close(), r.lock.Unlock())
}

// recover removes what dead runs left, and reports it.
func (r *run) recover(ctx context.Context) {
	removed, err := r.Recover(ctx)
	r.report.Recovered = removed
	if err != nil {
		r.warnOf(fmt.Errorf("what an earlier run left: %w", err))
	}
}

// open claims the destinations. A run goes on while one of them can be written to.
func (r *run) open(ctx context.Context) (err error) {
	vanished := catalog.AskAll(r.opts.Destinations, func(d placement.Destination) error { // before their folders are made anew
		return r.opts.vanished(ctx, d)
	})
	r.targets, err = placement.Open(ctx, r.placing, r.opts.Destinations)
	for i, t := range r.targets {
		if vanished[i] != nil && t.Err() == nil {
			r.warnOf(vanished[i])
		}
	}
	return err
}

// backUpAll works through the volumes, and then through what else there is, for as long as a run may take.
func (r *run) backUpAll(ctx context.Context, chosen choice) {
	bounded, cancel := r.opts.bounded(ctx)
	defer cancel()
	r.backUpVolumes(ctx, bounded, chosen.plan)
	r.backUpSources(ctx, bounded, chosen.sources)
}

// backUpVolumes works through the units, so many volumes at a time. What is done for one volume ends with bounded, what is
// done for all of a unit with ctx.
func (r *run) backUpVolumes(ctx, bounded context.Context, plan *Plan) {
	var group errgroup.Group
	queue := admit.New(space{r.space}, r.opts.Parallel, r.opts.spareFraction())
	r.lasts = r.opts.lastsOf(plan.Inventory)
	for _, u := range r.units(bounded, plan) {
		ticket := u.join(bounded, queue) // in this order
		group.Go(func() error {
			u.backUp(ctx, ticket)
			return nil
		})
	}
	_ = group.Wait() // units keep their own errors
}

// catchUp makes up what destinations lack of the others: of the sources that were named, or of all, those that are gone
// included.
func (r *run) catchUp(ctx context.Context, patterns []string) {
	named := r.done(func(report.Volume) bool { return true })
	wanted := func(ref catalog.Ref) bool { return len(patterns) == 0 || slices.Contains(named, ref.String()) }
	caught, problems := r.targets.CatchUp(ctx, wanted)
	for _, c := range caught {
		r.mend(c)
	}
	r.warnAll(problems)
}

// note enters in the report which volumes there are.
func (r *run) note(plan *Plan) {
	r.report.PlannedVolumes = len(plan.Selected())
	for _, c := range plan.Choices {
		merging := c.Rule == RuleSnapshot && c.Volume.Merging && !c.Volume.IsClassicSnapshot()
		if rule, _ := r.opts.Select.configuredRule(c.Volume, nil); rule == "" && merging {
			r.warn(c.Name()+" is not backed up: "+c.Reason, "LVM makes no snapshot of it meanwhile; a merge that was deferred takes place "+
				"when the volume is activated next")
		}
		if c.Rule != "" && c.Rule != RulePool && c.Rule != RuleOwn && c.Reason != reasonNotNamed {
			r.report.Excluded = append(r.report.Excluded, report.Excluded{Name: c.Name(), Rule: c.Rule, Reason: c.Reason})
		}
	}
	for _, trouble := range slices.Concat(plan.Troubles(), plan.GuestTroubles) {
		r.warn(trouble.What, trouble.Hint)
	}
}

// noteMissingGroups warns of volume groups that the configuration names and the host has not: nothing of them is backed up.
func (r *run) noteMissingGroups(vgs []lvm.VG) {
	names := say.Names(vgs, func(vg lvm.VG) string { return vg.Name })
	there := "this host has no volume group"
	if len(names) > 0 {
		there = "this host has " + strings.Join(names, ", ")
	}
	for _, pattern := range r.opts.Select.MissingGroups(vgs) {
		r.warn(fmt.Sprintf("the configuration's select.volume_groups has %q, and no volume group of this host has that name%s", pattern,
			say.DidYouMean(pattern, names)), "correct it in the configuration: "+there)
	}
}

// finish makes up the report. The error is why the run as a whole came to nothing, or nil.
func (r *run) finish(ctx context.Context, err error) *report.Run {
	var destinations []report.Destination
	for _, t := range r.targets {
		destinations = append(destinations, t.Describe(context.WithoutCancel(ctx)))
	}
	return r.record.finish(r.Now(), destinations, err)
}
