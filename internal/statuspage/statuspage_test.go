package statuspage

import (
	"errors"
	"slices"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/report"
)

var (
	now   = time.Date(2026, 11, 20, 7, 0, 0, 0, time.UTC)
	night = time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
)

const limit = 26 * time.Hour

func at(day int) time.Time { return night.AddDate(0, 0, -day) }

// run is a night some days ago, of volumes with these statuses.
func run(day int, volumes map[string]report.VolumeStatus) report.Run {
	r := report.Run{ID: at(day).Format("20060102"), Host: "host", Command: "run", Started: at(day), Ended: at(day), PlannedVolumes: len(volumes),
		Destinations: []report.Destination{{Name: "disk", Where: "/backups"}}}
	for name, status := range volumes {
		v := report.Volume{Name: name, Status: status, Ended: at(day), StoredBytes: 7, Copies: []report.Copy{{Destination: "disk", Path: "/backups/x"}}}
		if status == report.VolumeFailed {
			v.Error = &report.Problem{Message: "it failed"}
			v.Copies[0].Path = ""
		}
		r.Volumes = append(r.Volumes, v)
	}
	return r
}

func row(t *testing.T, p report.Page, name string) report.PageVolume {
	t.Helper()
	i := slices.IndexFunc(p.Volumes, func(v report.PageVolume) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no %s on the page: %+v", name, p.Volumes)
	}
	return p.Volumes[i]
}

// last gives the last nights of a row.
func last(v report.PageVolume, n int) []report.Night { return v.Nights[len(v.Nights)-n:] }

func TestHost(t *testing.T) {
	ok, failed, damaged := report.VolumeOK, report.VolumeFailed, report.VolumeDamaged
	verify := run(2, map[string]report.VolumeStatus{"vg/a": ok, "vg/b": damaged})
	verify.Command = "verify"
	for i := range verify.Volumes {
		v := &verify.Volumes[i]
		if v.Ended = at(0); v.Status == damaged {
			v.Copies[0].Error = &report.Problem{Message: "its sums differ"}
		}
	}
	runs := []report.Run{
		run(-3000, map[string]report.VolumeStatus{"vg/a": ok}), // by a wrong clock
		verify,
		run(0, map[string]report.VolumeStatus{"vg/a": ok, "vg/b": failed, "vg/new": damaged}),
		run(1, map[string]report.VolumeStatus{"vg/a": failed, "vg/b": ok, "vg/gone": ok}),
		run(1, map[string]report.VolumeStatus{"vg/a": ok, "vg/b": failed}), // the first of two in that night
		run(40, map[string]report.VolumeStatus{"vg/a": ok}),
	}
	page, found := Host(runs, now, limit, time.UTC)
	if !found || page.Title != "host" || len(page.Volumes) != 3 || page.Run.ID != runs[2].ID {
		t.Fatalf("%v, %+v", found, page)
	}
	a, b, fresh := row(t, page, "vg/a"), row(t, page, "vg/b"), row(t, page, "vg/new")
	if !a.Good.Equal(at(0)) || a.Failed || a.Damaged || !a.Verified.Equal(at(0)) || a.SizeBytes != 7 || !slices.Equal(a.On, []string{"disk"}) {
		t.Errorf("a: %+v", a)
	}
	if want := []report.Night{report.NightNone, report.NightGood, report.NightGood}; !slices.Equal(last(a, 3), want) {
		t.Errorf("nights of a: %v, want %v", last(a, 3), want)
	}
	if !b.Good.Equal(at(1)) || !b.Failed || !b.Damaged || !b.Verified.IsZero() {
		t.Errorf("b: %+v", b)
	}
	if want := []report.Night{report.NightGood, report.NightFailed}; !slices.Equal(last(b, 2), want) {
		t.Errorf("nights of b: %v, want %v", last(b, 2), want)
	}
	if !fresh.Good.IsZero() || !fresh.Damaged || last(fresh, 1)[0] != report.NightDamaged {
		t.Errorf("new: %+v", fresh)
	}

	// A run that came to nothing hides none of the volumes of the run before.
	nothing := run(0, nil)
	nothing.PlannedVolumes = 3
	page, _ = Host([]report.Run{nothing, runs[3]}, now, limit, time.UTC)
	if len(page.Volumes) != 3 || !row(t, page, "vg/b").Failed || !row(t, page, "vg/b").Good.Equal(at(1)) {
		t.Errorf("after a run that came to nothing: %+v", page.Volumes)
	}
	if _, found := Host([]report.Run{verify}, now, limit, time.UTC); found {
		t.Error("a page of no run")
	}
}

// A night is a date of the reader: what began before midnight belongs to the day before.
func TestNights(t *testing.T) {
	tokyo := time.FixedZone("", 9*3600)
	for _, c := range []struct {
		t   time.Time
		loc *time.Location
		at  int
		ok  bool
	}{
		{night, time.UTC, 29, true}, {night.Add(-2 * time.Hour), time.UTC, 28, true}, {night.Add(-2 * time.Hour), tokyo, 29, true},
		{at(29), time.UTC, 0, true}, {at(30), time.UTC, -1, false}, {at(-1), time.UTC, 30, false},
	} {
		if got, ok := nightOf(c.t, now, c.loc); got != c.at || ok != c.ok {
			t.Errorf("%s: %d, %v, want %d, %v", c.t, got, ok, c.at, c.ok)
		}
	}
}

func TestFleet(t *testing.T) {
	ref := catalog.VolumeRef("vg", "a")
	backup := func(day int, status catalog.Status) catalog.Entry {
		return catalog.Entry{Host: "one", ID: catalog.ID{Ref: ref, Time: at(day)}, SizeBytes: int64(100 - day), Status: status}
	}
	one := &catalog.Listing{Host: "one", Now: now, Backups: []catalog.Entry{
		backup(3, catalog.StatusComplete), backup(2, catalog.StatusComplete), backup(1, catalog.StatusDamaged)},
		Unfinished: []catalog.Unfinished{{ID: catalog.ID{Ref: ref, Time: at(0)}, Path: "x"}}}
	two := &catalog.Listing{Host: "two", Now: now}
	found := []catalog.Listed{{Destination: "disk", Listing: one}, {Destination: "disk", Listing: two}}
	known := func(host, volume string) Known {
		return Known{Verified: at(5), Damaged: host == "one" && volume == "vg/a"}
	}
	page := Fleet(catalog.Fleet(now, limit, found), found, []error{errors.New("destination far: no answer")}, known, now, limit, time.UTC)
	if page.Title != "2 hosts" || len(page.Volumes) != 2 || len(page.Problems) != 1 || page.Problems[0].Message != "destination far: no answer" {
		t.Fatalf("%+v", page)
	}
	v := row(t, page, "vg/a")
	want := []report.Night{report.NightGood, report.NightGood, report.NightDamaged, report.NightFailed}
	if !slices.Equal(last(v, 4), want) || !v.Good.Equal(at(2)) || v.SizeBytes != 98 || !v.Failed || !v.Damaged || !v.Verified.Equal(at(5)) ||
		v.Note != "one of 2026-11-20 01:00 is unfinished" {
		t.Errorf("%+v", v)
	}
	if none := row(t, page, ""); none.Host != "two" || !none.Good.IsZero() {
		t.Errorf("a host without backups: %+v", none)
	}
}

// What a host has verified, or failed at, says nothing of another's volume of the same name.
func TestHistoryOf(t *testing.T) {
	ok := report.VolumeOK
	verify := run(1, map[string]report.VolumeStatus{"vg/a": ok})
	verify.Command = "verify"
	night := run(0, map[string]report.VolumeStatus{"vg/a": ok, "vg/b": report.VolumeFailed})
	night.PlannedVolumes = 3
	known := HistoryOf("host", []report.Run{night, verify, run(2, map[string]report.VolumeStatus{"vg/a": ok, "vg/b": ok, "vg/c": ok})})
	for name, want := range map[string]Known{"vg/a": {Verified: at(1)}, "vg/b": {Failed: true}, "vg/c": {Failed: true}} {
		if got := known("host", name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if got := known("another", name); got != (Known{}) {
			t.Errorf("%s of another host: %+v", name, got)
		}
	}
}

// A backup of the history that the last run did not find any more is not shown as the newest.
func TestHostWithoutItsBackups(t *testing.T) {
	ok, failed := report.VolumeOK, report.VolumeFailed
	runs := []report.Run{run(0, map[string]report.VolumeStatus{"vg/a": failed}), run(1, map[string]report.VolumeStatus{"vg/a": ok}),
		run(2, map[string]report.VolumeStatus{"vg/a": ok})}
	for i := range runs {
		runs[i].Volumes[0].Started = runs[i].Started
	}
	older := at(2)
	for _, c := range []struct {
		lastGood *time.Time
		want     time.Time
	}{{nil, at(1)}, {&older, at(2)}, {&time.Time{}, time.Time{}}} {
		runs[0].Volumes[0].LastGood = c.lastGood
		page, _ := Host(runs, now, limit, time.UTC)
		if got := row(t, page, "vg/a").Good; !got.Equal(c.want) {
			t.Errorf("with %v: %v, want %v", c.lastGood, got, c.want)
		}
	}
}

// A run of named volumes hides none of the others, and stands for those that it named.
func TestHostAfterARunOfNamedVolumes(t *testing.T) {
	ok, failed := report.VolumeOK, report.VolumeFailed
	whole := run(1, map[string]report.VolumeStatus{"vg/a": failed, "vg/b": ok, "vg/c": failed})
	whole.ExitCode = 3
	named := func(r report.Run, names ...string) report.Run {
		r.Named = names
		return r
	}
	one := named(run(0, map[string]report.VolumeStatus{"vg/a": ok}), "a")
	cut := named(run(0, map[string]report.VolumeStatus{"vg/b": report.VolumeSkipped}), "b")
	none := named(run(0, nil), "nosuch")
	none.ExitCode, none.Errors = 2, []report.Problem{{Message: "no volume is named nosuch"}}
	for what, runs := range map[string][]report.Run{
		"a good one": {one, whole}, "and one that came to nothing": {none, one, whole}, "and one that was cut off": {cut, one, whole},
	} {
		page, found := Host(runs, now, limit, time.UTC)
		if !found || len(page.Volumes) != 3 || page.Run.ID != whole.ID || page.Run.Verdict() != report.VerdictFailed {
			t.Fatalf("%s: %v, %+v", what, found, page)
		}
		a, b, c := row(t, page, "vg/a"), row(t, page, "vg/b"), row(t, page, "vg/c")
		if a.Failed || !a.Good.Equal(at(0)) || b.Failed || !b.Good.Equal(at(1)) || !c.Failed || !c.Good.IsZero() {
			t.Errorf("%s: %+v", what, page.Volumes)
		}
	}
	mended := named(run(0, map[string]report.VolumeStatus{"vg/a": ok, "vg/c": ok}), "a", "c")
	if page, _ := Host([]report.Run{mended, whole}, now, limit, time.UTC); len(page.Volumes) != 3 || page.Run.Verdict() != report.VerdictOK {
		t.Errorf("once all that failed is mended: %s, %+v", page.Run.Verdict(), page.Volumes)
	}
	if page, _ := Host([]report.Run{one}, now, limit, time.UTC); len(page.Volumes) != 1 {
		t.Errorf("where no run was of all: %+v", page.Volumes)
	}
}

// What a volume was proven by stays, whichever volumes the last run named.
func TestHistoryOfAfterARunOfNamedVolumes(t *testing.T) {
	verify := run(1, map[string]report.VolumeStatus{"vg/a": report.VolumeOK})
	verify.Command = "verify"
	other := run(0, map[string]report.VolumeStatus{"vg/b": report.VolumeOK})
	other.Named = []string{"b"}
	known := HistoryOf("host", []report.Run{other, verify, run(2, map[string]report.VolumeStatus{"vg/a": report.VolumeOK})})
	if got := known("host", "vg/a"); !got.Verified.Equal(at(1)) {
		t.Errorf("%+v", got)
	}
}
