package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/durable"
	"voltar/report"
)

var night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// nightRun is the run of the night i days after the first.
func nightRun(i int) report.Run {
	started := night.AddDate(0, 0, i)
	return report.Run{
		Schema: report.Schema, ID: started.Format(timeLayout) + "-1f2e", Host: "h", Command: "run",
		Started: started, Ended: started.Add(time.Hour), PlannedVolumes: 1, Destinations: []report.Destination{},
		Volumes: []report.Volume{{
			Name: "vg/a", Status: report.VolumeOK, Started: started, Ended: started.Add(time.Duration(i) * time.Minute),
			Backup: fmt.Sprint("vg/a@", i), ReadBytes: 10, StoredBytes: int64(i), Entries: 3, PreviousStoredBytes: -1,
		}},
	}
}

func newStore(t *testing.T) *Store {
	return newStoreAt(t, night.AddDate(0, 3, 0))
}

func newStoreAt(t *testing.T, now time.Time) *Store {
	return New(filepath.Join(t.TempDir(), "state", "history"), durable.Host(nil), func() time.Time { return now })
}

func save(t *testing.T, s *Store, runs ...report.Run) {
	t.Helper()
	for _, run := range runs {
		if err := s.Save(run); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(runs []report.Run) []string {
	var out []string
	for _, r := range runs {
		out = append(out, r.ID)
	}
	return out
}

func listed(t *testing.T, s *Store, limit int) []report.Run {
	t.Helper()
	runs, err := s.List(limit)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestSaveListLoad(t *testing.T) {
	s := newStore(t)
	if runs := listed(t, s, 0); runs != nil {
		t.Errorf("before the first run: %v", runs)
	}
	if _, err := s.Load(Last); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the first run: %v", err)
	}
	one, two, three := nightRun(1), nightRun(2), nightRun(3)
	save(t, s, two, three, one)
	equal(t, "all", []report.Run{three, two, one}, listed(t, s, 0))
	equal(t, "two", []report.Run{three, two}, listed(t, s, 2))
	for id, want := range map[string]report.Run{Last: three, one.ID: one} {
		got, err := s.Load(id)
		if err != nil {
			t.Error(err)
		}
		equal(t, id, want, got)
	}
	if _, err := s.Load("nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown ID: %v", err)
	}

	three.ExitCode = 5 // known only after the report could not be sent
	save(t, s, three)
	equal(t, "saved again", []report.Run{three, two, one}, listed(t, s, 0))

	files, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f.Name(), info.Mode())
		}
	}
}

func TestSaveRefusesUnfitIDs(t *testing.T) {
	s := newStore(t)
	for _, id := range []string{"", Last, "../x", "a/b", ".hidden", strings.Repeat("x", 101), "a\nb"} {
		run := nightRun(1)
		run.ID = id
		if err := s.Save(run); err == nil {
			t.Errorf("%q was kept", id)
		}
	}
}

// Damage costs the damaged run only, and is told once.
func TestDamagedFiles(t *testing.T) {
	s := newStore(t)
	good := nightRun(1)
	save(t, s, good, nightRun(2), nightRun(3), nightRun(4))
	overwrite := func(i int, content string) {
		run := nightRun(i)
		path := filepath.Join(s.dir, run.Started.Format(timeLayout)+"_"+run.ID+suffix)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overwrite(2, `{"schema": 1, "id": "20261`)
	overwrite(3, `{"schema": 9, "id": "of a newer version"}`)
	overwrite(4, `{"schema": 1, "id": "another"}`)
	for _, name := range []string{"notes.txt", ".20261125T010001Z_x.json.voltar-tmp-0", "20261125T010001Z_x.json.damaged"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.Load(Last)
	if err == nil || strings.Count(err.Error(), "set aside") != 2 || !errors.Is(err, report.ErrSchema) {
		t.Errorf("error %v", err)
	}
	equal(t, "last", good, last)
	runs, err := s.List(0)
	if err == nil || strings.Contains(err.Error(), "set aside") || !errors.Is(err, report.ErrSchema) {
		t.Errorf("told again: %v", err)
	}
	equal(t, "left", []string{good.ID}, ids(runs))
	if _, err := os.Stat(filepath.Join(s.dir, nightRun(2).Started.Format(timeLayout)+"_"+nightRun(2).ID+suffix+damagedSuffix)); err != nil {
		t.Errorf("the damaged file is not kept: %v", err)
	}
}

// A run that a wrong clock dated ahead is the last for nobody, and costs no earlier one.
func TestRunsThatAreDatedAhead(t *testing.T) {
	now := nightRun(3).Ended
	s := newStoreAt(t, now)
	save(t, s, nightRun(1), nightRun(2), nightRun(3), nightRun(8000))
	if last, err := s.Load(Last); err != nil || last.ID != nightRun(3).ID {
		t.Errorf("the last run is %s, %v", last.ID, err)
	}
	equal(t, "all", []string{nightRun(3).ID, nightRun(2).ID, nightRun(1).ID, nightRun(8000).ID}, ids(listed(t, s, 0)))
	earlier, err := s.Earlier()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "earlier", []string{nightRun(3).ID, nightRun(2).ID, nightRun(1).ID}, ids(earlier))
	if _, err := s.Prune(Kept{Runs: 3}, Kept{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "left", []string{nightRun(3).ID, nightRun(2).ID, nightRun(1).ID}, ids(listed(t, s, 0)))
}

func TestPrune(t *testing.T) {
	tests := []struct {
		name   string
		keep   int
		before time.Time
		want   []int
	}{
		{"by number", 2, time.Time{}, []int{4, 3}},
		{"by age", 10, nightRun(2).Started, []int{4, 3, 2}},
		{"by both", 2, nightRun(4).Started, []int{4}},
		{"never the newest", 0, night.AddDate(1, 0, 0), []int{4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, nightRun(1), nightRun(2), nightRun(3), nightRun(4))
			removed, err := s.Prune(Kept{tt.keep, tt.before}, Kept{})
			if err != nil || removed != 4-len(tt.want) {
				t.Errorf("removed %d, %v", removed, err)
			}
			var want []string
			for _, i := range tt.want {
				want = append(want, nightRun(i).ID)
			}
			equal(t, "left", want, ids(listed(t, s, 0)))
		})
	}
	if removed, err := newStore(t).Prune(Kept{1, night}, Kept{}); removed != 0 || err != nil {
		t.Errorf("no folder: %d, %v", removed, err)
	}
}

func TestFaults(t *testing.T) {
	dir := t.TempDir()
	save(t, New(dir, durable.Host(nil), time.Now), nightRun(1))
	broken := New(dir, durable.Host(func(op durable.Op, _ string) error {
		if op == durable.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	}), time.Now)
	changed := nightRun(1)
	changed.ExitCode = 3
	for _, run := range []report.Run{changed, nightRun(2)} {
		if err := broken.Save(run); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
	}
	equal(t, "after a full disk", []report.Run{nightRun(1)}, listed(t, broken, 0))

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	notFolder := New(file, durable.Host(nil), time.Now)
	if _, err := notFolder.List(0); err == nil {
		t.Error("a file is listed as a folder")
	}
	if _, err := notFolder.Load("x"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a file is searched as a folder: %v", err)
	}
	if err := notFolder.Save(nightRun(1)); err == nil {
		t.Error("a run is kept below a file")
	}
}

func TestTrends(t *testing.T) {
	var runs []report.Run // newest first
	for i := 40; i > 0; i-- {
		runs = append(runs, nightRun(i))
	}
	failed, skipped, verify := nightRun(41), nightRun(42), nightRun(43)
	failed.Volumes[0].Status, failed.Volumes[0].StoredBytes = report.VolumeFailed, 0
	skipped.Volumes[0].Status = report.VolumeSkipped
	verify.Command = "verify"
	runs = append([]report.Run{verify, skipped, failed}, runs...)

	points := Points(runs)
	if len(points) != 30 || !points[0].Time.Equal(skipped.Started) {
		t.Errorf("%d points, the first of %v", len(points), points[0].Time)
	}
}

func TestLastGood(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 11, day, 1, 0, 0, 0, time.UTC) }
	night := func(day int, volumes ...report.Volume) report.Run {
		for i := range volumes {
			volumes[i].Ended = at(day)
		}
		return report.Run{Started: at(day), PlannedVolumes: len(volumes), Volumes: volumes}
	}
	good := func(name string) report.Volume { return report.Volume{Name: name, Status: report.VolumeOK} }
	bad := func(name string) report.Volume { return report.Volume{Name: name, Status: report.VolumeFailed} }
	named := func(run report.Run, names ...string) report.Run {
		run.Named = names
		return run
	}
	earlier := []report.Run{night(19, bad("a"), good("b")), night(18, good("a"), good("b"), good("gone"))}
	for _, test := range []struct {
		name string
		run  report.Run
		want map[string]time.Time
	}{
		{"the last good one counts", night(20, bad("a"), good("b")), map[string]time.Time{"a": at(18), "b": at(19)}},
		{"a new volume has none", night(20, bad("new")), map[string]time.Time{}},
		{"a run of named volumes keeps the others", named(night(20, bad("a")), "a"), map[string]time.Time{"a": at(18), "b": at(19)}},
		{"a run that came to nothing keeps yesterday's volumes", night(20), map[string]time.Time{"a": at(18), "b": at(19)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, LastGood(test.run, earlier)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReportsSayWhenBackupsWereProven(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 11, 20+day, 1, 0, 0, 0, time.UTC) }
	proof := func(command, where string, status report.VolumeStatus, day int) report.Run {
		v := report.Volume{Name: "vg/a", Status: status, Ended: at(day), Copies: []report.Copy{{Destination: "d"}}}
		if status == report.VolumeDamaged {
			v.Copies[0].Error = &report.Problem{Message: "its sums differ"}
		}
		return report.Run{Command: command, Volumes: []report.Volume{v}, Destinations: []report.Destination{{Name: "d", Where: where}}}
	}
	earlier := []report.Run{
		proof("verify --sample 5%", "/sampled", report.VolumeDamaged, 6),
		proof("verify --sample 5%", "/sampled", report.VolumeOK, 5), // reads a part
		proof("verify", "/sampled", report.VolumeOK, 3),
		proof("verify", "/backups", report.VolumeDamaged, 6),
		proof("verify --quick", "/backups", report.VolumeOK, 5), // reads no data
		proof("verify", "/mnt/usb", report.VolumeOK, 4),
		proof("verify", "/backups", report.VolumeOK, 3),
		proof("drill", "/backups", report.VolumeOK, 2),
		proof("run", "/backups", report.VolumeOK, 1),
	}
	for _, c := range []struct {
		name, where                 string
		verified, restored, damaged time.Time
	}{
		{"what verify found later counts", "/backups", at(3), at(2), at(6)},
		{"a sample finds damage, and proves nothing", "/sampled", at(3), time.Time{}, at(6)},
		{"what was found elsewhere does not", "/mnt/usb", at(4), time.Time{}, time.Time{}},
		{"a new folder has no proof", "/mnt/other", time.Time{}, time.Time{}, time.Time{}},
	} {
		run := report.Run{Command: "run", Destinations: []report.Destination{{Name: "folder", Where: c.where}},
			Volumes: []report.Volume{{Name: "vg/a", Status: report.VolumeOK, Copies: []report.Copy{{Destination: "folder"}}}}}
		NoteProofs(&run, earlier)
		v := run.Volumes[0]
		if !v.LastVerified.Equal(c.verified) || !v.LastRestored.Equal(c.restored) || !v.LastDamaged.Equal(c.damaged) || v.LastGood != nil {
			t.Errorf("%s: verified %s, restored %s, damaged %s, %v", c.name, v.LastVerified, v.LastRestored, v.LastDamaged, v.LastGood)
		}
	}

	failed := report.Run{Command: "run", PlannedVolumes: 1, Volumes: []report.Volume{{Name: "vg/a", Status: report.VolumeFailed}}}
	NoteProofs(&failed, earlier)
	if v := failed.Volumes[0]; v.LastGood == nil || !v.LastGood.Equal(at(1)) || !v.LastGoodUnseen {
		t.Errorf("of one that failed, where no destination could be asked: %v", v.LastGood)
	}
	nothing := report.Run{Command: "run", PlannedVolumes: 1}
	NoteProofs(&nothing, earlier)
	if nothing.LastGood == nil || !nothing.LastGood.Equal(at(1)) {
		t.Errorf("of a run that came to nothing: %v", nothing.LastGood)
	}
	asked := failed
	asked.Volumes = []report.Volume{{Name: "vg/a", Status: report.VolumeFailed, LastGood: &time.Time{}}}
	NoteProofs(&asked, earlier)
	if v := asked.Volumes[0]; !v.LastGood.IsZero() || v.LastGoodUnseen {
		t.Errorf("what a destination said is overruled by the history: %v", v.LastGood)
	}
}
