package placement

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/placement/placementtest"
	"voltar/internal/store/disk"
	"voltar/lvm"
)

var (
	hostName   = placementtest.Host.Name
	firstNight = placementtest.FirstNight
)

// site is a host with destinations in folders of the test. The clock stands nights after the first.
type site struct {
	t            *testing.T
	dir, runDir  string
	destinations []Destination
	now          func() time.Time
	prepare      func(*Run) // what a run knows beside; nil for nothing
}

func newSite(t *testing.T, destinations ...string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), now: func() time.Time { return firstNight.AddDate(0, 0, 5) }}
	s.runDir = filepath.Join(s.dir, "run")
	for _, name := range destinations {
		opened, err := disk.Open(disk.Options{Path: filepath.Join(s.dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		s.destinations = append(s.destinations, Destination{Name: name, Store: opened, CatchUp: true})
	}
	return s
}

func (s *site) on(name string) *Destination {
	i := slices.IndexFunc(s.destinations, func(d Destination) bool { return d.Name == name })
	return &s.destinations[i]
}

// make makes a backup of a volume on a destination, in a night counted from the first.
func (s *site) make(t *testing.T, on, volume string, night int, edit func(*catalog.Manifest)) catalog.Backup {
	t.Helper()
	return placementtest.Make(t, s.on(on).Store, volume, night, edit)
}

// begin begins a run, once what dead ones left is removed. The caller ends it.
func (s *site) begin() (run *Run, end func()) {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(s.t.Output(), nil))
	host := &owned.Host{LVM: lvm.New(hostcmd.New(hostcmd.Options{}), lvm.Options{}), Log: log, StateDir: filepath.Join(s.dir, "state")}
	for _, d := range s.destinations {
		host.Stores = append(host.Stores, d.Store)
	}
	id := journal.NewRunID(s.now())
	ledger, err := journal.Begin(host.Journals(), journal.Info{Run: id, Host: hostName})
	if err != nil {
		s.t.Fatal(err)
	}
	locks, err := journal.NewLocks(s.runDir, journal.Holder{Run: id, PID: os.Getpid(), Command: "voltar copy"})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := host.Recover(s.t.Context()); err != nil {
		s.t.Log(err)
	}
	owner := &owned.Owner{Host: host, Run: id, Journal: ledger}
	end = func() {
		owner.Settle(context.Background())
		if err := ledger.Close(); err != nil {
			s.t.Error(err)
		}
	}
	run = &Run{ID: id, Host: placementtest.Host, Owner: owner, Locks: locks, Log: log, Now: s.now}
	if s.prepare != nil {
		s.prepare(run)
	}
	return run, end
}

// request names the ends of a copy.
type request struct {
	From, To string
	DryRun   bool
}

// Copy copies everything, in a run of its own.
func (s *site) Copy(ctx context.Context, q request) ([]CopyLine, error) {
	run, end := s.begin()
	defer end()
	return Copy(ctx, run, *s.on(q.From), *s.on(q.To), CopyOptions{DryRun: q.DryRun})
}

// tree returns what lies below a folder of a destination.
func (s *site) tree(t *testing.T, parts ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := filepath.Join(append([]string{s.dir}, parts...)...)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, root+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// journals wants no run to have left anything to do, or something.
func (s *site) journals(t *testing.T, want int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*.jsonl"))
	if err != nil || len(found) != want {
		t.Errorf("journals %q, %v, want %d", found, err, want)
	}
}
