package keep

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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

// renew renews the locks of what stays, as the nights between two numbers do.
func (s *site) renew(t *testing.T, l *locking, policy retention.Policy, v Vanished, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		s.now = nightAfter(n).Add(time.Hour)
		d := s.with(t, policy)
		d.Store = l
		if warnings, err := s.Renew(t.Context(), d, v); err != nil || len(warnings) > 0 {
			t.Fatalf("night %d: %+v, %v", n, warnings, err)
		}
	}
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
		if _, err := s.Renew(t.Context(), d, Vanished{}); err != nil {
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

// What stays is locked for as long as it stays, whether there are backups of its source tonight or not.
func TestLocksOfWhatStaysDoNotEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy retention.Policy
		lapsed string // of the nights 0 to 2, 40 nights later
	}{
		{"nothing is ever removed", retention.Policy{}, ""},
		{"a week is kept, and the gap after it counts as a day", retention.Policy{Days: 7}, ""},
		{"two are kept", retention.Policy{KeepLast: 2}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, 0)
			l := newLocking(s, 30)
			for n := range 3 {
				s.now = nightAfter(n).Add(time.Hour)
				l.lock(t, s.make(t, volume("v"), nightAfter(n), machine))
			}
			s.renew(t, l, c.policy, Vanished{}, 3, 43)
			if got := s.lapsed(t, l); got != c.lapsed {
				t.Errorf("not locked: %q, want %q", got, c.lapsed)
			}
		})
	}
}

// The backups of a volume that is gone stay locked until vanished_keep is over, and not longer.
func TestLocksOfWhatIsGone(t *testing.T) {
	s := newSite(t, 0)
	l := newLocking(s, 10)
	l.lock(t, s.make(t, volume("v"), nightAfter(0), machine))
	v := Vanished{Keep: 20 * 24 * time.Hour, StateDir: filepath.Join(s.dir, "state")}
	for n := 1; n < 50 && s.left(t) != ""; n++ {
		s.now = nightAfter(n).Add(time.Hour)
		d := s.with(t, retention.Policy{Days: 7})
		d.Store = l
		if _, warnings := s.Gone(t.Context(), d, Present{Groups: map[string]bool{"vg-uuid": true}}, v); len(warnings) > 0 {
			t.Fatalf("night %d: %+v", n, warnings)
		}
		if _, err := s.Renew(t.Context(), d, v); err != nil {
			t.Fatal(err)
		}
		if got := s.lapsed(t, l); got != "" {
			t.Fatalf("night %d: %s is not locked", n, got)
		}
	}
	if got := s.left(t); got != "" {
		t.Errorf("left %s", got)
	}
}

// The store is asked once for each backup that stays, and locks those that have less than half of the time left.
func TestRenewAsksNoMoreThanItMust(t *testing.T) {
	s := newSite(t, 0)
	l := newLocking(s, 30)
	for n := range 20 {
		s.now = nightAfter(n).Add(time.Hour)
		l.lock(t, s.make(t, volume("v"), nightAfter(n), machine))
	}
	for _, c := range []struct {
		policy      retention.Policy
		asked, made int
	}{
		{retention.Policy{}, 20, 4 * 2}, // of the nights 0 to 3, the files and the manifest
		{retention.Policy{}, 20, 0},     // once more in the same night
		{retention.Policy{KeepLast: 7}, 7, 0},
	} {
		l.asked, l.made = 0, 0
		s.renew(t, l, c.policy, Vanished{}, 19, 20)
		if l.asked != c.asked || l.made != c.made {
			t.Errorf("%s: asked %d times, want %d; %d locks, want %d", c.policy, l.asked, c.asked, l.made, c.made)
		}
	}
}

// What is left of a backup that lost files stays locked, and is no failure of each night.
func TestRenewOfWhatLacksFiles(t *testing.T) {
	s := newSite(t, 2)
	l := newLocking(s, 30)
	for n := range 3 {
		b := s.make(t, volume("v"), nightAfter(n), machine)
		if n == 2 {
			s.hollow(t, b)
		}
	}
	d := s.with(t, retention.Policy{KeepLast: 1})
	d.Store = l
	warnings, err := s.Renew(t.Context(), d, Vanished{})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "data.tar.gz is missing") {
		t.Errorf("%+v, %v", warnings, err)
	}
	if len(l.until) != 3 { // two files of night 1, which is the last good one, and the manifest of night 2
		t.Errorf("%v", l.until)
	}
}

// Many failures are a few lines, and the end of a store is one.
func TestRenewFails(t *testing.T) {
	s := newSite(t, 0)
	for n := range 20 {
		s.make(t, volume("v"), nightAfter(n), machine)
	}
	for _, c := range []struct {
		err   error
		lines int
	}{{errors.New("no right to look"), maxRenewTells + 1}, {store.ErrDown, 1}} {
		d := s.with(t, retention.Policy{})
		d.Store = failing{newLocking(s, 30), c.err}
		_, err := s.Renew(t.Context(), d, Vanished{})
		if !errors.Is(err, c.err) || strings.Count(err.Error(), "\n")+1 != c.lines {
			t.Errorf("%v, want %d lines", err, c.lines)
		}
	}
}

// failing is a store that does not say until when anything is locked.
type failing struct {
	*locking
	err error
}

func (f failing) LockedUntil(context.Context, string) (time.Time, error) { return time.Time{}, f.err }
