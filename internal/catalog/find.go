package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"voltar/internal/clock"
	"voltar/internal/say"
	"voltar/internal/store"
)

// Destination is an open store and the name that the configuration gives it.
type Destination struct {
	Name  string
	Store store.Store
}

// DestinationError is an error of one destination, by the name that the configuration gives it. Of what befell the destination as a
// whole (store.WholeError) it says that alone, and not what was about to be done with which object.
type DestinationError struct {
	Destination string
	Err         error
}

// At says of which destination an error is. At of nil is nil.
func At(destination string, err error) error {
	if err == nil {
		return nil
	}
	return &DestinationError{destination, err}
}

func (e *DestinationError) Error() string {
	return "destination " + e.Destination + ": " + store.Whole(e.Err).Error()
}

func (e *DestinationError) Unwrap() error { return e.Err }

// Listed is what a destination holds of one host, or why that cannot be told.
type Listed struct {
	Destination string
	*Listing
	Err error
}

// AskAll asks all destinations at once, and returns their answers in the order of the destinations: the waits for those that
// do not answer do not add up.
func AskAll[D, Answer any](on []D, ask func(D) Answer) []Answer {
	answers := make([]Answer, len(on))
	var group sync.WaitGroup
	for i, d := range on {
		group.Go(func() { answers[i] = ask(d) })
	}
	group.Wait()
	return answers
}

// ListEach lists a host on all destinations.
func ListEach(ctx context.Context, on []Destination, host string, filter Filter) []Listed {
	return AskAll(on, func(d Destination) Listed {
		listing, err := List(ctx, d.Store, host, filter)
		return Listed{d.Name, listing, err}
	})
}

// Found is the backup that a text means.
type Found struct {
	Backup
	At     int     // the destination that has it, by its position
	Others []error // of destinations that could not be asked
	Ahead  []ID    // backups of the volume that were passed over because they are dated ahead
}

// Find finds what "VOLUME[@TIME]" means on some destinations: without a time, the newest of them all. Where several have
// that backup, the first gives it that is not known to be damaged.
func Find(ctx context.Context, on []Destination, host, text string, filter Filter) (Found, error) {
	type answer struct {
		listing *Listing // nil where there is none
		Backup
		err error
	}
	answers := AskAll(on, func(d Destination) (a answer) {
		var e Entry
		if a.listing, a.err = ListNamed(ctx, d.Store, host, text, filter); a.err == nil {
			e, a.err = ResolveIn(ctx, d.Store, a.listing, text)
		}
		if a.err != nil {
			return a
		}
		if a.Backup, a.err = e.Load(ctx, d.Store); a.err != nil {
			a.err = unreadable(Unreadable{ID: e.ID, Err: a.err})
		}
		return a
	})
	found := Found{At: -1}
	if ctx.Err() != nil {
		return found, context.Cause(ctx)
	}
	var listings []*Listing
	var failed []error
	for i, a := range answers {
		if a.listing != nil {
			listings = append(listings, a.listing)
		}
		switch {
		case a.err != nil:
			failed = append(failed, At(on[i].Name, a.err))
		case found.At < 0 || a.ID.Time.After(found.ID.Time),
			a.ID.Compare(found.ID) == 0 && found.Damage != "" && a.Damage == "":
			found.Backup, found.At = a.Backup, i
		}
	}
	if found.At < 0 {
		return found, errors.Join(failed...)
	}
	for _, err := range failed {
		if !errors.Is(err, ErrNotFound) {
			found.Others = append(found.Others, err)
		}
	}
	found.Ahead = aheadOf(found.ID, listings)
	return found, nil
}

// aheadOf returns the backups of the same volume that are dated ahead, unless the one that was found is so itself.
func aheadOf(found ID, listings []*Listing) []ID {
	known := map[string]bool{}
	var ahead []ID
	for _, l := range listings {
		if clock.IsAhead(found.Time, l.Now) {
			return nil
		}
		for _, b := range l.Backups {
			if b.ID.Ref == found.Ref && l.IsAhead(b.ID) && !known[b.ID.String()] {
				known[b.ID.String()] = true
				ahead = append(ahead, b.ID)
			}
		}
	}
	return ahead
}

// NoHosts is what to do about a place where no host has a backup.
const NoHosts = "there is none of any other host: is it the right disk, bucket or folder? It holds a folder for each host"

// ShownHosts is how many hosts a hint names.
const ShownHosts = 8

// ResolveIn finds a backup in the list of one destination. Where that is empty, the error says of which hosts there are backups.
func ResolveIn(ctx context.Context, s store.Store, listing *Listing, text string) (Entry, error) {
	if len(listing.Backups)+len(listing.Unreadable) > 0 {
		return listing.Resolve(text)
	}
	hosts, err := Hosts(ctx, s)
	if err != nil {
		return Entry{}, err
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return host == listing.Host }) // has a folder, and no backup
	hint := "there are backups of " + say.Listed(hosts, ShownHosts) + ": give --host NAME"
	if len(hosts) == 0 {
		hint = cmp.Or(store.PendingNote(ctx, s), NoHosts)
	}
	return Entry{}, say.WithHint(fmt.Errorf("%w: %s holds none of host %s", ErrNotFound, s, listing.Host), hint)
}

// ListNamed lists what is needed to tell which backup "VOLUME[@TIME]" means: the volumes that the name can mean, or else the disks of
// the guest that it means; when there are none, the newest of all, for the message that says what there is.
func ListNamed(ctx context.Context, s store.Store, host, text string, filter Filter) (*Listing, error) {
	name, _ := cutTime(text)
	only := filter
	only.Match = func(ref Ref) bool { return ref.String() == name || ref.Name == name }
	listing, err := List(ctx, s, host, only)
	if err != nil || len(listing.Backups)+len(listing.Unreadable) > 0 {
		return listing, err
	}
	newest := filter
	newest.Newest = 1
	if listing, err = List(ctx, s, host, newest); err != nil {
		return listing, err
	}
	ofGuest, _ := OfGuest(listing.Backups, name) // what is ambiguous is found so again in the listing
	if len(ofGuest) == 0 {
		return listing, nil // which says what there is
	}
	refs, _ := disksOf(ofGuest)
	only.Match = func(ref Ref) bool { return slices.Contains(refs, ref) }
	return List(ctx, s, host, only)
}

// ListMeant lists, on each destination, the backups that a word without a time means: of the volumes of that name, or else of the
// disks of the guest; without a word, all of the host.
func ListMeant(ctx context.Context, on []Destination, host, word string, filter Filter) []Listed {
	if word == "" {
		return ListEach(ctx, on, host, filter)
	}
	return AskAll(on, func(d Destination) Listed {
		l, err := ListNamed(ctx, d.Store, host, word, filter)
		if err == nil {
			err = l.keepMeant(word)
		}
		return Listed{d.Name, l, err}
	})
}

// keepMeant leaves out of a listing what a word does not mean.
func (l *Listing) keepMeant(word string) error {
	isVolume := func(id ID) bool { return id.Ref.String() == word || id.Ref.Name == word }
	if slices.ContainsFunc(l.Backups, func(e Entry) bool { return isVolume(e.ID) }) ||
		slices.ContainsFunc(l.Unreadable, func(u Unreadable) bool { return isVolume(u.ID) }) {
		return nil // ListNamed has asked for these alone
	}
	ofGuest, err := OfGuest(l.Backups, word)
	l.Backups, l.Unreadable = ofGuest, nil
	return err
}
