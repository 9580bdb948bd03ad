package lab

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/hostcmd"
)

const (
	// prefix begins the name of every test that runs in the lab.
	prefix = "TestLab"
	// offVariable set to "off" skips the lab tests.
	offVariable = "VOLTAR_LAB"
	// partVariable tells a test binary in a machine which of the lab tests are dealt to it, as "1/3": every third, from
	// the second on.
	partVariable = "VOLTAR_LAB_PART"
	// reportTime is what the host keeps of a test run's time limit to report what the machine did in the rest.
	reportTime = 15 * time.Second
	// defaultTimeLimit holds where go test sets none.
	defaultTimeLimit = 30 * time.Minute
	// stopTime is what the machine keeps of that for a test binary that ran into its own limit to say where it hung.
	stopTime       = 20 * time.Second
	buildTimeLimit = 10 * time.Minute
)

// Options of Main; the zero value is a machine of DefaultMemoryBytes without a disk.
type Options struct {
	MemoryBytes int64    // 0 means DefaultMemoryBytes
	DiskBytes   int64    // size of /dev/ubda, made anew and sparse; 0 for none
	Modules     []string // kernel modules beside the usual ones
	Share       string   // folder of the host that appears, writable, as /out; "" gives an empty one
	Systemd     bool     // as Machine.Systemd: systemd, journald and udevd run, as on a production host
	Machines    int      // the tests are dealt out among so many, each with one processor; 0 means 1
	Env         []string // names of environment variables that are handed on to the tests where they are set
	// Layers returns folders to lay over the host's root, the first on top; nil for none. It is called on the host, when
	// the first lab test starts. Debs makes such.
	Layers func(context.Context) ([]string, error)
}

// Main runs a package's tests and returns the exit status, for TestMain. On the host, tests named TestLab… are run in a
// machine and all others as usual. The environment variable VOLTAR_LAB=off skips the lab tests.
func Main(m *testing.M, opts Options) int {
	tests, err := testsOf(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	if Inside() {
		*tests = watched(dealt(*tests, os.Getenv(partVariable)))
		return m.Run()
	}
	h := &host{opts: opts, results: newResults(), parts: parts(*tests, max(opts.Machines, 1), flagValue("test.run"))}
	relayed := slices.Clone(*tests)
	for i := range relayed {
		if strings.HasPrefix(relayed[i].Name, prefix) {
			relayed[i].F = h.relay
		}
	}
	*tests = relayed
	status := m.Run()
	if err := h.close(status == 0); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return status
}

// testsOf returns where m keeps the package's tests. The testing package offers no way to a test's function, and with a
// call that each test had to make, one that forgot it would run on the host, perhaps as root and among its volumes.
func testsOf(m *testing.M) (*[]testing.InternalTest, error) {
	field := reflect.ValueOf(m).Elem().FieldByName("tests")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[]testing.InternalTest]() {
		return nil, errors.New("cannot find the tests in testing.M: this version of Go keeps them in another way")
	}
	return (*[]testing.InternalTest)(field.Addr().UnsafePointer()), nil
}

// host runs the lab tests of one package in a machine, and reports them on the host.
type host struct {
	opts    Options
	once    sync.Once
	results *results
	parts   []string // as partVariable has them, of each machine
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the machine is gone; nil before it started
	err     error         // how the run in the machine failed; read after the results ended
}

// relay stands in for every lab test.
func (h *host) relay(t *testing.T) {
	if os.Getenv(offVariable) == "off" {
		h.once.Do(func() {
			fmt.Fprintf(os.Stderr, "lab: %s=off: NOTHING IS TESTED AGAINST A REAL DEVICE-MAPPER\n", offVariable)
		})
		t.Skipf("%s=off", offVariable)
	}
	h.once.Do(func() { h.start(t) })
	test := h.results.take(t.Name())
	if test == nil {
		t.Fatalf("the lab did not run this test: %v", h.whyEnded())
	}
	h.report(t, test)
}

// report writes what a test wrote and how long it took, which t's own time does not show, runs its subtests likewise, and
// gives t its result.
func (h *host) report(t *testing.T, test *result) {
	_, _ = io.WriteString(t.Output(), test.text()) // the testing package's own writer does not fail
	if test.took != "" {
		_, _ = fmt.Fprintf(t.Output(), "%s in the machine\n", test.took)
	}
	for _, sub := range test.subs {
		t.Run(sub.name, func(t *testing.T) { h.report(t, sub) })
	}
	switch test.status {
	case "PASS":
	case "SKIP":
		t.SkipNow()
	case "FAIL":
		t.FailNow()
	default:
		h.results.wait()
		t.Fatalf("the lab test did not end: %v", h.whyEnded())
	}
}

// whyEnded explains why a result is missing, once no more can come.
func (h *host) whyEnded() error {
	if h.err == nil {
		return errors.New("the test binary left it out")
	}
	return h.err
}

// start boots the machine and lets it run in the background. t is the first lab test: it has the time limit.
func (h *host) start(t *testing.T) {
	limit := defaultTimeLimit
	if deadline, ok := t.Deadline(); ok {
		limit = max(time.Until(deadline)-reportTime, time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	h.cancel, h.ended = cancel, make(chan struct{})
	go func() {
		defer close(h.ended)
		defer cancel()
		h.err = h.run(ctx, limit)
		h.results.end()
	}()
}

// close returns when the machine is gone. After a good run it may end by itself, and must end well; else it is ended.
func (h *host) close(passed bool) error {
	if h.ended == nil {
		return nil
	}
	if !passed {
		h.cancel()
	}
	<-h.ended
	if passed && h.err != nil {
		return fmt.Errorf("every test passed, but then: %w", h.err)
	}
	return nil
}

// run builds the package's tests and runs them in its machines. It fails unless each test binary itself ends well.
func (h *host) run(ctx context.Context, limit time.Duration) error {
	temp, err := newTempFolder()
	if err != nil {
		return err
	}
	defer func() { _ = temp.remove() }() // no test's result depends on it
	binary := filepath.Join(temp.path, "lab.test")
	if err := buildTests(ctx, binary); err != nil {
		return err
	}
	var layers []string
	if h.opts.Layers != nil {
		if layers, err = h.opts.Layers(ctx); err != nil {
			return err
		}
	}
	errs := make([]error, len(h.parts))
	var machines sync.WaitGroup
	for i, part := range h.parts {
		machines.Go(func() {
			machine, err := h.machine(filepath.Join(temp.path, fmt.Sprintf("disk%d.img", i)))
			if err == nil {
				machine.Layers = layers
				machine.Script = "export " + partVariable + "=" + part + "\n" + testCommand(binary, limit, h.opts.Env)
				err = h.runPart(ctx, machine)
			}
			errs[i] = err
		})
	}
	machines.Wait()
	return errors.Join(errs...)
}

// runPart runs one machine and collects the results from its output.
func (h *host) runPart(ctx context.Context, machine Machine) error {
	output, writer := io.Pipe()
	machine.Stdout = writer
	var rest string
	read := make(chan error, 1)
	go func() {
		var err error
		rest, err = readResults(output, h.results)
		read <- err
	}()
	status, err := Run(ctx, machine)
	err = errors.Join(err, writer.Close(), <-read)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the machine was stopped: %w\n%s", ctx.Err(), rest)
	case err != nil:
		return fmt.Errorf("%w\n%s", err, rest)
	case status != 0:
		return fmt.Errorf("the test binary ended with status %d\n%s", status, rest)
	}
	return nil
}

// machine returns a machine as the options want it, without anything to run. Its disk, if any, is the file disk.
func (h *host) machine(disk string) (Machine, error) {
	here, err := os.Getwd()
	if err != nil {
		return Machine{}, err
	}
	m := Machine{
		Dir:         here,
		MemoryBytes: h.opts.MemoryBytes,
		Modules:     h.opts.Modules,
		Share:       h.opts.Share,
		Systemd:     h.opts.Systemd,
	}
	if h.opts.DiskBytes > 0 {
		m.Disk = disk
		if err := NewDisk(m.Disk, h.opts.DiskBytes); err != nil {
			return Machine{}, err
		}
	}
	return m, nil
}

// buildTests builds the tests of the package in the current folder. They have no race detector, whose memory layout
// User-mode Linux cannot give, and no cgo.
func buildTests(ctx context.Context, path string) error {
	goCommand, err := exec.LookPath("go") // go test puts its own first in PATH
	if err != nil {
		return fmt.Errorf("cannot build the lab tests: %w", err)
	}
	var output bytes.Buffer
	_, err = hostcmd.New(hostcmd.Options{}).Run(ctx, hostcmd.Cmd{
		Name:    goCommand,
		Args:    []string{"test", "-c", "-o", path, "."},
		Env:     []string{"CGO_ENABLED=0", "GOFLAGS=" + os.Getenv("GOFLAGS") + " -race=false"},
		Stdout:  &output,
		Stderr:  &output,
		Timeout: buildTimeLimit,
	})
	if err != nil {
		return fmt.Errorf("cannot build the lab tests: %w\n%s", err, output.String())
	}
	return nil
}

// testCommand is the machine's script. It hands on the flags that select tests, and the environment variables that are
// named; the rest, the host applies to what the machine reports.
func testCommand(binary string, limit time.Duration, env []string) string {
	skip := "^(Benchmark|Example|Fuzz)"
	if users := flagValue("test.skip"); users != "" {
		skip = users + "|" + skip
	}
	args := []string{
		hostFolder + binary, "-test.v=test2json", "-test.skip=" + skip,
		"-test.timeout=" + max(limit-stopTime, limit/2).String(),
	}
	for _, name := range []string{"test.run", "test.count", "test.short"} {
		if value := flagValue(name); value != "" {
			args = append(args, "-"+name+"="+value)
		}
	}
	for i, arg := range args {
		args[i] = quote(arg)
	}
	script := ""
	for _, name := range env {
		if value, set := os.LookupEnv(name); set {
			script += "export " + name + "=" + quote(value) + "\n"
		}
	}
	return script + "exec " + strings.Join(args, " ") + "\n"
}

// quote makes one word of a text for the shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func flagValue(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}
