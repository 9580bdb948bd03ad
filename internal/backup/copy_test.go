package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/placement"
	"voltar/internal/placement/placementtest"
	"voltar/report"
)

var nearToFar = CopyRequest{From: "near", To: "far"}

func TestCopyWhereItMustNot(t *testing.T) {
	s := newSite(t, "near", "far", "same")
	s.on("same").Store = s.on("near").Store
	b := placementtest.Make(t, s.on("near").Store, "v1", 0, nil)
	for _, q := range []CopyRequest{{From: "near", To: "nowhere"}, {From: "nowhere", To: "far"}, {From: "near", To: "same"}} {
		if _, err := s.Copy(t.Context(), q); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", q, err)
		}
	}

	locks, err := journal.NewLocks(s.opts.RunDir, journal.Holder{PID: os.Getpid(), Command: "voltar run"})
	if err != nil {
		t.Fatal(err)
	}
	var held *journal.HeldError
	other, err := locks.TryLock(journal.ScopeConfig, placement.CopyLock(*s.on("far")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Copy(t.Context(), nearToFar); !errors.As(err, &held) {
		t.Errorf("beside another copy: %v", err)
	}
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	volume, err := locks.TryLock(journal.ScopeVolume, b.ID.Ref.String())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := s.Copy(t.Context(), nearToFar)
	if err != nil || len(lines) != 1 || lines[0].State != placement.CopyFailed || !strings.Contains(lines[0].Reason, "voltar run") {
		t.Errorf("beside a run that is at the volume: %+v, %v", lines, err)
	}
	if err := volume.Unlock(); err != nil {
		t.Fatal(err)
	}

	foreign := catalog.Host{Name: placementtest.Host.Name, MachineID: "machine-2"}
	if err := os.RemoveAll(filepath.Join(s.dir, "far", placementtest.Host.Name)); err != nil {
		t.Fatal(err)
	}
	if err := catalog.Claim(t.Context(), s.on("far").Store, foreign, placementtest.FirstNight); err != nil {
		t.Fatal(err)
	}
	var foreignErr *catalog.ForeignError
	for _, dryRun := range []bool{true, false} {
		q := nearToFar
		q.DryRun = dryRun
		if _, err := s.Copy(t.Context(), q); !errors.As(err, &foreignErr) {
			t.Errorf("to a folder of another machine: %v", err)
		}
	}
}

// Tonight's backup that failed on one destination alone is copied there, and the volume is whole after all.
func TestCatchUpMendsTonight(t *testing.T) {
	s := newSite(t, "near", "far")
	r, err := s.begin(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	b := placementtest.Make(t, s.on("near").Store, "v1", 3, func(m *catalog.Manifest) { m.Run = r.id })
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.hand(report.Volume{Name: "vg/v1", Status: report.VolumePartial, Backup: b.ID.String(), Copies: []report.Copy{
		{Destination: "near", Path: "somewhere"}, {Destination: "far", Error: &report.Problem{Message: "the line was cut"}},
	}})
	r.catchUp(t.Context(), nil)
	if err := r.end(t.Context()); err != nil {
		t.Error(err)
	}
	v := r.report.Volumes[0]
	if v.Status != report.VolumeOK || v.Copies[1].Error != nil || v.Copies[0].Path != "somewhere" || len(v.Warnings) != 1 ||
		!strings.Contains(v.Warnings[0].Message, "the line was cut") {
		t.Errorf("%+v", v)
	}
	if want := filepath.Join(s.dir, "far", placementtest.Host.Name, "vg/v1/2026-11-23T010001Z"); v.Copies[1].Path != want {
		t.Errorf("path %s, want %s", v.Copies[1].Path, want)
	}
	if verdict := (report.Run{Volumes: r.report.Volumes, PlannedVolumes: 1}).Verdict(); verdict != report.VerdictWarning {
		t.Errorf("verdict %s", verdict)
	}
}
