package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/clock"
	"voltar/internal/exitcode"
	"voltar/internal/say"
)

// NoDestination is the error of commands that have nowhere to look or to write to. flag is what may name a folder instead.
func (s *Setup) NoDestination(flag string) error {
	err, hint := errors.New("there is no destination"), "add a [[destination]] to the configuration, or give "+flag
	if s.Config.Path() == "" {
		err, hint = errors.New("there is no configuration"), "`voltar init` writes one; without one, give "+flag
	}
	return exitcode.UsageError(say.WithHint(err, hint))
}

// FindBackup finds what "VOLUME[@TIME]" means on the destinations of --from. One that does not answer is passed over with a
// warning when another has the backup.
func (s *Setup) FindBackup(ctx context.Context, from, host, text string) (Destination, catalog.Backup, error) {
	stores, err := s.StoresFrom(from)
	if err != nil {
		return Destination{}, catalog.Backup{}, err
	}
	if len(stores) == 0 {
		return Destination{}, catalog.Backup{}, s.NoDestination("--from DIR/")
	}
	stores, vanished := s.WithoutVanished(ctx, stores)
	if len(stores) == 0 {
		return Destination{}, catalog.Backup{}, errors.Join(vanished...)
	}
	filter := catalog.Filter{Damage: s.Damage(), Now: s.Now(), Known: s.Known()}
	found, err := catalog.Find(ctx, Named(stores), s.HostOr(host), text, filter)
	if err != nil {
		return Destination{}, catalog.Backup{}, errors.Join(append(vanished, err)...)
	}
	for _, err := range append(vanished, found.Others...) {
		say.Log(s.Log.Warn, err)
	}
	if found.Damage != "" {
		s.Log.Warn(fmt.Sprintf("%s on %s is damaged: %s", found.ID, stores[found.At].Name, found.Damage))
	}
	var ahead []string
	for _, id := range found.Ahead {
		ahead = append(ahead, id.String())
	}
	switch {
	case clock.IsAhead(found.ID.Time, filter.Now):
		s.Log.Warn(fmt.Sprintf("%s is dated ahead of this host's clock: it may not be what its time says", found.ID))
	case len(ahead) > 0:
		s.Log.Warn(fmt.Sprintf("%s is taken, and not %s, dated ahead of this host's clock: is the clock right?", found.ID,
			strings.Join(ahead, ", ")))
	}
	return stores[found.At], found.Backup, nil
}

// WithoutVanished leaves out the destinations whose folder is gone with what this host wrote there, and has an error for each.
func (s *Setup) WithoutVanished(ctx context.Context, stores []Destination) (there []Destination, vanished []error) {
	written := s.Written()
	for i, err := range catalog.AskAll(Named(stores), func(d catalog.Destination) error { return written.Vanished(ctx, d) }) {
		if err != nil {
			vanished = append(vanished, err)
			continue
		}
		there = append(there, stores[i])
	}
	return there, vanished
}

// withoutTwins leaves out destinations that are the same place as another, with a warning.
func (s *Setup) withoutTwins() (list []Destination) {
	for _, d := range s.Stores {
		if d.twin != nil {
			say.Log(s.Log.Warn, fmt.Errorf("destination %s is left out: %w", d.Name, d.twin))
			continue
		}
		list = append(list, d)
	}
	return list
}

// Named are the stores with their names alone.
func Named(stores []Destination) []catalog.Destination {
	var list []catalog.Destination
	for _, d := range stores {
		list = append(list, d.Destination.Destination)
	}
	return list
}

// StoresFrom returns the destination of a name, the folder of a path, which has a slash, or all destinations without either. A place
// that two destinations share is among all of them once.
func (s *Setup) StoresFrom(name string) ([]Destination, error) {
	if name == "" {
		return s.withoutTwins(), nil
	}
	if strings.Contains(name, "/") {
		s.Stores = nil
		err := s.openFolder("--from", name, "correct the path, or mount the disk that it is on")
		return s.Stores, err
	}
	for _, d := range s.Stores {
		if d.Name == name {
			return []Destination{d}, nil
		}
	}
	names := say.Names(s.Stores, func(d Destination) string { return d.Name })
	hint := "a folder ends in a slash: --from " + name + "/"
	if len(names) > 0 {
		hint = "the configuration has " + strings.Join(names, ", ") + "; " + hint
	}
	return nil, exitcode.UsageError(say.WithHint(
		fmt.Errorf("there is no destination %q in the configuration%s", name, say.DidYouMean(name, names)), hint))
}
