package lab

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// DefaultMemoryBytes is a machine's memory where nothing else is asked for. It is taken as the machine touches it.
const DefaultMemoryBytes = 2 << 30

// hostFolder is where a machine sees the whole file system of the host, read-only.
const hostFolder = "/host"

// kernelFolder is where kernel.sh puts a kernel, in the root of the module.
const kernelFolder = ".cache/uml"

// memoryDir is where User-mode Linux keeps its memory best: any other folder means disk.
const memoryDir = "/dev/shm"

//go:embed init.sh
var initScript string

// supervise is PID 1 of the machine's namespace on the host. It ends, and with it everything that the machine started,
// when the machine stops, and when standard input closes: because the power is cut or because the test was killed.
// Files that the machine makes in a folder of the host, the host makes: with its own umask.
const supervise = `umask 022
exec 4<&0
"$@" </dev/null & uml=$!
(read -r _ <&4; kill -KILL "$uml") &
wait "$uml"`

// baseModules are those that every test of LVM, partitions and file systems needs.
var baseModules = []string{"dm-mod", "dm-snapshot", "dm-thin-pool", "loop", "vfat", "nls_cp437", "nls_ascii"}

// Machine says what to boot. Only Script is needed. Inside, /host is the whole file system of the host, read-only.
type Machine struct {
	Script      string    // shell script, run as root in Dir; its exit status is the machine's
	Args        []string  // of the script
	Dir         string    // the script's working folder, a path of the host; "" is /
	Stdout      io.Writer // takes the script's standard output and error as they come; nil discards
	MemoryBytes int64     // 0 means DefaultMemoryBytes
	Disk        string    // image file of the host that becomes /dev/ubda and outlives the machine; "" for none
	Layers      []string  // folders laid over the host's root, the first on top
	Modules     []string  // kernel modules beside the usual ones
	Share       string    // folder of the host that appears, writable, as /out; "" gives an empty one
	Systemd     bool      // run the host's systemd, journald and udevd, and the script as its service lab.service
}

// ErrPowerCut is what Wait returns for a machine that was stopped before its script had ended.
var ErrPowerCut = errors.New("the machine's power was cut")

// Running is a machine that was started. Wait must be called, even after Stop.
type Running struct {
	dir     string      // of the host, seen inside as /lab: init.sh, machine.env, arguments, script, rc
	temp    *tempFolder // dir's
	cpu     cpuLock
	power   *os.File      // its closing ends the machine
	cut     atomic.Bool   // Stop was called
	console consoleTail   // what the kernel and init.sh said
	done    chan struct{} // closed when everything of the machine is gone
	err     error         // of the launcher; read after done
}

// Boot starts a machine and returns at once. The end of ctx cuts the machine's power.
func Boot(ctx context.Context, m Machine) (*Running, error) {
	runner := hostcmd.New(hostcmd.Options{})
	kernel, err := findKernel(runner)
	if err != nil {
		return nil, err
	}
	launcher, err := namespaceCommand(ctx, runner)
	if err != nil {
		return nil, err
	}
	temp, err := newTempFolder()
	if err != nil {
		return nil, err
	}
	dir := temp.path
	if err := m.prepare(dir, kernel.modules); err != nil {
		return nil, errors.Join(err, temp.remove())
	}
	cpu, err := takeCPU()
	if err != nil {
		return nil, errors.Join(err, temp.remove())
	}
	powerEnd, power, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, cpu.release(), temp.remove())
	}
	output, outputEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, powerEnd.Close(), power.Close(), cpu.release(), temp.remove())
	}
	r := &Running{dir: dir, temp: temp, cpu: cpu, power: power, done: make(chan struct{})}
	argv := append(launcher, "taskset", "--cpu-list", strconv.Itoa(cpu.number), "sh", "-c", supervise, "sh", kernel.path)
	cmd := hostcmd.Cmd{
		Name:    argv[0],
		Args:    append(argv[1:], m.kernelArgs(dir)...),
		Stdin:   powerEnd,
		Stdout:  &r.console,
		Stderr:  &r.console,
		Env:     []string{"TMPDIR=" + m.memoryFolder(dir)},
		Files:   []*os.File{outputEnd},
		Timeout: -1,
	}
	unhook := context.AfterFunc(ctx, r.Stop)
	go func() {
		defer close(r.done)
		copied := make(chan error, 1)
		go func() { copied <- copyAll(m.Stdout, output) }()
		_, r.err = runner.Run(context.WithoutCancel(ctx), cmd)
		unhook()
		r.err = errors.Join(r.err, outputEnd.Close(), powerEnd.Close(), <-copied, output.Close())
	}()
	return r, nil
}

// Run boots a machine and waits for its end.
func Run(ctx context.Context, m Machine) (status int, err error) {
	r, err := Boot(ctx, m)
	if err != nil {
		return -1, err
	}
	return r.Wait()
}

// Stop cuts the machine's power: nothing inside gets a chance to write anything more. What had reached Machine.Disk
// stays there, as on a disk without a write cache.
func (r *Running) Stop() {
	if r.cut.CompareAndSwap(false, true) {
		_ = r.power.Close() // a pipe without data: there is nothing to lose
	}
}

// Wait returns the script's exit status once the machine and everything that belonged to it on the host is gone. It
// returns ErrPowerCut after Stop, and an error with the end of the console when the machine stopped by itself first. It
// may be called once.
func (r *Running) Wait() (status int, err error) {
	<-r.done
	text, err := os.ReadFile(filepath.Join(r.dir, "rc"))
	wasCut := r.cut.Load()
	r.Stop()
	if removeErr := errors.Join(r.temp.remove(), r.cpu.release()); removeErr != nil {
		return -1, removeErr
	}
	switch {
	case err == nil:
		return strconv.Atoi(strings.TrimSpace(string(text)))
	case wasCut:
		return -1, ErrPowerCut
	default:
		return -1, fmt.Errorf("the lab machine stopped before its script had ended (%w); the end of its console:\n%s",
			errors.Join(r.err, err), r.console.String())
	}
}

// prepare fills the folder that the machine sees as /lab.
func (m Machine) prepare(dir, modules string) error {
	share := m.Share
	if share == "" {
		share = filepath.Join(dir, "out")
		if err := os.Mkdir(share, 0o755); err != nil {
			return err
		}
	}
	if err := checkPaths(append([]string{dir, modules, share, m.Disk, m.Dir}, m.Layers...)); err != nil {
		return err
	}
	workDir := cmp.Or(m.Dir, "/")
	systemd := ""
	if m.Systemd {
		systemd = "yes"
	}
	arguments := ""
	for _, arg := range m.Args {
		arguments += " " + quote(arg)
	}
	settings := fmt.Sprintf("LAYERS='%s'\nSHARE='%s'\nSOURCE='%s'\nWORKDIR='%s'\n"+
		"MODULES_FOLDER='%s'\nMODULES='%s'\nSYSTEMD='%s'\n",
		strings.Join(m.Layers, " "), share, sourceRoot(workDir), workDir,
		modules, strings.Join(append(slices.Clone(baseModules), m.Modules...), " "), systemd)
	files := []struct {
		name, text string
		mode       os.FileMode
	}{
		{"init.sh", initScript, 0o755},
		{"machine.env", settings, 0o644},
		{"arguments", "set --" + arguments + "\n", 0o644},
		{"script", m.Script, 0o755},
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(dir, file.name), []byte(file.text), file.mode); err != nil {
			return err
		}
	}
	return nil
}

// kernel is a User-mode Linux of the host, and the folder with its modules.
type kernel struct{ path, modules string }

// cachedKernel returns the kernel of a folder that kernel.sh filled.
func cachedKernel(folder string) (k kernel, found bool) {
	k = kernel{filepath.Join(folder, "linux.uml"), filepath.Join(folder, "modules")}
	info, err := os.Stat(k.path)
	return k, err == nil && info.Mode().IsRegular()
}

// findKernel returns the kernel that kernel.sh put into the cache of the module where the process works, or else the host's.
func findKernel(runner *hostcmd.Runner) (kernel, error) {
	here, err := os.Getwd()
	if err != nil {
		return kernel{}, err
	}
	if cached, found := cachedKernel(filepath.Join(sourceRoot(here), kernelFolder)); found {
		return cached, nil
	}
	path, err := runner.LookPath("linux.uml")
	if err != nil {
		return kernel{}, say.WithHint(fmt.Errorf("cannot start a lab machine: %w", err), "apt-get install user-mode-linux")
	}
	return kernel{path, "/usr/lib/uml/modules"}, nil
}

// kernelArgs is the kernel's command line: the host's root as root, one console for the kernel and one for the script.
func (m Machine) kernelArgs(dir string) []string {
	args := []string{
		fmt.Sprintf("mem=%dM", m.memory()>>20), "noreboot", "uml_dir=" + dir,
		"rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro", "init=" + filepath.Join(dir, "init.sh"),
		"seccomp=auto", "con=null", "con0=null,fd:1", "con1=null,fd:3", "pty.legacy_count=0", "quiet", "loglevel=1",
	}
	if m.Disk != "" {
		args = append(args, "ubda="+m.Disk)
	}
	return args
}

func (m Machine) memory() int64 { return cmp.Or(m.MemoryBytes, DefaultMemoryBytes) }

// memoryFolder returns where the machine's memory is kept. The kernel takes what it finds there as its own, and ends
// with a bus error when there is less than it was promised: containers often have 64 MiB in /dev/shm.
func (m Machine) memoryFolder(dir string) string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &fs); err == nil && int64(fs.Bavail)*fs.Bsize >= m.memory() {
		return memoryDir
	}
	return dir
}

// NewDisk makes a sparse image file for Machine.Disk.
func NewDisk(path string, sizeBytes int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(sizeBytes), f.Close())
}

// namespaceCommand returns the command that gives a machine a process namespace of its own, with which it ends. It
// needs no root where users may make namespaces, and no such permission where it is root.
func namespaceCommand(ctx context.Context, runner *hostcmd.Runner) ([]string, error) {
	options := []string{"--pid", "--fork", "--kill-child=KILL"}
	withUser := append([]string{"--user", "--map-root-user"}, options...)
	_, userErr := runner.Output(ctx, "unshare", append(slices.Clone(withUser), "true")...)
	if userErr == nil {
		return append([]string{"unshare"}, withUser...), nil
	}
	_, rootErr := runner.Output(ctx, "unshare", append(slices.Clone(options), "true")...)
	if rootErr == nil {
		return append([]string{"unshare"}, options...), nil
	}
	return nil, say.WithHint(fmt.Errorf("cannot start a lab machine: %w", errors.Join(userErr, rootErr)),
		"allow user namespaces, or run as root")
}

// checkPaths refuses paths that the kernel's command line, mount options or the settings file would take apart.
func checkPaths(paths []string) error {
	for _, path := range paths {
		if path != "" && !filepath.IsAbs(path) || strings.ContainsAny(path, " \t\n,:'\\") {
			return fmt.Errorf("cannot use %q in a lab machine: want an absolute path without blanks, commas, colons, "+
				"quotes and backslashes", path)
		}
	}
	return nil
}

// sourceRoot returns the folder of dir's module, or dir itself outside of any.
func sourceRoot(dir string) string {
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	return dir
}

// copyAll copies to w, or nowhere, and goes on reading when w fails, so that the machine never waits for it.
func copyAll(w io.Writer, r io.Reader) error {
	if w == nil {
		w = io.Discard
	}
	_, err := io.Copy(w, r)
	_, drainErr := io.Copy(io.Discard, r)
	return errors.Join(err, drainErr)
}

// consoleTail keeps the end of what is written to it. It is safe for concurrent use.
type consoleTail struct {
	mu   sync.Mutex
	kept []byte
}

const consoleTailBytes = 8 << 10

func (c *consoleTail) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p...)
	if extra := len(c.kept) - consoleTailBytes; extra > 0 {
		c.kept = append(c.kept[:0], c.kept[extra:]...)
	}
	return len(p), nil
}

func (c *consoleTail) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.kept)
}
