package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/report"
)

// A volume is taken out of a run that is reading it, and one that is waiting: the first is free at once, so that it can be
// extended, the rest of the run goes on, and the report says in words what became of both.
func TestLabCancelFreesOneVolume(t *testing.T) {
	s := crashSite(t)
	lab.LV(t, "vg", "waiting", 8<<20)
	s.append(t, "[limits]\nread_rate = \"2MiB\"\n")
	writeFile(t, s.config, append([]byte("parallel = 1\n"), readFile(t, s.config)...))
	wantCancel := func(wantCode int, volume string, want ...string) {
		t.Helper()
		code, out, errs := voltar(t, "cancel", "--config", s.config, volume)
		for _, w := range want {
			if code != wantCode || !strings.Contains(out+errs, w) {
				t.Errorf("cancel %s: exit code %d, want %d: %q %q, want %q", volume, code, wantCode, out, errs, w)
			}
		}
	}
	wantCancel(exitNothing, "vg/classic", "no run of this configuration is going on")
	before := hostState(t)
	p := start(t, s.runArgs()...)
	if !p.until("type=ext4") {
		t.Fatal(p.wait(t), p.stderr.String())
	}
	sockets, err := filepath.Glob(filepath.Join(s.dir, "run/control-*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets: %q %v", sockets, err)
	}
	if info, err := os.Stat(sockets[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info, err)
	}
	wantCancel(exitNothing, "vg/nowhere", "not in the run", "vg/classic, vg/thin, vg/waiting")
	wantCancel(exitDone, "waiting", "vg/waiting is taken out of the run before its turn")
	wantCancel(exitDone, "vg/classic", "vg/classic is free; the rest of the run goes on")
	lab.Do(t, "lvextend", "--size", "+4M", "vg/classic") // refused while a classic snapshot stands
	wantCancel(exitNothing, "vg/classic", "done with vg/classic already")
	lab.Do(t, "lvreduce", "--force", "--size", "-4M", "vg/classic")

	code := p.wait(t)
	result := parseRun(t, code, exitAttention, p.stdout.Bytes(), p.stderr.String())
	wantStatus(t, result, "vg/thin", report.VolumeOK)
	for _, name := range []string{"vg/classic", "vg/waiting"} {
		v := volume(t, result, name)
		if v.Status == report.VolumeOK || v.Error == nil || !strings.Contains(v.Error.Message, "cancelled by a person") || v.Backup != "" {
			t.Errorf("%s: %s %+v", name, v.Status, v.Error)
		}
		if left := s.backupsOf(t, name); len(left) > 0 {
			t.Errorf("kept of %s: %q", name, left)
		}
	}
	checkSums(t, s.backupsOf(t, "vg/thin")...)
	if after := hostState(t); after != before {
		t.Errorf("after the run:\n%s\nbefore:\n%s", after, before)
	}
	if left, err := filepath.Glob(sockets[0]); err != nil || len(left) > 0 {
		t.Errorf("the socket is left: %v", err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
