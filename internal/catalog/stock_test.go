package catalog

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/store"
)

func mustStock(t *testing.T, s store.Store) *Stock {
	t.Helper()
	x, err := ReadStock(t.Context(), s, testHost, Filter{Now: night.AddDate(0, 1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func ids(entries []Entry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.ID.String())
	}
	return list
}

func TestHistories(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	anew := volume("v1")
	anew.LVUUID = "another"
	renamed := volume("v2")
	renamed.Name = "v2-renamed"
	ahead := volume("v2")
	ahead.Name = "v2-ahead"
	clone := volume("v1")
	clone.VG, clone.VGUUID = "cloned", "cloned-uuid"
	add(t, s, volume("v1"), day(0))
	add(t, s, anew, day(1))
	add(t, s, volume("v2"), day(0))
	add(t, s, renamed, day(1))
	add(t, s, ahead, day(9000))
	add(t, s, clone, day(0))
	add(t, s, Source{Kind: SourceDump, Name: "mysql"}, day(0))

	x := mustStock(t, s)
	shown := func(wanted func(Ref) bool) string {
		var got []string
		for _, h := range x.Histories(wanted) {
			got = append(got, fmt.Sprintf("%s %s: %v", h.Ref, h.Identity, ids(h.Entries)))
		}
		return strings.Join(got, "\n")
	}
	want := `@dump/mysql @dump/mysql: [@dump/mysql@2026-11-20T010001Z]
cloned/v1 cloned-uuid/uuid-of-v1: [cloned/v1@2026-11-20T010001Z]
nova-volumes/v1 vg-uuid/another: [nova-volumes/v1@2026-11-21T010001Z]
nova-volumes/v1 vg-uuid/uuid-of-v1: [nova-volumes/v1@2026-11-20T010001Z]
nova-volumes/v2-renamed vg-uuid/uuid-of-v2: [nova-volumes/v2-ahead@2051-07-12T010001Z ` +
		`nova-volumes/v2-renamed@2026-11-21T010001Z nova-volumes/v2@2026-11-20T010001Z]`
	if got := shown(nil); got != want {
		t.Errorf("histories\n%s\nwant\n%s", got, want)
	}
	lines := strings.Split(want, "\n")
	if got := shown(func(ref Ref) bool { return ref.Name == "v2" }); got != lines[4] {
		t.Errorf("by an earlier name: %s", got)
	}
	if got := x.Histories(nil)[1].Identity.VGUUID(); got != "cloned-uuid" {
		t.Errorf("group %q", got)
	}
}

// A volume that was restored continues the history of the one that it was, also with what is added, marked and removed later.
func TestAHistoryGoesOnAfterARestore(t *testing.T) {
	s := newStore(t)
	anew := volume("v1")
	anew.LVUUID = "another"
	stranger := volume("v1")
	stranger.LVUUID = "stranger"
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	before := add(t, s, volume("v1"), day(1))
	add(t, s, anew, day(2))
	add(t, s, stranger, day(3))
	identity := VolumeIdentity(anew.VGUUID, anew.LVUUID)
	x, err := ReadStock(t.Context(), s, testHost, Filter{RestoredAs: map[Identity]Identity{before.Identity(): identity}})
	if err != nil {
		t.Fatal(err)
	}
	earlier := add(t, s, volume("v1"), day(0))
	x.Add(earlier)
	x.MarkDamaged(EntryOf(before), "it is gone")
	wantHistory := func(want ...string) {
		t.Helper()
		for _, h := range x.Histories(nil) {
			if h.Identity == identity && slices.Equal(ids(h.Entries), want) && len(x.Histories(nil)) == 2 && slices.Equal(ids(x.History(before.Identity())), want) {
				return
			}
		}
		t.Errorf("%+v, want one with %q", x.Histories(nil), want)
	}
	const name = "nova-volumes/v1@"
	wantHistory(name+FormatTime(day(2)), name+FormatTime(day(1)), name+FormatTime(day(0)))
	if x.History(identity)[1].IsGood() || !x.Holds(EntryOf(earlier)) {
		t.Errorf("%+v", x.History(identity))
	}
	x.Remove(EntryOf(before))
	wantHistory(name+FormatTime(day(2)), name+FormatTime(day(0)))
}

// The stock follows what is added and removed, and what was handed out before stays as it was.
func TestStockIsKeptUpToDate(t *testing.T) {
	s := newStore(t)
	first := add(t, s, volume("v1"), night)
	raw(t, s, ID{VolumeRef("nova-volumes", "v1"), night.Add(time.Hour)}.Path(testHost)+"/manifest.json", "garbage")
	x := mustStock(t, s)
	identity := first.Identity()
	before := x.History(identity)
	size := x.SizeBytes()

	last := add(t, s, volume("v1"), night.AddDate(0, 0, 2))
	middle := add(t, s, volume("v1"), night.AddDate(0, 0, 1))
	x.Add(last)
	x.Add(middle)
	want := []string{last.ID.String(), middle.ID.String(), first.ID.String()}
	if got := ids(x.History(identity)); !slices.Equal(got, want) || len(before) != 1 {
		t.Errorf("%q, want %q; what was handed out is %q", got, want, ids(before))
	}
	x.MarkDamaged(EntryOf(middle), "it is gone")
	if h := x.History(identity); h[1].IsGood() || !h[0].IsGood() {
		t.Errorf("%+v", h)
	}
	x.Remove(EntryOf(last))
	x.Remove(EntryOf(middle))
	if got := ids(x.History(identity)); len(got) != 1 || x.SizeBytes() != size {
		t.Errorf("%q, %d bytes and %d before", got, x.SizeBytes(), size)
	}
	unreadable := EntryOf(first)
	unreadable.ID.Time = night.Add(time.Hour)
	if !x.Holds(EntryOf(first)) || !x.Holds(unreadable) || x.Holds(EntryOf(last)) {
		t.Error("what is there and what is not")
	}
	x.Remove(EntryOf(first))
	if h := x.Histories(nil); len(h) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestStockMarksWhatLacksFiles(t *testing.T) {
	s := newStore(t)
	var made []Backup
	for n := range 5 {
		made = append(made, add(t, s, volume("v1"), night.AddDate(0, 0, n)))
	}
	x := mustStock(t, s)
	archive := func(n int) string { return path.Join(made[n].Path(), made[n].Manifest.Files[0].Name) }
	if err := s.Delete(t.Context(), archive(1)); err != nil {
		t.Fatal(err)
	}
	raw(t, s, archive(2), "of another length altogether")
	raw(t, s, path.Join(made[3].Path(), "more"), "which harms nobody")
	raw(t, s, path.Join(made[4].Path(), SignatureName), "of the manifest, which does not list it")
	raw(t, s, path.Join(made[4].Path(), ClaimName), "which a bucket holds that holds every object")
	counted := &countingStore{Store: s}
	lacking, err := x.MarkLacking(t.Context(), counted, made[0].Identity())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{made[2].ID.String(), made[1].ID.String()}
	if !slices.Equal(ids(lacking), want) || !strings.Contains(lacking[0].Damage, "bytes instead of") ||
		!strings.Contains(lacking[1].Damage, "is missing") {
		t.Errorf("%+v", lacking)
	}
	for i, e := range x.History(made[0].Identity()) {
		if wantGood := i != 2 && i != 3; e.IsGood() != wantGood {
			t.Errorf("%s is good: %v", e.ID, e.IsGood())
		}
	}
	if counted.lists != 1 || counted.opens != 3 { // the manifests of those that differ
		t.Errorf("%d listings, %d manifests read", counted.lists, counted.opens)
	}
}

// What a run does with the backups of one source costs the same, however many there are of others.
func TestStockCostsNothingForOthers(t *testing.T) {
	cost := func(sources int) float64 {
		x := newStock(testHost)
		for n := range sources {
			source := volume(fmt.Sprint("v", n))
			for at := range 30 {
				m := manifest(source, night.AddDate(0, 0, at))
				x.put(EntryOf(Backup{Host: testHost, ID: m.ID(), Manifest: m}))
			}
		}
		x.finish(&Listing{Host: testHost})
		m := manifest(volume("v0"), night.AddDate(0, 0, 40))
		b := Backup{Host: testHost, ID: m.ID(), Manifest: m}
		return testing.AllocsPerRun(20, func() {
			x.Add(b)
			_ = x.History(b.Identity())
			_ = x.Holds(EntryOf(b))
			_ = x.SizeBytes()
			x.Remove(EntryOf(b))
		})
	}
	if few, many := cost(1), cost(200); many > few {
		t.Errorf("%v allocations beside 200 sources, %v beside none", many, few)
	}
}

// countingStore counts what is asked of a store.
type countingStore struct {
	store.Store
	lists, opens int
}

func (c *countingStore) List(ctx context.Context, prefix string) ([]store.Object, error) {
	c.lists++
	return c.Store.List(ctx, prefix)
}

func (c *countingStore) Open(ctx context.Context, key string) (store.Reader, error) {
	c.opens++
	return c.Store.Open(ctx, key)
}
