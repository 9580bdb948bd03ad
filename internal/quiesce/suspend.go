package quiesce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// CanNest tells whether this kernel bears a filesystem that is frozen twice: by FIFREEZE, and by the device-mapper,
// which freezes what is mounted on a device when it suspends it. lvcreate suspends the origin. Before Linux 6.8 it fails
// with EBUSY on a filesystem that is frozen already, and leaves half a snapshot (seen with 6.1).
func CanNest() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	return canNest(unix.ByteSliceToString(name.Release[:]))
}

func canNest(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || (major == 6 && minor >= 8)
}

// suspender suspends logical volumes themselves, which freezes the filesystems mounted on them. lvcreate takes a
// suspended origin for one that it has suspended, and resumes it when its snapshot stands: until then nothing is
// written, so that all volumes that were suspended at one moment are snapshotted as of that moment.
type suspender struct {
	commands  commandFreezer
	devices   []string
	suspended []string
}

func newSuspender(devices []string, timeout time.Duration) *suspender {
	return &suspender{commands: commandFreezer{run: hostcmd.New(hostcmd.Options{Env: dmEnv()}), timeout: timeout}, devices: devices}
}

// dmEnv keeps dmsetup from waiting for udevd where there is none.
func dmEnv() []string {
	if _, err := os.Stat("/run/udev/control"); err == nil {
		return nil
	}
	return []string{"DM_DISABLE_UDEV=1"}
}

func (s *suspender) freeze(ctx context.Context) error {
	for _, device := range s.devices {
		s.suspended = append(s.suspended, device) // also when it fails: it may be halfway
		if _, err := s.commands.output(ctx, []string{"dmsetup", "suspend", device}); err != nil {
			return errors.Join(fmt.Errorf("cannot suspend %s: %w", device, err), s.thaw(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// thaw resumes what LVM has not resumed: nothing, when every snapshot was made.
func (s *suspender) thaw(ctx context.Context) error {
	_, err := resume(ctx, s.commands.run, s.suspended)
	s.suspended = nil
	return err
}

// resume resumes those devices that are suspended, and reports whether there were any.
func resume(ctx context.Context, run *hostcmd.Runner, devices []string) (resumed bool, err error) {
	var all []error
	for _, device := range devices {
		cmd := hostcmd.Cmd{Name: "dmsetup", Args: []string{"info", "-c", "--noheadings", "-o", "suspended", device}, Env: dmEnv()}
		res, err := run.Run(ctx, cmd)
		if err == nil && !strings.EqualFold(strings.TrimSpace(string(res.Stdout)), "suspended") {
			continue
		}
		// One that cannot be looked at is resumed: that does nothing to a device that runs.
		cmd.Args = []string{"resume", device}
		if _, err := run.Run(ctx, cmd); err != nil {
			all = append(all, say.WithHint(fmt.Errorf("cannot resume %s: %w", device, err),
				fmt.Sprintf("dmsetup resume %s", device)))
			continue
		}
		resumed = true
	}
	return resumed, errors.Join(all...)
}
