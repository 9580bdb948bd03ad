package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Of each source of each host, the newest good backup is found with as few requests as can be, and what is newer beside it.
func TestListHosts(t *testing.T) {
	s := newStore(t)
	hour := func(n int) time.Time { return night.Add(time.Duration(n) * time.Hour) }
	for n := range 5 {
		add(t, s, volume("good"), hour(n))
	}
	add(t, s, volume("worse"), hour(0))
	add(t, s, volume("worse"), hour(1))
	damaged := manifest(volume("worse"), hour(2))
	damaged.Status = StatusDamaged
	d := mustBegin(t, s, damaged.ID())
	fill(t, d, damaged)
	if _, err := d.Commit(context.Background(), damaged); err != nil {
		t.Fatal(err)
	}
	raw(t, s, ID{VolumeRef("nova-volumes", "worse"), hour(3)}.Path(testHost)+"/worse.tar.gz", "x")
	for _, host := range []string{testHost, "another", "no-backups-yet"} {
		if err := Claim(context.Background(), s, Host{host, "machine of " + host}, night); err != nil {
			t.Fatal(err)
		}
	}
	m := manifest(volume("v"), hour(7))
	m.Host.Name = "another"
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw(t, s, m.ID().Path("another")+"/"+ManifestName, string(data))

	var mu sync.Mutex
	reads := map[string]int{}
	counted := faulty{s, func(op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "open" {
			reads[key[strings.LastIndex(key, "/")+1:]]++
		}
		return nil
	}}
	listings, err := ListHosts(context.Background(), counted, Filter{Newest: 1, Good: true, Now: night.AddDate(0, 1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, l := range listings {
		hosts = append(hosts, l.Host)
	}
	if want := []string{"another", "no-backups-yet", testHost}; !slices.Equal(hosts, want) {
		t.Fatalf("hosts %q, want %q", hosts, want)
	}
	ours := listings[2]
	want := []string{
		ID{VolumeRef("nova-volumes", "good"), hour(4)}.String(),
		ID{VolumeRef("nova-volumes", "worse"), hour(1)}.String(), ID{VolumeRef("nova-volumes", "worse"), hour(2)}.String(),
	}
	if got := names(ours.Backups); !slices.Equal(got, want) || len(ours.Unfinished) != 1 {
		t.Errorf("%q and %+v, want %q", got, ours.Unfinished, want)
	}
	if len(listings[0].Backups) != 1 || len(listings[1].Backups) != 0 {
		t.Errorf("%+v", listings)
	}
	// One of good, two tries of worse, one of another's, and that again, as its files are not there.
	if reads[ManifestName] != 5 {
		t.Errorf("%d manifests were read, want 5", reads[ManifestName])
	}
	// What is young enough comes beside the newest, and is not looked after file by file.
	listings, err = ListHosts(context.Background(), s, Filter{Newest: 1, Good: true, Since: hour(2), Now: night.AddDate(0, 1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	since := []string{
		ID{VolumeRef("nova-volumes", "good"), hour(2)}.String(), ID{VolumeRef("nova-volumes", "good"), hour(3)}.String(), want[0], want[1], want[2],
	}
	if got := names(listings[2].Backups); !slices.Equal(got, since) {
		t.Errorf("since %s: %q, want %q", hour(2), got, since)
	}
	// One that was found damaged since is not a good one.
	newest := ID{VolumeRef("nova-volumes", "good"), hour(4)}
	found := map[string]string{s.String() + "/" + newest.Path(testHost): "its sum is another"}
	listings, err = ListHosts(context.Background(), s, Filter{Newest: 1, Good: true, Damage: found, Now: night.AddDate(0, 1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Insert(want, 0, ID{VolumeRef("nova-volumes", "good"), hour(3)}.String())
	if got := listings[2].Backups; !slices.Equal(names(got), want) || got[0].Damage != "" || got[1].Damage != "its sum is another" {
		t.Errorf("with one that was found damaged: %+v, want %q", got, want)
	}
	broken := faulty{s, failing("folders", "another", errBroken)}
	if _, err := ListHosts(context.Background(), broken, Filter{}); !errors.Is(err, errBroken) {
		t.Errorf("a store that fails: %v", err)
	}
}

// A manifest alone, whose files were lost or never were, is no good news.
func TestListHostsLooksAfterTheFiles(t *testing.T) {
	s := newStore(t)
	if err := Claim(t.Context(), s, Host{testHost, "machine"}, night); err != nil {
		t.Fatal(err)
	}
	now := night.AddDate(0, 1, 0)
	whole := add(t, s, volume("v"), night)
	bare := add(t, s, volume("v"), night.Add(time.Hour))
	short := add(t, s, volume("v"), night.Add(2*time.Hour))
	first := func(b Backup) string { return b.Path() + "/" + b.Manifest.Files[0].Name }
	for _, b := range []Backup{bare, short} {
		if err := s.Delete(t.Context(), first(b)); err != nil {
			t.Fatal(err)
		}
	}
	raw(t, s, first(short), "x")
	listings, err := ListHosts(t.Context(), s, Filter{Newest: 1, Good: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	lines := Fleet(now, 24*time.Hour, []Listed{{Listing: listings[0]}})
	if len(lines) != 1 || !lines[0].Good.Equal(whole.ID.Time) || lines[0].Status != string(StatusDamaged) {
		t.Errorf("%+v, want %s as the newest good one", lines, whole.ID)
	}
	for i, want := range []string{"", " is missing", " has 1 bytes instead of "} {
		if got := listings[0].Backups[i].Damage; !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	broken := faulty{s, failing("list", whole.Path(), errBroken)}
	listings, err = ListHosts(t.Context(), broken, Filter{Newest: 1, Good: true, Now: now})
	if err != nil || len(listings[0].Unreadable) != 1 || !errors.Is(listings[0].Unreadable[0].Err, errBroken) {
		t.Errorf("a store that fails: %+v, %v", listings, err)
	}
}
