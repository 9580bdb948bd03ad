package hostcmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/say"
)

// parentVariable makes the test binary run a command that prints its process ID, end it with its own standard input, and
// then say how that went.
const parentVariable = "VOLTAR_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	cmd := Cmd{Name: "sh", Args: []string{"-c", "echo $$; sleep 600; exit 0"}, Stdout: os.Stdout, Timeout: -1}
	_, err := New(Options{}).Run(ctx, cmd)
	fmt.Println(err, errors.Is(err, ErrStuck))
	os.Exit(0)
}

// shim writes an executable shell script and returns a Runner that finds it first. No other test may start a process
// meanwhile: that would have the script open for writing for a moment, and what is so cannot be run.
func shim(t *testing.T, name, script string) *Runner {
	t.Helper()
	dir := t.TempDir()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return New(Options{SearchPath: append([]string{dir}, DefaultSearchPath...)})
}

func TestRunKeepsOutputAndLocale(t *testing.T) {
	r := shim(t, "tool", `echo "$LC_ALL:$1"; echo careful >&2`)
	res, err := r.Run(context.Background(), Cmd{Name: "tool", Args: []string{"a b"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Stdout); got != "C:a b\n" {
		t.Errorf("stdout = %q", got)
	}
	if got := string(res.Stderr); got != "careful\n" {
		t.Errorf("stderr = %q", got)
	}
}

func TestErrorKeepsEveryLine(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"one":          {`echo "  Insufficient free space" >&2; exit 5`, "tool: exit status 5: Insufficient free space"},
		"none":         {`exit 5`, "tool: exit status 5"},
		"cause before": {`echo "PV is missing." >&2; echo "Cannot process vg0" >&2; exit 5`, "tool: exit status 5: PV is missing.; Cannot process vg0"},
		"repeated":     {`echo a >&2; echo a >&2; echo >&2; echo b >&2; exit 1`, "tool: exit status 1: a; b"},
	} {
		_, err := shim(t, "tool", tt.script).Run(context.Background(), Cmd{Name: "tool"})
		if err == nil || err.Error() != tt.want || ExitCode(err) < 1 {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
	long := oneLine("the cause\n" + strings.Repeat("ä line that is repeated with a number 1234567\n", 1) + strings.Repeat("x", 4*saidBytes) + "\nthe end")
	if len(long) > saidBytes+8 || !strings.HasPrefix(long, "the cause; ") || !strings.HasSuffix(long, "; the end") {
		t.Errorf("%d bytes: %q, want the cause and the end", len(long), long)
	}
}

// A command that is left running gets no signal, and what it writes afterwards ends it as little.
func TestRunLeavesRunningWhatMustNotBeEnded(t *testing.T) {
	dir := t.TempDir()
	r := shim(t, "tool", `trap 'echo signal >>log' TERM INT; cd '`+dir+`'; echo begun >&2; mkfifo go; touch ready
		read x <go; echo "much" >&2; echo more; echo written >>log`)
	ready := func() bool { _, err := os.Stat(filepath.Join(dir, "ready")); return err == nil }
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for !ready() {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("enough"))
	}()
	_, err := r.Run(ctx, Cmd{Name: "tool", Timeout: -1, LeaveRunning: always})
	var failure *Error
	if !errors.As(err, &failure) || !errors.Is(err, ErrLeftRunning) || failure.PID == 0 || !strings.HasSuffix(err.Error(), ": begun") {
		t.Fatalf("error %v, want a process that was left running and what it said", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	for {
		if log, _ := os.ReadFile(filepath.Join(dir, "log")); len(log) > 0 {
			if string(log) != "written\n" {
				t.Errorf("the command noted %q", log)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func always(int) bool { return true }

func TestRunEndsWhatMayBeEndedAfterAll(t *testing.T) {
	_, err := shim(t, "tool", `echo begun >&2; sleep 600`).Run(context.Background(),
		Cmd{Name: "tool", Timeout: 100 * time.Millisecond, LeaveRunning: func(int) bool { return false }})
	var failure *Error
	if !errors.As(err, &failure) || failure.TimedOut == 0 || failure.PID != 0 || errors.Is(err, ErrLeftRunning) {
		t.Errorf("error %v, want a command that was ended", err)
	}
}

func TestRunReturnsWhatACommandWroteThatMayBeLeft(t *testing.T) {
	res, err := shim(t, "tool", `echo out; echo said >&2`).Run(context.Background(), Cmd{Name: "tool", LeaveRunning: always})
	if err != nil || string(res.Stdout) != "out\n" || string(res.Stderr) != "said\n" {
		t.Errorf("%q, %q, %v", res.Stdout, res.Stderr, err)
	}
}

// Who is in the group holds the writing end of a pipe, so that its end is seen when the last one has ended.
func TestRunEndsTheWholeGroupAtItsTimeout(t *testing.T) {
	const outlived = "a child of the command outlived it"
	r := shim(t, "tool", `(sleep 60; echo "`+outlived+`" >&3) & wait`)
	// A machine that is busy may take its time, but not each time.
	for try := 1; ; try++ {
		group, held, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = r.Run(context.Background(), Cmd{Name: "tool", Timeout: 100 * time.Millisecond, Files: []*os.File{held}})
		waited := time.Since(began)
		var failure *Error
		if !errors.As(err, &failure) || failure.TimedOut != 100*time.Millisecond {
			t.Fatalf("error %v, want a time-out", err)
		}
		if err := held.Close(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(group); err != nil || len(text) > 0 {
			t.Errorf("%q, %v", text, err)
		}
		group.Close()
		if waited <= killGrace || t.Failed() {
			break
		}
		if try == 5 {
			t.Fatalf("took %s to end", waited)
		}
	}
}

// What a command leaves in the background with its output is no success, as nobody reads what that writes, and does not stay.
func TestRunEndsWhatHoldsItsOutput(t *testing.T) {
	r := shim(t, "tool", `(trap '' TERM; sleep 600) & echo done`)
	group, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	_, err = r.Run(t.Context(), Cmd{Name: "tool", Files: []*os.File{held}})
	if !errors.Is(err, ErrOutputHeld) || len(say.Hints(err)) != 1 {
		t.Errorf("it ended with %v, and the hints %q", err, say.Hints(err))
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(group); err != nil { // it ends with the last that holds it
		t.Error(err)
	}
}

// Neither a command that takes no notice of signals nor a child of its that keeps its output open is waited for.
func TestRunKillsWhatIgnoresSignals(t *testing.T) {
	for name, script := range map[string]string{
		"ignores SIGTERM":              `trap "" TERM; while :; do sleep 1; done`,
		"keeps the pipe in a session":  `setsid sleep 60 & echo $! >&3; wait`,
		"keeps the pipe and then ends": `setsid sleep 60 & echo $! >&3; exec >/dev/null; sleep 60`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pid, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer pid.Close()
			_, err = shim(t, "tool", script).Run(t.Context(), Cmd{Name: "tool", Timeout: time.Second, Files: []*os.File{pid}})
			var failure *Error
			if !errors.As(err, &failure) || failure.TimedOut != time.Second || errors.Is(err, ErrStuck) {
				t.Errorf("error %v, want a time-out", err)
			}
			text, _ := os.ReadFile(pid.Name())
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		})
	}
}

// A process that cannot even be killed is left behind: one whose end a debugger has to see first looks the same to its
// parent. The test is the debugger, and another process of it the parent.
func TestRunLeavesBehindWhatCannotBeKilled(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"=1")
	said, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	end, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() {
		t.Fatal("the command did not start")
	}
	pid, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // this thread alone is the debugger
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if got := lines.Text(); !strings.Contains(got, "left behind") || !strings.HasSuffix(got, " true") {
		t.Errorf("the parent says %q, want that of ErrStuck", got)
	}
	if _, err := syscall.Wait4(pid, nil, syscall.WALL, nil); err != nil {
		t.Error(err)
	}
	if err := parent.Wait(); err != nil {
		t.Error(err)
	}
}

func TestRunReturnsTheCauseOfCancellation(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("stopped by a person")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	_, err := shim(t, "tool", "sleep 60").Run(ctx, Cmd{Name: "tool"})
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

func TestRunNamesAMissingCommand(t *testing.T) {
	_, err := New(Options{SearchPath: []string{t.TempDir()}}).Output(context.Background(), "lvs")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "lvs") {
		t.Errorf("error %v, want ErrNotFound naming lvs", err)
	}
}

func TestRunPassesStreamsAndFiles(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out bytes.Buffer
	r := shim(t, "tool", "cat; echo to-three >&3")
	if _, err := r.Run(context.Background(), Cmd{Name: "tool", Stdin: strings.NewReader("in"), Stdout: &out, Files: []*os.File{file}}); err != nil {
		t.Fatal(err)
	}
	written, _ := os.ReadFile(file.Name())
	if out.String() != "in" || string(written) != "to-three\n" {
		t.Errorf("stdout %q, descriptor 3 %q", out.String(), written)
	}
}

func TestTailBufferKeepsTheEnd(t *testing.T) {
	b := tailBuffer{limit: 4}
	for _, s := range []string{"ab", "cdefgh", "i"} {
		if _, err := b.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(b.Bytes()); got != "fghi" {
		t.Errorf("tail %q, want fghi", got)
	}
}
