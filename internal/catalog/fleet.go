package catalog

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"voltar/internal/store"
)

// ListHosts lists the backups of every host that has a marker in a store, several hosts at once, in the order of their
// names. With Newest and Good in the filter it reads little more than one manifest of each source, and lists the files of one backup.
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

// ListFleet lists all hosts on some destinations. failed has a DestinationError for each that does not answer;
// when none does, they are err.
func ListFleet(ctx context.Context, on []Destination, filter Filter) (found []Listed, failed []error, err error) {
	type answer struct {
		listings []*Listing
		err      error
	}
	answers := AskAll(on, func(d Destination) (a answer) {
		a.listings, a.err = ListHosts(ctx, d.Store, filter)
		return a
	})
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	for i, a := range answers {
		if a.err != nil {
			failed = append(failed, At(on[i].Name, a.err))
			continue
		}
		for _, l := range a.listings {
			found = append(found, Listed{Destination: on[i].Name, Listing: l})
		}
	}
	if len(failed) > 0 && len(failed) == len(on) {
		return nil, nil, errors.Join(failed...)
	}
	return found, failed, nil
}

// FleetLine is one volume of one host, and how old its newest good backup is.
type FleetLine struct {
	Host       string    `json:"host"`
	Volume     string    `json:"volume,omitempty"`        // "" for a host that has no backups
	Guest      string    `json:"guest,omitempty"`         // whose disk it was when its newest backup was made: "web1:vda"
	Good       time.Time `json:"newest_good,omitzero"`    // of the newest complete backup; zero for none
	AgeSeconds int64     `json:"age_seconds"`             // of that, -1 for none
	On         []string  `json:"destinations,omitempty"`  // that have it
	SizeBytes  int64     `json:"size"`                    // of that, on the first of them
	Newest     time.Time `json:"newest,omitzero"`         // of any kind
	Status     string    `json:"newest_status,omitempty"` // of that: complete, damaged, unreadable, untrusted, unfinished
	Ahead      time.Time `json:"ahead,omitzero"`          // the latest that is dated ahead of this host's clock, which is not counted
	Proven     time.Time `json:"proven,omitzero"`         // when one of its backups was last verified or restored, where that is known
	Late       bool      `json:"late"`                    // there is no good one that is young enough
}

// Fleet makes one line for each volume of each host out of what the destinations hold, the worst first: volumes without any
// good backup, then those whose newest is the oldest. A volume is late when that is older than limit.
func Fleet(now time.Time, limit time.Duration, found []Listed) []FleetLine {
	type key struct{ host, volume string }
	lines := map[key]*FleetLine{}
	line := func(host, volume string) *FleetLine {
		k := key{host, volume}
		if lines[k] == nil {
			lines[k] = &FleetLine{Host: host, Volume: volume}
		}
		return lines[k]
	}
	named := map[string]bool{} // hosts of which there is any volume
	for _, l := range found {
		for _, b := range l.Lines(l.Destination) {
			line(l.Host, strings.TrimSuffix(b.Backup, "@"+FormatTime(b.Time))).add(b)
			named[l.Host] = true
		}
	}
	for _, l := range found {
		if !named[l.Host] {
			line(l.Host, "")
		}
	}
	list := []FleetLine{}
	for _, l := range lines {
		l.AgeSeconds = -1
		if !l.Good.IsZero() {
			l.AgeSeconds = int64(now.Sub(l.Good) / time.Second)
		}
		l.Late = l.Good.IsZero() || now.Sub(l.Good) > limit
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b FleetLine) int {
		return cmp.Or(a.Good.Compare(b.Good), strings.Compare(a.Host, b.Host), strings.Compare(a.Volume, b.Volume))
	})
	return list
}

// add takes one backup into account.
func (l *FleetLine) add(b Line) {
	if b.Ahead {
		if b.Time.After(l.Ahead) {
			l.Ahead = b.Time
		}
		return
	}
	if b.Status == string(StatusComplete) && !b.Time.Before(l.Good) {
		if b.Time.After(l.Good) {
			l.On, l.SizeBytes = nil, b.SizeBytes
		}
		l.Good, l.On = b.Time, append(l.On, b.Destination)
	}
	if b.Time.After(l.Newest) || b.Time.Equal(l.Newest) && b.Status == string(StatusComplete) {
		l.Newest, l.Status = b.Time, b.Status
		if l.Guest = ""; b.Guest != nil {
			l.Guest = b.Guest.String()
		}
	}
}
