package keep

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/retention"
)

// locking is a store with object lock: what is locked cannot be deleted before its time is over on the site's clock.
type locking struct {
	store.Store
	now    func() time.Time
	period time.Duration

	mu    sync.Mutex
	until map[string]time.Time
	asked int // how often it was asked for the end of a lock
	made  int // locks
}

func newLocking(s *site, days int) *locking {
	return &locking{Store: s.store, now: func() time.Time { return s.now }, period: time.Duration(days) * 24 * time.Hour, until: map[string]time.Time{}}
}

func (l *locking) LockFor() time.Duration { return l.period }

func (l *locking) Lock(ctx context.Context, keys []string, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if _, err := l.Stat(ctx, key); err != nil {
			return err
		}
		if until.After(l.until[key]) {
			l.until[key] = until
		}
		l.made++
	}
	return nil
}

func (l *locking) LockedUntil(_ context.Context, key string) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.until[key], nil
}

func (l *locking) CheckDelete(_ context.Context, keys []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if until := l.until[key]; until.After(l.now()) {
			return &store.LockedError{Until: until}
		}
	}
	return nil
}

func (l *locking) Delete(ctx context.Context, key string) error {
	if err := l.CheckDelete(ctx, []string{key}); err != nil {
		return err
	}
	return l.Store.Delete(ctx, key)
}

// lock locks a backup from the time of the site's clock on, as its commit does.
func (l *locking) lock(t *testing.T, b catalog.Backup) {
	t.Helper()
	objects, err := l.List(t.Context(), b.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := l.Lock(t.Context(), []string{o.Key}, l.now().Add(l.period)); err != nil {
			t.Fatal(err)
		}
	}
}

// lapsed names the nights of the backups that are there and not locked.
func (s *site) lapsed(t *testing.T, l *locking) string {
	t.Helper()
	var nights []string
	for _, e := range s.with(t, retention.Policy{}).Stock.Entries(nil) {
		if err := l.CheckDelete(t.Context(), []string{e.Path() + "/" + catalog.ManifestName, e.Path() + "/data.tar.gz"}); !errors.Is(err, store.ErrLocked) {
			nights = append(nights, night(e))
		}
	}
	return strings.Join(nights, " ")
}

// A lock that outlasts the policy holds a backup for as long as the lock was made for, and no longer.
func TestLocksOfWhatIsCondemnedEnd(t *testing.T) {
	s := newSite(t, 0)
	l := newLocking(s, 30)
	for n := range 60 {
		s.now = nightAfter(n).Add(time.Hour)
		l.lock(t, s.make(t, volume("v"), nightAfter(n), machine))
		d := s.with(t, retention.Policy{Days: 7})
		d.Store = l
		if _, err := s.Retain(t.Context(), d, volume("v").Identity()); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for n := 30; n < 60; n++ {
		want = append(want, fmt.Sprint(n))
	}
	if got := s.left(t); got != strings.Join(want, " ") {
		t.Errorf("left %s, want 30 to 59", got)
	}
	if got := s.lapsed(t, l); got != "" {
		t.Errorf("not locked: %s", got)
	}
}
