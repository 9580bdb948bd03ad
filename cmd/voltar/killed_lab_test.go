//go:build slow

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/report"
)

// kills is how often a run is killed, at moments spread over it.
const kills = 10

// A run over a partitioned classic volume and a thin one is killed outright at many moments; every second time in the
// middle of a command. The next run succeeds and leaves the host as it was before the first, and nothing unfinished
// counts as a backup.
func TestLabKilledRunsAreRecovered(t *testing.T) {
	s := crashSite(t)
	before := hostState(t)
	p := start(t, s.runArgs()...)
	steps := 0
	for p.logged.Scan() {
		steps++
	}
	parseRun(t, p.wait(t), 0, p.stdout.Bytes(), p.stderr.String())

	recovered, good, kills := 0, 2, kills
	for i := range kills {
		step := steps * (i + 1) / (kills + 2)
		// Every second kill comes a moment later, in the middle of a step, unless the run is over by then.
		for pause := time.Duration(20*(i%2)*i) * time.Millisecond; ; pause, step = 0, step-1 {
			p := start(t, s.runArgs()...)
			for n := 0; n < step && p.logged.Scan(); n++ {
			}
			time.Sleep(pause)
			p.signal(t, syscall.SIGKILL)
			if code := p.wait(t); code == -1 {
				break
			}
			good += 2
		}
		next := []string{"vg/classic", "vg/thin"}[i%2] // one has to do: programs start slowly here
		result := s.run(t, 0, next)
		wantStatus(t, result, next, report.VolumeOK)
		if len(result.Warnings) > 0 {
			t.Errorf("killed at step %d: %+v", step, result.Warnings)
		}
		if after := hostState(t); after != before {
			t.Fatalf("killed at step %d of %d, what is there after the next run:\n%s\nbefore:\n%s\n%q", step, steps, after, before,
				result.Recovered)
		}
		t.Logf("killed at step %d of %d: %q", step, steps, result.Recovered)
		recovered += len(result.Recovered)
		good++
	}
	if recovered == 0 {
		t.Error("no kill left anything: the test has tested nothing")
	}
	checkListing(t, s, good)
}

// dmsetup says that it removed a map, and the next look shows none, while it is there: it would hold the snapshot for good.
func TestLabMapThatWasTakenForGone(t *testing.T) {
	s := crashSite(t)
	before := hostState(t)
	const dmsetup = "/usr/sbin/dmsetup"
	if err := os.Rename(dmsetup, dmsetup+".real"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(dmsetup+".real", dmsetup); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	if err := os.WriteFile(dmsetup, []byte(`#!/bin/sh
cd `+dir+`
case $1 in
remove) [ -e removed ] || { touch removed; exit 0; } ;;
info) [ ! -e removed ] || [ -e looked ] || { touch looked; exit 0; } ;;
esac
exec `+dmsetup+`.real "$@"
`), 0o755); err != nil {
		t.Fatal(err)
	}
	code, out, errs := voltar(t, append(s.runArgs(), "vg/classic")...)
	if code != 0 || !strings.Contains(out+errs, "held by device") {
		t.Errorf("exit code %d\n%s\n%s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "looked")); err != nil {
		t.Error("dmsetup was not asked whether the map is gone")
	}
	if after := hostState(t); after != before {
		t.Errorf("what is there after the run:\n%s\nbefore:\n%s", after, before)
	}
}

// A drill is killed outright at many moments. The next command removes what it left, the file goes with its loop device, the original is untouched,
// and the next drill proves the backup.
func TestLabKilledDrillsLeaveNothing(t *testing.T) {
	s := crashSite(t)
	s.run(t, 0)
	before, seen := hostState(t), whatIsSeen(t)
	args := []string{"drill", "--log-level", "debug", "--config", s.config, "vg/classic"}
	p := start(t, args...)
	steps := 0
	for p.logged.Scan() {
		steps++
	}
	if code := p.wait(t); code != 0 || steps < kills/2 {
		t.Fatalf("%d, %d steps\n%s", code, steps, &p.stderr)
	}
	killed := 0
	for i := range kills {
		p := start(t, args...)
		for n := 0; n < steps*i/kills && p.logged.Scan(); n++ {
		}
		time.Sleep(time.Duration(20*(i%2)*i) * time.Millisecond)
		p.signal(t, syscall.SIGKILL)
		if p.wait(t) == -1 {
			killed++
		}
		code, out, errs := voltar(t, "cleanup", "--config", s.config)
		if code != 0 {
			t.Errorf("kill %d: cleanup ends with %d\n%s\n%s", i, code, out, errs)
		}
		if after := hostState(t); after != before {
			t.Fatalf("kill %d, what is there after the next command:\n%s\nbefore:\n%s\n%s\n%s\n%s", i, after, before, out, errs, &p.stderr)
		}
		if now := whatIsSeen(t); now != seen {
			t.Errorf("kill %d: the host shows\n%s\nand showed\n%s", i, now, seen)
		}
		t.Logf("kill %d: %s", i, out)
	}
	if killed < kills*3/4 {
		t.Errorf("%d of %d were killed", killed, kills)
	}
	if good := s.drill(t, 0, "vg/classic"); len(good) != 1 || !good[0].Good {
		t.Errorf("%+v", good)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "state", "drill", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
