package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"voltar/internal/clock"
	"voltar/internal/say"
)

// ErrNotFound is wrapped by the error of a backup that nothing fits; the message says what there is.
var ErrNotFound = errors.New("there is no such backup")

// Resolve finds the backup that "VOLUME[@TIME]" means. VOLUME is VG/LV (or @dump/NAME and the like), or the name after
// the slash alone where that is unique, or else GUEST:DISK, or GUEST where it has one disk; TIME may be cut short where that is
// unique; without it the newest is meant that is not dated ahead.
// An error that wraps ErrNotFound says what there is. When the newest cannot be read nothing older is taken in its
// stead: that must be asked for.
func (l *Listing) Resolve(text string) (Entry, error) {
	r := resolver{entries: l.Backups, bad: l.Unreadable, now: l.Now}
	for _, b := range l.Backups {
		r.known = append(r.known, b.ID)
	}
	at, err := r.resolve(text)
	if err != nil {
		return Entry{}, err
	}
	return l.Backups[at], nil
}

// Resolve is as Listing has it.
func (x *Stock) Resolve(text string) (Entry, error) {
	entries := x.Entries(nil)
	r := resolver{entries: entries, bad: x.Unreadable, now: x.Now}
	for _, e := range entries {
		r.known = append(r.known, e.ID)
	}
	at, err := r.resolve(text)
	if err != nil {
		return Entry{}, err
	}
	return entries[at], nil
}

// resolver finds one of the backups there are, in the order of ID.Compare.
type resolver struct {
	known   []ID
	entries []Entry // in the same order
	bad     []Unreadable
	now     time.Time
}

func (r resolver) resolve(text string) (at int, err error) {
	name, when := cutTime(text)
	ref, err := r.resolveRef(name)
	if errors.Is(err, ErrNotFound) {
		if disk, isGuest, guestErr := r.resolveGuest(name); isGuest {
			ref, err = disk, guestErr
		}
	}
	if err == nil {
		at, err = r.resolveTime(ref, when)
	}
	if err != nil {
		return 0, fmt.Errorf("find backup %q: %w", text, err)
	}
	return at, nil
}

// resolveGuest finds the volume that is the only disk of a guest, or that disk of it that the name has behind a colon.
func (r resolver) resolveGuest(name string) (ref Ref, isGuest bool, err error) {
	entries, err := OfGuest(r.entries, name)
	refs, names := disksOf(entries)
	switch {
	case err != nil || len(refs) == 1:
		return append(refs, ref)[0], true, err
	case len(refs) == 0:
		return ref, false, nil
	}
	return ref, true, say.WithHint(fmt.Errorf("%w: %q is a guest with several disks", ErrNotFound, name), "say which: "+some(names))
}

func (r resolver) resolveRef(name string) (Ref, error) {
	known := map[Ref]bool{}
	for _, id := range r.known {
		known[id.Ref] = true
	}
	for _, u := range r.bad {
		known[u.ID.Ref] = true
	}
	var found, all []string
	var ref Ref
	for candidate := range known {
		all = append(all, candidate.String())
		if candidate.String() == name || (!strings.Contains(name, "/") && candidate.Name == name) {
			found = append(found, candidate.String())
			ref = candidate
		}
	}
	slices.Sort(found)
	slices.Sort(all)
	switch len(found) {
	case 1:
		return ref, nil
	case 0:
		if len(all) == 0 {
			return Ref{}, ErrNotFound
		}
		return Ref{}, say.WithHint(fmt.Errorf("%w%s", ErrNotFound, didYouMean(name, known)), fmt.Sprintf("there are backups of %s", some(all)))
	default:
		return Ref{}, say.WithHint(fmt.Errorf("%w: the name fits more than one volume", ErrNotFound),
			fmt.Sprintf("say which: %s", some(found)))
	}
}

// didYouMean names the source that a mistyped name may stand for.
func didYouMean(name string, known map[Ref]bool) string {
	var names []string
	for ref := range known {
		if strings.Contains(name, "/") {
			names = append(names, ref.String())
		} else {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return say.DidYouMean(name, names)
}

func (r resolver) resolveTime(ref Ref, when string) (at int, err error) {
	var fit []int
	var others []ID
	var bad []Unreadable
	for i, id := range r.known {
		if id.Ref != ref {
			continue
		}
		others = append(others, id)
		if strings.HasPrefix(FormatTime(id.Time), when) {
			fit = append(fit, i)
		}
	}
	for _, u := range r.bad {
		if u.ID.Ref == ref && strings.HasPrefix(FormatTime(u.ID.Time), when) {
			bad = append(bad, u)
		}
	}
	if when == "" {
		return r.newest(fit, bad)
	}
	switch {
	case len(fit) == 1 && len(bad) == 0:
		return fit[0], nil
	case len(fit) == 0 && len(bad) == 1:
		return 0, unreadable(bad[0])
	case len(fit)+len(bad) > 1:
		return 0, say.WithHint(fmt.Errorf("%w: the time fits more than one", ErrNotFound), "say which: "+some(r.newestFirst(fit)))
	default:
		slices.Reverse(others)
		return 0, say.WithHint(fmt.Errorf("%w of that time", ErrNotFound), "there are "+some(idTexts(others)))
	}
}

func (r resolver) newest(fit []int, bad []Unreadable) (at int, err error) {
	bad = slices.DeleteFunc(slices.Clone(bad), func(u Unreadable) bool { return clock.IsAhead(u.ID.Time, r.now) })
	past := slices.DeleteFunc(slices.Clone(fit), func(i int) bool { return clock.IsAhead(r.known[i].Time, r.now) })
	switch {
	case len(bad) > 0 && len(past) == 0:
		return 0, unreadable(bad[len(bad)-1])
	case len(past) == 0:
		return 0, say.WithHint(fmt.Errorf("%w that is not dated ahead of this host's clock", ErrNotFound),
			"is the clock right? To take one that is, say which: "+some(r.newestFirst(fit)))
	case len(bad) > 0 && bad[len(bad)-1].ID.Time.After(r.known[past[len(past)-1]].Time):
		last := bad[len(bad)-1]
		return 0, say.WithHint(fmt.Errorf("read the manifest of %s, the newest: %w", last.ID, last.Err),
			"for an older one say which: "+some(r.newestFirst(past)))
	}
	return past[len(past)-1], nil
}

// newestFirst returns the names of backups at some positions.
func (r resolver) newestFirst(positions []int) []string {
	var list []ID
	for _, i := range slices.Backward(positions) {
		list = append(list, r.known[i])
	}
	return idTexts(list)
}

// UnreadableError is of a backup that is there, and whose manifest cannot be used.
type UnreadableError struct{ Unreadable }

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("read the manifest of %s: %v", e.ID, e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

func unreadable(u Unreadable) error {
	return say.WithHint(&UnreadableError{u},
		"RESTORE.txt in its folder brings it back by hand, or take another copy")
}

func idTexts(list []ID) []string {
	var names []string
	for _, id := range list {
		names = append(names, id.String())
	}
	return names
}

// some writes a list for people, and not more of it than they will read.
func some(names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more: see `voltar list`", len(names)-most)
	default:
		return strings.Join(names, ", ")
	}
}
