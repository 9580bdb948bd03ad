package backup

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/keep"
	"voltar/internal/placement"
	"voltar/internal/say"
	"voltar/report"
	"voltar/retention"
)

// errNoBackups is returned to who names volumes of which there is no backup.
var errNoBackups = say.WithHint(fmt.Errorf("%w: there are no backups of what is named", ErrUsage), "`voltar list` shows what there is")

// Prune applies the policy of each destination to the sources that are wanted; nil takes all. With dryRun nothing is removed.
// What could not be removed is in the error; the lines are those that were decided on.
func (e *Engine) Prune(ctx context.Context, wanted func(catalog.Ref) bool, dryRun bool) (lines []keep.Line, err error) {
	lines, err = e.eachDestination(ctx, "prune", wanted, dryRun, func(k *keep.Keeper, d keep.Destination) ([]keep.Line, error) {
		lines, err := k.Prune(ctx, d, wanted, dryRun)
		if errors.Is(err, retention.ErrEmptyPolicy) {
			return nil, fmt.Errorf("%w: destination %s: %w", ErrUsage, d.Name, err)
		}
		return lines, err
	})
	if err == nil && len(lines) == 0 && wanted != nil {
		return nil, errNoBackups
	}
	return lines, err
}

// Forget removes all backups of what is wanted and no longer there: of volumes that are not on the host, and of directories,
// dumps and streams that are not in the configuration.
func (e *Engine) Forget(ctx context.Context, wanted func(catalog.Ref) bool, dryRun bool) (lines []keep.Line, err error) {
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil {
		return nil, fmt.Errorf("look whether the volume is gone: %w", err)
	}
	present := e.opts.present(inventory)
	lines, err = e.eachDestination(ctx, "forget", wanted, dryRun, func(k *keep.Keeper, d keep.Destination) ([]keep.Line, error) {
		return k.Forget(ctx, d, present, wanted, dryRun)
	})
	if err == nil && len(lines) == 0 {
		return nil, errNoBackups
	}
	return lines, err
}

// eachDestination decides on the backups of what is wanted, on every destination that answers.
func (e *Engine) eachDestination(ctx context.Context, command string, wanted func(catalog.Ref) bool, dryRun bool,
	decide func(*keep.Keeper, keep.Destination) ([]keep.Line, error)) ([]keep.Line, error) {
	return e.eachOf(ctx, e.opts.Destinations, command, wanted, dryRun, decide)
}

// eachOf is eachDestination for some of them.
func (e *Engine) eachOf(ctx context.Context, on []placement.Destination, command string, wanted func(catalog.Ref) bool, dryRun bool,
	decide func(*keep.Keeper, keep.Destination) ([]keep.Line, error)) (lines []keep.Line, err error) {
	placing := e.placing()
	if !dryRun { // which neither waits for a run nor leaves a line anywhere
		var r *run
		if r, err = e.begin(ctx, command); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.end(ctx)) }()
		placing = r.placing
	}
	placing.Wanted = wanted
	inventory, err := e.LVM.Inventory(ctx)
	if err != nil && !errors.Is(err, hostcmd.ErrNotFound) {
		e.Log.Warn("backups from before a volume was restored count as those of another, as lvm2 does not tell which were", "err", err)
	}
	placing.RestoredAs = restoredAs(inventory)
	var all []error
	for _, d := range on {
		if err := e.opts.vanished(ctx, d); err != nil {
			all = append(all, err)
			continue
		}
		t, err := placement.Look(ctx, placing, d)
		if err != nil {
			all = append(all, catalog.At(d.Name, err))
			continue
		}
		keeper := placing.Keeper()
		keeper.OnSource = e.OnSource
		some, err := decide(keeper, t.Kept())
		if errors.Is(err, ErrUsage) {
			return nil, err
		}
		lines, all = append(lines, some...), append(all, err)
	}
	return lines, errors.Join(all...)
}

// vanished says of a destination that its folder is gone with what this host wrote there, or nil.
func (o *Options) vanished(ctx context.Context, d placement.Destination) error {
	return o.Written.Vanished(ctx, catalog.Destination{Name: d.Name, Store: d.Store})
}

// Cleanup removes what dead runs left on this host, and nothing else. What they left on destinations in lost is given up.
func (e *Engine) Cleanup(ctx context.Context, lost []string) (removed []string, problem *report.Problem, err error) {
	r, err := e.begin(ctx, "cleanup")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.end(ctx)) }()
	removed, failed := e.Recover(ctx, lost...)
	if failed != nil {
		problem = report.ProblemOf(failed)
	}
	return removed, problem, nil
}
