package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/say"
)

func TestList(t *testing.T) {
	s := newStore(t)
	hour := func(n int) time.Time { return night.Add(time.Duration(n) * time.Hour) }
	for _, name := range []string{"v1", "v2", "v.3"} {
		for n := range 3 {
			add(t, s, volume(name), hour(n))
		}
	}
	dump := Source{Kind: SourceDump, Name: "mysql"}
	add(t, s, dump, hour(0))
	// What else may lie there.
	broken := ID{VolumeRef("nova-volumes", "v1"), hour(5)}
	raw(t, s, broken.Path(testHost)+"/manifest.json", "garbage")
	moved := ID{VolumeRef("nova-volumes", "v1"), hour(6)}
	data, err := manifest(volume("v2"), hour(6)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw(t, s, moved.Path(testHost)+"/manifest.json", string(data))
	strange := ID{VolumeRef("nova-volumes", "v1"), hour(7)} // another host's
	other := manifest(volume("v1"), hour(7))
	other.Host.Name = "other-host"
	if data, err := other.Encode(); err != nil {
		t.Fatal(err)
	} else {
		raw(t, s, strange.Path(testHost)+"/manifest.json", string(data))
	}
	newer := ID{VolumeRef("nova-volumes", "v2"), hour(7)}
	raw(t, s, newer.Path(testHost)+"/manifest.json", `{"format":"voltar/2"}`)
	unfinished := ID{VolumeRef("nova-volumes", "v2"), hour(8)}
	raw(t, s, unfinished.Path(testHost)+"/v2.tar.gz", "x")
	raw(t, s, testHost+"/nova-volumes/v2/copy of 2026-11-20T010001Z/manifest.json", string(data))
	raw(t, s, testHost+"/my files/letter/x/y", "x")
	raw(t, s, testHost+"/"+MarkerName, "{}")
	raw(t, s, "other-host/nova-volumes/v1/2026-11-20T010001Z/manifest.json", string(data))

	l := mustList(t, s, Filter{})
	want := []string{"@dump/mysql@2026-11-20T010001Z"}
	for _, name := range []string{"v.3", "v1", "v2"} {
		for n := range 3 {
			want = append(want, ID{VolumeRef("nova-volumes", name), hour(n)}.String())
		}
	}
	if got := names(l.Backups); !slices.Equal(got, want) {
		t.Errorf("backups %q, want %q", got, want)
	}
	var format *FormatError
	if len(l.Unreadable) != 4 || l.Unreadable[0].ID.Compare(broken) != 0 || !errors.Is(l.Unreadable[0].Err, ErrDamaged) ||
		l.Unreadable[1].ID.Compare(moved) != 0 || !errors.Is(l.Unreadable[1].Err, ErrDamaged) ||
		l.Unreadable[2].ID.Compare(strange) != 0 || !errors.Is(l.Unreadable[2].Err, ErrDamaged) ||
		l.Unreadable[3].ID.Compare(newer) != 0 || !errors.As(l.Unreadable[3].Err, &format) {
		t.Errorf("unreadable %+v", l.Unreadable)
	}
	if len(l.Unfinished) != 1 || l.Unfinished[0].ID.Compare(unfinished) != 0 {
		t.Errorf("unfinished %+v", l.Unfinished)
	}
	unknown := []string{testHost + "/my files/letter", testHost + "/nova-volumes/v2/copy of 2026-11-20T010001Z"}
	if !slices.Equal(l.Unknown, unknown) {
		t.Errorf("unknown %q, want %q", l.Unknown, unknown)
	}

	l = mustList(t, s, Filter{Newest: 1, Match: func(r Ref) bool { return r.Kind == SourceVolume }})
	want = want[:0]
	for _, name := range []string{"v.3", "v1", "v2"} {
		want = append(want, ID{VolumeRef("nova-volumes", name), hour(2)}.String())
	}
	if got := names(l.Backups); !slices.Equal(got, want) {
		t.Errorf("the newest: %q, want %q", got, want)
	}
	if l, err := List(context.Background(), s, "nobody", Filter{}); err != nil || len(l.Backups) != 0 {
		t.Errorf("a host without a folder: %+v, %v", l, err)
	}
	if _, err := List(context.Background(), s, "../x", Filter{}); err == nil {
		t.Error("a host that climbs out was listed")
	}
}

func TestListOfAStoreThatFails(t *testing.T) {
	s := newStore(t)
	add(t, s, volume("v1"), night)
	add(t, s, volume("v2"), night)
	one := faulty{s, failing("open", "/v1/", errBroken)}
	l := mustList(t, one, Filter{})
	if len(l.Backups) != 1 || len(l.Unreadable) != 1 || !errors.Is(l.Unreadable[0].Err, errBroken) {
		t.Errorf("one manifest that cannot be read: %+v", l)
	}
	for part, op := range map[string]string{testHost: "folders", "nova-volumes": "folders", "/v1": "look"} {
		broken := faulty{s, failing(op, part, errBroken)}
		if _, err := List(context.Background(), broken, testHost, Filter{}); !errors.Is(err, errBroken) {
			t.Errorf("a folder %s that cannot be listed: %v", part, err)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	mid := faulty{s, func(op, _ string) error {
		if op == "open" {
			cancel(errBroken)
			return context.Canceled
		}
		return nil
	}}
	if _, err := List(ctx, mid, testHost, Filter{}); err == nil {
		t.Error("a listing that was cancelled is not told from a whole one")
	}
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	add(t, s, volume("v1"), day(0))
	add(t, s, volume("v1"), day(1))
	add(t, s, volume("v2"), day(0))
	other := volume("v2")
	other.VG, other.VGUUID = "vg2", "vg2-uuid"
	add(t, s, other, day(0))
	add(t, s, Source{Kind: SourceDump, Name: "mysql"}, day(0))
	raw(t, s, ID{VolumeRef("nova-volumes", "v4"), day(0)}.Path(testHost)+"/manifest.json", `{"format":"voltar/2"}`)
	add(t, s, volume("v5"), day(0))
	raw(t, s, ID{VolumeRef("nova-volumes", "v5"), day(3)}.Path(testHost)+"/manifest.json", "garbage")
	l := mustList(t, s, Filter{})

	for text, want := range map[string]string{
		"nova-volumes/v1":                      "nova-volumes/v1@2026-11-21T010001Z",
		"v1":                                   "nova-volumes/v1@2026-11-21T010001Z",
		"v1@2026-11-20T010001Z":                "nova-volumes/v1@2026-11-20T010001Z",
		"nova-volumes/v1@2026-11-20":           "nova-volumes/v1@2026-11-20T010001Z",
		"vg2/v2":                               "vg2/v2@2026-11-20T010001Z",
		"@dump/mysql":                          "@dump/mysql@2026-11-20T010001Z",
		"@dump/mysql@2026-11-20T010001Z":       "@dump/mysql@2026-11-20T010001Z",
		"mysql":                                "@dump/mysql@2026-11-20T010001Z",
		"v5@2026-11-20":                        "nova-volumes/v5@2026-11-20T010001Z",
		"nova-volumes/v5@2026-11-20T010001Z":   "nova-volumes/v5@2026-11-20T010001Z",
		"nova-volumes/v2@2026-11-20T010001Z":   "nova-volumes/v2@2026-11-20T010001Z",
		"nova-volumes/v1@2026-11-21T010001Z":   "nova-volumes/v1@2026-11-21T010001Z",
		"nova-volumes/v1@2026-11-21T010001Z\n": "",
	} {
		b, err := l.Resolve(text)
		if want == "" {
			if err == nil {
				t.Errorf("Resolve(%q) = %s", text, b.ID)
			}
			continue
		}
		if err != nil || b.ID.String() != want {
			t.Errorf("Resolve(%q) = %v, %v, want %s", text, b.ID, err, want)
		}
	}
	for text, parts := range map[string][]string{
		"v2":                {"nova-volumes/v2", "vg2/v2"},
		"v9":                {"nova-volumes/v1", "@dump/mysql"},
		"v1@2026":           {"nova-volumes/v1@2026-11-20T010001Z", "nova-volumes/v1@2026-11-21T010001Z"},
		"v1@2025-01-01":     {"nova-volumes/v1@2026-11-20T010001Z"},
		"v4":                {"voltar/2"},
		"v4@2026-11-20":     {"voltar/2"},
		"v5":                {"nova-volumes/v5@2026-11-23T010001Z", "nova-volumes/v5@2026-11-20T010001Z"},
		"":                  {"nova-volumes/v1"},
		"nova-volumes":      {"nova-volumes/v1"},
		"nova-volumes/v1/x": {"nova-volumes/v1"},
	} {
		b, err := l.Resolve(text)
		if err == nil {
			t.Errorf("Resolve(%q) = %s", text, b.ID)
			continue
		}
		for _, part := range parts {
			if !strings.Contains(say.Text(err), part) {
				t.Errorf("Resolve(%q): %q does not say %q", text, err, part)
			}
		}
	}
	if _, err := l.Resolve("v9"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	var newer *FormatError
	if _, err := l.Resolve("v4"); !errors.As(err, &newer) {
		t.Errorf("error %v, want a FormatError", err)
	}
}

// What is dated ahead does not count for Newest, and is nobody's newest; it is listed all the same.
func TestListingPassesOverWhatIsAhead(t *testing.T) {
	s := newStore(t)
	now := night.AddDate(0, 0, 2)
	for _, at := range []time.Time{night, night.AddDate(0, 0, 1), night.AddDate(20, 0, 0), night.AddDate(30, 0, 0)} {
		add(t, s, volume("lv"), at)
	}
	add(t, s, volume("only"), night.AddDate(20, 0, 0))
	for _, filter := range []Filter{{Newest: 1, Now: now}, {Newest: 1, Good: true, Now: now}} {
		listing, err := List(t.Context(), s, testHost, filter)
		if err != nil || len(listing.Backups) != 4 {
			t.Fatalf("%+v, %v", listing, err)
		}
		if b, err := listing.Resolve("lv"); err != nil || !b.ID.Time.Equal(night.AddDate(0, 0, 1)) {
			t.Errorf("the newest is %s, %v", b.ID, err)
		}
		if b, err := listing.Resolve("lv@2046"); err != nil || !b.ID.Time.Equal(night.AddDate(20, 0, 0)) {
			t.Errorf("the one that is named is %s, %v", b.ID, err)
		}
		if _, err := listing.Resolve("only"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "dated ahead") {
			t.Errorf("without any other: %v", err)
		}
	}
	listing, err := List(t.Context(), s, testHost, Filter{Newest: 1, Now: night.AddDate(40, 0, 0)})
	if err != nil || len(listing.Backups) != 2 {
		t.Errorf("when their time has come: %+v, %v", listing, err)
	}
}
