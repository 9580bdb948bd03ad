// Package mount mounts filesystems of guests read-only, without a mountpoint; and for writing those alone that this
// program has itself just made.
//
// A mount is made with fsopen(2), fsconfig(2) and fsmount(2) and never attached to a tree of folders: no other process
// sees it, no path leads to it but the descriptor, and it is gone with the last descriptor, at the latest when the process
// ends. The types that may be mounted and the options of each are fixed here.
//
// The kernel reads structures that a guest wrote, from a device that may hang. So a short-lived child, which is this same
// program run again, makes the mount and passes it back as a descriptor (SCM_RIGHTS, unix(7)); a child that does not
// answer is left behind. Programs that use the package call RunChild first thing.
package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotAllowed is wrapped by the error of Mount for a type that is not mounted on this side of a guest's border.
var ErrNotAllowed = errors.New("filesystems of this type are not mounted")

// ErrHung is wrapped by the errors of what did not come back in time. What hangs in the kernel ends by itself as soon as
// the device answers or is removed, and leaves no mount.
var ErrHung = errors.New("the device does not answer")

// ErrWrongDevice is wrapped by the error of Mount when the kernel mounted something else than the device that was named.
var ErrWrongDevice = errors.New("the mounted device is another")

// ErrBusy is wrapped by the error of Close when someone else still uses the device.
var ErrBusy = errors.New("the device is still in use")

// Defaults of Options. Replaying a large journal from a slow disk takes a while.
const (
	DefaultTimeout      = 5 * time.Minute
	DefaultCloseTimeout = 30 * time.Second
)

// Options of New; the zero value is that of a production host.
type Options struct {
	Exe          string        // the program that calls RunChild; "" means this one, through /proc/self/exe
	Timeout      time.Duration // for making one mount; 0 means DefaultTimeout
	CloseTimeout time.Duration // for ending one; 0 means DefaultCloseTimeout
	Env          []string      // of the child, beside its own
	Log          *slog.Logger  // nil discards
}

// Mounter makes mounts. It is safe for concurrent use.
type Mounter struct {
	exe          string
	timeout      time.Duration
	closeTimeout time.Duration
	env          []string
	log          *slog.Logger
}

// New returns a Mounter.
func New(opts Options) *Mounter {
	m := &Mounter{exe: opts.Exe, timeout: opts.Timeout, closeTimeout: opts.CloseTimeout, env: opts.Env, log: opts.Log}
	if m.exe == "" {
		m.exe = "/proc/self/exe"
	}
	if m.timeout == 0 {
		m.timeout = DefaultTimeout
	}
	if m.closeTimeout == 0 {
		m.closeTimeout = DefaultCloseTimeout
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Mount mounts a block device as a filesystem of a type, in blkid's words. The journal is replayed onto the device when
// it is writable. The error has what the kernel said. The caller closes the Mount.
func (m *Mounter) Mount(ctx context.Context, device, fsType string) (*Mount, error) {
	return m.mountAs(ctx, readOnly, device, fsType)
}

// MountWritable is Mount for a filesystem that is to be filled. It is for one that the caller has just made: to write to
// what a guest made would trust it with more than reading does.
func (m *Mounter) MountWritable(ctx context.Context, device, fsType string) (*Mount, error) {
	mounted, err := m.mountAs(ctx, writable, device, fsType)
	if err != nil {
		return nil, err
	}
	if err := mounted.useReserve(fsType); err != nil {
		m.log.Warn("the filesystem keeps space back: if it was full, its files may not all fit", "device", device, "err", err)
	}
	return mounted, nil
}

// useReserve lets files have the room that the ext4 driver keeps back for metadata of delayed writes, up to 2 % of all. A
// guest that was full to the last block may need some of it: its files come back in another order, in other pieces. Where
// metadata find no room then, Sync fails.
func (m *Mount) useReserve(fsType string) error {
	if policy, _ := policyOf(fsType); policy.driver != "ext4" {
		return nil
	}
	path, err := ext4Attribute(m.rdev, "reserved_clusters")
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte("0"), 0)
}

func (m *Mounter) mountAs(ctx context.Context, access access, device, fsType string) (*Mount, error) {
	mounted, err := m.mount(ctx, access, device, fsType)
	if err != nil {
		return nil, fmt.Errorf("mount %s as %s: %w", device, fsType, err)
	}
	return mounted, nil
}

func (m *Mounter) mount(ctx context.Context, access access, device, fsType string) (*Mount, error) {
	if !Allowed(fsType) {
		return nil, ErrNotAllowed
	}
	var info unix.Stat_t
	if err := unix.Stat(device, &info); err != nil {
		return nil, fmt.Errorf("cannot look at it: %w", err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errors.New("it is no block device")
	}
	began := time.Now()
	got, err := m.runChild(ctx, access, device, fsType)
	if err != nil {
		return nil, err
	}
	mounted := &Mount{device: device, root: got.root, mount: got.mount, rdev: info.Rdev, timeout: m.closeTimeout,
		kernel: followKernelLog(device)}
	m.log.Debug("mounted", "device", device, "type", fsType, "took", time.Since(began))
	if got.dev != info.Rdev {
		err := fmt.Errorf("%w: %d:%d, not %d:%d", ErrWrongDevice, unix.Major(got.dev), unix.Minor(got.dev),
			unix.Major(info.Rdev), unix.Minor(info.Rdev))
		return nil, errors.Join(err, mounted.release(time.Now().Add(m.closeTimeout)))
	}
	if err := mounted.countErrors(fsType); err != nil {
		return nil, errors.Join(err, mounted.release(time.Now().Add(m.closeTimeout)))
	}
	return mounted, nil
}

// countErrors remembers what the kernel had found wrong before anything was read.
func (m *Mount) countErrors(fsType string) (err error) {
	policy, _ := policyOf(fsType)
	if m.errors, err = newErrorCounter(policy.driver, m.rdev); err != nil {
		return err
	}
	m.errorsBefore, err = m.errors.read()
	return err
}

// Mount is a filesystem that is mounted for this process alone.
type Mount struct {
	device  string
	root    *os.File
	mount   *os.File // what fsmount returned: closing it detaches
	rdev    uint64
	timeout time.Duration
	close   sync.Once
	err     error

	kernel       kernelLog
	errors       errorCounter
	errorsBefore int64
}

// Root is the root directory, open for reading. It belongs to the Mount and is closed with it.
func (m *Mount) Root() *os.File { return m.root }

// OpenRoot opens the root directory once more, as an os.Root, which no symbolic link of the guest leads out of. The caller
// closes it before the Mount.
func (m *Mount) OpenRoot() (*os.Root, error) {
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.root.Fd()))
}

// Device returns the number of the device that is mounted, as st_rdev of the device has it. Mount has made sure that it
// is the device that was asked for.
func (m *Mount) Device() uint64 { return m.rdev }

// Statfs returns size and use of the filesystem.
func (m *Mount) Statfs() (unix.Statfs_t, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(m.root.Fd()), &s); err != nil {
		return s, fmt.Errorf("statfs %s: %w", m.device, err)
	}
	return s, nil
}

// Sync writes everything to the device, and returns the error of a write that failed since the mount was made; Close could
// not tell.
func (m *Mount) Sync() error {
	if err := unix.Syncfs(int(m.root.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", m.device, err)
	}
	return nil
}

// Close detaches the mount and waits until the kernel has let go of the device, so that it can be removed. All files that
// were opened beneath Root must be closed before. An error wraps ErrHung when the device does not answer, and ErrBusy
// when it stays in use. Further calls return the same.
func (m *Mount) Close() error {
	m.close.Do(func() {
		if err := m.release(time.Now().Add(m.timeout)); err != nil {
			m.err = fmt.Errorf("unmount %s: %w", m.device, err)
		}
	})
	return m.err
}

func (m *Mount) release(deadline time.Time) error {
	// Closing the last descriptor is the unmount, which writes to the device and so may hang.
	m.kernel.close()
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(m.root.Close(), m.mount.Close()) }()
	select {
	case err := <-closed:
		return errors.Join(err, awaitReleased(m.device, deadline))
	case <-time.After(time.Until(deadline)):
		return fmt.Errorf("%w (waited %s)", ErrHung, m.timeout)
	}
}

// awaitReleased waits until a device can be opened exclusively: O_EXCL on a block device fails while it is mounted or
// mapped (open(2)).
func awaitReleased(device string, deadline time.Time) error {
	const least, most = time.Millisecond, 200 * time.Millisecond
	for pause := least; ; pause = min(2*pause, most) {
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return unix.Close(fd)
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("cannot tell whether %s is released: %w", device, err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w: a file beneath it is still open, or it is mounted elsewhere", ErrBusy)
		}
		time.Sleep(pause)
	}
}

var _ io.Closer = (*Mount)(nil)
