// Package hostcmd is the one door through which voltar runs commands of the host: lvm2, dmsetup, blkid, mkfs and the
// like. Commands are found on a fixed search path and never through a shell, run in the C locale and in a process group
// of their own, and end with it when their time is up. One that cannot be killed, or must not be, is left behind. A failure
// keeps the exit status and the end of standard error.
package hostcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// DefaultSearchPath is where Debian and its relatives keep administration commands.
var DefaultSearchPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// DefaultTimeout ends a command that sets no time of its own.
const DefaultTimeout = 2 * time.Minute

const (
	stderrTailBytes = 16 << 10
	saidBytes       = 1 << 10 // of what a command wrote in the text of its error
	maxOutputBytes  = 64 << 20
	killGrace       = 5 * time.Second
	// abandonAfter is how long a command is waited for whose time was up. A process that waits in the kernel for a device
	// which does not answer takes no signal, and would be waited for without end.
	abandonAfter = 2 * killGrace
)

// ErrNotFound is wrapped by the error of a command that is nowhere on the search path.
var ErrNotFound = errors.New("command not found")

// ErrStuck is wrapped by the error of a command that could not even be killed and was left behind.
var ErrStuck = errors.New("the process cannot be ended: it waits in the kernel, as for a device that does not answer")

// ErrLeftRunning is wrapped by the error of a command whose time is up and that goes on, as Cmd.LeaveRunning wants it.
var ErrLeftRunning = errors.New("the process goes on by itself")

// ErrOutputHeld is wrapped by the error of a command that ended well and left a process behind to which its output still
// belongs: what that would have written is missing. It is ended.
var ErrOutputHeld = errors.New("it ended, and a process that it had left in the background held its output open and was ended")

// Runner runs commands. It is safe for concurrent use.
type Runner struct {
	searchPath []string
	env        []string
	log        *slog.Logger
}

// Options of New; the zero value is that of a production host.
type Options struct {
	SearchPath []string     // folders, in order; nil means DefaultSearchPath
	Env        []string     // added to the environment of every command
	Log        *slog.Logger // receives one debug record for each command; nil discards
}

// New returns a Runner.
func New(opts Options) *Runner {
	r := &Runner{searchPath: opts.SearchPath, log: opts.Log}
	if r.searchPath == nil {
		r.searchPath = DefaultSearchPath
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.env = append(os.Environ(), "LC_ALL=C", "PATH="+strings.Join(r.searchPath, ":"))
	r.env = append(r.env, opts.Env...)
	return r
}

// Cmd is one command to run.
type Cmd struct {
	Name    string        // looked up on the search path, unless it holds a slash
	Args    []string      // without the name
	Stdin   io.Reader     // nil reads as empty
	Stdout  io.Writer     // nil collects into Result.Stdout, at most 64 MiB
	Stderr  io.Writer     // nil discards; the tail is kept for the error in any case
	Env     []string      // added to the runner's
	Files   []*os.File    // inherited as descriptors 3 and up; the caller keeps ownership
	Timeout time.Duration // 0 means DefaultTimeout; negative means none but the context's
	// LeaveRunning, where there is one, is asked when the time is up or the context ends whether the process is one that must
	// not be ended now. It is then left to itself (ErrLeftRunning). Such a command writes to files in memory instead of pipes,
	// which would end it when this process is gone.
	LeaveRunning func(pid int) bool
}

// Result is what a command that ended with status 0 left.
type Result struct {
	Stdout []byte
	Stderr []byte // its tail, at most 16 KiB: warnings of a command that succeeded
}

// Error is the failure of one command.
type Error struct {
	Argv     []string
	ExitCode int           // -1 when it did not start or was ended by a signal
	Stderr   string        // its tail, at most 16 KiB
	TimedOut time.Duration // the limit that it ran into, or 0
	PID      int           // of a process that was left behind, or 0
	Err      error
}

// Error reads `lvcreate: exit status 5: Insufficient free space`, with every line that the command wrote: the cause often
// stands before the last one.
func (e *Error) Error() string {
	text := filepath.Base(e.Argv[0]) + ": "
	if e.TimedOut > 0 && e.PID == 0 {
		text += fmt.Sprintf("not done after %s and ended", e.TimedOut)
	} else {
		text += e.Err.Error()
	}
	if said := oneLine(e.Stderr); said != "" {
		text += ": " + said
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// oneLine joins lines, each once, and leaves out the middle of what is too long.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	said := strings.Join(lines, "; ")
	if len(said) > saidBytes {
		said = strings.ToValidUTF8(said[:saidBytes/2], "") + " … " + strings.ToValidUTF8(said[len(said)-saidBytes/2:], "")
	}
	return said
}

// LookPath returns the command's full path, or an error that wraps ErrNotFound.
func (r *Runner) LookPath(name string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	for _, dir := range r.searchPath {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: %s (looked in %s)", ErrNotFound, name, strings.Join(r.searchPath, ":"))
}

// Output runs a command with the default time limit and returns what it wrote to standard output.
func (r *Runner) Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	res, err := r.Run(ctx, Cmd{Name: name, Args: args})
	return res.Stdout, err
}

// Run runs a command to its end. A failure is an *Error. When the context ends or the time is up, the command's whole
// process group gets SIGTERM, and SIGKILL 5 s later or when the command itself has ended, unless it is to be left running.
// A command that does not end even then is left behind (ErrStuck).
func (r *Runner) Run(ctx context.Context, cmd Cmd) (Result, error) {
	argv := append([]string{cmd.Name}, cmd.Args...)
	path, err := r.LookPath(cmd.Name)
	if err != nil {
		return Result{}, &Error{Argv: argv, ExitCode: -1, Err: err}
	}
	timeout := cmd.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	runCtx := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		runCtx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}

	stdout, stderr, err := collectors(cmd.LeaveRunning != nil)
	if err != nil {
		return Result{}, &Error{Argv: argv, ExitCode: -1, Err: err}
	}
	defer stdout.discard()
	defer stderr.discard()
	c := exec.CommandContext(runCtx, path, cmd.Args...)
	var group processGroup
	c.Cancel = func() error { return group.end(c.Process.Pid) }
	c.WaitDelay = killGrace + time.Second
	if cmd.LeaveRunning != nil {
		c = exec.Command(path, cmd.Args...)
	}
	c.Env = append(append([]string{}, r.env...), cmd.Env...)
	c.Stdin, c.Stdout, c.Stderr = cmd.Stdin, cmd.Stdout, stderr.writer()
	if c.Stdout == nil {
		c.Stdout = stdout.writer()
	}
	if cmd.Stderr != nil {
		c.Stderr = io.MultiWriter(c.Stderr, cmd.Stderr)
	}
	c.ExtraFiles = cmd.Files
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	began := time.Now()
	err = runUntil(runCtx, c, &group, cmd.LeaveRunning)
	r.log.Debug("command", "argv", argv, "took", time.Since(began), "err", err)
	res := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	if err == nil {
		return res, nil
	}
	failure := &Error{Argv: argv, ExitCode: -1, Stderr: string(res.Stderr), Err: err}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, ErrStuck), errors.Is(err, ErrLeftRunning):
		if ctx.Err() == nil {
			failure.TimedOut = timeout
		}
		failure.PID = c.Process.Pid
		failure.Err = fmt.Errorf("process %d was left behind after %s: %w", failure.PID, time.Since(began).Round(time.Second), err)
	case ctx.Err() != nil:
		failure.Err = context.Cause(ctx)
	case runCtx.Err() != nil:
		failure.TimedOut, failure.Err = timeout, runCtx.Err()
	case errors.As(err, &exit):
		failure.ExitCode = exit.ExitCode()
	case errors.Is(err, exec.ErrWaitDelay):
		failure.Err = say.WithHint(ErrOutputHeld, "give what is to go on an output of its own: `setsid COMMAND >/dev/null 2>&1 &`")
	}
	return res, failure
}

// runUntil runs a command to its end. Once the context has ended it waits for no longer than abandonAfter for a command that
// is ended with it, and not at all for one that is not.
func runUntil(ctx context.Context, c *exec.Cmd, group *processGroup, leave func(pid int) bool) error {
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { // for as long as a process that is left behind lives
		err := c.Wait()
		group.ended(c.Process.Pid, errors.Is(err, exec.ErrWaitDelay))
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if leave != nil {
		if leave(c.Process.Pid) {
			return ErrLeftRunning
		}
		if err := group.end(c.Process.Pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	abandon := time.NewTimer(abandonAfter)
	defer abandon.Stop()
	select {
	case err := <-ended:
		return err
	case <-abandon.C:
		return ErrStuck
	}
}

// processGroup is that of one command. Its number may be another's once the command has ended: nothing is sent to it then.
type processGroup struct {
	mu   sync.Mutex
	kill *time.Timer // nil before the group was asked to end
	gone bool
}

// end asks the group to end, and kills it when its command has not after killGrace.
func (g *processGroup) end(pgid int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return os.ErrProcessDone
	}
	if err := syscall.Kill(-pgid, syscall.SIGTERM); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	g.kill = time.AfterFunc(killGrace, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.gone {
			_ = syscall.Kill(-pgid, syscall.SIGKILL)
		}
	})
	return nil
}

// ended says that the command has. What is left of a group that was asked to end is killed at once, and so is what holds
// the command's output, while its number is still its own.
func (g *processGroup) ended(pgid int, isOutputHeld bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = true
	if g.kill != nil && g.kill.Stop() || isOutputHeld {
		_ = syscall.Kill(-pgid, syscall.SIGKILL)
	}
}

// ExitCode returns the exit status that err carries, or -1 when it carries none.
func ExitCode(err error) int {
	var failure *Error
	if errors.As(err, &failure) {
		return failure.ExitCode
	}
	return -1
}

// collector takes what a command writes to one of its streams.
type collector interface {
	writer() io.Writer
	Bytes() []byte // what there is so far
	discard()
}

// collectors returns those of standard output and standard error.
func collectors(leaveRunning bool) (stdout, stderr collector, err error) {
	if !leaveRunning {
		return &boundedBuffer{limit: maxOutputBytes}, &tailBuffer{limit: stderrTailBytes}, nil
	}
	out, err := newMemoryFile("stdout", maxOutputBytes)
	if err != nil {
		return nil, nil, err
	}
	errs, err := newMemoryFile("stderr", stderrTailBytes)
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return out, errs, nil
}

// memoryFile is a nameless file that lives for as long as a process has it open. A pipe would end a command that writes when
// nobody reads any more.
type memoryFile struct {
	*os.File
	limit int64
}

func newMemoryFile(name string, limit int64) (*memoryFile, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	return &memoryFile{os.NewFile(uintptr(fd), name), limit}, nil
}

func (f *memoryFile) writer() io.Writer { return f.File }
func (f *memoryFile) discard()          { f.Close() } // nothing is lost: it was in memory only

// Bytes returns the tail of the file.
func (f *memoryFile) Bytes() []byte {
	info, err := f.Stat()
	if err != nil {
		return nil // what cannot be: it is in memory
	}
	tail := make([]byte, min(info.Size(), f.limit))
	n, _ := f.ReadAt(tail, info.Size()-int64(len(tail)))
	return tail[:n]
}

// boundedBuffer collects up to limit bytes and fails the command that writes more. A command that was left behind may
// write to it at any time.
type boundedBuffer struct {
	mu    sync.Mutex
	kept  bytes.Buffer
	limit int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept.Len()+len(p) > b.limit {
		return 0, fmt.Errorf("more than %s of output", say.Size(int64(b.limit)))
	}
	return b.kept.Write(p)
}

func (b *boundedBuffer) writer() io.Writer { return b }
func (b *boundedBuffer) discard()          {}

// Bytes returns what was written so far.
func (b *boundedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.Bytes() // what is added later stands behind its end
}

// tailBuffer keeps the last limit bytes written to it, at any time like boundedBuffer.
type tailBuffer struct {
	mu    sync.Mutex
	kept  []byte
	limit int
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, p...)
	if extra := len(b.kept) - b.limit; extra > 0 {
		b.kept = append(b.kept[:0], b.kept[extra:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) writer() io.Writer { return b }
func (b *tailBuffer) discard()          {}

// Bytes returns a copy of the tail so far.
func (b *tailBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.kept)
}
