package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/say"
)

// CopyRequest says what Copy makes up.
type CopyRequest struct {
	From, To string // names of destinations
	// Pick chooses among what From holds; nil takes all.
	Pick   func(*catalog.Stock) ([]catalog.Entry, error)
	DryRun bool
}

// Copy makes up what one destination lacks of another; see placement.Copy. It does not wait for a run, nor hold up one.
func (e *Engine) Copy(ctx context.Context, q CopyRequest) (lines []placement.CopyLine, err error) {
	from, to, err := e.opts.copyEnds(q)
	if err != nil {
		return nil, err
	}
	if err := e.opts.vanished(ctx, from); err != nil {
		return nil, err
	}
	if err := e.opts.vanished(ctx, to); err != nil { // which this mends
		say.Log(e.Log.Warn, err)
	}
	placing := e.placing()
	if !q.DryRun { // which leaves no line anywhere
		var r *run
		if r, err = e.begin(ctx, "copy", placement.CopyLock(to)); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.end(ctx)) }()
		r.recover(ctx) // an earlier copy that died holds the folder that it wrote to
		placing = r.placing
	}
	opts := placement.CopyOptions{Pick: q.Pick, DryRun: q.DryRun}
	if e.Progress != nil {
		opts.Progress = e.Progress
	}
	return placement.Copy(ctx, placing, from, to, opts)
}

// copyEnds finds the destinations that a request names.
func (o *Options) copyEnds(q CopyRequest) (from, to placement.Destination, err error) {
	find := func(name string) (placement.Destination, error) {
		i := slices.IndexFunc(o.Destinations, func(d placement.Destination) bool { return d.Name == name })
		if i < 0 {
			return placement.Destination{}, o.noDestination(name)
		}
		return o.Destinations[i], nil
	}
	if from, err = find(q.From); err != nil {
		return from, to, err
	}
	if to, err = find(q.To); err != nil {
		return from, to, err
	}
	if from.Store.String() == to.Store.String() {
		return from, to, fmt.Errorf("%w: %s and %s are the same place", ErrUsage, from.Name, to.Name)
	}
	return from, to, nil
}

// noDestination says which destinations there are where one is named that is none of them.
func (o *Options) noDestination(name string) error {
	names := say.Names(o.Destinations, func(d placement.Destination) string { return d.Name })
	hint := "there is none in it: add a [[destination]]"
	switch {
	case strings.Contains(name, "/"):
		hint = "copies go between destinations of the configuration: add a [[destination]] for the folder"
	case len(names) > 0:
		hint = "the configuration has " + strings.Join(names, ", ")
	}
	return say.WithHint(fmt.Errorf("%w: there is no destination %q in the configuration%s", ErrUsage, name, say.DidYouMean(name, names)), hint)
}
