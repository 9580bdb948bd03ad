// Package lvm knows LVM2 on this host: volume groups, logical volumes, snapshots, tags and thin pools. It reads lvm2's
// JSON reports (lvmreport(7)) with columns that it names itself, in bytes, and changes things through lvcreate,
// lvextend, lvremove, lvconvert and lvchange, never with a question that waits for a person.
//
// A snapshot costs two commands, lvcreate and lvremove. What becomes of it the device-mapper tells, by sysfs and one system call. lvm2
// is asked where that does not suffice: when a command fails, and when something is to be removed that a dead run left.
//
// A classic snapshot has copy-on-write space of its own, taken from its volume group, and becomes invalid when that
// is full. A thin snapshot shares its pool with everything else in it. Both are made writable and active.
package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// Errors that callers decide on.
var (
	// ErrNotFound says that a volume group which this host sees has no logical volume of that name.
	ErrNotFound = errors.New("no such logical volume")
	// ErrVGNotFound says that this host sees no volume group of that name. Its disks may only be away for now.
	ErrVGNotFound = errors.New("no such volume group")
	// ErrExists says that the name is taken.
	ErrExists = errors.New("the name is taken")
	// ErrInactive says that a volume has no device on this host.
	ErrInactive = errors.New("the volume is not active")
	// ErrNotOurs says that a volume is not the one that the caller expects under that name.
	ErrNotOurs = errors.New("it is not the volume expected under this name")
	// ErrBusy says that a volume cannot be removed while something holds it.
	ErrBusy = errors.New("the volume is in use")
	// ErrNoSpace says that a volume group has too little free space.
	ErrNoSpace = errors.New("too little free space in the volume group")
	// ErrPoolFull says that a thin pool is at or over a limit.
	ErrPoolFull = errors.New("thin pool too full")
	// ErrPoolUnhealthy says that a thin pool needs repair before anything may rely on it.
	ErrPoolUnhealthy = errors.New("thin pool needs attention")
	// ErrSnapshotOverflow says that a snapshot's copy-on-write space ran full: what was read from it is worthless.
	ErrSnapshotOverflow = errors.New("snapshot overflowed")
	// ErrStatusUnknown says that lvm2 cannot tell whether a snapshot is valid.
	ErrStatusUnknown = errors.New("the snapshot's state is unknown")
)

// Options of New. The zero value is that of a production host.
type Options struct {
	SysRoot  string // where sysfs is mounted; empty means /sys
	ProcRoot string // where procfs is mounted; empty means /proc
	RunRoot  string // where udevd has its control socket; empty means /run

	// ChangeTimeout is how long a command that changes something is waited for; 0 means 3 minutes. lvremove may have to
	// wait for what holds a volume, and both it and lvcreate for udev.
	ChangeTimeout time.Duration
	// MergeTimeout is how long a merge of a snapshot is waited for, which copies all that has changed; 0 means 24 hours.
	MergeTimeout time.Duration
	// ReportTimeout ends a command that only reports, which is then tried again, three times in all; 0 means 1 minute.
	ReportTimeout  time.Duration
	RemoveAttempts int           // how often to try to remove a busy volume; 0 means 8
	RetryDelay     time.Duration // the first pause between two tries, doubled after each up to 4 s; 0 means 200 ms
	NodeWait       time.Duration // how long to wait for a new volume's device node; 0 means 15 s
}

// Client runs lvm2. It is safe for concurrent use.
type Client struct {
	run            *hostcmd.Runner
	sys, proc      string
	env            []string
	udev           bool
	changeTimeout  time.Duration
	mergeTimeout   time.Duration
	reportTimeout  time.Duration
	removeAttempts int
	retryDelay     time.Duration
	nodeWait       time.Duration
	leftRunning    atomic.Bool
	bounds         atomic.Pointer[map[string]string] // by UUID of the group; see noteBounds

	devicesFile string
	target      func(uuid string) (dmTarget, error) // asks the device-mapper
	blockDev    func(path string) Dev               // of a device node; the zero Dev where there is none
}

// New returns a Client that runs its commands by r.
func New(r *hostcmd.Runner, opts Options) *Client {
	c := &Client{
		run:            r,
		sys:            orDefault(opts.SysRoot, "/sys"),
		proc:           orDefault(opts.ProcRoot, "/proc"),
		changeTimeout:  opts.ChangeTimeout,
		mergeTimeout:   opts.MergeTimeout,
		reportTimeout:  opts.ReportTimeout,
		removeAttempts: opts.RemoveAttempts,
		retryDelay:     opts.RetryDelay,
		nodeWait:       opts.NodeWait,
		devicesFile:    devicesFile,
		target:         readTarget,
		blockDev:       blockDev,
		// Descriptors that a parent left open are not lvm2's business, and its warnings about them hide real errors.
		env: []string{"LVM_SUPPRESS_FD_WARNINGS=1"},
	}
	if c.changeTimeout <= 0 {
		c.changeTimeout = 3 * time.Minute
	}
	if c.mergeTimeout <= 0 {
		c.mergeTimeout = 24 * time.Hour
	}
	if c.reportTimeout <= 0 {
		c.reportTimeout = time.Minute
	}
	if c.removeAttempts <= 0 {
		c.removeAttempts = 8
	}
	if c.retryDelay <= 0 {
		c.retryDelay = 200 * time.Millisecond
	}
	if c.nodeWait <= 0 {
		c.nodeWait = 15 * time.Second
	}
	_, err := os.Stat(filepath.Join(orDefault(opts.RunRoot, "/run"), "udev/control"))
	c.udev = err == nil
	if !c.udev {
		// Without udevd nobody would answer libdevmapper's cookies, nor make device nodes: it then does so itself.
		c.env = append(c.env, "DM_DISABLE_UDEV=1")
	}
	return c
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

const (
	reportAttempts = 3
	settleTimeout  = 10 * time.Second
)

// unmonitored are the settings of commands that extend, deactivate and remove: they try again while udev holds a device,
// and do not speak to dmeventd, which would be started only to be told to forget what it never watched, and would stay.
const unmonitored = "activation{retry_deactivation=1 monitoring=0}"

// unarchived is the setting of commands that make, extend and remove snapshots. lvm2 keeps the state before each change in
// /etc/lvm/archive, for thirty days by default: with 70 volumes a night's snapshots alone make 8,000 files of it, which
// every command of lvm2 then reads through. What is of a run does not outlive it, so no state between is one to go back to.
// The state after each change is kept all the same, in /etc/lvm/backup, and other changes are archived as ever.
const unarchived = "backup{archive=0}"

// settings joins settings for --config.
func settings(list ...string) string { return strings.TrimSpace(strings.Join(list, " ")) }

// change runs a command of lvm2 that alters something. Once begun it runs to its end or to its time limit, whatever becomes
// of ctx. One that is in the middle of a change then is left to itself, and not ended.
func (c *Client) change(ctx context.Context, name string, args ...string) (hostcmd.Result, error) {
	if ctx.Err() != nil {
		return hostcmd.Result{}, context.Cause(ctx)
	}
	return c.runChange(context.WithoutCancel(ctx), hostcmd.Cmd{Name: name, Args: args, Timeout: c.changeTimeout})
}

func (c *Client) runChange(ctx context.Context, cmd hostcmd.Cmd) (hostcmd.Result, error) {
	cmd.Env, cmd.LeaveRunning = c.env, c.isInTheMiddle
	res, err := c.run.Run(ctx, cmd)
	var failure *hostcmd.Error
	if errors.As(err, &failure) && failure.TimedOut > 0 {
		err = c.explainSlow(err)
	}
	return res, err
}

// isInTheMiddle tells whether a process of lvm2 suspends devices just now: while it does it locks its memory, so as not to
// wait for a disk that it has suspended itself. One that is killed there leaves a guest's disk standing.
func (c *Client) isInTheMiddle(pid int) bool {
	status, err := os.ReadFile(filepath.Join(c.proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return false // it has ended
	}
	for line := range strings.Lines(string(status)) {
		if locked, found := strings.CutPrefix(line, "VmLck:"); found && strings.TrimSpace(locked) != "0 kB" {
			c.leftRunning.Store(true)
			return true
		}
	}
	return false
}

// LeftRunning tells whether a command was left to itself that may yet make or remove something.
func (c *Client) LeftRunning() bool { return c.leftRunning.Load() }

// resumeAfter lets the volume vg/name go on where a command that was ended by force, as its error tells, left it
// suspended. It returns that error, with its own when it could not help.
func (c *Client) resumeAfter(ctx context.Context, failure error, vg, name string) error {
	var cmd *hostcmd.Error
	if name == "" || !errors.As(failure, &cmd) || cmd.ExitCode >= 0 || errors.Is(failure, hostcmd.ErrLeftRunning) ||
		errors.Is(failure, hostcmd.ErrNotFound) {
		return failure
	}
	ctx = context.WithoutCancel(ctx)
	v, err := c.Lookup(ctx, vg, name)
	if err == nil && v.Suspended {
		_, err = c.change(ctx, "lvchange", "--refresh", v.String())
	}
	if err != nil {
		err = say.WithHint(fmt.Errorf("make sure that %s/%s is not suspended: %w", vg, name, err),
			fmt.Sprintf("dmsetup resume %s", DMName(vg, name)))
	}
	return errors.Join(failure, err)
}

// settle waits until udev has handled the events so far, for a short while at most. It only helps to find a device
// free or its node made, so callers look at the thing itself afterwards and need no error.
func (c *Client) settle(ctx context.Context) {
	if !c.udev {
		return
	}
	seconds := fmt.Sprintf("--timeout=%d", int(settleTimeout.Seconds()))
	cmd := hostcmd.Cmd{Name: "udevadm", Args: []string{"settle", seconds}, Timeout: settleTimeout + time.Second}
	_, _ = c.run.Run(ctx, cmd)
}

// sleep waits for d, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
