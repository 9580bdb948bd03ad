package placement

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/store"
)

// meeting is a store that answers its first question once all stores of the meeting were asked one.
type meeting struct {
	store.Store
	arrive func()
}

func (m *meeting) Open(ctx context.Context, key string) (store.Reader, error) {
	m.arrive()
	return m.Store.Open(ctx, key)
}

// One destination that does not answer must not add its wait to another's: the test would never end if one were claimed after
// the other.
func TestDestinationsAreClaimedAtTheSameTime(t *testing.T) {
	s := newSite(t, "disk", "offsite", "attic")
	var all sync.WaitGroup
	all.Add(len(s.destinations))
	for i := range s.destinations {
		arrive := sync.OnceFunc(func() { all.Done(); all.Wait() })
		s.destinations[i].Store = &meeting{s.destinations[i].Store, arrive}
	}
	run, end := s.begin()
	defer end()
	targets, err := Open(t.Context(), run, s.destinations)
	if err != nil {
		t.Fatal(err)
	}
	for i, target := range targets {
		if target.Name != s.destinations[i].Name || target.Err() != nil {
			t.Errorf("destination %d is %s: %v", i, target.Name, target.Err())
		}
	}
}

// The newest good backup of a volume that failed is one whose files are there: a manifest alone reassures nobody.
func TestLastGoodHasItsFiles(t *testing.T) {
	s := newSite(t, "disk")
	whole := s.make(t, "disk", "data", 0, nil)
	bare := s.make(t, "disk", "data", 1, nil)
	for name := range s.tree(t, "disk", bare.Path()) {
		if name != catalog.ManifestName {
			if err := os.Remove(filepath.Join(s.dir, "disk", bare.Path(), name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run, end := s.begin()
	defer end()
	targets, err := Open(t.Context(), run, s.destinations)
	if err != nil {
		t.Fatal(err)
	}
	if got := targets.LastGood(t.Context(), whole.ID.Ref, ""); got == nil || !got.Equal(whole.ID.Time) {
		t.Errorf("newest good backup of %v, want %v", got, whole.ID.Time)
	}
}
