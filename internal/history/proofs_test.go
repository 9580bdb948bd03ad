package history

import (
	"fmt"
	"testing"
	"time"

	"voltar/report"
)

// proofRun is a drill or a restore i days after the first night, of volumes that took so many seconds; of one that took none, nothing came back.
func proofRun(command string, i int, seconds map[string]float64) report.Run {
	run := nightRun(i)
	run.ID, run.Command, run.Volumes = fmt.Sprint(run.ID, "-", command), command, nil
	run.Destinations = []report.Destination{{Name: "disk", Where: "/backups"}}
	for _, name := range []string{"a", "b", "c"} {
		took, tried := seconds[name]
		if !tried {
			continue
		}
		v := report.Volume{Name: "vg/" + name, Status: report.VolumeOK, Started: run.Started, Ended: run.Started.Add(2 * time.Minute),
			Backup: "vg/" + name + "@x", StoredBytes: 1000, Copies: []report.Copy{{Destination: "disk", Path: "/backups/x"}},
			Restore: &report.Restore{To: "scratch", Seconds: took, StoredBytes: 1000, Checked: []string{"sums"}}}
		if took == 0 {
			v.Status, v.Copies[0].Error = report.VolumeDamaged, &report.Problem{Message: "rotten"}
		}
		run.Volumes = append(run.Volumes, v)
	}
	return run
}

// Drills and restores lie by themselves, are listed among the others, and neither costs the other its place.
func TestProofsAreKeptByThemselves(t *testing.T) {
	s := newStore(t)
	save(t, s, nightRun(1), nightRun(2), nightRun(3))
	for i := 4; i < 9; i++ {
		save(t, s, proofRun(DrillCommand, i, nil), proofRun(RestoreCommand, i, nil))
	}
	all := listed(t, s, 0)
	if len(all) != 13 || all[0].ID != proofRun(RestoreCommand, 8, nil).ID || all[12].ID != nightRun(1).ID {
		t.Errorf("listed %q", ids(all))
	}
	if got, err := s.Load(proofRun(DrillCommand, 5, nil).ID); err != nil || got.Command != DrillCommand {
		t.Errorf("%v, %v", got.ID, err)
	}
	removed, err := s.Prune(Kept{Runs: 2}, Kept{Runs: 100, Before: nightRun(7).Started})
	if err != nil || removed != 1+6 {
		t.Errorf("removed %d, %v", removed, err)
	}
	equal(t, "left", []string{
		proofRun(RestoreCommand, 8, nil).ID, proofRun(DrillCommand, 8, nil).ID, proofRun(RestoreCommand, 7, nil).ID, proofRun(DrillCommand, 7, nil).ID,
		nightRun(3).ID, nightRun(2).ID,
	}, ids(listed(t, s, 0)))
	if removed, err := s.Prune(Kept{Runs: 2}, Kept{Runs: 3}); err != nil || removed != 1 {
		t.Errorf("removed %d, %v", removed, err)
	}
}

// A year of proofs: what each volume took, at the median and at worst; what failed and what was restored in part proves nothing.
func TestProofsSince(t *testing.T) {
	part := proofRun(RestoreCommand, 9, map[string]float64{"c": 50})
	part.Volumes[0].Restore.Part = true
	backups := nightRun(10)
	backups.Volumes = append(backups.Volumes, report.Volume{Name: "vg/b", Status: report.VolumeOK, StoredBytes: 500},
		report.Volume{Name: "vg/new", Status: report.VolumeOK, StoredBytes: 3000})
	backups.PlannedVolumes = 3
	runs := []report.Run{ // the newest first
		backups, part, proofRun(DrillCommand, 8, map[string]float64{"b": 0}), proofRun(RestoreCommand, 6, map[string]float64{"a": 30}),
		proofRun(DrillCommand, 5, map[string]float64{"a": 10, "b": 20}), proofRun(DrillCommand, 4, map[string]float64{"a": 100}),
		proofRun(DrillCommand, 1, map[string]float64{"a": 900, "c": 900}), // too long ago
	}
	got := ProofsSince(runs, "h", nightRun(3).Started)
	equal(t, "verdicts", []Verdict{Partly, Damaged, Proven, Proven, Proven, Proven}, verdicts(got))
	equal(t, "volumes", []VolumeProofs{
		{Volume: "vg/c"}, {Volume: "vg/new"},
		{Volume: "vg/b", Proofs: 1, Failed: 1, LastRestored: endOf(5), LastSeconds: 20, MedianSeconds: 20, WorstSeconds: 20},
		{Volume: "vg/a", Proofs: 3, LastRestored: endOf(6), LastSeconds: 30, MedianSeconds: 30, WorstSeconds: 100},
	}, got.Volumes)
	equal(t, "all", &report.RestoreTime{
		Measured: 2, Estimated: 1, MeasuredSeconds: 50, EstimatedSeconds: 75, BytesPerSecond: 40,
	}, got.RestoreAll)
	if got.Never != 2 || !got.Oldest.Equal(endOf(5)) {
		t.Errorf("%d never, the oldest of %v", got.Never, got.Oldest)
	}
	if none := ProofsSince([]report.Run{backups}, "h", time.Time{}); none.RestoreAll != nil || none.Never != 3 {
		t.Errorf("without any proof: %+v", none)
	}
}

func endOf(i int) time.Time { return nightRun(i).Started.Add(2 * time.Minute) }

func verdicts(p Proofs) (list []Verdict) {
	for _, one := range p.Proofs {
		list = append(list, one.Verdict)
	}
	return list
}

// A report on backups tells of the last restore that brought back all of a volume.
func TestReportsTellOfRestores(t *testing.T) {
	part := proofRun(RestoreCommand, 6, map[string]float64{"a": 1})
	part.Volumes[0].Restore.Part = true
	tonight := nightRun(7)
	NoteProofs(&tonight, []report.Run{part, proofRun(RestoreCommand, 5, map[string]float64{"a": 30}), proofRun(DrillCommand, 4, map[string]float64{"a": 10})})
	v := tonight.Volumes[0]
	if !v.LastRestored.Equal(endOf(5)) || v.Restore == nil || v.Restore.Seconds != 30 {
		t.Errorf("%v, %+v", v.LastRestored, v.Restore)
	}
	NoteProofs(&tonight, []report.Run{proofRun(RestoreCommand, 8, map[string]float64{"a": 0})})
	if v := tonight.Volumes[0]; !v.LastDamaged.Equal(endOf(8)) {
		t.Errorf("a restore that found damage: %v", v.LastDamaged)
	}
}
