package backup

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"voltar/internal/admit"
	"voltar/internal/hostcmd"
	"voltar/internal/owned"
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
	e := New(Deps{Host: &owned.Host{LVM: lvm.New(runner, lvm.Options{RunRoot: dir}), Log: slog.New(slog.DiscardHandler)}}, Options{
		Parallel: 2, Settings: func(lvm.Volume) Settings { return Settings{SnapshotSize: lvm.SizePolicy{FloorBytes: 64 << 20}} },
	})
	r := &run{Engine: e}
	vg := lvm.VG{Name: "vg", FreeBytes: 310378496, ExtentBytes: 4 << 20}
	var units []unit
	for _, name := range []string{"a", "b", "c", "thin"} {
		v := &volumeRun{run: r, volume: lvm.Volume{VG: "vg", Name: name, SizeBytes: 400 << 20}, vg: vg}
		if name == "thin" {
			v.volume.Kind = lvm.KindThin
		}
		units = append(units, unit{members: []*volumeRun{v}})
	}
	ctx := t.Context()
	r.takeTurns(ctx, units)
	queue := e.newQueue()
	var tickets []*admit.Ticket
	for _, u := range units {
		tickets = append(tickets, r.join(ctx, queue, u))
	}
	begin := func(i int) *volumeRun {
		grant, err := tickets[i].Wait()
		units[i].admitted(ctx, grant, err)
		return units[i].members[0]
	}
	first, thin := begin(0), begin(3)
	if first.failure != nil || first.share.Bytes != 310378496 || thin.failure != nil || thin.share.Bytes != 0 {
		t.Fatalf("first %v %+v, thin %v %+v", first.failure, first.share, thin.failure, thin.share)
	}
	if err := first.reserve(ctx); err != nil || first.room == nil || first.room.Bytes != first.share.Bytes || first.reduced.String() == "" {
		t.Errorf("%v, room %+v, reduced %q", err, first.room, first.reduced)
	}
	units[1].members[0].turn.cancel(errCancelled)
	cancelled := begin(1)
	if cancelled.share != nil || context.Cause(cancelled.within(ctx)) != errCancelled {
		t.Errorf("a volume that was cancelled in the queue has %+v", cancelled.share)
	}
	if err := first.held.Release(ctx); err != nil {
		t.Fatal(err)
	}
	third := begin(2)
	if third.failure != nil || third.share.Bytes != 310378496 {
		t.Errorf("third: %v, %+v", third.failure, third.share)
	}
}
