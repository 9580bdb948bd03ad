package catalog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"voltar/internal/store"
)

// Locks tells whether a store holds backups against deletion for some time.
func Locks(s store.Store) bool {
	locker, ok := store.As[store.Locker](s)
	return ok && locker.LockFor() > 0
}

// lockEnd is until when a store is to hold what is locked now, or the zero time where it holds nothing.
func lockEnd(s store.Store, now time.Time) time.Time {
	if !Locks(s) {
		return time.Time{}
	}
	locker, _ := store.As[store.Locker](s) // as Locks found
	return now.Add(locker.LockFor())
}

// lockFiles locks files of a backup, where the store does that.
func lockFiles(ctx context.Context, s store.Store, folder string, files []File, until time.Time) error {
	if until.IsZero() {
		return nil
	}
	var keys []string
	for _, file := range files {
		keys = append(keys, path.Join(folder, file.Name))
	}
	locker, _ := store.As[store.Locker](s) // as lockEnd found
	return locker.Lock(ctx, keys, until)
}

// Hold sees to it that a backup that is to be kept stays locked, in a store that locks: when less than half of the time
// is left, it is locked for the whole of it again, its signature with it where it has one, the manifest last. Of one that
// has lost files, what is left is locked.
func Hold(ctx context.Context, s store.Store, e Entry, now time.Time) error {
	until := lockEnd(s, now)
	if until.IsZero() {
		return nil
	}
	locker, _ := store.As[store.Locker](s) // as lockEnd found
	manifest := path.Join(e.Path(), ManifestName)
	held, err := locker.LockedUntil(ctx, manifest)
	if err != nil {
		return fmt.Errorf("hold %s in %s: %w", e.ID, s, err)
	}
	if held.Sub(now) >= locker.LockFor()/2 {
		return nil
	}
	b, err := e.Load(ctx, s)
	if err != nil {
		return fmt.Errorf("hold %s in %s: %w", e.ID, s, err)
	}
	for _, file := range b.Manifest.Files {
		err := locker.Lock(ctx, []string{path.Join(b.Path(), file.Name)}, until)
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return fmt.Errorf("hold %s in %s: %w", e.ID, s, err)
		}
	}
	last := []string{path.Join(e.Path(), SignatureName), manifest}
	if _, err := s.Stat(ctx, last[0]); errors.Is(err, store.ErrNotExist) {
		last = last[1:]
	} else if err != nil {
		return fmt.Errorf("hold %s in %s: %w", e.ID, s, err)
	}
	if err := locker.Lock(ctx, last, until); err != nil {
		return fmt.Errorf("hold %s in %s: %w", e.ID, s, err)
	}
	return nil
}
