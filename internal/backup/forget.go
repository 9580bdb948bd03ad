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
	Force   bool     // also the newest good one, and one that was made at one moment with others that stay
	DryRun  bool
}

// ForgetBackups removes backups that a person names, whatever the policy says. The newest good one of a source stays on each destination,
// and so does one that was made at one moment with others of its group, unless these go too, and one whose manifest cannot be read; all
// of them go by force. What stays that was to go is in the error; the lines are those that were decided on.
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
		group := groups{engine: e, on: d, names: map[string]string{}}
		var named []keep.Named
		for _, text := range q.Backups {
			entry, err := d.Stock.Resolve(text)
			var unreadable *catalog.UnreadableError
			if errors.As(err, &unreadable) {
				if q.Force {
					entry, err = catalog.EntryOfUnreadable(ctx, d.Store, d.Stock.Host, unreadable.Unreadable)
				} else {
					err = say.WithHint(err, "--force removes it all the same")
				}
			}
			if err != nil {
				lacking[text] = catalog.At(d.Name, e.withOthers(ctx, d, text, err))
				continue
			}
			found[text] = true
			n := keep.Named{Entry: entry}
			if !q.Force {
				if n.Group, n.With, err = group.of(ctx, entry); err != nil {
					return nil, err
				}
			}
			named = append(named, n)
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

// groups tells which backups on a destination were made at one moment. It reads the whole stock once, and each manifest once.
type groups struct {
	engine *Engine
	on     keep.Destination
	all    []catalog.Entry   // of the host; nil before they were needed
	names  map[string]string // of the groups of backups whose manifests were read, by ID
}

// of returns the group that a backup was made with, and the others that the same run made of it; "" for none.
func (g *groups) of(ctx context.Context, entry catalog.Entry) (group string, others []catalog.Entry, err error) {
	if group, err = g.name(ctx, entry); err != nil || group == "" {
		return "", nil, err
	}
	if g.all == nil {
		placing := g.engine.placing()
		stock, err := catalog.ReadStock(ctx, g.on.Store, g.on.Stock.Host,
			catalog.Filter{Now: g.on.Stock.Now, Damage: placing.Damage, Known: placing.Known})
		if err != nil {
			return "", nil, err
		}
		g.all = stock.Entries(nil)
	}
	for _, other := range g.all {
		if other.Run != entry.Run || other.ID == entry.ID {
			continue
		}
		name, err := g.name(ctx, other)
		if err != nil {
			return "", nil, err
		}
		if name == group {
			others = append(others, other)
		}
	}
	return group, others, nil
}

// name is that of the group that a backup was made with, or "". One whose manifest cannot be used belongs to none.
func (g *groups) name(ctx context.Context, entry catalog.Entry) (string, error) {
	id := entry.ID.String()
	if name, isKnown := g.names[id]; isKnown {
		return name, nil
	}
	b, err := entry.Load(ctx, g.on.Store)
	if err != nil && !catalog.IsVerdict(err) {
		return "", fmt.Errorf("read the manifest of %s: %w", entry.ID, err)
	}
	if err == nil && b.Manifest.Quiesce != nil {
		g.names[id] = b.Manifest.Quiesce.Group
	} else {
		g.names[id] = ""
	}
	return g.names[id], nil
}

// withOthers says of a backup that a stock of its name alone does not have what there is instead, as far as the destination tells.
func (e *Engine) withOthers(ctx context.Context, d keep.Destination, text string, err error) error {
	if !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	listing, listErr := catalog.ListNamed(ctx, d.Store, d.Stock.Host, text, catalog.Filter{Now: d.Stock.Now, Known: e.opts.Known})
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	if _, better := listing.Resolve(text); better != nil {
		return better
	}
	return err
}
