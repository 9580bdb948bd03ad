package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// tryKills ends runs outright at moments spread at random over all that a run does, and checks what the next start makes of
// each. Every tenth next start is a whole run.
func (h *host) tryKills(t *testing.T, s settings) {
	t.Helper()
	var whole time.Duration
	for range 2 { // the second finds everything in the cache, as those to come
		out := h.run(t, "", nil, h.args(stepRun)...)
		if out.code != 0 {
			t.Fatalf("without any fault: exit code %d\n%s", out.code, out.text())
		}
		whole = out.took
		h.reset(t)
	}
	random := rand.New(rand.NewPCG(s.Seed, 1))
	done := readVerdicts(t, "kills")
	for i := range s.Kills {
		share := random.Float64()
		id := fmt.Sprintf("kill/%d", i+1)
		if !s.mine(i) || slices.ContainsFunc(done, func(v verdict) bool { return v.ID == id && len(v.Wrong) == 0 }) {
			continue
		}
		s.note(t, id)
		v := h.killRun(t, id, time.Duration(share*float64(whole)), i%10 == 9)
		for try := 0; try < 3 && !v.Struck && len(v.Wrong) == 0; try++ { // it was faster, and had ended
			share *= 0.8
			v = h.killRun(t, id, time.Duration(share*float64(whole)), false)
		}
		for _, what := range v.Wrong {
			t.Errorf("%s: %s", id, what)
		}
		s.keep(t, "kills", v)
	}
}

// killRun starts a run, kills it after a while, and checks everything.
func (h *host) killRun(t *testing.T, id string, after time.Duration, thenRun bool) verdict {
	t.Helper()
	v := verdict{ID: id, Class: "kill", Step: stepRun, Millis: after.Milliseconds()}
	wrong := func(format string, args ...any) { v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...)) }
	cmd, _, stderr, err := h.start("", nil, h.args(stepRun)...)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if err := kill(cmd); err != nil {
		t.Fatal(err)
	}
	v.Code, v.Struck = cmd.ProcessState.ExitCode(), cmd.ProcessState.ExitCode() == -1
	last := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	t.Logf("%s: after %s, struck %t, last words %q", id, after, v.Struck, last[len(last)-1])
	if thenRun {
		if out := h.run(t, "", nil, h.args(stepRun)...); out.code != 0 {
			wrong("the run after it: exit code %d\n%s", out.code, tail(out.text(), 2000))
		}
	}
	if harm := h.harmed(t, nil); len(harm) > 0 {
		wrong("earlier backups are harmed: %q", harm)
	}
	h.judgeNextStart(t, stepRun, false, wrong)
	h.reset(t)
	return v
}
