package main

import (
	"context"
	"fmt"
	"slices"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/setup"
)

// meant is what words mean of which some name guests.
type meant struct {
	words   []string        // VOLUME, a pattern, or VOLUME@TIME; those that name guests are replaced by their disks
	guests  []string        // the words that named one
	entries []catalog.Entry // all backups, where a word named no volume
}

// byGuest replaces words that name guests and no volumes, by what the backups on some destinations say of their disks. A destination that
// does not answer is told by the command itself.
func byGuest(ctx context.Context, s *setup.Setup, stores []setup.Destination, words []string) (m meant, err error) {
	if len(words) == 0 {
		return m, nil
	}
	stores, _ = s.WithoutVanished(ctx, stores)
	isVolume := volumesNamed(ctx, s, s.Host, stores, words)
	if slices.ContainsFunc(words, func(word string) bool { return !isVolume(word) }) {
		filter := catalog.Filter{Damage: s.Damage(), Now: s.Now(), Known: s.Known()}
		m.entries = entriesOf(catalog.ListEach(ctx, setup.Named(stores), s.Host, filter))
	}
	return m, m.expand(words, isVolume)
}

// volumesNamed tells which of some words name volumes, or other sources, that have backups on some destinations.
func volumesNamed(
	ctx context.Context, s *setup.Setup, host string, stores []setup.Destination, words []string,
) func(word string) bool {
	names := say.Names(words, func(word string) string { name, _, _ := cutTime(word); return name })
	filter := catalog.Filter{Newest: 1, Match: refMatcher(names), Now: s.Now(), Known: s.Known()}
	found := catalog.ListEach(ctx, setup.Named(stores), host, filter)
	return func(word string) bool {
		name, _, _ := cutTime(word)
		return slices.ContainsFunc(found, func(l catalog.Listed) bool { return l.Err == nil && holds(l.Listing, name) })
	}
}

// entriesOf are the backups that some destinations have, each once.
func entriesOf(listed []catalog.Listed) (all []catalog.Entry) {
	known := map[string]bool{}
	for _, l := range listed {
		if l.Err != nil {
			continue
		}
		for _, e := range l.Backups {
			if id := e.ID.String(); !known[id] {
				known[id] = true
				all = append(all, e)
			}
		}
	}
	return all
}

// expand replaces words that name guests. A word with a time means the guest's backups of one run.
func (m *meant) expand(words []string, isVolume func(word string) bool) error {
	for _, word := range words {
		name, _, timed := cutTime(word)
		var of []catalog.Entry
		var err error
		if !isVolume(word) {
			if of, err = catalog.OfGuestAt(m.entries, word); err != nil {
				return usageError(err)
			}
		}
		if len(of) == 0 { // if it is no volume either, the command says so
			m.words = append(m.words, word)
			continue
		}
		m.guests = append(m.guests, name)
		for _, e := range of {
			text := e.ID.Ref.String()
			if timed {
				text = e.ID.String()
			}
			if !slices.Contains(m.words, text) {
				m.words = append(m.words, text)
			}
		}
	}
	return nil
}

// refuseForeign refuses to take all backups of a guest's volumes where some are of what the volumes were before: another guest's.
func (m *meant) refuseForeign() error {
	for _, name := range m.guests {
		of, err := catalog.OfGuest(m.entries, name)
		if err != nil {
			return usageError(err)
		}
		for _, e := range m.entries {
			isDisk := slices.ContainsFunc(of, func(o catalog.Entry) bool { return o.ID.Ref == e.ID.Ref })
			isOwn := slices.ContainsFunc(of, func(o catalog.Entry) bool { return o.ID.Compare(e.ID) == 0 })
			if isDisk && !isOwn {
				return usageError(say.WithHint(fmt.Errorf("not all backups of %s are of %s: %s is not", e.ID.Ref, name, e.ID),
					"name the volume, or backups with their times: `voltar list "+e.ID.Ref.String()+"` shows them"))
			}
		}
	}
	return nil
}
