package backup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"voltar/internal/admit"
	"voltar/internal/hostcmd"
	"voltar/lvm"
)

// Volumes take room of their group through lvm2's own report, those of one unit together; who waits gets it when it comes
// back, and who was cancelled meanwhile has nothing.
func TestUnitsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	const report = `{"report":[{"vg":[{"vg_name":"vg","vg_uuid":"g","vg_free":"310378496","vg_extent_size":"4194304"}]}]}`
	if err := os.WriteFile(filepath.Join(dir, "vgs"), []byte("#!/bin/sh\necho '"+report+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	runner := hostcmd.New(hostcmd.Options{SearchPath: append([]string{dir}, hostcmd.DefaultSearchPath...)})
	s := newSite(t, "disk")
	s.opts.Parallel = 2
	s.opts.Settings = func(lvm.Volume) Settings { return Settings{SnapshotSize: lvm.SizePolicy{FloorBytes: 64 << 20}} }
	s.LVM = lvm.New(runner, lvm.Options{RunRoot: dir})
	e := New(s.Deps, s.opts)
	r, err := e.begin(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	plan := &Plan{Inventory: lvm.Inventory{VGs: []lvm.VG{{Name: "vg", FreeBytes: 310378496, ExtentBytes: 4 << 20}}}}
	var units []unit
	for _, name := range []string{"a", "b", "c"} {
		m := r.newCandidate(t.Context(), plan, lvm.Volume{VG: "vg", Name: name, SizeBytes: 400 << 20, Active: true}, Group{})
		units = append(units, unit{run: r, volumes: []*candidate{m}})
	}
	ctx := t.Context()
	queue := admit.New(space{e.space}, e.opts.Parallel, e.opts.spareFraction())
	var tickets []*admit.Ticket
	for _, u := range units {
		tickets = append(tickets, u.join(ctx, queue))
	}
	begin := func(i int) (*candidate, *admitted) {
		m := units[i].volumes[0]
		ready := units[i].admit(tickets[i])
		if len(ready) == 0 {
			return m, nil
		}
		return m, ready[0]
	}
	first, a := begin(0)
	if first.failure != nil || a.space.Bytes != 310378496 || a.reduced() == "" {
		t.Fatalf("first: %v, space %+v, reduced %q", first.failure, a.space, a.reduced())
	}
	units[1].volumes[0].scope.cancel(errCancelled)
	if second, a := begin(1); a != nil || !errors.Is(second.failure, errCancelled) {
		t.Errorf("a volume that was cancelled in the queue: %+v, %v", a, second.failure)
	}
	if err := first.held.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if third, a := begin(2); third.failure != nil || a.space.Bytes != 310378496 {
		t.Errorf("third: %v, %+v", third.failure, a)
	}
}
