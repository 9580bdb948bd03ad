package placement

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/report"
	"voltar/retention"
)

// night is what came of catching up.
type night struct {
	targets      Targets
	destinations []report.Destination
	caught       []Caught
	problems     []report.Problem
}

// catchUpNow runs what a run does after its volumes, on the destinations as they are.
func (s *site) catchUpNow(t *testing.T, tonight func(*Run, Targets)) (n night) {
	t.Helper()
	run, end := s.begin()
	var err error
	if n.targets, err = Open(t.Context(), run, s.destinations); err != nil {
		t.Fatal(err)
	}
	if tonight != nil {
		tonight(run, n.targets)
	}
	n.caught, n.problems = n.targets.CatchUp(t.Context(), nil)
	end()
	for _, target := range n.targets {
		n.destinations = append(n.destinations, target.Describe(t.Context()))
	}
	s.journals(t, 0)
	return n
}

// caughtUp names what a destination got, in short.
func (n night) caughtUp(on string) string {
	var all []string
	for _, d := range n.destinations {
		for _, c := range d.CaughtUp {
			if d.Name == on {
				all = append(all, strings.TrimPrefix(c.Backup, "vg/")[:len("v1@2026-11-20")]+" from "+c.From)
			}
		}
	}
	return strings.Join(all, ", ")
}

func TestCatchUp(t *testing.T) {
	week := retention.Policy{Days: 7}
	for _, c := range []struct {
		name   string
		policy retention.Policy
		off    bool
		nights []int // that far has already
		want   string
	}{
		{"nights in between, as the policy keeps them", week, false, []int{0, 3},
			"v1@2026-11-22 from near, v1@2026-11-21 from near"},
		{"a new destination gets what its policy keeps", retention.Policy{KeepLast: 2}, false, nil,
			"v1@2026-11-23 from near, v1@2026-11-22 from near"},
		{"without a policy, what is newer than its last", retention.Policy{}, false, []int{1},
			"v1@2026-11-23 from near, v1@2026-11-22 from near"},
		{"without a policy, a new destination gets nothing of the past", retention.Policy{}, false, nil, ""},
		{"nothing is lacking", week, false, []int{0, 1, 2, 3}, ""},
		{"switched off", week, true, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, "near", "far")
			s.on("far").Policy, s.on("far").CatchUp = c.policy, !c.off
			for night := range 4 {
				s.make(t, "near", "v1", night, nil)
			}
			for _, night := range c.nights {
				s.make(t, "far", "v1", night, nil)
			}
			r := s.catchUpNow(t, nil)
			if got := r.caughtUp("far"); got != c.want || len(r.problems) > 0 {
				t.Errorf("%s, %+v; want %s", got, r.problems, c.want)
			}
			if got := r.caughtUp("near"); got != "" {
				t.Errorf("the other way: %s", got)
			}
		})
	}
}

// Two destinations that make up for each other at the same time, of the same volume, do not take each other for a run.
func TestCatchUpBothWays(t *testing.T) {
	s := newSite(t, "near", "far")
	for night := range 20 {
		s.make(t, []string{"near", "far"}[night%2], "v1", night, nil)
	}
	for _, d := range []string{"near", "far"} {
		s.on(d).Policy = retention.Policy{KeepLast: 30}
	}
	if err := os.MkdirAll(s.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(s.runDir, "volume-vg%2Fv1.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil { // as one who looks, all the time
		t.Fatal(err)
	}
	r := s.catchUpNow(t, nil)
	for _, d := range []string{"near", "far"} {
		if got := strings.Count(r.caughtUp(d), " from "); got != 10 || len(r.problems) > 0 {
			t.Errorf("%s: %d, %+v", d, got, r.problems)
		}
	}
}

// Where nothing is pruned, tonight's own backup does not hide the nights before it.
func TestCatchUpBehindTonight(t *testing.T) {
	s := newSite(t, "near", "far")
	for night := range 3 {
		s.make(t, "near", "v1", night, nil)
	}
	s.make(t, "far", "v1", 0, nil)
	r := s.catchUpNow(t, func(run *Run, ts Targets) {
		b := s.make(t, "far", "v1", 3, func(m *catalog.Manifest) { m.Run = run.ID })
		ts[1].stock.Add(b)
	})
	if got, want := r.caughtUp("far"), "v1@2026-11-22 from near, v1@2026-11-21 from near"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What cannot be read costs only itself; a destination that fails is left alone for tonight. Neither is an error of
// the run.
func TestCatchUpThatFails(t *testing.T) {
	s := newSite(t, "near", "far")
	bad := s.make(t, "near", "v1", 3, nil)
	s.make(t, "near", "v1", 2, nil)
	s.make(t, "near", "v1", 1, nil)
	s.on("far").Policy = retention.Policy{Days: 7}
	if err := os.Remove(filepath.Join(s.dir, "near", bad.Path(), bad.Manifest.Files[0].Name)); err != nil {
		t.Fatal(err)
	}
	writes := 0
	broken := &brokenStore{Store: s.on("far").Store, fail: func(op, key string) error {
		if op == "create" && strings.HasSuffix(key, ".tar.gz") {
			if writes++; writes > 1 {
				return errAway
			}
		}
		return nil
	}}
	s.on("far").Store = broken
	r := s.catchUpNow(t, nil)
	if got, want := r.caughtUp("far"), "v1@2026-11-22 from near"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(r.problems) != 1 || !strings.Contains(r.problems[0].Message, errAway.Error()) ||
		!strings.Contains(r.problems[0].Hint, "voltar copy --all --from near --to far") {
		t.Errorf("%+v", r.problems)
	}
	broken.fail = func(string, string) error { return nil }
	r = s.catchUpNow(t, nil)
	if got, want := r.caughtUp("far"), "v1@2026-11-21 from near"; got != want {
		t.Errorf("the next night: %s, want %s", got, want)
	}
	if len(r.problems) != 1 || !strings.Contains(r.problems[0].Message, bad.ID.String()) {
		t.Errorf("%+v", r.problems)
	}
}

func TestCatchUpKeepsOutOfTheWay(t *testing.T) {
	s := newSite(t, "near", "far")
	s.make(t, "near", "v1", 3, nil)
	s.on("far").Policy = retention.Policy{Days: 7}
	locks, err := journal.NewLocks(s.runDir, journal.Holder{PID: os.Getpid(), Command: "voltar copy"})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := locks.TryLock(journal.ScopeConfig, CopyLock(*s.on("far")))
	if err != nil {
		t.Fatal(err)
	}
	r := s.catchUpNow(t, nil)
	if got := r.caughtUp("far"); got != "" || !strings.Contains(strings.Join(r.destinations[1].Notes, " "), "voltar copy") {
		t.Errorf("beside a copy: %s, %+v", got, r.destinations[1])
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	began := s.now()
	var mu sync.Mutex
	s.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		began = began.Add(catchUpTime)
		return began
	}
	r = s.catchUpNow(t, nil)
	if got := r.caughtUp("far"); got != "" || !strings.Contains(strings.Join(r.destinations[1].Notes, " "), "from near: 1;") {
		t.Errorf("when it is late: %s, %+v", got, r.destinations[1])
	}
}
