package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/placement"
	"voltar/internal/say"
)

// ForgetRequest says which backups ForgetBackups removes.
type ForgetRequest struct {
	Backups []string // "VOLUME@TIME", as Stock.Resolve takes them
	From    string   // the only destination that they go from; "" for all
	Force   bool     // also the newest good one, and one of a group alone
	DryRun  bool
}

// ForgetBackups removes backups that a person names, whatever the policy says. The newest good one of a source stays on each destination,
// and so does one that was made at one moment with others of its group, unless these are named too; both go by force. What
// stays that was to go is in the error; the lines are those that were decided on.
func (e *Engine) ForgetBackups(ctx context.Context, q ForgetRequest) ([]keep.Line, error) {
	on := e.opts.Destinations
	if q.From != "" {
		on = slices.DeleteFunc(slices.Clone(on), func(d placement.Destination) bool { return d.Name != q.From })
		if len(on) == 0 {
			return nil, e.opts.noDestination(q.From)
		}
	}
	lacking := map[string]error{} // by the destination that has none of a name
	found := map[string]bool{}
	wanted := func(ref catalog.Ref) bool {
		return slices.ContainsFunc(q.Backups, func(text string) bool {
			name := text[:strings.LastIndexByte(text, '@')]
			return name == ref.String() || name == ref.Name
		})
	}
	lines, err := e.eachOf(ctx, on, "forget", wanted, q.DryRun, func(k *keep.Keeper, d keep.Destination) ([]keep.Line, error) {
		var named []catalog.Entry
		for _, text := range q.Backups {
			entry, err := d.Stock.Resolve(text)
			if err != nil {
				lacking[text] = fmt.Errorf("destination %s: %w", d.Name, err)
				continue
			}
			found[text] = true
			named = append(named, entry)
		}
		if err := e.checkGroups(ctx, d, named, q.Force); err != nil {
			return nil, err
		}
		return k.ForgetNamed(ctx, d, named, q.Force, q.DryRun)
	})
	for text := range found {
		delete(lacking, text)
	}
	all := []error{err}
	for _, text := range q.Backups {
		if lacking[text] != nil {
			all = append(all, lacking[text])
			delete(lacking, text)
		}
	}
	return lines, errors.Join(all...)
}

// checkGroups refuses to break up what was made at one moment: the backups of a group in one run, all or none.
func (e *Engine) checkGroups(ctx context.Context, d keep.Destination, named []catalog.Entry, force bool) error {
	if force {
		return nil
	}
	for _, entry := range named {
		group, err := groupOf(ctx, d, entry)
		if err != nil || group == "" {
			if err != nil {
				return err
			}
			continue
		}
		others, err := e.madeWith(ctx, d, entry, group)
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(others, func(o catalog.Entry) bool {
			return slices.ContainsFunc(named, func(n catalog.Entry) bool { return n.ID == o.ID })
		})
		if len(others) > 0 {
			return say.WithHint(
				fmt.Errorf("%s was made at one moment with others of the group %s, which are not named", entry.ID, group),
				"name them too, or --force: "+strings.Join(say.Names(others, func(o catalog.Entry) string { return o.ID.String() }), " "))
		}
	}
	return nil
}

// groupOf is the group that a backup was made with, or "". One that cannot be read belongs to none.
func groupOf(ctx context.Context, d keep.Destination, entry catalog.Entry) (string, error) {
	b, err := entry.Load(ctx, d.Store)
	switch {
	case err != nil && !catalog.IsVerdict(err):
		return "", fmt.Errorf("read the manifest of %s: %w", entry.ID, err)
	case err != nil || b.Manifest.Quiesce == nil:
		return "", nil //nolint:nilerr // a manifest that cannot be used names no group
	}
	return b.Manifest.Quiesce.Group, nil
}

// madeWith lists the backups on a destination that the same run made of the same group. It reads the manifests of all that this run made.
func (e *Engine) madeWith(ctx context.Context, d keep.Destination, entry catalog.Entry, group string) (others []catalog.Entry, err error) {
	placing := e.placing()
	stock, err := catalog.ReadStock(ctx, d.Store, d.Stock.Host, catalog.Filter{Now: d.Stock.Now, Damage: placing.Damage, Known: placing.Known})
	if err != nil {
		return nil, err
	}
	for _, other := range stock.Entries(nil) {
		if other.Run != entry.Run || other.ID == entry.ID {
			continue
		}
		of, err := groupOf(ctx, d, other)
		if err != nil {
			return nil, err
		}
		if of == group {
			others = append(others, other)
		}
	}
	return others, nil
}
