package owned

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/partmap"
)

var errStop = errors.New("stop")

func TestSnapshotNameFitsDeviceMapper(t *testing.T) {
	const run = "20261120T010001Z-0a1b2c"
	for _, c := range []struct{ name, lv string }{
		{"short", "volume-00000001"},
		{"a name of hyphens, each of which counts twice", strings.Repeat("-", 60)},
		{"the longest", strings.Repeat("x", 125)},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := lvm.Volume{VG: "nova-volumes", Name: c.lv, UUID: "abcdef-0123"}
			name := snapshotName(v, run)
			if full := partmap.MapName(lvm.DMName(v.VG, name), 128); len(full) > 127 {
				t.Errorf("%s has %d bytes", full, len(full))
			}
			if !strings.HasSuffix(name, run) || len(c.lv) > 50 && !strings.Contains(name, "-abcdef-") {
				t.Errorf("name %s", name)
			}
		})
	}
}

func TestOrphansAreKnownByTheirMark(t *testing.T) {
	const owner = 4194305 // more than any process has
	child := exec.Command("sleep", "60")
	child.Env = []string{ownerEnv(owner)}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	found, err := findOrphan("/proc", owner)
	if err != nil || found != strconv.Itoa(child.Process.Pid) {
		t.Errorf("found %q, %v; want %d", found, err, child.Process.Pid)
	}
	daemon := exec.Command("sleep", "60")
	daemon.Env = []string{ownerEnv(owner + 1)}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	if found, err = findOrphan("/proc", owner+1); err != nil || found != "" {
		t.Errorf("a daemon: %q, %v", found, err)
	}
	if found, err = findOrphan("/proc", owner/10); err != nil || found != "" {
		t.Errorf("of another owner: %q, %v", found, err)
	}
	waiting, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	if err := awaitOrphans(waiting, owner); !errors.Is(err, errStop) {
		t.Errorf("waiting for an orphan: %v", err)
	}
}

func TestLocksOfDeadProcessesAreWaitedFor(t *testing.T) {
	dir := t.TempDir()
	holder := journal.Holder{PID: os.Getpid(), Command: "voltar run", Started: time.Now()}
	living, err := journal.NewLocks(dir, holder)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := living.TryLock(journal.ScopeConfig, "name")
	if err != nil {
		t.Fatal(err)
	}
	var held *journal.HeldError
	if _, err := LockConfiguration(t.Context(), living, "name"); !errors.As(err, &held) || held.Holder.PID != os.Getpid() {
		t.Errorf("the lock of a living process: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}

	holder.PID = 4194305
	dead, err := journal.NewLocks(dir, holder)
	if err != nil {
		t.Fatal(err)
	}
	if lock, err = dead.TryLock(journal.ScopeConfig, "name"); err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errors.New("stopped by a person"))
	if _, err := LockConfiguration(stopped, living, "name"); err == nil || err.Error() != "stopped by a person" {
		t.Errorf("the wait for a lock of a dead process, stopped: %v", err)
	}
	released := make(chan error, 1)
	time.AfterFunc(3*orphansPoll, func() { released <- lock.Unlock() })
	ours, err := LockConfiguration(t.Context(), living, "name")
	if err != nil {
		t.Fatalf("the lock of a dead process: %v", err)
	}
	if err := errors.Join(<-released, ours.Unlock()); err != nil {
		t.Error(err)
	}
}

func TestFindOrphanWithoutProcesses(t *testing.T) {
	if _, err := findOrphan(filepath.Join(t.TempDir(), "proc"), 1); err == nil {
		t.Error("no error without /proc")
	}
}

func TestReleasesGoOnAfterCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var order []string
	var r Stack
	for _, name := range []string{"first", "second", "third"} {
		r.Push(func(ctx context.Context) error {
			order = append(order, name)
			return errors.Join(ctx.Err(), errors.New(name))
		})
	}
	err := r.Release(ctx)
	if strings.Join(order, " ") != "third second first" || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "first") {
		t.Errorf("%q %v", order, err)
	}
	if err := r.Release(ctx); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// What a dead run left where no destination leads any more stays named until somebody gives it up.
func TestLostDestinationIsGivenUpByName(t *testing.T) {
	const gone, path = "s3://old.example.org/bucket", "host/vg/lv/2026-11-20T010001Z"
	h := &Host{StateDir: t.TempDir()}
	run, err := journal.Begin(h.Journals(), journal.Info{Run: "20261120T010001Z-0a1b2c", PID: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run.Intend(journal.Thing{Kind: journal.KindBackup, Destination: gone, Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []string{"", "s3://another.example.org/bucket"} {
		removed, err := h.Recover(t.Context(), lost)
		if len(removed) > 0 || len(say.Hints(err)) != 1 || !strings.Contains(say.Hints(err)[0], "--forget-destination '"+gone+"'") {
			t.Fatalf("%q, %v with hints %q", removed, err, say.Hints(err))
		}
	}
	removed, err := h.Recover(t.Context(), gone)
	if err != nil || len(removed) != 1 || !strings.Contains(removed[0], path) {
		t.Fatalf("given up: %q, %v", removed, err)
	}
	if removed, err := h.Recover(t.Context()); err != nil || len(removed) > 0 {
		t.Errorf("afterwards: %q, %v", removed, err)
	}
}

// A guest decides how many partitions a volume has, and so how long it takes to let go of them all.
func TestEachReleaseHasItsTime(t *testing.T) {
	var limits []time.Time
	var r Stack
	for range 2 {
		r.Push(func(ctx context.Context) error {
			limit, _ := ctx.Deadline()
			limits = append(limits, limit)
			time.Sleep(time.Millisecond)
			return nil
		})
	}
	if err := r.Release(t.Context()); err != nil || !limits[1].After(limits[0]) {
		t.Errorf("limits %v, error %v: the second release has what the first left", limits, err)
	}
}
