package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/store"
)

// locking is a store that notes what is locked, in which order.
type locking struct {
	store.Store
	period time.Duration
	until  map[string]time.Time
	log    []string
	fail   string // key whose lock fails
}

func (l *locking) LockFor() time.Duration { return l.period }

func (l *locking) Lock(_ context.Context, keys []string, until time.Time) error {
	for _, key := range keys {
		if l.fail != "" && strings.HasSuffix(key, l.fail) {
			return errors.New("cannot lock it")
		}
		l.until[key] = until
		l.log = append(l.log, "lock "+key[strings.LastIndex(key, "/")+1:])
	}
	return nil
}

func (l *locking) LockedUntil(_ context.Context, key string) (time.Time, error) {
	return l.until[key], nil
}

func (l *locking) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	l.log = append(l.log, "create "+key[strings.LastIndex(key, "/")+1:])
	if !opts.LockUntil.IsZero() {
		if err := l.Lock(ctx, []string{key}, opts.LockUntil); err != nil {
			return nil, err
		}
		opts.LockUntil = time.Time{}
	}
	return l.Store.Create(ctx, key, opts)
}

func newLocking(t *testing.T) *locking {
	return &locking{Store: newStore(t), period: 30 * 24 * time.Hour, until: map[string]time.Time{}}
}

// Files are locked when all stand, the manifest with its appearance, last.
func TestCommitLocks(t *testing.T) {
	s := newLocking(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	before := time.Now()
	if _, err := d.Commit(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	want := []string{"create " + ClaimName, "create v.tar.gz", "lock v.tar.gz", "create " + ManifestName, "lock " + ManifestName}
	if !slices.Equal(s.log, want) {
		t.Errorf("%q, want %q", s.log, want)
	}
	for key, until := range s.until {
		if until.Before(before.Add(s.period)) || until.After(time.Now().Add(s.period)) {
			t.Errorf("%s is locked until %s", key, until)
		}
	}
}

func TestCommitThatCannotLock(t *testing.T) {
	for _, fail := range []string{"v.tar.gz", ManifestName} {
		s := newLocking(t)
		s.fail = fail
		m := manifest(volume("v"), night)
		d := mustBegin(t, s, m.ID())
		fill(t, d, m)
		if _, err := d.Commit(context.Background(), m); err == nil {
			t.Errorf("%s: committed", fail)
		}
		if l := mustList(t, s, Filter{}); len(l.Backups) != 0 {
			t.Errorf("%s: listed: %v", fail, names(l.Backups))
		}
	}
}

// What is kept is locked anew once half of the time is over, and not every night.
func TestHold(t *testing.T) {
	s := newLocking(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	b, err := d.Commit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, test := range []struct {
		name string
		days int
		want []string
	}{
		{"the next night", 1, nil}, {"before half of the time", 14, nil},
		{"after half of the time", 16, []string{"lock v.tar.gz", "lock " + ManifestName}},
		{"a night later", 17, nil},
		{"long after", 100, []string{"lock v.tar.gz", "lock " + ManifestName}},
	} {
		s.log = nil
		at := now.AddDate(0, 0, test.days)
		if err := Hold(context.Background(), s, EntryOf(b), at); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.log, test.want) {
			t.Errorf("%s: %q, want %q", test.name, s.log, test.want)
		}
		if len(test.want) > 0 && !s.until[b.Path()+"/"+ManifestName].Equal(at.Add(s.period)) {
			t.Errorf("%s: locked until %s", test.name, s.until[b.Path()+"/"+ManifestName])
		}
	}
	if err := Hold(context.Background(), s.Store, EntryOf(b), now); err != nil {
		t.Errorf("a store that does not lock: %v", err)
	}
}
