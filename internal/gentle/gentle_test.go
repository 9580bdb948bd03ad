package gentle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// steps in the environment makes the test binary apply options, one after the other, and tell what its threads got:
// nobody can take that back for the tests.
const steps = "VOLTAR_TEST_GENTLE"

// seen is what the threads of a process have.
type seen struct {
	Threads, CPUs int
	Nice          map[int]int // threads by niceness
	IO            map[int]int // threads by class
	Failed        string
}

func TestMain(m *testing.M) {
	if text := os.Getenv(steps); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}

func child(text string) int {
	var all []Options
	err := json.Unmarshal([]byte(text), &all)
	var started sync.WaitGroup
	for range 8 { // threads that are there before
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			select {}
		}()
	}
	started.Wait()
	result := seen{Nice: map[int]int{}, IO: map[int]int{}}
	for _, o := range all {
		if err := Apply(o); err != nil {
			result.Failed = err.Error()
		}
	}
	result.CPUs = runtime.GOMAXPROCS(0)
	err = errors.Join(err, forThreads(func(tid int) error {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		class, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
		result.Threads++
		result.Nice[20-raw]++
		result.IO[int(class>>ioprioClassShift)]++
		return err
	}))
	err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(result))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func inChild(t *testing.T, all ...Options) (got seen) {
	t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), steps+"="+string(text), "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Threads < 9 {
		t.Fatalf("only %d threads: nothing is shown", got.Threads)
	}
	return got
}

func TestEveryThreadGivesWay(t *testing.T) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	was := 20 - raw
	for name, c := range map[string]struct {
		apply []Options
		nice  int
		io    int
		cpus  int
	}{
		"nothing":                {[]Options{{}}, was, -1, 2},
		"nice":                   {[]Options{{Nice: 15}}, max(was, 15), -1, 2},
		"idle":                   {[]Options{{IO: IOIdle}}, was, ioprioIdle, 2},
		"best effort":            {[]Options{{IO: IOBestEffort}}, was, ioprioBestEffort, 2},
		"one CPU":                {[]Options{{CPUs: 1}}, was, -1, 1},
		"more CPUs than allowed": {[]Options{{CPUs: 99}}, was, -1, 2},
		"never less gentle":      {[]Options{{Nice: 19, IO: IOIdle}, {Nice: 3, IO: IOBestEffort}}, 19, ioprioIdle, 2},
	} {
		t.Run(name, func(t *testing.T) {
			got := inChild(t, c.apply...)
			if got.Failed != "" || got.CPUs != c.cpus || got.Nice[c.nice] != got.Threads {
				t.Errorf("got %+v, want niceness %d and %d CPUs", got, c.nice, c.cpus)
			}
			if c.io >= 0 && got.IO[c.io] != got.Threads {
				t.Errorf("got %+v, want I/O class %d", got, c.io)
			}
		})
	}
}

func TestAnUnknownClassIsAnError(t *testing.T) {
	if got := inChild(t, Options{Nice: 19, IO: "later"}); got.Failed == "" || got.Nice[19] != got.Threads {
		t.Errorf("got %+v, want an error and all the rest done", got)
	}
}
