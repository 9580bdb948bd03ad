package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/internal/restore"
	"voltar/report"
)

// step is a command of the program that faults are tried on.
type step string

const (
	stepRun     step = "run"
	stepRestore step = "restore"
	stepPrune   step = "prune"
	stepCleanup step = "cleanup"
)

// fault is one thing that goes wrong at one moment.
type fault struct {
	step  step
	class string // for the table: command, system call, device, …
	name  string // within its step and class
	// arm breaks it and returns how the program is to be started and what mends it.
	arm func(t *testing.T, h *host) armed
	// cause is what the program's words have to match when it does not succeed; empty for faults that end it.
	cause string
}

func (f fault) id() string { return fmt.Sprintf("%s/%s/%s", f.step, f.class, f.name) }

// armed is a fault that is ready to strike.
type armed struct {
	under    []string    // what the program is started under
	dir      string      // of the wrappers' plan, "" for none
	volumes  []string    // that a run is to take, instead of all
	args     []string    // of the program, instead of the step's own
	target   string      // volume group that a restore goes to, instead of vg
	mend     func()      // takes the fault away, once the program has ended
	after    func()      // takes away what the fault was tried on, once everything has been checked
	struck   func() bool // whether it struck; nil when it always does
	wantCode int         // the only exit code that is right, where there is one beside 0
	wantGood bool        // the program has to succeed all the same
	anyData  bool        // the backups of this run hold other data than the host's own volumes
}

// verdict is what became of one case.
type verdict struct {
	ID     string   `json:"id"`
	Class  string   `json:"class"`
	Step   step     `json:"step"`
	Struck bool     `json:"struck"`
	Code   int      `json:"code"`
	Wrong  []string `json:"wrong,omitempty"`
	Millis int64    `json:"ms"`
}

// try arms a fault, runs the step and checks every invariant. What does not hold is in the verdict.
func (h *host) try(t *testing.T, f fault) verdict {
	t.Helper()
	v := verdict{ID: f.id(), Class: f.class, Step: f.step, Struck: true}
	wrong := func(format string, args ...any) { v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...)) }
	h.ready(t, f.step)
	before := h.before
	a := f.arm(t, h)
	if a.after != nil {
		h.before = stateOf(t) // with what the fault is tried on
	}
	if a.args == nil {
		a.args = append(h.args(f.step), a.volumes...)
	}
	out := h.run(t, a.dir, a.under, a.args...)
	if a.struck != nil {
		v.Struck = a.struck()
	}
	if a.mend != nil {
		a.mend()
	}
	v.Code, v.Millis = out.code, out.took.Milliseconds()
	if out.hung {
		wrong("it hung for %s", programLimit)
	}
	crashed := strings.Contains(out.stderr, "runtime: netpoll")                                   // no Go program goes on without the runtime's own writes
	isSilenced := strings.HasPrefix(f.name, "write ") && !strings.Contains(out.text(), "voltar:") // its words are what it could not write
	if out.code > 0 && f.cause != "" && !crashed && !isSilenced && !regexp.MustCompile(f.cause).MatchString(out.text()) {
		wrong("it does not name the cause (%s)", f.cause)
	}
	if a.wantCode != 0 && out.code != a.wantCode {
		wrong("exit code %d, want %d", out.code, a.wantCode)
	}
	if a.wantGood && out.code != 0 {
		wrong("exit code %d of what is harmless", out.code)
	}
	h.judge(t, f, a, out, wrong)
	h.judgeNextStart(t, f.step, a.anyData, wrong)
	if a.after != nil {
		a.after()
		h.before = before
	}
	if len(v.Wrong) > 0 {
		t.Logf("%s: exit code %d\n%s", v.ID, out.code, tail(out.text(), 6000))
	}
	h.reset(t)
	return v
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// args are the command line of a step.
func (h *host) args(s step) []string {
	switch s {
	case stepRestore:
		return []string{"restore", "--json", "--to-lv", "vg/restored", "--classic", "--config", h.config, "vg/thin"}
	case stepPrune:
		return []string{"prune", "--json", "--config", h.pruneConfig()}
	case stepCleanup:
		return []string{"cleanup", "--json", "--config", h.config}
	}
	return []string{"run", "--json", "--log-level", "debug", "--config", h.config}
}

// ready brings about what a step needs beforehand: to clean up, a run that was killed.
func (h *host) ready(t *testing.T, s step) {
	t.Helper()
	if s != stepCleanup {
		return
	}
	plan := newPlan(t)
	mapped := slices.IndexFunc(h.runCalls, func(call string) bool { return words(call) == "dmsetup remove" })
	if mapped < 0 {
		t.Fatalf("a run without a map: %q", h.runCalls)
	}
	plan.set(t, mapped+1, "kill") // a snapshot and a map stand then, and a backup is half written
	if out := h.run(t, plan.dir, nil, h.args(stepRun)...); out.code != -1 {
		t.Fatalf("the run before the cleanup was to be killed: exit code %d\n%s", out.code, out.text())
	}
}

// judge checks what the program says of itself against what is there, as long as nothing has cleaned up behind it.
func (h *host) judge(t *testing.T, f fault, a armed, out outcome, wrong func(string, ...any)) {
	t.Helper()
	allowed := []int{0, 1, 2, 3, 5, -1, 130} // 2 is for a configuration that cannot be read, or a target that is not there
	if out.code == -1 && out.hung || !slices.Contains(allowed, out.code) {
		wrong("exit code %d", out.code)
	}
	switch f.step {
	case stepRun:
		h.judgeRun(t, out, wrong)
	case stepRestore:
		h.judgeRestore(t, cmp.Or(a.target, "vg"), out, wrong)
	case stepPrune, stepCleanup:
	}
	var mayGo func(string) bool
	if f.step == stepPrune {
		mayGo = h.condemned
	}
	if harm := h.harmed(t, mayGo); len(harm) > 0 {
		wrong("earlier backups are harmed: %q", harm)
	}
}

// condemned tells whether a policy that keeps one backup lets a backup go: all but the newest of each volume.
func (h *host) condemned(folder string) bool {
	volume := folder[:strings.LastIndexByte(folder, '/')]
	for path := range h.earlier {
		if other := strings.TrimSuffix(path, "/manifest.json"); other != path && strings.HasPrefix(other, volume+"/") && other > folder {
			return true
		}
	}
	return false
}

// judgeRun holds a run's report against its exit code and the backups that it says stand.
func (h *host) judgeRun(t *testing.T, out outcome, wrong func(string, ...any)) {
	t.Helper()
	if out.code < 0 || out.code == 2 || out.code == 1 && !strings.Contains(out.stderr, "run=") {
		return // it could not report; what it says on stderr, before a run begins, is looked at
	}
	var result report.Run
	if err := json.Unmarshal([]byte(out.stdout), &result); err != nil {
		wrong("its report cannot be read: %v", err)
		return
	}
	good := 0
	damaged := false
	for _, v := range result.Volumes {
		damaged = damaged || v.Status == report.VolumeDamaged
		if v.Status == report.VolumeOK || v.Status == report.VolumeDamaged {
			good++
			if v.Backup == "" {
				wrong("%s is %s without a backup", v.Name, v.Status)
			}
		}
		if v.Status != report.VolumeOK && v.Error == nil && v.DamagedCount == 0 {
			wrong("%s is %s without a reason", v.Name, v.Status)
		}
	}
	unwritable := slices.ContainsFunc(result.Destinations, func(d report.Destination) bool { return d.Error != nil })
	wantsAttention := unwritable || good == 0 || good < result.PlannedVolumes || damaged || len(result.Errors) > 0
	if out.code == 0 && wantsAttention {
		wrong("exit code 0 with %d of %d volumes", good, result.PlannedVolumes)
	}
	if (out.code == 1 || out.code == 3) && !wantsAttention {
		wrong("exit code %d with all %d volumes and no error", out.code, good)
	}
	list, err := h.list(t)
	if err != nil {
		wrong("%v", err)
		return
	}
	for _, v := range result.Volumes {
		if v.Backup != "" && !slices.ContainsFunc(list, func(l listed) bool { return l.Backup == v.Backup }) {
			wrong("%s of the report is not listed", v.Backup)
		}
	}
}

// judgeRestore looks at the volume that a restore was to make, and removes it.
func (h *host) judgeRestore(t *testing.T, vg string, out outcome, wrong func(string, ...any)) {
	t.Helper()
	found := strings.Fields(lab.Do(t, "lvs", "--noheadings", "-o", "lv_tags,lv_size", "--select", "lv_name=restored", vg))
	var result restore.Result
	if out.code >= 0 && out.code != 2 {
		if err := json.Unmarshal([]byte(out.stdout), &result); err != nil && out.stdout != "" {
			wrong("its result cannot be read: %v", err)
		}
	}
	isMarked := len(found) == 2
	if match := regexp.MustCompile(`the result, "(\w+)", could not be written`).FindStringSubmatch(out.stderr); match != nil {
		result.Status = restore.Status(match[1])
	}
	switch {
	case out.code == 0 && result.Status != restore.StatusRestored:
		wrong("exit code 0, and it is %q", result.Status)
	case result.Status == restore.StatusRestored && (len(found) == 0 || isMarked):
		wrong("it is restored, but there is %q", found)
	case result.Status == restore.StatusRestored:
		lab.Do(t, "mount", "-o", "ro", "/dev/"+vg+"/restored", "/mnt")
		sum := strings.Fields(lab.Do(t, "sha256sum", "/mnt/data"))[0]
		lab.Do(t, "umount", "/mnt")
		if sum != h.data {
			wrong("the restored file is another")
		}
	case len(found) > 0 && !isMarked && out.code != -1: // one that was killed may have come to its end
		wrong("the volume of a failed restore is not marked as incomplete")
	}
	if len(found) > 0 {
		lab.Do(t, "lvremove", "--force", "--yes", vg+"/restored")
	}
}

// judgeNextStart checks that the next start leaves nothing behind, and that every backup that is listed stands.
func (h *host) judgeNextStart(t *testing.T, s step, anyData bool, wrong func(string, ...any)) {
	t.Helper()
	out := h.run(t, "", nil, "cleanup", "--json", "--config", h.config)
	if out.code != 0 {
		wrong("the next start: exit code %d: %s", out.code, tail(out.text(), 2000))
	}
	if after := stateOf(t); after != h.before {
		wrong("the host is not as before: %s", difference(h.before, after))
	}
	if left, _ := os.ReadDir(h.state + "/journal"); len(left) > 0 {
		wrong("journals are left: %v", left)
	}
	if left := h.unfinished(t); len(left) > 0 {
		wrong("left in the destination: %q", left)
	}
	list, err := h.list(t)
	if err != nil {
		wrong("%v", err)
	}
	for _, b := range list {
		if b.Status != "complete" && b.Status != "damaged" {
			wrong("%s is %s", b.Backup, b.Status)
		} else if err := h.verify(h.backups+"/"+b.Path, anyData || b.Status == "damaged"); err != nil {
			wrong("a listed backup is none: %v", err)
		}
	}
	if s == stepPrune && len(list) < 2 {
		wrong("%d backups are left of two volumes", len(list))
	}
}

// difference names the lines of a state that went and that came.
func difference(before, after string) string {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	var text string
	for _, line := range old {
		if !slices.Contains(now, line) {
			text += "\n- " + line
		}
	}
	for _, line := range now {
		if !slices.Contains(old, line) {
			text += "\n+ " + line
		}
	}
	return text
}

// order shuffles the cases by a seed, so that each beginning of the list has of every class.
func order(all []fault, seed uint64) []fault {
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	rank := map[string]int{}
	ranks := map[string]int{}
	for _, f := range all {
		group := string(f.step) + f.class
		ranks[f.id()] = rank[group]
		rank[group]++
	}
	slices.SortStableFunc(all, func(a, b fault) int { return ranks[a.id()] - ranks[b.id()] })
	return all
}

// TestLabFaults tries kills, and then faults, until as many have been tried as the settings ask for. What an earlier start
// with the same seed has found to hold is not tried again.
func TestLabFaults(t *testing.T) {
	s := readSettings(t)
	h := readyHost(t)
	h.tryKills(t, s)
	h.tryFaults(t, s)
}

func (h *host) tryFaults(t *testing.T, s settings) {
	t.Helper()
	only, err := regexp.Compile(s.Only)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	done := readVerdicts(t, "faults")
	tried := 0
	for _, f := range order(h.faults(t, s.Full), s.Seed) {
		if !only.MatchString(f.id()) {
			continue
		}
		if s.Cases > 0 && tried >= s.Cases {
			break
		}
		tried++
		if !s.mine(tried) {
			continue
		}
		if slices.ContainsFunc(done, func(v verdict) bool { return v.ID == f.id() && len(v.Wrong) == 0 }) {
			continue
		}
		s.note(t, f.id())
		v := h.try(t, f)
		for _, what := range v.Wrong {
			t.Errorf("%s: %s", f.id(), what)
		}
		t.Logf("%s: struck %t, exit code %d, %d ms, %s after the start", v.ID, v.Struck, v.Code, v.Millis, time.Since(began).Round(time.Second))
		s.keep(t, "faults", v)
		if now := stateOf(t); now != h.before {
			t.Fatalf("the host is not as before: nothing more can be tried on it: %s", difference(h.before, now))
		}
	}
}

// readyHost is a host with two backups of each volume, which share their blocks, and whose commands are wrapped.
func readyHost(t *testing.T) *host {
	t.Helper()
	lab.VG(t, "vg", 160<<20)
	h := newHost(t, t.TempDir())
	disk := lab.Disk(t, replayDiskBytes)
	lab.Do(t, "mkfs.xfs", "-q", disk)
	lab.Do(t, "mount", disk, h.backups)
	t.Cleanup(func() { lab.Do(t, "umount", h.backups) })
	h.fill(t)
	wrapCommands(t)
	for range 2 {
		p := newPlan(t)
		if out := h.run(t, p.dir, nil, h.args(stepRun)...); out.code != 0 {
			t.Fatalf("without any fault: exit code %d\n%s", out.code, out.text())
		}
		h.runCalls = p.calls(t)
	}
	h.remember(t)
	return h
}
