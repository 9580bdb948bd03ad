package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// lvcreate makes a classic snapshot in two steps, and lvremove removes it in two; the power can fail in between.
func TestLabHalfMadeSnapshotIsRecovered(t *testing.T) {
	s := crashSite(t)
	before := hostState(t)
	for _, half := range []struct{ name, command, script string }{
		{"half-made", "lvcreate", `for arg do
	shift
	case $arg in
	-s) ;;
	vg/*) set -- "$@" vg ;;
	*) set -- "$@" "$arg" ;;
	esac
done
lvm lvcreate --wipesignatures n "$@"
`},
		{"half-removed", "lvremove", `for arg do volume=$arg; done
lvm lvconvert -y --splitsnapshot "$volume" && lvm lvchange -an "$volume"
`},
	} {
		t.Run(half.name, func(t *testing.T) {
			replaceLVM(t, half.command, "#!/bin/sh\n"+half.script+"kill -KILL $PPID\n")
			p := start(t, append(s.runArgs(), "vg/classic")...)
			if code := p.wait(t); code != -1 {
				t.Fatalf("exit code %d\n%s", code, &p.stderr)
			}
			restoreLVM(t, half.command)
			if left := hostState(t); !strings.Contains(left, "vg/classic-voltar-") {
				t.Fatalf("there is no %s snapshot:\n%s\n%s", half.name, left, &p.stderr)
			}
			code, out, errs := voltar(t, "cleanup", "--config", s.config)
			if code != 0 || !strings.Contains(out, half.name+" snapshot vg/classic-voltar-") {
				t.Errorf("exit code %d\n%s\n%s", code, out, errs)
			}
			if after := hostState(t); after != before {
				t.Errorf("what is there after the next start:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// replaceLVM puts a script in the place of a command of lvm2, until restoreLVM, or the end of the test.
func replaceLVM(t *testing.T, command, script string) {
	t.Helper()
	path := "/usr/sbin/" + command
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { restoreLVM(t, command) })
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func restoreLVM(t *testing.T, command string) {
	t.Helper()
	path := "/usr/sbin/" + command
	if err := errors.Join(os.RemoveAll(path), os.Symlink("lvm", path)); err != nil {
		t.Error(err)
	}
}

// checkListing wants at least so many backups, all complete, each of which passes its checksums. A killed run may have
// finished one of its volumes.
func checkListing(t *testing.T, s site, atLeast int) {
	t.Helper()
	code, out, errs := voltar(t, "list", "--json", "--config", s.config)
	if code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	var listed []catalog.Line
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed) < atLeast {
		t.Errorf("%d backups, at least %d were made", len(listed), atLeast)
	}
	var folders []string
	for _, b := range listed {
		if b.Status != "complete" {
			t.Errorf("%+v", b)
		}
		folders = append(folders, filepath.Join(s.backups, b.Path))
	}
	checkSums(t, folders...)
	if found := len(s.backupsOf(t, "vg/*")); found != len(listed) {
		t.Errorf("%d folders of backups, %d are listed", found, len(listed))
	}
	if left := strings.TrimSpace(lab.Do(t, "find", s.backups, "-name", ".*")); left != "" {
		t.Errorf("unfinished files: %s", left)
	}
}

func crashSite(t *testing.T) site {
	t.Helper()
	lab.VG(t, "vg", 600<<20)
	lab.LV(t, "vg", "classic", 64<<20)
	parts := partitionedDisk(t, "vg-classic", "label: gpt\nsize=48M\n")
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "96M", "--name", "pool", "vg")
	lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "64M", "--name", "thin", "vg/pool")
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	for _, device := range []string{parts[0], "/dev/vg/thin"} {
		makeExt(t, device)
		writeFile(t, filepath.Join(lab.Mount(t, device, "defaults"), "data"), data)
	}
	lab.Do(t, "sync")
	return newSite(t, "[snapshot]\nmin_size = \"16MiB\"\n[retention]\nkeep_last = 100\n")
}

// runArgs are those of a run that logs each of its steps.
func (s site) runArgs() []string {
	return []string{"run", "--json", "--log-level", "debug", "--config", s.config}
}

// wantCoreDumps has whatever crashes from now on leave its memory in a file, the program too, and returns what names the
// files.
func wantCoreDumps(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "sh", "-c", "echo "+dir+"/core.%p >/proc/sys/kernel/core_pattern")
	t.Cleanup(func() { lab.Do(t, "sh", "-c", "echo core >/proc/sys/kernel/core_pattern") })
	t.Setenv("GOTRACEBACK", "crash")
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: old.Max, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &old) })
	files := func() []string {
		found, err := filepath.Glob(dir + "/core.*")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	lab.Do(t, "sh", "-c", "sh -c 'kill -QUIT $$' || true")
	dumped := files()
	if len(dumped) != 1 {
		t.Fatalf("another program's memory is in %q: this machine makes no core dumps", dumped)
	}
	if err := os.Remove(dumped[0]); err != nil {
		t.Fatal(err)
	}
	return files
}

// An interrupted run ends at once with exit code 130, cleans up, and mails what became of it. Meanwhile a second run is
// refused and told who holds the lock. What a killed one leaves, voltar cleanup removes.
func TestLabInterruptedAndSecondRuns(t *testing.T) {
	s := crashSite(t)
	mail := startMail(t)
	s.append(t, mail.config())
	s.append(t, "[limits]\nread_rate = \"1MiB\"\n") // so that nothing is backed up when the run ends before its time
	before := hostState(t)
	p := start(t, s.runArgs()...)
	if !p.until("type=ext4") {
		t.Fatal(p.wait(t), p.stderr.String())
	}
	p.signal(t, syscall.SIGSTOP)
	code, _, errs := voltar(t, "run", "--config", s.config)
	if code != exitLocked || !strings.Contains(errs, "pid ") || !strings.Contains(errs, "voltar run") {
		t.Errorf("the second run: exit code %d, %q", code, errs)
	}
	code, out, errs := voltar(t, "prune", "--dry-run", "--config", s.config)
	if code != 0 {
		t.Errorf("prune --dry-run beside a run: %d %s %s", code, out, errs)
	}
	p.signal(t, syscall.SIGTERM)
	p.signal(t, syscall.SIGCONT)
	code = p.wait(t)
	result := parseRun(t, code, exitInterrupted, p.stdout.Bytes(), p.stderr.String())
	if result.Verdict() != report.VerdictInterrupted {
		t.Errorf("verdict %s", result.Verdict())
	}
	if after := hostState(t); after != before {
		t.Errorf("after the interruption:\n%s\nbefore:\n%s", after, before)
	}
	if found := s.backupsOf(t, "vg/*"); len(found) != 0 {
		t.Errorf("backups of an interrupted run: %q", found)
	}
	if subjects := mail.subjects(); len(subjects) != 1 || !strings.Contains(subjects[0], "volume-host: INTERRUPTED") {
		t.Errorf("mails: %q", subjects)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("journals: %q %v", left, err)
	}

	dumps := wantCoreDumps(t)
	p = start(t, s.runArgs()...)
	if !p.until("type=ext4") {
		t.Fatal(p.wait(t), p.stderr.String())
	}
	p.signal(t, syscall.SIGQUIT) // the Go runtime then crashes
	if code := p.wait(t); code != -1 {
		t.Errorf("it was to crash: exit code %d", code)
	}
	if dumped := dumps(); len(dumped) > 0 {
		t.Errorf("its memory is in %q", dumped)
	}
	for _, want := range []string{"removed: snapshot vg/classic-voltar-", "nothing to clean up"} {
		if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 || !strings.Contains(out, want) {
			t.Errorf("cleanup: %d %q %q, want %q", code, out, errs, want)
		}
	}
	if after := hostState(t); after != before {
		t.Errorf("after the cleanup:\n%s\nbefore:\n%s", after, before)
	}
}
