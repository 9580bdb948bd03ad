// Package gentle makes this process give way to others: by its niceness, its I/O priority (ioprio_set(2)) and the CPUs
// that it uses. Commands that it starts afterwards inherit the first two.
package gentle

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// IOClass is an I/O priority.
type IOClass string

// I/O priorities. Only schedulers that know priorities heed them, as bfq does.
const (
	IOUnchanged  IOClass = "none"
	IOBestEffort IOClass = "best-effort" // the last among those that share the disk
	IOIdle       IOClass = "idle"        // only when nobody else wants it
)

// Constants of linux/ioprio.h.
const (
	ioprioWhoProcess = 1
	ioprioClassShift = 13
	ioprioBestEffort = 2
	ioprioIdle       = 3
	ioprioLastLevel  = 7
)

// Options of Apply; the zero value changes nothing.
type Options struct {
	Nice int     // 1 to 19; a process that is nicer already stays so
	IO   IOClass // IOUnchanged when empty
	CPUs int     // used at a time; 0 leaves all
}

// Apply makes the process as gentle as the options say. It can be made gentler again, not less so. An error leaves some of
// it undone; all that could be done is.
func Apply(opts Options) error {
	if opts.CPUs > 0 {
		runtime.GOMAXPROCS(min(opts.CPUs, runtime.GOMAXPROCS(0)))
	}
	return errors.Join(forThreads(func(tid int) error { return makeNice(tid, opts.Nice) }),
		forThreads(func(tid int) error { return setIO(tid, opts.IO) }))
}

// forThreads calls do for each thread of the process: to Linux, niceness is that of a thread. One that is started
// meanwhile inherits from the one that starts it, so all are covered once a round finds none that was not seen.
func forThreads(do func(tid int) error) error {
	seen := make(map[int]bool)
	for before := -1; before < len(seen); {
		before = len(seen)
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("cannot list the threads of this process: %w", err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return fmt.Errorf("cannot list the threads of this process: %w", err)
			}
			if seen[tid] {
				continue
			}
			seen[tid] = true
			if err := do(tid); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended meanwhile
				return err
			}
		}
	}
	return nil
}

func makeNice(tid, nice int) error {
	if nice <= 0 {
		return nil
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil {
		return fmt.Errorf("cannot read the niceness: %w", err)
	}
	if have := 20 - raw; have >= nice { // the system call itself never returns a negative number
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil {
		return fmt.Errorf("cannot set niceness %d: %w", nice, err)
	}
	return nil
}

func setIO(tid int, class IOClass) error {
	var priority uintptr
	switch class {
	case "", IOUnchanged:
		return nil
	case IOBestEffort:
		priority = ioprioBestEffort<<ioprioClassShift | ioprioLastLevel
	case IOIdle:
		priority = ioprioIdle << ioprioClassShift
	default:
		return fmt.Errorf("cannot set I/O priority %q: there is no such class", class)
	}
	have, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if errno == 0 && have>>ioprioClassShift == ioprioIdle {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), priority); errno != 0 {
		return fmt.Errorf("cannot set I/O priority %q: %w", class, errno)
	}
	return nil
}
