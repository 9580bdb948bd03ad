package catalog

import (
	"cmp"
	"context"
	"slices"

	"voltar/internal/store"
)

// ListHosts lists the backups of every host that has a marker in a store, several hosts at once, in the order of their
// names. With Newest and Good in the filter it reads little more than one manifest of each source.
func ListHosts(ctx context.Context, s store.Store, filter Filter) ([]*Listing, error) {
	hosts, err := Hosts(ctx, s)
	if err != nil {
		return nil, err
	}
	listings, err := gather(ctx, hosts, func(ctx context.Context, host string) ([]*Listing, error) {
		l, err := List(ctx, s, host, filter)
		return []*Listing{l}, err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(listings, func(a, b *Listing) int { return cmp.Compare(a.Host, b.Host) })
	return listings, nil
}
