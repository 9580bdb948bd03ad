package catalog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"voltar/internal/store"
)

// together returns destinations whose first calls wait for each other: asked one after the other, none answers.
func together(t *testing.T, stores ...store.Store) []Destination {
	t.Helper()
	all := make(chan struct{})
	var mu sync.Mutex
	waiting := len(stores)
	var on []Destination
	for i, s := range stores {
		meet := sync.OnceValue(func() error {
			mu.Lock()
			if waiting--; waiting == 0 {
				close(all)
			}
			mu.Unlock()
			select {
			case <-all:
				return nil
			case <-time.After(20 * time.Second):
				return errors.New("the others are not asked")
			}
		})
		on = append(on, Destination{string(rune('a' + i)), faulty{s, func(string, string) error { return meet() }}})
	}
	return on
}

func TestAllDestinationsAreAskedAtOnce(t *testing.T) {
	at := time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)
	var stores []store.Store
	for i := range 3 {
		s := newStore(t)
		if err := Claim(t.Context(), s, Host{Name: testHost, MachineID: "machine-1"}, at); err != nil {
			t.Fatal(err)
		}
		add(t, s, volume("root"), at.Add(time.Duration(i%2)*time.Hour)) // the second has the newest
		stores = append(stores, s)
	}
	filter := Filter{Now: at.Add(24 * time.Hour)}
	for name, ask := range map[string]func(context.Context, []Destination) []string{
		"list": func(ctx context.Context, on []Destination) (names []string) {
			for _, l := range ListEach(ctx, on, testHost, filter) {
				if l.Err == nil {
					names = append(names, l.Destination)
				}
			}
			return names
		},
		"find": func(ctx context.Context, on []Destination) (names []string) {
			found, err := Find(ctx, on, testHost, "nova-volumes/root", filter)
			if err != nil || len(found.Others) > 0 || found.At != 1 {
				t.Errorf("found %v at %d, and not %v: %v", found.ID, found.At, found.Others, err)
				return nil
			}
			return []string{"a", "b", "c"}
		},
		"fleet": func(ctx context.Context, on []Destination) (names []string) {
			found, failed, err := ListFleet(ctx, on, filter)
			if err != nil || len(failed) > 0 {
				t.Errorf("%v, %v", failed, err)
			}
			for _, l := range found {
				names = append(names, l.Destination)
			}
			return names
		},
		"free time": func(ctx context.Context, on []Destination) (names []string) {
			var stores []store.Store
			for _, d := range on {
				stores = append(stores, d.Store)
			}
			_, failed := FreeTime(ctx, stores, testHost, volume("other").Ref(), at)
			for i, err := range failed {
				if err == nil {
					names = append(names, on[i].Name)
				}
			}
			return names
		},
	} {
		t.Run(name, func(t *testing.T) {
			if names := ask(t.Context(), together(t, stores...)); !slices.Equal(names, []string{"a", "b", "c"}) {
				t.Errorf("%v answered", names)
			}
		})
	}
}
