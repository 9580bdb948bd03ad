package keep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/report"
)

// Bounds of what renewing the locks of one destination may take.
const (
	renewTimeout  = 30 * time.Minute
	renewAtOnce   = 8 // backups
	maxRenewTells = 5 // failures that are told one by one
)

// Renew lengthens the locks of all that stays on a destination, where the store locks: of what the policy keeps of every
// source, and where the policy is empty of everything, whether tonight has a backup of the source or not. What the policy
// or Vanished condemns goes when its lock ends. The store is asked once for each backup that stays, and those with less
// than half of the time left are locked again. The warnings are of backups that turned out to lack files.
func (k *Keeper) Renew(ctx context.Context, d Destination, v Vanished) (warnings []report.Problem, err error) {
	if !catalog.Locks(d.Store) || ctx.Err() != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	seen, err := v.read(d)
	all := []error{err}
	var staying []catalog.Entry
	for _, h := range d.Stock.Histories(nil) {
		switch {
		case v.isOver(seen[h.Identity]):
		case IsEmpty(d.Policy):
			staying = append(staying, h.Entries...)
		default:
			verdicts, err := k.Decide(ctx, d, h.Identity)
			if ctx.Err() != nil {
				return warnings, ctx.Err()
			}
			if errors.Is(err, store.ErrDown) {
				return warnings, err
			}
			all = append(all, err) // what is kept by what is known is locked all the same
			for _, e := range verdicts.Lacking {
				warnings = append(warnings, warnLacking(d, e))
			}
			for _, verdict := range verdicts.List {
				if verdict.Keep {
					staying = append(staying, verdict.Entry)
				}
			}
		}
	}
	return warnings, errors.Join(append(all, k.hold(ctx, d, staying))...)
}

// hold locks backups for longer. A store that is given up, and the end of the time, end it.
func (k *Keeper) hold(ctx context.Context, d Destination, backups []catalog.Entry) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(renewAtOnce)
	failures := make([]error, len(backups))
	for i, e := range backups {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failures[i] = catalog.Hold(ctx, d.Store, e, k.Now())
			if ctx.Err() != nil || errors.Is(failures[i], store.ErrDown) {
				return failures[i]
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return someOf(failures)
}

// someOf joins the first of many failures, and counts the others.
func someOf(failures []error) error {
	var told []error
	more := 0
	for _, err := range failures {
		switch {
		case err == nil:
		case len(told) < maxRenewTells:
			told = append(told, err)
		default:
			more++
		}
	}
	if more > 0 {
		told = append(told, fmt.Errorf("and %d more", more))
	}
	return errors.Join(told...)
}
