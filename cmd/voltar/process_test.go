package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

// asProgram in the environment makes the test binary the program itself: what a test wants to stop, signal or kill has
// to be a process of its own.
const asProgram = "VOLTAR_TEST_AS_PROGRAM"

// process is the program as a process of its own. What it logs is read line by line.
type process struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr bytes.Buffer
	logged *bufio.Scanner
}

// start starts the program. The caller waits for it.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("/proc/self/exe", args...)}
	p.cmd.Args[0] = "voltar"
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout = &p.stdout
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.logged = bufio.NewScanner(io.TeeReader(pipe, &p.stderr))
	p.logged.Buffer(nil, 1<<20)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil { // the test failed: what it left must not hold up the others
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			p.wait(t)
		}
	})
	return p
}

// until reads the log up to a line that holds a text, and tells whether there was one.
func (p *process) until(texts ...string) bool {
	for p.logged.Scan() {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(p.logged.Text(), text) }) {
			return true
		}
	}
	return false
}

// signal sends a signal to the program alone, not to the commands that it runs.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v\n%s", err, &p.stderr)
	}
}

// wait reads the rest of the log and returns the exit code, -1 for a process that a signal ended.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	for p.logged.Scan() {
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// peakBytes is the most memory that the process had.
func (p *process) peakBytes(t *testing.T) int64 {
	t.Helper()
	usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("cannot tell how much memory the process had")
	}
	return usage.Maxrss << 10
}

// hostState is what a run must leave as it was: volumes, device-mapper devices with their open counts, and nothing of the
// program's in any mount namespace or process table.
func hostState(t *testing.T) string {
	t.Helper()
	state := lab.Do(t, "lvs", "--all", "--noheadings", "-o", "lv_full_name,lv_attr,lv_tags") +
		lab.Do(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,open", "--sort", "name")
	for _, line := range strings.Split(mountTables(t), "\n") {
		if strings.Contains(line, "voltar--") || strings.Contains(line, "-voltar-") {
			state += "mount " + line + "\n"
		}
	}
	for _, pid := range programs(t) {
		state += "process " + pid + "\n"
	}
	return state
}

// mountTables returns the mounts that any process sees.
func mountTables(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil { // of a process that has not ended meanwhile
			all.Write(text)
		}
	}
	return all.String()
}

// programs returns the processes of the program and of what it started, other than the test's own.
func programs(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		environment, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if bytes.Contains(environment, []byte(asProgram+"=1")) || bytes.Contains(environment, []byte("VOLTAR_OWNER_PID=")) {
			found = append(found, filepath.Base(filepath.Dir(path)))
		}
	}
	slices.Sort(found)
	return found
}

// writeFile writes a file of a test.
func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// syncFilesystem writes out what a filesystem holds in memory, its journal but not all that the journal describes.
func syncFilesystem(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		t.Fatal(err)
	}
}
