package journal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"voltar/internal/durable"
)

// The test binary is also the other process: with holdEnv set it takes what the variable says, tells so on standard
// output, and waits to be killed.
const holdEnv = "VOLTAR_TEST_HOLD"

func TestMain(m *testing.M) {
	if what := os.Getenv(holdEnv); what != "" {
		hold(what)
	}
	os.Exit(m.Run())
}

func hold(what string) {
	kind, dir, _ := strings.Cut(what, ":")
	var err error
	switch kind {
	case "lock":
		var locks *Locks
		if locks, err = NewLocks(dir, Holder{Run: testRun, Command: "voltar run", Started: testStart}); err == nil {
			_, err = locks.TryLock(ScopeConfig, "/etc/voltar/voltar.toml")
		}
	case "journal":
		var run *Run
		if run, err = Begin(Options{Dir: dir}, Info{Run: testRun, Command: "voltar run"}); err == nil {
			_, err = run.Intend(Thing{Kind: KindSnapshot, VG: "vg", LV: "voltar-1"})
		}
	}
	if err != nil {
		fmt.Println("cannot hold:", err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
	os.Exit(0)
}

const testRun = "20261120T010001Z-3f9a0c"

var testStart = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// other starts another process that holds something, and returns it and how to kill it.
func other(t *testing.T, what string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+what)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait() // "signal: killed"
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return cmd.Process.Pid, kill
}

func TestLockBetweenProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	pid, kill := other(t, "lock:"+dir)
	locks, err := NewLocks(dir, Holder{Command: "voltar prune"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = locks.TryLock(ScopeConfig, "/etc/voltar/voltar.toml")
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("error %v, want a HeldError", err)
	}
	want := Holder{PID: pid, Run: testRun, Command: "voltar run", Started: testStart}
	if held.Holder != want {
		t.Errorf("holder %+v, want %+v", held.Holder, want)
	}
	for _, part := range []string{"configuration", "/etc/voltar/voltar.toml", testRun, fmt.Sprint(pid), "voltar run"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	another, err := locks.TryLock(ScopeConfig, "/etc/voltar/other.toml")
	if err != nil {
		t.Fatalf("another configuration: %v", err)
	}
	if err := another.Unlock(); err != nil {
		t.Error(err)
	}
	kill()
	lock, err := locks.TryLock(ScopeConfig, "/etc/voltar/voltar.toml")
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestLockWithinProcess(t *testing.T) {
	locks, err := NewLocks(t.TempDir(), Holder{Command: "voltar run"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := locks.Lock(context.Background(), ScopeVolume, "vg/lv")
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("the night is over")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	_, err = locks.Lock(ctx, ScopeVolume, "vg/lv")
	var held *HeldError
	if !errors.As(err, &held) || !errors.Is(err, why) {
		t.Errorf("error %v, want the holder and the cause", err)
	}
	got := make(chan error)
	go func() {
		second, err := locks.Lock(context.Background(), ScopeVolume, "vg/lv")
		if err == nil {
			err = second.Unlock()
		}
		got <- err
	}()
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("after Unlock: %v", err)
	}
}

// Whether a volume is in use is looked up by many at a time: they neither see each other nor get in the way of a lock.
func TestLook(t *testing.T) {
	locks, err := NewLocks(t.TempDir(), Holder{Command: "voltar copy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := locks.Look(ScopeVolume, "vg/lv"); err != nil {
		t.Error("never locked:", err)
	}
	held, err := locks.TryLock(ScopeVolume, "vg/lv")
	if err != nil {
		t.Fatal(err)
	}
	var inUse *HeldError
	if err := locks.Look(ScopeVolume, "vg/lv"); !errors.As(err, &inUse) || inUse.Holder.Command != "voltar copy" {
		t.Error("held:", err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	another, err := os.Open(filepath.Join(locks.dir, lockFileName(ScopeVolume, "vg/lv")))
	if err != nil {
		t.Fatal(err)
	}
	if free, err := flockShared(another); err != nil || !free {
		t.Fatal(free, err)
	}
	if err := locks.Look(ScopeVolume, "vg/lv"); err != nil {
		t.Error("while another looks:", err)
	}
	if err := another.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for ctx.Err() == nil {
				if err := locks.Look(ScopeVolume, "vg/lv"); err != nil && !errors.As(err, new(*HeldError)) {
					t.Error("while others look:", err)
					return
				}
			}
		})
	}
	for range 20 {
		lock, err := locks.Lock(context.Background(), ScopeVolume, "vg/lv")
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	lookers.Wait()
}

// A lock file that was removed between opening and locking it (by a cleaner of temporary files) locks nothing.
func TestLockOnFileThatWasReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	locks, err := NewLocks(dir, Holder{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := locks.take(file, path); !errors.Is(err, errReplaced) {
		t.Errorf("error %v, want errReplaced", err)
	}
}

func TestLockFileNames(t *testing.T) {
	seen := map[string]string{}
	long := strings.Repeat("x", 300)
	for _, name := range []string{"vg/lv", "vg-lv", "vg%2Flv", "../../etc/passwd", "", long + "1", long + "2", "a\nb"} {
		for _, scope := range []Scope{ScopeConfig, ScopeVolume} {
			file := lockFileName(scope, name)
			if strings.Contains(file, "/") || len(file) > 255 {
				t.Errorf("%q is no file name", file)
			}
			if before, ok := seen[file]; ok {
				t.Errorf("%q and %q share the lock %s", before, name, file)
			}
			seen[file] = name
		}
	}
}

func TestRunIDs(t *testing.T) {
	now := time.Date(2026, 11, 20, 2, 0, 1, 999, time.FixedZone("CET", 3600))
	id := NewRunID(now)
	if !strings.HasPrefix(id, "20261120T010001Z-") || id == NewRunID(now) {
		t.Errorf("run ID %q", id)
	}
	started, err := ParseRunID(id)
	if err != nil || !started.Equal(testStart) {
		t.Errorf("ParseRunID = %v, %v", started, err)
	}
	for _, bad := range []string{"", "20261120T010001Z", "20261120T010001Z-3F9A0C", "20261320T010001Z-3f9a0c",
		"../20261120T010001Z-3f9a0c", testRun + "\n"} {
		if _, err := ParseRunID(bad); err == nil {
			t.Errorf("%q was taken for a run ID", bad)
		}
	}
}

// mustBegin starts a journal in dir.
func mustBegin(t *testing.T, opts Options, id string) *Run {
	t.Helper()
	run, err := Begin(opts, Info{Run: id, Host: "volume-host", Command: "voltar run", Started: testStart})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func mustIntend(t *testing.T, run *Run, thing Thing) ID {
	t.Helper()
	id, err := run.Intend(thing)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// die drops the lock of a journal as a killed process does.
func die(t *testing.T, run *Run) {
	t.Helper()
	if err := run.file.Close(); err != nil {
		t.Fatal(err)
	}
}

// closeAll lets go of all journals that were found.
func closeAll(found *Found) error {
	var errs []error
	for _, run := range found.Runs {
		errs = append(errs, run.Close())
	}
	return errors.Join(errs...)
}

func mustDead(t *testing.T, opts Options) *Found {
	t.Helper()
	found, err := Dead(opts)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestLifeOfAJournal(t *testing.T) {
	opts := Options{Dir: filepath.Join(t.TempDir(), "state", "journal"), BootID: "boot-1"}
	run := mustBegin(t, opts, testRun)
	snapshot := mustIntend(t, run, Thing{Kind: KindSnapshot, VG: "vg", LV: "voltar-1", Tags: []string{"voltar"}})
	mapped := mustIntend(t, run, Thing{Kind: KindMap, DMName: "vg-voltar--1p1", DMUUID: "LVM-voltar-x"})
	freeze := mustIntend(t, run, Thing{Kind: KindFreeze, Path: "/srv", Deadline: testStart, Thaw: []string{"thaw"}})
	if err := errors.Join(
		run.Made(snapshot, Facts{LVUUID: "uuid-1"}), run.Made(mapped, Facts{Device: "253:7"}), run.Gone(freeze),
	); err != nil {
		t.Fatal(err)
	}
	want := []Owned{
		{ID: mapped, Thing: Thing{Kind: KindMap, DMName: "vg-voltar--1p1", DMUUID: "LVM-voltar-x", Device: "253:7"},
			Made: true},
		{ID: snapshot, Thing: Thing{Kind: KindSnapshot, VG: "vg", LV: "voltar-1", Tags: []string{"voltar"}, LVUUID: "uuid-1"},
			Made: true},
	}
	if got := run.Outstanding(); !equal(got, want) {
		t.Errorf("outstanding %+v, want %+v", got, want)
	}
	if found := mustDead(t, opts); len(found.Runs)+len(found.Damaged) != 0 {
		t.Errorf("a living run was taken: %+v", found)
	}

	die(t, run)
	found := mustDead(t, opts)
	if len(found.Runs) != 1 {
		t.Fatalf("found %+v, want one dead run", found)
	}
	dead := found.Runs[0]
	if info := dead.Info(); info.Run != testRun || info.Host != "volume-host" || info.PID != os.Getpid() ||
		!info.Started.Equal(testStart) || info.BootID != "boot-1" {
		t.Errorf("info %+v", info)
	}
	if dead.Rebooted() {
		t.Error("the boot is the same")
	}
	if got := dead.Outstanding(); !equal(got, want) {
		t.Errorf("outstanding %+v, want %+v", got, want)
	}
	if second := mustDead(t, opts); len(second.Runs) != 0 {
		t.Error("a second recovery took what the first one has")
	}
	if err := errors.Join(dead.Done(mapped), closeAll(found)); err != nil {
		t.Fatal(err)
	}

	opts.BootID = "boot-2"
	found = mustDead(t, opts)
	if len(found.Runs) != 1 || !equal(found.Runs[0].Outstanding(), want[1:]) || !found.Runs[0].Rebooted() {
		t.Fatalf("what the first recovery left is not there: %+v", found)
	}
	if err := errors.Join(found.Runs[0].Done(snapshot), found.Runs[0].Close(), found.Runs[0].Close()); err != nil {
		t.Fatal(err)
	}
	if left := files(t, opts.Dir); len(left) != 0 {
		t.Errorf("journals left: %q", left)
	}
}

func equal(a, b []Owned) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

func TestCloseOfARunThatLeftSomething(t *testing.T) {
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	run := mustBegin(t, opts, testRun)
	id := mustIntend(t, run, Thing{Kind: KindSnapshot, VG: "vg", LV: "s"})
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	if err := run.Gone(id); err == nil {
		t.Error("a closed journal took a record")
	}
	found := mustDead(t, opts)
	if len(found.Runs) != 1 || len(found.Runs[0].Outstanding()) != 1 {
		t.Fatalf("found %+v", found)
	}
	if err := found.Runs[0].Discard(); err != nil {
		t.Fatal(err)
	}
	if left := files(t, opts.Dir); len(left) != 0 {
		t.Errorf("journals left: %q", left)
	}
}

// The lock of a dead run may be held for a moment by the process that was to become its next command.
func TestLockThatOutlivesItsRun(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	run, err := Begin(opts, Info{Run: testRun, Host: "volume-host", Command: "voltar run", Started: testStart, PID: gone.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	mustIntend(t, run, Thing{Kind: KindSnapshot, VG: "vg", LV: "s"})
	closed := make(chan error, 1)
	go func() {
		time.Sleep(200 * time.Millisecond)
		closed <- run.Close()
	}()
	found := mustDead(t, opts)
	if len(found.Runs) != 1 {
		t.Fatalf("found %+v", found)
	}
	if err := errors.Join(<-closed, found.Runs[0].Discard()); err != nil {
		t.Error(err)
	}
}

func TestRecordsThatMakeNoSense(t *testing.T) {
	run := mustBegin(t, Options{Dir: t.TempDir(), BootID: "b"}, testRun)
	id := mustIntend(t, run, Thing{Kind: KindMap})
	if err := run.Gone(id); err != nil {
		t.Fatal(err)
	}
	_, err := run.Intend(Thing{})
	for what, err := range map[string]error{
		"gone twice": run.Gone(id), "made after gone": run.Made(id, Facts{}), "gone and never intended": run.Gone(7),
		"a thing without a kind": err,
	} {
		if err == nil {
			t.Errorf("%s was journalled", what)
		}
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
}

func TestKilledProcess(t *testing.T) {
	opts := Options{Dir: t.TempDir()}
	pid, kill := other(t, "journal:"+opts.Dir)
	if found := mustDead(t, opts); len(found.Runs) != 0 {
		t.Fatal("the journal of a living process was taken")
	}
	kill()
	found := mustDead(t, opts)
	if len(found.Runs) != 1 {
		t.Fatalf("found %+v", found)
	}
	dead := found.Runs[0]
	owned := dead.Outstanding()
	if len(owned) != 1 || owned[0].Made || owned[0].Thing.LV != "voltar-1" || dead.Info().PID != pid || dead.Rebooted() {
		t.Errorf("dead run %+v owns %+v", dead.Info(), owned)
	}
	if err := closeAll(found); err != nil {
		t.Error(err)
	}
}

// sample is a journal of five lines, and its lines.
func sample(t testing.TB) ([]byte, []string) {
	t.Helper()
	info := Info{Run: testRun, Host: "h", BootID: "b", PID: 1, Started: testStart}
	var data []byte
	for _, r := range []record{
		{Op: opBegin, Format: Format, Info: &info},
		{Op: opIntend, ID: 1, Thing: &Thing{Kind: KindSnapshot, VG: "vg", LV: "s"}},
		{Op: opMade, ID: 1, Facts: &Facts{LVUUID: "u"}},
		{Op: opIntend, ID: 2, Thing: &Thing{Kind: KindMap, DMName: "m"}},
		{Op: opGone, ID: 2},
	} {
		line, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, line...)
	}
	return data, slices.Collect(strings.Lines(string(data)))
}

// A power cut may stop the last write anywhere: each such journal is read up to the record before.
func TestTornJournal(t *testing.T) {
	data, lines := sample(t)
	for cut := len(lines[0]); cut <= len(data); cut++ {
		whole := strings.LastIndexByte(string(data[:cut]), '\n') + 1
		for _, tail := range []string{"", "\x00\x00\x00"} {
			l, valid, err := parse([]byte(string(data[:cut]) + tail))
			if err != nil || valid != whole {
				t.Fatalf("cut at %d, tail %q: valid %d, want %d, error %v", cut, tail, valid, whole, err)
			}
			if whole >= len(lines[0])+len(lines[1]) && (len(l.owned) == 0 || l.owned[0].Thing.LV != "s") {
				t.Fatalf("cut at %d: owned %+v", cut, l.owned)
			}
		}
	}
}

func TestRecoveryOfATornJournalGoesOn(t *testing.T) {
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	data, _ := sample(t)
	path := filepath.Join(opts.Dir, testRun+suffix)
	if err := os.WriteFile(path, data[:len(data)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	found := mustDead(t, opts)
	if len(found.Runs) != 1 || len(found.Runs[0].Outstanding()) != 2 {
		t.Fatalf("found %+v", found)
	}
	if err := errors.Join(found.Runs[0].Done(2), closeAll(found)); err != nil {
		t.Fatal(err)
	}
	found = mustDead(t, opts)
	if len(found.Damaged) != 0 || len(found.Runs) != 1 || len(found.Runs[0].Outstanding()) != 1 {
		t.Fatalf("after a record behind the torn one: %+v", found)
	}
	if err := closeAll(found); err != nil {
		t.Error(err)
	}
}

func TestDamagedJournalIsSetAside(t *testing.T) {
	data, lines := sample(t)
	flipped := slices.Clone(data)
	flipped[len(lines[0])+len(lines[1])-20] ^= 1
	cases := map[string]string{
		"empty":                    "",
		"torn first line":          lines[0][:20],
		"garbage in the middle":    lines[0] + "garbage\n" + lines[1],
		"a flipped bit":            string(flipped),
		"a line is missing":        lines[0] + lines[2] + lines[3],
		"no beginning":             lines[1] + lines[2],
		"zeros in the middle":      lines[0] + strings.Repeat("\x00", 40) + "\n" + lines[1],
		"a line twice":             lines[0] + lines[1] + lines[1] + lines[2],
		"two beginnings":           lines[0] + lines[0] + lines[1],
		"two lines joined":         lines[0] + strings.TrimSuffix(lines[1], "\n") + lines[2] + lines[3],
		"of a run of another name": reencode(t, lines[0]),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			opts := Options{Dir: t.TempDir(), BootID: "b"}
			path := filepath.Join(opts.Dir, testRun+suffix)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			found := mustDead(t, opts)
			if len(found.Runs) != 0 || len(found.Damaged) != 1 || found.Damaged[0].Err == nil {
				t.Fatalf("found %+v", found)
			}
			aside, err := os.ReadFile(found.Damaged[0].Path)
			if err != nil || string(aside) != content {
				t.Errorf("set aside: %q, %v", aside, err)
			}
			again := mustDead(t, opts)
			if len(again.Damaged) != 1 || again.Damaged[0].Err != nil || len(again.Runs) != 0 {
				t.Errorf("the next start finds %+v", again)
			}
		})
	}
}

// reencode returns the first line of a journal as of another run.
func reencode(t *testing.T, line string) string {
	t.Helper()
	r, err := decode([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	r.Info.Run = "20261121T010001Z-000000"
	other, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(other)
}

func TestJournalOfANewerVersionIsLeftAlone(t *testing.T) {
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	line, err := encode(record{Op: opBegin, Format: "voltar-journal/2", Info: &Info{Run: testRun}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(opts.Dir, testRun+suffix)
	if err := os.WriteFile(path, line, 0o600); err != nil {
		t.Fatal(err)
	}
	found := mustDead(t, opts)
	if !slices.Equal(found.Unknown, []string{path}) || len(found.Runs)+len(found.Damaged) != 0 {
		t.Errorf("found %+v", found)
	}
	if left := files(t, opts.Dir); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// Whatever step of Begin fails, it says so and leaves nothing that a recovery would trip over.
func TestFaultsOfBegin(t *testing.T) {
	for _, step := range []durable.Op{durable.OpMkdir, durable.OpCreate, durable.OpWrite, durable.OpSync, durable.OpRename,
		durable.OpSyncDir} {
		t.Run(string(step), func(t *testing.T) {
			failed := false
			host := durable.Host(func(op durable.Op, _ string) error {
				if op == step && !failed {
					failed = true
					return syscall.EIO
				}
				return nil
			})
			opts := Options{Dir: filepath.Join(t.TempDir(), "journal"), BootID: "b", FS: host}
			if _, err := Begin(opts, Info{Run: testRun}); !errors.Is(err, syscall.EIO) {
				t.Fatalf("error %v, want EIO", err)
			}
			opts.FS = nil
			found := mustDead(t, opts)
			if len(found.Runs)+len(found.Damaged)+len(found.Unknown) != 0 {
				t.Errorf("found %+v", found)
			}
			if _, err := os.Stat(opts.Dir); err == nil {
				if left := files(t, opts.Dir); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
		})
	}
}

// A run that was killed inside Begin leaves a hidden file. One that is inside just now is not disturbed.
func TestLeftoverOfBegin(t *testing.T) {
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	hidden := filepath.Join(opts.Dir, "."+testRun+suffix)
	write := func() {
		t.Helper()
		if err := os.WriteFile(hidden, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(path string) (unlock func()) {
		t.Helper()
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if taken, err := flock(file); err != nil || !taken {
			t.Fatal(taken, err)
		}
		return func() { _ = file.Close() }
	}
	write()
	for what, held := range map[string]string{"its file": hidden, "the folder": opts.Dir} {
		unlock := lock(held)
		mustDead(t, opts)
		if left := files(t, opts.Dir); len(left) != 1 {
			t.Errorf("the file of a Begin that has locked %s is gone", what)
		}
		unlock()
	}
	mustDead(t, opts)
	if left := files(t, opts.Dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// What cannot be journalled is not made, and the journal stays readable.
func TestFullDisk(t *testing.T) {
	full := false
	host := durable.Host(func(op durable.Op, _ string) error {
		if op == durable.OpWrite && full {
			return syscall.ENOSPC
		}
		return nil
	})
	opts := Options{Dir: t.TempDir(), BootID: "b", FS: host}
	run := mustBegin(t, opts, testRun)
	first := mustIntend(t, run, Thing{Kind: KindSnapshot, VG: "vg", LV: "one"})
	full = true
	if _, err := run.Intend(Thing{Kind: KindSnapshot, VG: "vg", LV: "two"}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	if err := run.Gone(first); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	full = false
	mustIntend(t, run, Thing{Kind: KindSnapshot, VG: "vg", LV: "three"})
	die(t, run)
	found := mustDead(t, opts)
	if len(found.Runs) != 1 {
		t.Fatalf("found %+v", found)
	}
	var lvs []string
	for _, o := range found.Runs[0].Outstanding() {
		lvs = append(lvs, o.Thing.LV)
	}
	if !slices.Equal(lvs, []string{"three", "one"}) {
		t.Errorf("outstanding %q", lvs)
	}
	if err := closeAll(found); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	opts := Options{Dir: t.TempDir(), BootID: "b"}
	run := mustBegin(t, opts, testRun)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				id, err := run.Intend(Thing{Kind: KindMap, DMName: "m"})
				if err == nil {
					err = errors.Join(run.Made(id, Facts{Device: "253:1"}), run.Gone(id))
				}
				if err != nil {
					t.Error(err)
				}
				_ = run.Info()
				_ = run.Outstanding()
			}
		})
	}
	wg.Wait()
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	if left := files(t, opts.Dir); len(left) != 0 {
		t.Errorf("journals left: %q", left)
	}
}

func FuzzParse(f *testing.F) {
	data, lines := sample(f)
	f.Add(data)
	f.Add(data[:len(data)-4])
	f.Add([]byte(lines[0] + "garbage\n" + lines[1]))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, valid, err := parse(data)
		if err != nil {
			return
		}
		if valid == 0 || valid > len(data) || data[valid-1] != '\n' {
			t.Fatalf("valid up to %d of %d", valid, len(data))
		}
		if len(data)-valid > 0 && strings.IndexByte(strings.TrimSuffix(string(data[valid:]), "\n"), '\n') >= 0 {
			t.Fatal("more than one line was passed over")
		}
		again, same, err := parse(data[:valid])
		if err != nil || same != valid || !equal(again.outstanding(), l.outstanding()) {
			t.Fatalf("the valid part reads otherwise: %v", err)
		}
	})
}
