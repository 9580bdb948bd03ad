package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/restore"
	"voltar/internal/store"
	"voltar/report"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// listed is what a destination has of some volumes: the newest backup of each, by its age in hours.
func listed(destination string, entries ...catalog.Entry) catalog.Listed {
	return catalog.Listed{Destination: destination, Listing: &catalog.Listing{Backups: entries}}
}

func entry(name string, hours int, change ...func(*catalog.Entry)) catalog.Entry {
	e := catalog.Entry{
		ID:     catalog.ID{Ref: catalog.Ref{Kind: catalog.SourceVolume, VG: "vg", Name: name}, Time: now.Add(-time.Duration(hours) * time.Hour)},
		Status: catalog.StatusComplete,
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func tried(command, name string, days int, status report.VolumeStatus) report.Run {
	return report.Run{Command: command, Volumes: []report.Volume{{Name: "vg/" + name, Status: status, Ended: now.AddDate(0, 0, -days)}}}
}

// What was never tried comes first, then what was tried longest ago, well or not; only good backups of volumes are tried, the newest of each.
func TestWhoHasWaitedLongest(t *testing.T) {
	on := []catalog.Destination{{Name: "disk"}, {Name: "far"}, {Name: "down"}}
	damaged := func(e *catalog.Entry) { e.Damage = "rotten" }
	found := []catalog.Listed{
		listed("disk", entry("a", 5), entry("b", 5), entry("c", 5), entry("d", 5, damaged), entry("ahead", -5),
			entry("dir", 5, func(e *catalog.Entry) { e.ID.Ref = catalog.Ref{Kind: catalog.SourceDirectory, Name: "dir"} })),
		listed("far", entry("a", 29), entry("b", 5), entry("c", 4), entry("new", 1)),
		{Destination: "down", Err: errors.New("down")},
	}
	runs := []report.Run{
		tried(Command, "b", 1, report.VolumeDamaged), tried(Command, "a", 2, report.VolumeOK), tried(Command, "b", 9, report.VolumeOK),
		tried(Command, "c", 4, report.VolumeOK), tried("verify", "new", 1, report.VolumeOK),
	}
	var got []string
	for _, c := range Candidates(on, found, runs, now) {
		got = append(got, c.ID.Ref.Name+" on "+c.On.Name)
	}
	if want := []string{"new on far", "c on far", "a on disk", "b on far"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What the host, a store or whoever stops it does to a drill says nothing of the backup; what the backup is does.
func TestWhatProvesNothing(t *testing.T) {
	stopped := errors.New("stopped")
	live := t.Context()
	over, cancel := context.WithCancelCause(live)
	cancel(stopped)
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want error // nil for a drill that counts
	}{
		{"no error", live, nil, nil},
		{"done before it was stopped", over, nil, nil},
		{"too large", live, restore.ErrTooLarge, restore.ErrTooLarge},
		{"the host", live, restore.ErrHost, restore.ErrHost},
		{"a store that is down", live, &store.WholeError{Err: store.ErrDown}, restore.ErrHost},
		{"a store that cannot be reached", live, store.ErrUnreachable, restore.ErrHost},
		{"stopped", over, errors.New("broken pipe"), stopped},
		{"damage, and then stopped", over, restore.ErrDiffers, nil},
		{"damage", live, restore.ErrSums, nil},
		{"what cannot be restored", live, errors.New("mkfs failed"), nil},
	} {
		if got := notTried(c.ctx, wrapped(c.err)); (got != nil) != (c.want != nil) || !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("try it: %w", err)
}
