package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/keep"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/report"
)

// run is one run while it lasts.
type run struct {
	*Engine
	id      string
	locks   *journal.Locks
	lock    *journal.Lock // of the configuration
	owner   *owned.Owner
	placing *placement.Run // what package placement knows of the run
	targets placement.Targets

	mu     sync.Mutex
	report report.Run
	turns  []*volumeRun // the volumes, once they are known
}

// newReport is the report of a run that is just beginning.
func (e *Engine) newReport(command string) report.Run {
	started := e.Now().UTC()
	return report.Run{
		Schema: report.Schema, ID: journal.NewRunID(started), Host: e.opts.Host, Version: e.opts.Version,
		Config: e.opts.ConfigPath, Command: command, Started: started, Retention: e.policyInWords(),
	}
}

// reportFailedStart reports a run that could not begin: a night without a backup and without a word of it would be the worst.
func (e *Engine) reportFailedStart(err error) *report.Run {
	r := &run{Engine: e, report: e.newReport("run")}
	return r.finish(context.Background(), err)
}

// begin takes the lock of the configuration, or another one that is named, and opens the run's journal.
func (e *Engine) begin(ctx context.Context, command string, lock ...string) (_ *run, err error) {
	r := &run{Engine: e, report: e.newReport(command)}
	r.id = r.report.ID
	started := r.report.Started
	holder := journal.Holder{Run: r.id, Command: "voltar " + command, Started: started}
	if r.locks, err = journal.NewLocks(e.opts.RunDir, holder); err != nil {
		return nil, err
	}
	if r.lock, err = owned.LockConfiguration(ctx, r.locks, cmp.Or(append(lock, e.opts.ConfigPath, "none")...)); err != nil {
		return nil, err
	}
	ledger, err := journal.Begin(e.Journals(), journal.Info{
		Run: r.id, Host: e.opts.Host, Command: "voltar " + command, Config: e.opts.ConfigPath, Started: started,
	})
	if err != nil {
		return nil, errors.Join(err, r.lock.Unlock())
	}
	r.owner = &owned.Owner{Host: e.Host, Run: r.id, Journal: ledger}
	r.placing = e.placing()
	r.placing.ID, r.placing.Owner, r.placing.Locks = r.id, r.owner, r.locks
	if e.Progress != nil {
		e.Progress.RunStarted(r.id)
	}
	return r, nil
}

// policyInWords names the policy of each destination, once where they share it.
func (e *Engine) policyInWords() string {
	var words []string
	for _, d := range e.opts.Destinations {
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

// us is this host, as manifests and markers name it.
func (e *Engine) us() catalog.Host {
	return catalog.Host{Name: e.opts.Host, MachineID: e.opts.MachineID}
}

// placing is what package placement has to know to look at destinations; what changes them is of a run.
func (e *Engine) placing() *placement.Run {
	return &placement.Run{Host: e.us(), Log: e.Log, Now: e.Now, Damage: e.opts.Damage}
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
	r.targets, err = placement.Open(ctx, r.placing, r.opts.Destinations)
	return err
}

// backUpAll works through the volumes, and then through what else there is, for as long as a run may take.
func (r *run) backUpAll(ctx context.Context, chosen choice) {
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	r.backUp(ctx, bounded, chosen.plan)
	r.backUpSources(ctx, bounded, chosen.sources)
}

// backUp works through the units, so many volumes at a time. What is done for a volume ends with bounded, what is done for
// all of a unit with ctx.
func (r *run) backUp(ctx, bounded context.Context, plan *Plan) {
	var group errgroup.Group
	units := r.units(plan)
	r.takeTurns(bounded, units)
	queue := r.newQueue()
	for _, u := range units {
		ticket := r.join(bounded, queue, u) // in this order
		group.Go(func() error {
			r.backUpUnit(ctx, u, ticket)
			return nil
		})
	}
	_ = group.Wait() // units keep their own errors
}

// catchUp makes up what destinations lack of the others: of the sources that were named, or of all, those that are gone
// included.
func (r *run) catchUp(ctx context.Context, patterns []string) {
	named := map[string]bool{}
	for _, v := range r.report.Volumes {
		named[v.Name] = true
	}
	wanted := func(ref catalog.Ref) bool { return len(patterns) == 0 || named[ref.String()] }
	caught, problems := r.targets.CatchUp(ctx, wanted)
	for _, c := range caught {
		r.mend(c)
	}
	for _, p := range problems {
		r.warn(p.Message, p.Hint)
	}
}

// mend says in the result of a volume that tonight's backup stands after all on a destination on which it had failed.
func (r *run) mend(caught placement.Caught) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.report.Volumes {
		v := &r.report.Volumes[i]
		if v.Backup != caught.Backup {
			continue
		}
		whole := true
		for j := range v.Copies {
			c := &v.Copies[j]
			if c.Destination == caught.To && c.Error != nil {
				v.Warnings = append(v.Warnings, report.Problem{
					Message: fmt.Sprintf("on %s it failed at first (%s), and was copied from %s", caught.To, c.Error.Message, caught.From),
					Hint:    c.Error.Hint,
				})
				c.Error, c.Path = nil, caught.Path
			}
			whole = whole && c.Error == nil
		}
		if whole && v.Status == report.VolumePartial {
			v.Status = report.VolumeOK
		}
	}
}

// hand takes the result of a volume that is done.
func (r *run) hand(result report.Volume) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Volumes = append(r.report.Volumes, result)
	if r.Progress != nil {
		r.Progress.VolumeEnded(result)
	}
}

// note enters in the report which volumes there are.
func (r *run) note(plan *Plan) {
	r.report.PlannedVolumes = len(plan.Selected())
	for _, c := range plan.Choices {
		if rule, _ := r.configuredRule(c.Volume, nil); rule == "" && c.Rule == RuleSnapshot && c.Volume.Merging && !c.Volume.IsClassicSnapshot() {
			r.warn(c.Name()+" is not backed up: "+c.Reason, "LVM makes no snapshot of it meanwhile; a merge that was deferred takes place "+
				"when the volume is activated next")
		}
		if c.Rule != "" && c.Rule != RulePool && c.Rule != RuleOwn && c.Reason != reasonNotNamed {
			r.report.Excluded = append(r.report.Excluded, report.Excluded{Name: c.Name(), Rule: c.Rule, Reason: c.Reason})
		}
	}
	for _, trouble := range plan.Troubles() {
		r.warn(trouble.What, trouble.Hint)
	}
}

// finish makes up the report. The error is why the run as a whole came to nothing, or nil.
func (r *run) finish(ctx context.Context, err error) *report.Run {
	if err != nil {
		r.report.Errors = append(r.report.Errors, report.ProblemsOf(err)...)
	}
	for _, t := range r.targets {
		r.report.Destinations = append(r.report.Destinations, t.Describe(context.WithoutCancel(ctx)))
	}
	slices.SortFunc(r.report.Volumes, func(a, b report.Volume) int { return strings.Compare(a.Name, b.Name) })
	r.report.Ended = r.Now().UTC()
	return &r.report
}

// warnOf warns of an error, with its own hints.
func (r *run) warnOf(err error) {
	problem := report.ProblemOf(err)
	r.warn(problem.Message, problem.Hint)
}

func (r *run) warn(message, hint string) {
	r.Log.Warn(message, "run", r.id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Warnings = append(r.report.Warnings, report.Problem{Message: message, Hint: hint})
}
