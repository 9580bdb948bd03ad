package hostcmd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shim writes an executable shell script and returns a Runner that finds it first.
func shim(t *testing.T, name, script string) *Runner {
	t.Helper()
	dir := t.TempDir()
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

func TestRunReportsStatusAndLastLine(t *testing.T) {
	r := shim(t, "tool", `echo first >&2; echo "  Insufficient free space" >&2; exit 5`)
	_, err := r.Run(context.Background(), Cmd{Name: "tool"})
	if ExitCode(err) != 5 {
		t.Errorf("exit code %d, want 5", ExitCode(err))
	}
	if got, want := err.Error(), "tool: exit status 5: Insufficient free space"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestErrorLeavesOutWhatSaysNothing(t *testing.T) {
	r := shim(t, "tool", `echo "create ioctl on x failed: Device or resource busy" >&2; echo "Command failed." >&2; exit 1`)
	_, err := r.Run(context.Background(), Cmd{Name: "tool"})
	if want := "tool: exit status 1: create ioctl on x failed: Device or resource busy"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestRunEndsTheWholeGroupAtItsTimeout(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	r := shim(t, "tool", `(sleep 2; touch `+mark+`) & wait`)
	began := time.Now()
	_, err := r.Run(context.Background(), Cmd{Name: "tool", Timeout: 100 * time.Millisecond})
	var failure *Error
	if !errors.As(err, &failure) || failure.TimedOut != 100*time.Millisecond {
		t.Fatalf("error %v, want a time-out", err)
	}
	if waited := time.Since(began); waited > killGrace {
		t.Errorf("took %s to end", waited)
	}
	time.Sleep(2500 * time.Millisecond)
	if _, err := os.Stat(mark); err == nil {
		t.Error("a child of the command outlived it")
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
