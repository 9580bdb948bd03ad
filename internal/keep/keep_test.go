package keep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/report"
	"voltar/retention"
)

const (
	host    = "volume-host"
	machine = "machine-1"
	runID   = "20261101T010001Z-3f9a0c"
)

var firstNight = time.Date(2026, 11, 1, 1, 0, 1, 0, time.UTC)

func nightAfter(n int) time.Time { return firstNight.AddDate(0, 0, n) }

// site is a host with one destination, and a clock that stands where the test sets it.
type site struct {
	*Keeper
	store store.Store
	dir   string
	now   time.Time
}

func newSite(t *testing.T, night int) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), now: nightAfter(night).Add(time.Hour)}
	opened, err := disk.Open(disk.Options{Path: filepath.Join(s.dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	s.store = opened
	locks, err := journal.NewLocks(filepath.Join(s.dir, "run"), journal.Holder{Run: runID, Command: "test", Started: s.now})
	if err != nil {
		t.Fatal(err)
	}
	record, err := journal.Begin(journal.Options{Dir: filepath.Join(s.dir, "journal")}, journal.Info{Run: runID, Host: host, Started: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Close() })
	s.Keeper = &Keeper{MachineID: machine, Now: func() time.Time { return s.now }, Locks: locks, Owner: &owned.Owner{Journal: record}}
	return s
}

// with reads what is on the destination, whose policy is given.
func (s *site) with(t *testing.T, policy retention.Policy) Destination {
	t.Helper()
	stock, err := catalog.ReadStock(t.Context(), s.store, host, catalog.Filter{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	return Destination{Name: "disk", Store: s.store, Policy: policy, Stock: stock}
}

func volume(name string) catalog.Source {
	return catalog.Source{Kind: catalog.SourceVolume, VG: "vg", VGUUID: "vg-uuid", Name: name, LVUUID: "uuid-" + name, SizeBytes: 1 << 20}
}

// make makes a backup of a source, as a machine would.
func (s *site) make(t *testing.T, source catalog.Source, at time.Time, machineID string) catalog.Backup {
	t.Helper()
	const text = "what the volume held"
	sums := archive.NewSums()
	_, _ = sums.Write([]byte(text)) // never fails
	d := sums.Sum()
	m := &catalog.Manifest{
		Format: catalog.Format, Voltar: "1.0.0", Status: catalog.StatusComplete, Run: "earlier", Source: source, Time: at,
		Host: catalog.Host{Name: host, MachineID: machineID}, Started: at, Ended: at.Add(time.Minute),
		Extents: []catalog.Extent{{SizeBytes: d.SizeBytes, State: catalog.StateFiles, Archive: "data.tar.gz"}},
		Dumps:   []catalog.Dump{{Name: "data", File: "data.tar.gz"}},
		Files:   []catalog.File{{Name: "data.tar.gz", SizeBytes: d.SizeBytes, SHA1: d.SHA1, SHA256: d.SHA256}},
	}
	draft, err := catalog.Begin(t.Context(), s.store, host, m.ID(), "20261120T010001Z-3f9a0c", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := draft.Create(t.Context(), "data.tar.gz", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := draft.Commit(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hollow leaves nothing of a backup but its manifest.
func (s *site) hollow(t *testing.T, b catalog.Backup) {
	t.Helper()
	if err := s.store.Delete(t.Context(), b.Path()+"/data.tar.gz"); err != nil {
		t.Fatal(err)
	}
}

// left names the backups that stand, by the number of their night, the oldest first.
func (s *site) left(t *testing.T) string {
	t.Helper()
	var nights []string
	for _, e := range s.with(t, retention.Policy{}).Stock.Entries(nil) {
		nights = append(nights, night(e))
	}
	return strings.Join(nights, " ")
}

// night is the number of a backup's night.
func night(e catalog.Entry) string {
	return fmt.Sprint(int(e.ID.Time.Sub(firstNight) / (24 * time.Hour)))
}

// Nothing goes on account of a backup of which there is nothing but the manifest.
func TestRetainCountsOnlyWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy retention.Policy
		hollow []int // of the nights 0 to 4
		left   string
	}{
		{"all are whole", retention.Policy{KeepLast: 1}, nil, "4"},
		{"the newest", retention.Policy{KeepLast: 1}, []int{4}, "3 4"},
		{"all but the oldest", retention.Policy{KeepLast: 1}, []int{1, 2, 3, 4}, "0 4"},
		{"one that takes a slot", retention.Policy{KeepLast: 3}, []int{3}, "1 2 3 4"},
		{"by days", retention.Policy{Days: 1}, []int{4}, "3 4"},
		{"by weeks", retention.Policy{Weekly: 1}, []int{4}, "3 4"},
		{"one that goes anyway", retention.Policy{KeepLast: 2}, []int{0}, "3 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, 4)
			for n := range 5 {
				b := s.make(t, volume("v"), nightAfter(n), machine)
				if slices.Contains(c.hollow, n) {
					s.hollow(t, b)
				}
			}
			d := s.with(t, c.policy)
			result, err := s.Retain(t.Context(), d, volume("v").Identity())
			if err != nil {
				t.Fatal(err)
			}
			if got := s.left(t); got != c.left {
				t.Errorf("left %s, want %s", got, c.left)
			}
			if len(result.Warnings) != len(c.hollow) || len(d.Stock.History(volume("v").Identity()))+len(result.Removed) != 5 {
				t.Errorf("%+v", result)
			}
			for _, w := range result.Warnings {
				if !strings.Contains(w.Message, "data.tar.gz is missing") {
					t.Errorf("%+v", w)
				}
			}
		})
	}
}

// The files are looked after only where something is to go, and with one request.
func TestRetainAsksNoMoreThanItMust(t *testing.T) {
	s := newSite(t, 4)
	for n := range 5 {
		s.make(t, volume("v"), nightAfter(n), machine)
	}
	lists := 0
	counted := counting{s.store, &lists}
	for _, c := range []struct {
		policy retention.Policy
		want   int
	}{{retention.Policy{KeepLast: 5}, 0}, {retention.Policy{KeepLast: 4}, 1}} {
		lists = 0
		d := s.with(t, c.policy)
		d.Store = counted
		if _, err := s.Decide(t.Context(), d, volume("v").Identity()); err != nil || lists != c.want {
			t.Errorf("%s: %d listings, %v", c.policy, lists, err)
		}
	}
}

type counting struct {
	store.Store
	lists *int
}

func (c counting) List(ctx context.Context, prefix string) ([]store.Object, error) {
	*c.lists++
	return c.Store.List(ctx, prefix)
}

// A store that does not answer removes nothing.
func TestRetainWithoutAnAnswer(t *testing.T) {
	s := newSite(t, 2)
	s.make(t, volume("v"), nightAfter(0), machine)
	s.make(t, volume("v"), nightAfter(1), machine)
	d := s.with(t, retention.Policy{KeepLast: 1})
	d.Store = mute{s.store}
	if _, err := s.Retain(t.Context(), d, volume("v").Identity()); !errors.Is(err, errMute) {
		t.Errorf("%v", err)
	}
	if got := s.left(t); got != "0 1" {
		t.Errorf("left %s", got)
	}
}

var errMute = errors.New("no answer")

type mute struct{ store.Store }

func (mute) List(context.Context, string) ([]store.Object, error) { return nil, errMute }

// Neither a backup of another machine nor one that is dated ahead costs a real one.
func TestRetainDoesNotCountStrangers(t *testing.T) {
	s := newSite(t, 3)
	s.make(t, volume("v"), nightAfter(0), machine)
	s.make(t, volume("v"), nightAfter(1), machine)
	s.make(t, volume("v"), nightAfter(2), "machine-2")
	s.make(t, volume("v"), nightAfter(7000), machine)
	d := s.with(t, retention.Policy{KeepLast: 1})
	if _, err := s.Retain(t.Context(), d, volume("v").Identity()); err != nil {
		t.Fatal(err)
	}
	if got := s.left(t); got != "1 2 7000" {
		t.Errorf("left %s", got)
	}
	// The machine was replaced: its backups go as those of its successor come.
	s.make(t, volume("v"), nightAfter(3), machine)
	d = s.with(t, retention.Policy{KeepLast: 1})
	result, err := s.Retain(t.Context(), d, volume("v").Identity())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.left(t); got != "3 7000" || !strings.Contains(fmt.Sprint(result.Removed), "made by another machine") {
		t.Errorf("left %s, %+v", got, result.Removed)
	}
}

func TestMakeRoom(t *testing.T) {
	s := newSite(t, 3)
	for n := range 3 {
		s.make(t, volume("v"), nightAfter(n), machine)
	}
	d := s.with(t, retention.Policy{KeepLast: 1})
	full := &roomy{Store: s.store, freeBytes: 100}
	d.Store = full
	if result, err := s.MakeRoom(t.Context(), d, volume("v").Identity(), 100); err != nil || len(result.Removed) != 0 {
		t.Errorf("where there is room: %+v, %v", result, err)
	}
	full.freeBytes = 10
	result, err := s.MakeRoom(t.Context(), d, volume("v").Identity(), 100)
	if !errors.Is(err, store.ErrNoSpace) || len(result.Removed) != 2 || !strings.Contains(result.Removed[0].Path, "2026-11-01") {
		t.Errorf("%+v, %v", result, err)
	}
	if got := s.left(t); got != "2" {
		t.Errorf("left %s", got)
	}
}

// roomy is a store that says how much room it has.
type roomy struct {
	store.Store
	freeBytes int64
}

func (r *roomy) Usage(context.Context) (store.Usage, error) {
	return store.Usage{TotalBytes: -1, FreeBytes: r.freeBytes}, nil
}

func TestPruneSaysWhatStays(t *testing.T) {
	s := newSite(t, 3)
	for n := range 4 {
		s.make(t, volume("v"), nightAfter(n), machine)
	}
	d := s.with(t, retention.Policy{KeepLast: 1})
	lines, err := s.Prune(t.Context(), d, nil, true)
	if err != nil || len(lines) != 4 || s.left(t) != "0 1 2 3" {
		t.Fatalf("a dry run: %+v, %v", lines, err)
	}
	d.Store = held{s.store, []string{nightAfter(0).Format(catalog.TimeLayout)}}
	lines, err = s.Prune(t.Context(), d, nil, false)
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l.Keep, " ", l.Reason))
	}
	want := []string{"true last 1", "false not among last 1", "false not among last 1", "true object lock holds it until 2026-12-24: not among last 1"}
	if err != nil || !slices.Equal(got, want) || s.left(t) != "0 3" {
		t.Errorf("%q, %v; left %s", got, err, s.left(t))
	}
}

// A source whose files cannot be listed keeps no other from being pruned; each failure has its own hint.
// sharing is a store in which each backup but one byte of its own lies where the others do.
type sharing struct{ store.Store }

func (s sharing) Unwrap() store.Store { return s.Store }

func (s sharing) Shares(context.Context) bool { return true }

func (s sharing) Pieces(_ context.Context, key string) ([]store.Piece, error) {
	if !strings.HasSuffix(key, ".gz") {
		return nil, nil
	}
	return []store.Piece{{AtBytes: 100, LengthBytes: 1000, IsShared: true}, {AtBytes: 5000, LengthBytes: 1}}, nil
}

// Whether it is done or only shown, what a removal is said to free is what nothing else has.
func TestWhatIsFreedIsNotShared(t *testing.T) {
	s := newSite(t, 4)
	for n := range 4 {
		s.make(t, volume("v"), nightAfter(n), machine)
	}
	s.store = sharing{s.store}
	freed := func(lines []Line) (list []int64) {
		for _, l := range lines {
			list = append(list, l.FreedBytes)
		}
		return list
	}
	for _, dryRun := range []bool{true, false} {
		lines, err := s.Prune(t.Context(), s.with(t, retention.Policy{KeepLast: 2}), nil, dryRun)
		if err != nil || !slices.Equal(freed(lines), []int64{0, 0, 1, 1}) {
			t.Errorf("dry run %t: %+v, %v", dryRun, lines, err)
		}
	}
	s.make(t, volume("v"), nightAfter(4), machine)
	result, err := s.Retain(t.Context(), s.with(t, retention.Policy{KeepLast: 2}), volume("v").Identity())
	if err != nil || len(result.Removed) != 1 || result.Removed[0].FreedBytes != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	gone := Present{Groups: map[string]bool{"vg-uuid": true}}
	for _, dryRun := range []bool{true, false} {
		lines, err := s.Forget(t.Context(), s.with(t, retention.Policy{}), gone, func(catalog.Ref) bool { return true }, dryRun)
		if got := freed(lines); err != nil || len(got) != 2 || max(got[0], got[1]) != 1001 || got[0]+got[1] != 1002 {
			t.Errorf("dry run %t: %+v, %v", dryRun, lines, err)
		}
	}
}

func TestPruneGoesOn(t *testing.T) {
	s := newSite(t, 3)
	for n := range 3 {
		for _, name := range []string{"a", "b", "c"} {
			if b := s.make(t, volume(name), nightAfter(n), machine); name == "b" && n == 2 {
				s.hollow(t, b)
			}
		}
	}
	d := s.with(t, retention.Policy{KeepLast: 1})
	d.Store = partlyMute{s.store, host + "/vg/a"}
	lines, err := s.Prune(t.Context(), d, nil, false)
	var removed []string
	for _, l := range lines {
		if !l.Keep {
			removed = append(removed, l.Backup)
		}
	}
	if got := s.left(t); len(removed) != 3 || got != "0 1 2 1 2 2" {
		t.Errorf("removed %q, left %s", removed, got)
	}
	if problem := report.ProblemOf(err); !errors.Is(err, errMute) || !strings.Contains(problem.Message, "data.tar.gz is missing") ||
		!strings.Contains(problem.Hint, "`voltar verify`") {
		t.Errorf("%+v", problem)
	}
	if _, err := s.Prune(t.Context(), s.with(t, retention.Policy{}), nil, false); !errors.Is(err, retention.ErrEmptyPolicy) ||
		strings.Count(err.Error(), retention.ErrEmptyPolicy.Error()) != 1 {
		t.Errorf("an empty policy: %v", err)
	}
}

// partlyMute does not list a folder.
type partlyMute struct {
	store.Store
	folder string
}

func (m partlyMute) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if prefix == m.folder {
		return nil, errMute
	}
	return m.Store.List(ctx, prefix)
}

// held is a store that holds backups of some times against deletion.
type held struct {
	store.Store
	times []string
}

func (h held) CheckDelete(_ context.Context, keys []string) error {
	for _, key := range keys {
		if slices.ContainsFunc(h.times, func(at string) bool { return strings.Contains(key, at) }) {
			return &store.LockedError{Until: time.Date(2026, 12, 24, 1, 0, 0, 0, time.UTC)}
		}
	}
	return nil
}

func TestForget(t *testing.T) {
	s := newSite(t, 1)
	directory := catalog.Source{Kind: catalog.SourceDirectory, Name: "tree", Path: "/tree"}
	dump := catalog.Source{Kind: catalog.SourceDump, Name: "tree"}
	old := catalog.Source{Kind: catalog.SourceStream, Name: "tree"}
	anew := volume("anew")
	anew.LVUUID = "another"
	present := Present{
		Volumes:    map[catalog.Identity]string{volume("live").Identity(): "vg/renamed", anew.Identity(): "vg/anew"},
		Configured: map[catalog.Identity]bool{directory.Identity(): true, dump.Identity(): true},
	}
	for _, source := range []catalog.Source{directory, dump, old, volume("live"), volume("gone"), volume("anew"), anew} {
		s.make(t, source, nightAfter(len(source.LVUUID)), machine)
	}
	d := s.with(t, retention.Policy{})
	all := func(catalog.Ref) bool { return true }
	for _, dryRun := range []bool{true, false} {
		lines, err := s.Forget(t.Context(), d, present, all, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range lines {
			name, _, _ := strings.Cut(strings.TrimPrefix(l.Backup, "@"), "@")
			got = append(got, fmt.Sprint(name, " ", l.Keep, ": ", l.Reason))
		}
		slices.Sort(got)
		want := []string{
			"directory/tree true: the configuration has this directory",
			"dump/tree true: the configuration has this dump",
			"stream/tree false: the configuration has no such stream",
			"vg/anew false: its volume is gone, and another has its name",
			"vg/anew true: its volume is on this host: vg/anew",
			"vg/gone false: its volume is gone",
			"vg/live true: its volume is on this host: vg/renamed",
		}
		if !slices.Equal(got, want) {
			t.Errorf("dry run %v: %q", dryRun, got)
		}
	}
	if left := len(s.with(t, retention.Policy{}).Stock.Entries(nil)); left != 4 {
		t.Errorf("%d backups are left", left)
	}
}

// All that is named is decided on before the first goes: the newest good backup that this machine made stays, what was made at one moment
// stays or goes together, and nothing goes twice.
func TestForgetNamed(t *testing.T) {
	s := newSite(t, 4)
	made := map[string]Named{}
	add := func(name string, n int, machineID string) catalog.Backup {
		b := s.make(t, volume(name), nightAfter(n), machineID)
		made[fmt.Sprint(name, n)] = Named{Entry: catalog.EntryOf(b)}
		return b
	}
	for n := range 3 {
		add("a", n, machine)
	}
	add("a", 3, "machine-2")
	add("b", 1, machine)
	s.hollow(t, add("b", 2, machine))
	add("c", 1, machine)
	add("c", 2, machine)
	add("d", 1, "machine-2")
	together := func(names ...string) {
		for _, name := range names {
			n := made[name]
			n.Group = "all"
			for _, other := range names {
				if other != name {
					n.With = append(n.With, made[other].Entry)
				}
			}
			made[name] = n
		}
	}
	together("a1", "c1")
	together("a0", "b1")
	for _, c := range []struct {
		name  string
		named string
		force bool
		goes  string
		err   string
	}{
		{"an older one, twice", "c1 a1 c1", false, "c1 a1", ""},
		{"the newest of this machine, beside a clone's", "a2", false, "", "vg/a@2026-11-03T010001Z is the newest good backup of vg/a"},
		{"a clone's", "a3", false, "a3", ""},
		{"all there are of another machine's", "d1", false, "", "is the newest good backup of vg/d"},
		{"one that lacks a file", "b2", false, "b2", ""},
		{"part of a group, and another", "a1 a3", false, "a3", "hint: name the others too, or --force: vg/c@2026-11-02T010001Z"},
		{"a group of which one is the newest good one", "a0 b1", false, "", "hint: --force removes it all the same"},
		{"by force", "a0 b1 a2 c1", true, "a0 b1 a2 c1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var named []Named
			for _, name := range strings.Fields(c.named) {
				named = append(named, made[name])
			}
			lines, err := s.ForgetNamed(t.Context(), s.with(t, retention.Policy{}), named, c.force, true)
			text := ""
			if err != nil {
				problem := report.ProblemOf(err)
				text = problem.Message + "\nhint: " + problem.Hint
			}
			if !strings.Contains(text, c.err) || (err == nil) != (c.err == "") {
				t.Errorf("%s", text)
			}
			var want []string
			for _, name := range strings.Fields(c.goes) {
				want = append(want, made[name].Entry.ID.String())
			}
			var goes []string
			for _, l := range lines {
				if !l.Keep {
					goes = append(goes, l.Backup)
				}
			}
			slices.Sort(want)
			slices.Sort(goes)
			if !slices.Equal(goes, want) {
				t.Errorf("%q goes, want %q", goes, want)
			}
		})
	}
}

// What object lock holds is told also where another removal fails.
func TestForgetNamedTellsWhatIsHeld(t *testing.T) {
	s := newSite(t, 3)
	var named []Named
	for n := range 3 {
		named = append(named, Named{Entry: catalog.EntryOf(s.make(t, volume("v"), nightAfter(n), machine))})
	}
	d := s.with(t, retention.Policy{})
	d.Store = held{stuck{s.store, nightAfter(0).Format(catalog.TimeLayout)}, []string{nightAfter(1).Format(catalog.TimeLayout)}}
	_, err := s.ForgetNamed(t.Context(), d, named[:2], false, false)
	if !errors.Is(err, errMute) || !strings.Contains(err.Error(), "stays: object lock holds it until 2026-12-24") {
		t.Errorf("%v", err)
	}
}

// Where one of a group goes and another cannot, that is what is told, with the command that completes it. So is one that is half gone.
func TestForgetNamedTellsWhatIsTorn(t *testing.T) {
	for name, c := range map[string]struct{ stuckAt, reason, message, hint string }{
		"one stays": {"/b/" + nightAfter(1).Format(catalog.TimeLayout), "it could not be removed: it was named",
			"vg/b@2026-11-02T010001Z on disk stays alone: vg/a@2026-11-02T010001Z, which was made at one moment with it, is gone",
			"`voltar forget vg/b@2026-11-02T010001Z --from disk` removes it, too"},
		"half of one stays": {"/b/" + nightAfter(1).Format(catalog.TimeLayout) + "/data",
			"it is no backup any more, and some of its files could not be removed: it was named",
			"remove vg/b@2026-11-02T010001Z: it is no backup any more, but some of its files stay", "`voltar cleanup` removes the rest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 3)
			a := catalog.EntryOf(s.make(t, volume("a"), nightAfter(1), machine))
			b := catalog.EntryOf(s.make(t, volume("b"), nightAfter(1), machine))
			s.make(t, volume("a"), nightAfter(2), machine)
			s.make(t, volume("b"), nightAfter(2), machine)
			d := s.with(t, retention.Policy{})
			d.Name, d.Store = "disk", stuck{s.store, c.stuckAt}
			named := []Named{{a, "all", []catalog.Entry{b}}, {b, "all", []catalog.Entry{a}}}
			lines, err := s.ForgetNamed(t.Context(), d, named, false, false)
			if len(lines) != 2 || lines[0].Keep || lines[1].Reason != c.reason {
				t.Errorf("%+v", lines)
			}
			if text := say.Text(err); !strings.Contains(text, c.message) || !strings.Contains(text, c.hint) {
				t.Error(text)
			}
		})
	}
}

// stuck is a store that deletes nothing of some time.
type stuck struct {
	store.Store
	at string
}

func (s stuck) Delete(ctx context.Context, key string) error {
	if strings.Contains(key, s.at) {
		return errMute
	}
	return s.Store.Delete(ctx, key)
}

// Nothing is forgotten while its volume may still exist.
func TestForgetInDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		present Present
		keep    string
	}{
		"lvm2 failed":                {Present{Incomplete: true}, "lvm2 could not read everything"},
		"a disk is away":             {Present{Groups: map[string]bool{"vg-uuid": false}}, "lacks disks"},
		"all is there":               {Present{Groups: map[string]bool{"vg-uuid": true}}, ""},
		"another group lacks a disk": {Present{Groups: map[string]bool{"another": false}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 1)
			s.make(t, volume("gone"), nightAfter(1), machine)
			lines, err := s.Forget(t.Context(), s.with(t, retention.Policy{}), test.present, func(catalog.Ref) bool { return true }, false)
			if err != nil || len(lines) != 1 || lines[0].Keep != (test.keep != "") || !strings.Contains(lines[0].Reason, test.keep) {
				t.Errorf("%+v, %v", lines, err)
			}
			if left := len(s.with(t, retention.Policy{}).Stock.Entries(nil)); (left == 1) != (test.keep != "") {
				t.Errorf("%d backups are left", left)
			}
		})
	}
}

// nights runs so many nights on each of which one volume is gone, at the times that a clock shows, and returns after how
// many of them its backups had ended; -1 for never.
func (s *site) nights(t *testing.T, v Vanished, present Present, clock []time.Time) int {
	t.Helper()
	for n, at := range clock {
		s.now = at
		d := s.with(t, retention.Policy{})
		_, warnings := s.Gone(t.Context(), d, present, v)
		if len(warnings) > 0 {
			t.Fatalf("night %d: %+v", n, warnings)
		}
		if len(d.Stock.Entries(nil)) == 0 {
			return n
		}
	}
	return -1
}

// The backups of a volume that is gone end when runs saw it gone for long enough, and not when a clock says so.
func TestGoneEndsByNightsThatWereSeen(t *testing.T) {
	at := func(days ...int) (list []time.Time) {
		for _, n := range days {
			list = append(list, time.Date(2026, 11, 2, 3, 0, 0, 0, time.Local).AddDate(0, 0, n))
		}
		return list
	}
	from := func(first, count int) (days []int) {
		for n := range count {
			days = append(days, first+n)
		}
		return days
	}
	const decades = 7300
	for _, c := range []struct {
		name  string
		keep  int // days
		clock []time.Time
		ended int
	}{
		{"night after night", 30, at(from(0, 60)...), 30},
		{"a day", 1, at(from(0, 5)...), 1},
		{"several runs a day", 2, at(0, 0, 0, 0, 1, 1, 1, 2), 7},
		{"a clock that jumps twenty years", 30, at(append([]int{0}, from(decades, 29)...)...), -1},
		{"and stays there: a night counts as a night", 30, at(append([]int{0}, from(decades, 60)...)...), 31},
		{"and comes back", 30, at(slices.Concat([]int{0, decades}, from(2, 40))...), 32},
		{"a clock that jumps every night", 3, at(0, decades, 2*decades, 3*decades, 4*decades, 5*decades), -1},
		{"a jump the day after", 1, at(0, decades), -1},
		{"a clock in the past", 3, at(0, -decades, 1-decades, 2-decades, 3-decades), 4},
		{"a host that was off for a year", 30, at(append([]int{0}, from(365, 29)...)...), -1},
		{"a run each week", 3, at(0, 7, 14, 21, 28), 3},
		{"kept for ever", 0, at(from(0, 100)...), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, 0)
			s.make(t, volume("v"), nightAfter(-1), machine)
			s.make(t, volume("v"), nightAfter(0), machine)
			v := Vanished{Keep: time.Duration(c.keep) * 24 * time.Hour, StateDir: filepath.Join(s.dir, "state")}
			present := Present{Groups: map[string]bool{"vg-uuid": true}}
			if got := s.nights(t, v, present, c.clock); got != c.ended {
				t.Errorf("ended after night %d, want %d", got, c.ended)
			}
		})
	}
}

func TestGoneBeginsAnew(t *testing.T) {
	s := newSite(t, 0)
	s.make(t, volume("v"), nightAfter(0), machine)
	v := Vanished{Keep: 2 * 24 * time.Hour, StateDir: filepath.Join(s.dir, "state")}
	day := 0
	night := func(present Present) []report.Gone {
		t.Helper()
		day++
		s.now = time.Date(2026, 11, 2, 3, 0, 0, 0, time.Local).AddDate(0, 0, day)
		d := s.with(t, retention.Policy{})
		gone, warnings := s.Gone(t.Context(), d, present, v)
		if len(warnings) > 0 {
			t.Errorf("%+v", warnings)
		}
		return gone
	}
	here, away := map[string]bool{"vg-uuid": true}, map[string]bool{"vg-uuid": false}
	night(Present{Groups: here})
	night(Present{Groups: here})
	if gone := night(Present{Groups: away}); len(gone) != 1 || !strings.Contains(gone[0].Note, "on 2 days, and removed on day 3; today does not count, as its volume group lacks disks") {
		t.Errorf("while its group is not whole: %+v", gone)
	}
	if gone := night(Present{}); len(gone) != 1 || !strings.Contains(gone[0].Note, "on 2 days, and removed on day 3; today does not count, as its volume group is not") {
		t.Errorf("while its group is not here: %+v", gone)
	}
	if gone := night(Present{Groups: here, Volumes: map[catalog.Identity]string{volume("v").Identity(): "vg/v"}}); len(gone) != 0 {
		t.Errorf("while it is back: %+v", gone)
	}
	night(Present{Groups: here})
	if gone := night(Present{Groups: here, Volumes: map[catalog.Identity]string{"other": "vg/v"}}); s.left(t) != "0" ||
		!strings.Contains(gone[0].Note, "had this name before") {
		t.Errorf("left %q: %+v", s.left(t), gone)
	}
	if gone := night(Present{Groups: here}); s.left(t) != "" || !strings.Contains(gone[0].Note, "; 1 removed, as vanished_keep is over") {
		t.Errorf("left %q: %+v", s.left(t), gone)
	}
	night(Present{Groups: here})
	text, err := os.ReadFile(v.file(s.with(t, retention.Policy{})))
	if err != nil || strings.Contains(string(text), "uuid-v") {
		t.Errorf("what is remembered of it: %s, %v", text, err)
	}
}

// What cannot be read or written is said, and ends nothing.
func TestGoneWithoutMemory(t *testing.T) {
	s := newSite(t, 0)
	s.make(t, volume("v"), nightAfter(0), machine)
	v := Vanished{Keep: 24 * time.Hour, StateDir: filepath.Join(s.dir, "state")}
	present := Present{Groups: map[string]bool{"vg-uuid": true}}
	if got := s.nights(t, v, present, []time.Time{nightAfter(1)}); got != -1 {
		t.Fatal("ended on the first night")
	}
	d := s.with(t, retention.Policy{})
	if err := os.WriteFile(v.file(d), []byte(`{"destination":"elsewhere"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.now = nightAfter(2)
	if _, warnings := s.Gone(t.Context(), d, present, v); len(warnings) != 1 || s.left(t) != "0" {
		t.Errorf("%+v; left %q", warnings, s.left(t))
	}
	if err := os.RemoveAll(v.StateDir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.StateDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, warnings := s.Gone(t.Context(), d, present, v)
	if len(warnings) == 0 || s.left(t) != "0" {
		t.Errorf("%+v", warnings)
	}
	if _, err := os.Stat(v.file(d)); errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder is a file")
	}
}
