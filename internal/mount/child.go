package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childArg as the first argument makes the program the child that mounts; access, type and device follow.
const childArg = "mount-child"

// socketFD is the child's end of the socket, the first of exec.Cmd's ExtraFiles.
const socketFD = 3

const maxReplyBytes = 64 << 10

// reply is the one message from the child. On success two descriptors come with it: the mount, and its root directory.
type reply struct {
	Dev      uint64        `json:"dev"` // of the mounted device
	Step     string        `json:"step,omitempty"`
	Errno    syscall.Errno `json:"errno,omitempty"`
	Err      string        `json:"err,omitempty"`
	Messages []string      `json:"messages,omitempty"` // of the kernel, about a mount that failed
}

// failure returns the error that a reply tells of, or nil. It wraps the kernel's error number.
func (r reply) failure() error {
	if r.Step == "" {
		return nil
	}
	var err error = r.Errno
	if r.Errno == 0 {
		err = errors.New(r.Err)
	}
	if len(r.Messages) == 0 {
		return fmt.Errorf("cannot %s: %w", r.Step, err)
	}
	return fmt.Errorf("cannot %s: %w (the kernel says: %s)", r.Step, err, strings.Join(r.Messages, "; "))
}

// passed is what the parent got from the child.
type passed struct {
	mount, root *os.File
	dev         uint64
}

// runChild has a child make the mount, and waits for it no longer than the time limit.
func (m *Mounter) runChild(ctx context.Context, access access, device, fsType string) (got passed, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return passed{}, err
	}
	defer func() { err = errors.Join(err, ours.Close()) }()
	child := exec.Command(m.exe, childArg, string(access), fsType, device)
	child.ExtraFiles = []*os.File{theirs}
	child.Env = append([]string{"GOMAXPROCS=1"}, m.env...)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for the parent to handle
	err = child.Start()
	if err := errors.Join(err, theirs.Close()); err != nil {
		return passed{}, fmt.Errorf("cannot start the child that mounts: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()

	limit, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	// A deadline in the past ends the read at once.
	defer context.AfterFunc(limit, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })()
	got, err = receive(ours)
	if err == nil {
		return got, nil // the child ends by itself
	}
	// Killing asks what is not in the kernel to end now, and what is, to end when it comes back.
	_ = child.Process.Kill() // fails only when it has ended
	switch {
	case ctx.Err() != nil:
		return passed{}, context.Cause(ctx)
	case limit.Err() != nil:
		m.log.Warn("a mount hangs and is left behind", "device", device, "type", fsType, "pid", child.Process.Pid)
		return passed{}, fmt.Errorf("%w: not mounted after %s; process %d is left behind and ends when it does", ErrHung, m.timeout,
			child.Process.Pid)
	case errors.Is(err, io.EOF):
		return passed{}, fmt.Errorf("the child that mounts ended without an answer: %w", noAnswer(<-ended))
	}
	return passed{}, err
}

func noAnswer(err error) error {
	if err == nil {
		return errors.New("does the program call mount.RunChild first?")
	}
	return err
}

// socketPair returns two connected ends; messages keep their borders and closing one end shows at the other.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "mount-parent")
	theirs = os.NewFile(uintptr(fds[1]), "mount-child")
	conn, err := net.FileConn(mine) // a duplicate
	if err := errors.Join(err, mine.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cannot use a socket pair: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// receive reads the child's one message.
func receive(conn *net.UnixConn) (passed, error) {
	message, control := make([]byte, maxReplyBytes), make([]byte, unix.CmsgSpace(2*4))
	n, controlN, _, _, err := conn.ReadMsgUnix(message, control)
	if err != nil {
		return passed{}, err
	}
	if n == 0 {
		return passed{}, io.EOF
	}
	files, err := filesIn(control[:controlN])
	if err != nil {
		return passed{}, err
	}
	var r reply
	err = json.Unmarshal(message[:n], &r)
	if err == nil {
		err = r.failure()
	}
	if err == nil && len(files) != 2 {
		err = fmt.Errorf("the child that mounts passed %d descriptors", len(files))
	}
	if err != nil {
		for _, file := range files {
			err = errors.Join(err, file.Close())
		}
		return passed{}, err
	}
	return passed{mount: files[0], root: files[1], dev: r.Dev}, nil
}

// filesIn takes the descriptors out of a control message. They close on exec: net asks for that as they are received.
func filesIn(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("cannot read a control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, fmt.Errorf("cannot read a control message: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "mount"))
		}
	}
	return files, nil
}

// RunChild does the work of the child when args (those of the program, its name first) say that this process is one, and
// returns its exit status. Programs call it before anything else, and end at once with the status when it was handled:
//
//	if status, handled := mount.RunChild(os.Args); handled {
//		os.Exit(status)
//	}
func RunChild(args []string) (status int, handled bool) {
	if len(args) < 2 || args[1] != childArg {
		return 0, false
	}
	if len(args) != 5 {
		return 2, true
	}
	runtime.LockOSThread()
	unix.CloseOnExec(socketFD)
	r, fds := attempt(access(args[2]), args[3], args[4])
	message, err := json.Marshal(r)
	if err != nil {
		return 1, true
	}
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	// When the parent has given up, this fails, and the mount goes with this process.
	if err := unix.Sendmsg(socketFD, message, control, nil, unix.MSG_NOSIGNAL); err != nil {
		return 1, true
	}
	return 0, true
}

// stepError is the failure of one step, with what the kernel said about it.
type stepError struct {
	step     string
	messages []string
	err      error
}

func (e *stepError) Error() string { return fmt.Sprintf("cannot %s: %v", e.step, e.err) }
func (e *stepError) Unwrap() error { return e.err }

// attempt makes a mount and answers with its descriptors or with the reason why not. Descriptors of a failed attempt are
// left to the end of the process.
func attempt(access access, fsType, device string) (reply, []int) {
	fds, dev, err := makeMount(access, fsType, device)
	if err == nil {
		return reply{Dev: dev}, fds
	}
	r := reply{Step: "mount", Err: err.Error()}
	var step *stepError
	if errors.As(err, &step) {
		r.Step, r.Messages, r.Err = step.step, step.messages, step.err.Error()
	}
	errors.As(err, &r.Errno)
	return r, nil
}

// makeMount goes the way of mount_setattr(2) and its relatives: a context of the filesystem type, its parameters, the
// superblock, and a mount of it in no namespace.
func makeMount(access access, fsType, device string) (fds []int, dev uint64, err error) {
	policy, ok := policyOf(fsType)
	if !ok {
		return nil, 0, &stepError{step: "mount", err: ErrNotAllowed}
	}
	log := followKernelLog(device)
	context, err := unix.Fsopen(policy.driver, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, 0, &stepError{step: "open a filesystem of type " + policy.driver, err: err}
	}
	failed := func(step string, err error) ([]int, uint64, error) {
		return nil, 0, &stepError{step: step, messages: append(contextMessages(context), log.messages()...), err: err}
	}
	attributes := unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	settings := []setting{{"source", device}}
	if access != writable {
		settings = append(settings, setting{"ro", ""})
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	settings = append(settings, policy.settings...)
	for _, s := range settings {
		if s.value == "" {
			err = unix.FsconfigSetFlag(context, s.key)
		} else {
			err = unix.FsconfigSetString(context, s.key, s.value)
		}
		if err != nil {
			return failed("set "+s.key, err)
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return failed("read the filesystem", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return failed("mount the filesystem", err)
	}
	root, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("open the root directory", err)
	}
	if policy.anonymous {
		dev, err = btrfsDevice(root)
	} else {
		var info unix.Stat_t
		err = unix.Fstat(root, &info)
		dev = info.Dev
	}
	if err != nil {
		return failed("look at the mounted device", err)
	}
	return []int{mount, root}, dev, nil
}

// contextMessages reads the log of a filesystem context: one message a read, each beginning with e, w or i for error,
// warning or information, and ENODATA at the end.
func contextMessages(context int) []string {
	var messages []string
	buffer := make([]byte, 1024)
	for range 32 {
		n, err := unix.Read(context, buffer)
		if err != nil || n <= 0 {
			break
		}
		messages = append(messages, strings.ToValidUTF8(strings.TrimSpace(string(buffer[:n])), "\uFFFD"))
	}
	return messages
}
