package faults

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// wrapped are the commands that the program calls on a host. All of them are in /usr/sbin.
var wrapped = []string{
	"lvm", "lvs", "vgs", "pvs", "lvcreate", "lvremove", "lvchange", "lvextend", "lvconvert",
	"dmsetup", "blkid", "losetup", "sfdisk", "blkdiscard", "mke2fs", "mkfs.ext4",
}

// real is where the wrapped commands themselves are.
const real = "/usr/lib/faults"

// wrapper stands in for a command. It does nothing but for a program that is tried: then each call takes the next number
// of $FAULT_PLAN/calls, and a file of that number in $FAULT_PLAN/plan says what goes wrong with it.
const wrapper = `#!/bin/sh
real=%[1]s/%[2]s
[ "${0##*/}" = %[2]s ] || exec $real "${0##*/}" "$@" # another name of it
[ "$FAULT_PLAN" ] || exec $real "$@"
set -C
n=1
while ! { echo "%[2]s $*" >"$FAULT_PLAN/calls/$n"; } 2>/dev/null; do n=$((n + 1)); done
[ -e "$FAULT_PLAN/plan/$n" ] || exec $real "$@"
read -r mode <"$FAULT_PLAN/plan/$n"
echo "$mode" >"$FAULT_PLAN/struck"
case $mode in
fail) echo "%[2]s: an injected fault" >&2; exit 5 ;;
late) $real "$@" >/dev/null; echo "%[2]s: an injected fault" >&2; exit 5 ;;
empty) exit 0 ;;
garbage) printf '\001{"report": [\377\n\033[31mrubbish'; exit 0 ;;
cut) $real "$@" | head -c 100; exit 0 ;;
killed) kill -KILL $$ ;;
killed-late) $real "$@"; kill -KILL $$ ;;
hang) exec sleep 100000 ;;
slow) sleep 20; exec $real "$@" ;;
talks) echo "  Consider pruning vg VG archive with more than 8 MiB in 8200 files."; exec $real "$@" ;;
stuck) exec dd if=/dev/mapper/stuck of=/dev/null bs=4096 count=1 iflag=direct ;;
term) kill -TERM $PPID; exec $real "$@" ;;
kill) kill -KILL $PPID; exec $real "$@" ;;
strike) sh "$FAULT_PLAN/strike" >>"$FAULT_PLAN/log" 2>&1; exec $real "$@" ;;
esac
`

// wrapCommands puts the wrappers in the place of the commands. The machine's files are its own: nothing has to be undone.
func wrapCommands(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range wrapped {
		path := "/usr/sbin/" + name
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := copyFile(filepath.Join(real, name), resolved); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range wrapped {
		path := "/usr/sbin/" + name
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, wrapper, real, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // other tests of this package wrap them anew
		for _, name := range wrapped {
			if err := os.Rename(filepath.Join(real, name), "/usr/sbin/"+name); err != nil {
				t.Error(err)
			}
		}
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// plan is a folder by which wrappers are told what goes wrong.
type plan struct{ dir string }

func newPlan(t *testing.T) plan {
	t.Helper()
	p := plan{t.TempDir()}
	for _, dir := range []string{"calls", "plan"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// set lets the call of a number go wrong.
func (p plan) set(t *testing.T, call int, mode string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "plan", strconv.Itoa(call)), []byte(mode+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// strike has a script run before the call of a number.
func (p plan) strike(t *testing.T, call int, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "strike"), []byte("set -e\n"+script+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.set(t, call, "strike")
}

func (p plan) struck() bool {
	_, err := os.Stat(filepath.Join(p.dir, "struck"))
	return err == nil
}

// calls returns the commands that were called, in their order.
func (p plan) calls(t *testing.T) []string {
	t.Helper()
	var list []string
	for n := 1; ; n++ {
		text, err := os.ReadFile(filepath.Join(p.dir, "calls", strconv.Itoa(n)))
		if err != nil {
			return list
		}
		list = append(list, strings.TrimSpace(string(text)))
	}
}

// callsOf returns the commands that a step calls when nothing goes wrong, and leaves the host as it was.
func (h *host) callsOf(t *testing.T, s step) []string {
	t.Helper()
	h.ready(t, s)
	p := newPlan(t)
	out := h.run(t, p.dir, nil, h.args(s)...)
	if out.code != 0 {
		t.Fatalf("%s without any fault: exit code %d\n%s", s, out.code, out.text())
	}
	if s == stepRestore {
		lab.Do(t, "lvremove", "--force", "--yes", "vg/restored")
	}
	h.reset(t)
	return p.calls(t)
}

// modes are what can go wrong with any call of a command.
var modes = []string{"fail", "late", "empty", "garbage", "cut", "killed", "killed-late", "term", "kill"}

// commandFaults are all modes at all calls of a step, and for each of its commands that it is missing, hangs, or cannot
// even be killed.
func (h *host) commandFaults(s step, calls []string) []fault {
	var list []fault
	var seen []string
	for i, call := range calls {
		name, _, _ := strings.Cut(call, " ")
		label := fmt.Sprintf("call %d (%s)", i+1, words(call))
		for _, mode := range modes {
			class, cause := "command", "injected|"+name+"|"+regexpOfWords(call)
			if mode == "term" || mode == "kill" {
				class, cause = "signal", ""
			}
			list = append(list, fault{step: s, class: class, name: label + " " + mode, cause: cause, arm: armCall(i+1, mode)})
		}
		if slices.Contains(seen, words(call)) {
			continue
		}
		seen = append(seen, words(call))
		list = append(list,
			fault{step: s, class: "missing command", name: label, cause: name, arm: armMissing(name)},
			fault{step: s, class: "hanging command", name: label + " hang", cause: name, arm: armCall(i+1, "hang")},
			fault{step: s, class: "stuck command", name: label + " stuck", cause: name, arm: armStuck(i + 1)},
		)
		if slices.Contains(lvm2, name) {
			list = append(list,
				fault{step: s, class: "lvm2", name: label + " is slow", arm: armHarmless(i+1, "slow")},
				fault{step: s, class: "lvm2", name: label + " prints text before its report", arm: armHarmless(i+1, "talks")},
			)
		}
	}
	return list
}

// words are a command and what it is told to do, without what differs from call to call.
func words(call string) string {
	fields := strings.Fields(call)
	if (fields[0] == "dmsetup" || fields[0] == "lvm") && len(fields) > 1 {
		return fields[0] + " " + fields[1]
	}
	return fields[0]
}

// regexpOfWords matches what may name a command that did not do its work without saying so.
func regexpOfWords(call string) string {
	return map[string]string{
		"lvcreate": "no such logical volume|snapshot|create volume", "lvremove": "still there", "lvm fullreport": "lvm2|volume|JSON|report",
		"lvm systemid": "system", "blkid": "probe", "dmsetup create": "map|device", "dmsetup remove": "unmap|map",
		"dmsetup": "map|device",
	}[words(call)]
}

func armCall(call int, mode string) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		p := newPlan(t)
		p.set(t, call, mode)
		return armed{dir: p.dir, struck: p.struck}
	}
}

// lvm2 are the commands of that package among the wrapped ones.
var lvm2 = []string{"lvm", "lvs", "vgs", "pvs", "lvcreate", "lvremove", "lvchange", "lvextend", "lvconvert"}

// armHarmless is armCall for what must cost nothing but time.
func armHarmless(call int, mode string) func(*testing.T, *host) armed {
	return func(t *testing.T, h *host) armed {
		a := armCall(call, mode)(t, h)
		a.wantGood = true
		return a
	}
}

func armMissing(name string) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		path := "/usr/sbin/" + name
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		return armed{mend: func() {
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
		}}
	}
}

// armStuck lets a call wait for a device that does not answer: no signal ends it.
func armStuck(call int) func(*testing.T, *host) armed {
	return func(t *testing.T, _ *host) armed {
		p := newPlan(t)
		p.set(t, call, "stuck")
		lab.Do(t, "dmsetup", "create", "stuck", "--table", "0 2048 error")
		lab.Do(t, "dmsetup", "suspend", "stuck")
		return armed{dir: p.dir, struck: p.struck, mend: func() {
			lab.Do(t, "dmsetup", "resume", "stuck")
			lab.Do(t, "dmsetup", "remove", "--retry", "stuck")
		}}
	}
}

// faults are all that are known, in no particular order. Those of restores and cleanups need these to be watched first,
// which a sample leaves out.
func (h *host) faults(t *testing.T, all bool) []fault {
	t.Helper()
	t.Logf("a run calls %d commands:\n%s", len(h.runCalls), strings.Join(h.runCalls, "\n"))
	list := slices.Concat(h.commandFaults(stepRun, h.runCalls), deviceFaults(stepRun, h.runCalls), volumeFaults(h.runCalls),
		deviceFaults(stepPrune, nil), systemCallFaults())
	if !all {
		return slices.DeleteFunc(list, func(f fault) bool { // minutes each
			return f.class == "hanging command" || f.class == "stuck command" || f.class == "hanging disk"
		})
	}
	for _, s := range []step{stepRestore, stepCleanup} {
		calls := h.callsOf(t, s)
		t.Logf("%s calls %d commands:\n%s", s, len(calls), strings.Join(calls, "\n"))
		list = slices.Concat(list, h.commandFaults(s, calls), deviceFaults(s, calls))
		if s == stepRestore {
			list = append(list, targetFaults(calls)...)
		}
	}
	return list
}
