package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"voltar/internal/say"
)

// ErrNotFound is wrapped by the error of a backup that nothing fits; the message says what there is.
var ErrNotFound = errors.New("there is no such backup")

// Resolve finds the backup that "VOLUME[@TIME]" means. VOLUME is VG/LV (or @dump/NAME and the like), or the name after
// the slash alone where that is unique; TIME may be cut short where that is unique; without it the newest is meant that
// is not dated ahead.
// An error that wraps ErrNotFound says what there is. When the newest cannot be read nothing older is taken in its
// stead: that must be asked for.
func (l *Listing) Resolve(text string) (Backup, error) {
	name, when := cutTime(text)
	ref, err := l.resolveRef(name)
	if err != nil {
		return Backup{}, fmt.Errorf("find backup %q: %w", text, err)
	}
	backup, err := l.resolveTime(ref, when)
	if err != nil {
		return Backup{}, fmt.Errorf("find backup %q: %w", text, err)
	}
	return backup, nil
}

func (l *Listing) resolveRef(name string) (Ref, error) {
	known := map[Ref]bool{}
	for _, b := range l.Backups {
		known[b.ID.Ref] = true
	}
	for _, u := range l.Unreadable {
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
		return Ref{}, say.WithHint(ErrNotFound, fmt.Sprintf("there are backups of %s", some(all)))
	default:
		return Ref{}, say.WithHint(fmt.Errorf("%w: the name fits more than one volume", ErrNotFound),
			fmt.Sprintf("say which: %s", some(found)))
	}
}

func (l *Listing) resolveTime(ref Ref, when string) (Backup, error) {
	var fit, others []Backup
	var bad []Unreadable
	for _, b := range l.Backups {
		if b.ID.Ref != ref {
			continue
		}
		others = append(others, b)
		if strings.HasPrefix(FormatTime(b.ID.Time), when) {
			fit = append(fit, b)
		}
	}
	for _, u := range l.Unreadable {
		if u.ID.Ref == ref && strings.HasPrefix(FormatTime(u.ID.Time), when) {
			bad = append(bad, u)
		}
	}
	if when == "" {
		return l.newest(fit, bad)
	}
	switch {
	case len(fit) == 1 && len(bad) == 0:
		return fit[0], nil
	case len(fit) == 0 && len(bad) == 1:
		return Backup{}, unreadable(bad[0])
	case len(fit)+len(bad) > 1:
		return Backup{}, say.WithHint(fmt.Errorf("%w: the time fits more than one", ErrNotFound),
			fmt.Sprintf("say which: %s", some(ids(fit))))
	default:
		return Backup{}, say.WithHint(fmt.Errorf("%w of that time", ErrNotFound),
			fmt.Sprintf("there are %s", some(ids(others))))
	}
}

func (l *Listing) newest(backups []Backup, bad []Unreadable) (Backup, error) {
	bad = slices.DeleteFunc(slices.Clone(bad), func(u Unreadable) bool { return l.IsAhead(u.ID) })
	past := slices.DeleteFunc(slices.Clone(backups), func(b Backup) bool { return l.IsAhead(b.ID) })
	switch {
	case len(bad) > 0 && len(past) == 0:
		return Backup{}, unreadable(bad[len(bad)-1])
	case len(past) == 0:
		return Backup{}, say.WithHint(fmt.Errorf("%w that is not dated ahead of this host's clock", ErrNotFound),
			"is the clock right? To take one that is, say which: "+some(ids(backups)))
	case len(bad) > 0 && bad[len(bad)-1].ID.Time.After(past[len(past)-1].ID.Time):
		last := bad[len(bad)-1]
		return Backup{}, say.WithHint(fmt.Errorf("read the manifest of %s, the newest: %w", last.ID, last.Err),
			fmt.Sprintf("for an older one say which: %s", some(ids(past))))
	}
	return past[len(past)-1], nil
}

func unreadable(u Unreadable) error {
	return say.WithHint(fmt.Errorf("read the manifest of %s: %w", u.ID, u.Err),
		"RESTORE.txt in its folder brings it back by hand, or take another copy")
}

func ids(backups []Backup) []string {
	var list []string
	for _, b := range slices.Backward(backups) {
		list = append(list, b.ID.String())
	}
	return list
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
