package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
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
	// reportTime is what the host keeps of a test run's time limit to report what the machine did in the rest.
	reportTime     = 15 * time.Second
	listTimeLimit  = 5 * time.Minute
	buildTimeLimit = 30 * time.Minute
	// testLimit and slowTestLimit are for each lab test on a quiet machine, in `make test` and where Slow is true.
	testLimit     = 2 * time.Minute
	slowTestLimit = 20 * time.Minute
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
	// TestLimit is for each lab test; 0 means 2 minutes, or 20 where Slow is true. It follows the machine's speed, as Patience does.
	TestLimit time.Duration
	// Layers returns folders to lay over the host's root, the first on top; nil for none. It is called on the host, before
	// the first lab test. Debs makes such.
	Layers func(context.Context) ([]string, error)
}

// Main runs a package's tests and returns the exit status, for TestMain. On the host, tests named TestLab… are run in a
// machine, each in a process of its own, and all others as usual. The environment variable VOLTAR_LAB=off skips the lab
// tests.
func Main(m *testing.M, opts Options) int {
	flag.Parse()
	switch {
	case flagValue("test.list") != "":
		return m.Run()
	case Inside():
		if names := os.Getenv(namesVariable); names != "" {
			return runEach(strings.Fields(names), os.Stdout)
		}
		return m.Run()
	}
	status, others, err := runLab(opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	if others {
		skip := "^" + prefix
		if users := flagValue("test.skip"); users != "" {
			skip = users + "|" + skip
		}
		if err := flag.Set("test.skip", skip); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			return 1
		}
		status = max(status, m.Run())
	}
	if status != 0 {
		fmt.Println("FAIL")
	} else if !others {
		fmt.Println("PASS")
	}
	return status
}

// runLab runs the lab tests that go test selected. It reports whether there is anything else to run: with nothing selected
// at all, the testing package says so.
func runLab(opts Options) (status int, others bool, err error) {
	all, err := listTests()
	if err != nil {
		return 0, false, err
	}
	names, others := selected(all, flagValue("test.run"), flagValue("test.skip"))
	others = others || len(names) == 0 || flagValue("test.bench") != "" || flagValue("test.fuzz") != ""
	if len(names) == 0 {
		return 0, others, nil
	}
	out := &reporter{out: os.Stdout, verbose: flagValue("test.v")}
	if os.Getenv(offVariable) == "off" {
		fmt.Fprintf(os.Stderr, "lab: %s=off: NOTHING IS TESTED AGAINST A REAL DEVICE-MAPPER\n", offVariable)
		for _, name := range names {
			out.write(made(name, "SKIP", offVariable+"=off"))
		}
		return 0, others, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	if limit, err := time.ParseDuration(flagValue("test.timeout")); err == nil && limit > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), max(limit-reportTime, limit/2))
	}
	defer cancel()
	if err := (&host{opts, out}).run(ctx, deal(names, max(opts.Machines, 1))); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1, others, nil
	}
	return out.status(), others, nil
}

// listTests returns the names of all tests of this binary.
func listTests() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	res, err := hostcmd.New(hostcmd.Options{}).Run(context.Background(), hostcmd.Cmd{
		Name: self, Args: []string{"-test.list=."}, Timeout: listTimeLimit,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the tests: %w", err)
	}
	return strings.Fields(string(res.Stdout)), nil
}

// selected returns those lab tests that the patterns of go test -run and -skip leave, and whether they leave any others.
func selected(all []string, run, skip string) (lab []string, others bool) {
	runs, skips := topPattern(run, ""), topPattern(skip, "$^")
	if strings.Contains(skip, "/") {
		skips = regexp.MustCompile("$^") // it skips subtests
	}
	for _, name := range all {
		switch {
		case !runs.MatchString(name) || skips.MatchString(name):
		case strings.HasPrefix(name, prefix):
			lab = append(lab, name)
		case strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Example") || strings.HasPrefix(name, "Fuzz"):
			others = true
		}
	}
	return lab, others
}

// topPattern is what of a pattern selects tests, and not subtests.
func topPattern(pattern, none string) *regexp.Regexp {
	top, _, _ := strings.Cut(pattern, "/")
	if pattern == "" {
		top = none
	}
	compiled, err := regexp.Compile(top)
	if err != nil {
		return regexp.MustCompile("") // a slash within brackets; the test binaries read the pattern for themselves
	}
	return compiled
}

// deal shares tests out among machines. None is without one.
func deal(names []string, machines int) [][]string {
	parts := make([][]string, min(machines, len(names)))
	for i, name := range names {
		parts[i%len(parts)] = append(parts[i%len(parts)], name)
	}
	return parts
}

// host runs the lab tests of one package in machines, and reports them on the host.
type host struct {
	opts Options
	out  *reporter
}

// run builds the package's tests and runs them in its machines. It fails when a machine itself did not do well; what its
// tests came to, the reporter knows.
func (h *host) run(ctx context.Context, parts [][]string) error {
	temp, err := newTempFolder()
	if err != nil {
		return h.none(parts, err)
	}
	defer func() { _ = temp.remove() }() // no test's result depends on it
	binary := filepath.Join(temp.path, "lab.test")
	if err := buildTests(ctx, binary); err != nil {
		return h.none(parts, err)
	}
	var layers []string
	if h.opts.Layers != nil {
		if layers, err = h.opts.Layers(ctx); err != nil {
			return h.none(parts, err)
		}
	}
	errs := make([]error, len(parts))
	var machines sync.WaitGroup
	for i, names := range parts {
		machines.Go(func() {
			machine, err := h.machine(filepath.Join(temp.path, fmt.Sprintf("disk%d.img", i)))
			if err != nil {
				errs[i] = h.none([][]string{names}, err)
				return
			}
			machine.Layers = layers
			machine.Script = h.testCommand(binary, names)
			errs[i] = h.runPart(ctx, machine, names)
		})
	}
	machines.Wait()
	return errors.Join(errs...)
}

// none reports that tests did not run.
func (h *host) none(parts [][]string, err error) error {
	for _, names := range parts {
		for _, name := range names {
			h.out.write(made(name, "FAIL", fmt.Sprintf("the lab did not run this test: %v", err)))
		}
	}
	return err
}

// runPart runs one machine and reports its tests as they end.
func (h *host) runPart(ctx context.Context, machine Machine, names []string) error {
	output, writer := io.Pipe()
	machine.Stdout = writer
	type read struct {
		missing []string
		rest    string
		err     error
	}
	done := make(chan read, 1)
	go func() {
		var r read
		r.missing, r.rest, r.err = h.out.relay(output, names)
		done <- r
	}()
	status, err := Run(ctx, machine)
	err = errors.Join(err, writer.Close())
	r := <-done
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the machine was stopped when the time of go test -timeout was over: %w", ctx.Err())
	case err == nil && status != 0:
		err = fmt.Errorf("the tests' process in the machine ended with status %d", status)
	}
	if err = errors.Join(err, r.err); err != nil {
		err = fmt.Errorf("%w\n%s", err, r.rest)
	} else if len(r.missing) > 0 {
		err = errors.New("the machine left tests out")
	}
	if len(r.missing) > 0 {
		return h.none([][]string{r.missing}, err)
	}
	return err
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
		Args:    []string{"test", "-c", "-tags", buildTags(), "-o", path, "."},
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

// buildTags are the build tags of this test binary: a test that a tag lets in is in the machine's, too.
func buildTags() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "-tags" {
			return setting.Value
		}
	}
	return ""
}

// testCommand is the machine's script. It hands on the flags that say how to run tests, and the environment variables that
// are named.
func (h *host) testCommand(binary string, names []string) string {
	script := "export " + namesVariable + "=" + quote(strings.Join(names, " ")) + "\n"
	script += "export " + limitVariable + "=" + h.testLimit().String() + "\n"
	for _, name := range h.opts.Env {
		if value, set := os.LookupEnv(name); set {
			script += "export " + name + "=" + quote(value) + "\n"
		}
	}
	script += "exec " + quote(hostFolder+binary)
	for _, name := range []string{"test.run", "test.skip", "test.count", "test.short"} {
		if value := flagValue(name); value != "" {
			script += " " + quote("-"+name+"="+value)
		}
	}
	return script + "\n"
}

// testLimit is how long each test may take on a quiet machine.
func (h *host) testLimit() time.Duration {
	if h.opts.TestLimit == 0 && Slow {
		return slowTestLimit
	}
	return cmp.Or(h.opts.TestLimit, testLimit)
}

// quote makes one word of a text for the shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func flagValue(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}
