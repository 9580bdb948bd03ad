package catalog

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/say"
)

// A guest's name means the backups of its disks, by their manifests: also of those that are only known from an earlier listing.
func TestBackupsOfGuests(t *testing.T) {
	s := newReadCounter(newStore(t))
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	of := func(name string, g *Guest) Source {
		source := volume(name)
		source.Guest = g
		return source
	}
	web, twin := Guest{ID: "id-1", Name: "web", Kind: "libvirt"}, Guest{ID: "id-2", Name: "twin"}
	disk := func(g Guest, name string) *Guest {
		g.Disk = name
		return &g
	}
	add(t, s, of("a", nil), day(0)) // before anybody knew
	add(t, s, of("a", disk(web, "vda")), day(1))
	add(t, s, of("b", &twin), day(0)) // another's then
	add(t, s, of("b", disk(web, "vdb")), day(1))
	add(t, s, of("c", disk(twin, "vda")), day(1))
	add(t, s, of("d", disk(Guest{ID: "id-3", Name: "twin"}, "vda")), day(1))
	was := web
	was.Name = "old"
	add(t, s, of("a", disk(was, "sda")), day(0).Add(time.Hour))
	add(t, s, of("new", disk(Guest{ID: "id-5", Name: "old"}, "vda")), day(2))
	add(t, s, of("gone", disk(Guest{ID: "id-6", Name: "before"}, "vda")), day(0))
	add(t, s, of("gone", disk(Guest{ID: "id-6", Name: "after"}, "vda")), day(1))
	add(t, s, of("web2", disk(Guest{ID: "id-4", Name: "c"}, "vda")), day(1))
	known, _ := knownIn(t, t.TempDir())
	filter := Filter{Now: day(30), Known: known}
	for round := range 2 { // read, and then known
		s.taken()
		listing := mustList(t, s, filter)
		if reads := s.taken(); round > 0 && len(reads) > 0 {
			t.Errorf("read %q again", reads)
		}
		for word, want := range map[string]string{
			"web": "a a a b", "id-1": "a a a b", "old": "new", "before": "gone gone", "after": "gone gone", "web:vdb": "b", "@guest/web:vda": "a a a", "@guest/id-3": "d", "id-2:vda": "c",
			"web:vdc": "", "none": "", "": "", "vda": "",
		} {
			if word != "" && word != "old" && word != "before" { // names that the newest backup of each volume does not tell
				var meant []string
				for _, l := range ListMeant(t.Context(), []Destination{{Name: "disk", Store: s}}, listing.Host, word, filter) {
					for _, e := range l.Backups {
						meant = append(meant, e.ID.Ref.Name)
					}
				}
				if strings.Join(meant, " ") != want {
					t.Errorf("%q means %q, want %q", word, meant, want)
				}
			}
			entries, err := OfGuest(listing.Backups, word)
			var got []string
			for _, e := range entries {
				got = append(got, e.ID.Ref.Name)
			}
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%q: %q and %v, want %q", word, got, err, want)
			}
		}
		if _, err := OfGuest(listing.Backups, "twin"); !errors.Is(err, ErrNotFound) || !strings.Contains(say.Text(err), "id-2, id-3") {
			t.Errorf("two guests of one name: %v", err)
		}
		for text, want := range map[string]string{
			"web:vda": "a", "c": "c", "@guest/c": "web2", "web:vdb@2026-11-21": "b", "id-3": "d",
		} {
			found, err := Find(t.Context(), []Destination{{"disk", s}}, testHost, text, filter)
			if err != nil || found.ID.Ref.Name != want {
				t.Errorf("%q means %s, %v; want %s", text, found.ID, err, want)
			}
		}
		for text, want := range map[string]string{
			"web": "web:vda (", "twin": "the name of several guests", "web:vdc": "there are backups of",
		} {
			if _, err := Find(t.Context(), []Destination{{"disk", s}}, testHost, text, filter); err == nil || !strings.Contains(say.Text(err), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
}

// A manifest whose guest has a name without end is none, nor is one whose ID of Proxmox VE would lead to another file.
func TestGuestOfAManifest(t *testing.T) {
	source := volume("a")
	source.Guest = &Guest{ID: "1", Name: strings.Repeat("n", maxIDBytes)}
	m := manifest(source, night)
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	source.Guest.Disk = strings.Repeat("d", maxIDBytes+1)
	if err := m.Check(); err == nil {
		t.Error("a long name passes")
	}
	for _, kind := range []string{"proxmox-vm", "proxmox-ct"} {
		for id, good := range map[string]bool{"101": true, "999999999": true, "": false, "99": false, "0101": false, "101.conf": false, "101\n": false, "../../etc/precious": false} {
			*source.Guest = Guest{ID: id, Name: "web1", Kind: kind}
			if err := m.Check(); (err == nil) != good {
				t.Errorf("%s %q: %v", kind, id, err)
			}
		}
	}
	if names := GuestNames("a:b:c"); !slices.Equal(names, []Guest{{Name: "a:b:c"}, {Name: "a:b", Disk: "c"}}) {
		t.Errorf("%+v", names)
	}
}
