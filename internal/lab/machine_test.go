package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tests named TestBoot… start machines from the host, which takes seconds and no device-mapper of the host.

func TestBootStreamsAllOutputAndKeepsTheStatus(t *testing.T) {
	share := t.TempDir()
	var stdout bytes.Buffer
	status, err := Run(t.Context(), Machine{
		Script: "seq 1 200000; echo careful >&2; echo shared >/out/file; test -r /host" + share + "/file && exit 7\n",
		Stdout: &stdout,
		Share:  share,
	})
	if err != nil || status != 7 {
		t.Fatalf("status %d, error %v, want 7 and none", status, err)
	}
	lines := strings.Split(stdout.String(), "\n")
	if len(lines) != 200002 || lines[199999] != "200000" || lines[200000] != "careful" {
		t.Errorf("%d lines of output, the last %q", len(lines), lines[max(0, len(lines)-3):])
	}
	if got := read(t, filepath.Join(share, "file")); got != "shared\n" {
		t.Errorf("the shared file has %q", got)
	}
}

func TestBootReportsAMachineThatDies(t *testing.T) {
	status, err := Run(t.Context(), Machine{Script: "echo last words >/dev/console; busybox poweroff -f\n"})
	if err == nil || !strings.Contains(err.Error(), "last words") {
		t.Errorf("status %d, error %v, want one with the end of the console", status, err)
	}
}

func TestBootEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, ready := bootReady(t, ctx, Machine{Script: "echo ready; sleep 600\n"})
	<-ready
	cancel()
	if _, err := r.Wait(); !errors.Is(err, ErrPowerCut) {
		t.Errorf("error %v, want ErrPowerCut", err)
	}
}

func TestBootLeavesNothingBehindAfterAPowerCut(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := NewDisk(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	const begin = `mkfs.ext4 -q /dev/ubda && mount -o commit=600 /dev/ubda /mnt && echo kept >/mnt/synced && sync /mnt/synced
echo lost >/mnt/unsynced; echo ready; sleep 600
`
	r, ready := bootReady(t, t.Context(), Machine{Script: begin, Disk: disk})
	<-ready
	if got := processesOf(t, r.dir); len(got) == 0 {
		t.Error("no process of the running machine found: the check below cannot see any")
	}
	r.Stop()
	if _, err := r.Wait(); !errors.Is(err, ErrPowerCut) {
		t.Fatalf("error %v, want ErrPowerCut", err)
	}
	if got := processesOf(t, r.dir); len(got) != 0 {
		t.Errorf("processes left behind: %q", got)
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine's folder is left: %v", err)
	}
	var stdout bytes.Buffer
	status, err := Run(t.Context(), Machine{
		Script: "mount /dev/ubda /mnt && ls /mnt && cat /mnt/synced\n", Disk: disk, Stdout: &stdout,
	})
	if err != nil || status != 0 || !strings.HasSuffix(stdout.String(), "synced\nkept\n") {
		t.Errorf("status %d, error %v, output %q", status, err, stdout.String())
	}
	if strings.Contains(stdout.String(), "unsynced") {
		t.Error("what was only in the machine's cache survived the power cut")
	}
}

// Where no newer kernel is to be had, kernel.sh leaves no folder, and machines boot the host's own.
func TestCachedKernel(t *testing.T) {
	dir := t.TempDir()
	if k, found := cachedKernel(filepath.Join(dir, "uml")); found {
		t.Errorf("%s is booted, which is not there", k.path)
	}
	if err := os.WriteFile(filepath.Join(dir, "linux.uml"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if k, found := cachedKernel(dir); !found || k != (kernel{dir + "/linux.uml", dir + "/modules"}) {
		t.Errorf("%+v, %t", k, found)
	}
}

func TestBootRefusesPathsThatMountWouldTakeApart(t *testing.T) {
	_, err := Boot(t.Context(), Machine{Script: "true", Share: "/a,b"})
	if err == nil || !strings.Contains(err.Error(), `"/a,b"`) {
		t.Errorf("error %v, want one that names the path", err)
	}
}

// bootReady boots a machine whose script writes "ready", and returns a channel that is closed then.
func bootReady(t *testing.T, ctx context.Context, m Machine) (*Running, <-chan struct{}) {
	t.Helper()
	output, writer := io.Pipe()
	m.Stdout = writer
	r, err := Boot(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		var line [6]byte
		if _, err := io.ReadFull(output, line[:]); err != nil || string(line[:]) != "ready\n" {
			t.Errorf("the machine wrote %q (%v) before it was ready", line, err)
		}
		close(ready)
		_, _ = io.Copy(io.Discard, output) // until the machine ends
	}()
	return r, ready
}

// processesOf lists the commands of the processes that have the machine's folder on their command line.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// outcome is what go test -json says of a package and of each of its tests, which go by their names.
type outcome struct{ status, output map[string]string }

// goTest runs the tests in testdata/failing as a person would.
func goTest(t *testing.T, env ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-json", "-timeout=0", "-tags=tagged", "./testdata/failing")
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Minute
	stdout, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	got := outcome{status: map[string]string{}, output: map[string]string{}}
	for decoder := json.NewDecoder(bytes.NewReader(stdout)); decoder.More(); {
		var event struct{ Action, Test, Output string }
		if err := decoder.Decode(&event); err != nil {
			t.Fatal(err)
		}
		switch event.Action {
		case "pass", "fail", "skip":
			got.status[event.Test] = event.Action
		case "output":
			got.output[event.Test] += event.Output
		}
	}
	return got
}

func (o outcome) check(t *testing.T, test, status string, output ...string) {
	t.Helper()
	if o.status[test] != status {
		t.Errorf("%q: %q, want %q; it wrote\n%s", test, o.status[test], status, o.output[test])
	}
	for _, want := range output {
		if !strings.Contains(o.output[test], want) {
			t.Errorf("%q wrote\n%s\nand not %q", test, o.output[test], want)
		}
	}
}

func TestBootReportsEachResultAsItsOwn(t *testing.T) {
	got := goTest(t)
	got.check(t, "", "fail")
	got.check(t, "TestOnTheHost", "pass")
	got.check(t, "TestLabOfATag", "pass")
	got.check(t, "TestLabPasses", "pass", "written without a line end")
	got.check(t, "TestLabPasses/sub/with_slash", "pass", "from the subtest")
	got.check(t, "TestLabPasses/skipped", "skip", "the reason")
	got.check(t, "TestLabFails", "fail")
	got.check(t, "TestLabFails/inner", "fail", "the inner failure")
	got.check(t, "TestLabFails/good", "pass")
	got.check(t, "TestLabLeaks", "fail", "left the snapshot vg1/leftsnap", "device leftvg-leftlv",
		"loop device over /tmp/left.img", "logical volume leftvg/leftlv", "on /tmp/leftmount")
	got.check(t, "TestLabPanics", "fail", "the inner panic")
	got.check(t, "TestLabIsLeftAlone", "pass")
	got.check(t, "TestLabExits", "fail", "the test's process: exit status 7")
	got.check(t, "TestLabStops", "fail", "did not run this test", "stopped before its script had ended")
	got.check(t, "TestLabNeverRuns", "fail", "did not run this test")
}

func TestBootOffSkipsAloud(t *testing.T) {
	got := goTest(t, "VOLTAR_LAB=off")
	got.check(t, "", "pass")
	got.check(t, "TestOnTheHost", "pass")
	got.check(t, "TestLabFails", "skip", "VOLTAR_LAB=off")
	if all := got.output[""] + got.output["TestLabPasses"]; !strings.Contains(all, "NOTHING IS TESTED") {
		t.Errorf("no loud line in\n%s", all)
	}
}

func TestBootFailureFailsTheTests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with blank")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	got := goTest(t, "TMPDIR="+dir)
	got.check(t, "", "fail")
	got.check(t, "TestOnTheHost", "pass")
	got.check(t, "TestLabPasses", "fail", "did not run this test", "with blank")
}
