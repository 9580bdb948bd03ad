package owned

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/journal"
	"voltar/internal/say"
)

// OwnerEnv returns the environment variable that the commands and children of this process carry which change volumes
// and maps, so that what a run that was killed has left at work is known for its own: an lvcreate goes on when its parent
// is gone.
func OwnerEnv() string { return ownerEnv(os.Getpid()) }

func ownerEnv(pid int) string { return "VOLTAR_OWNER_PID=" + strconv.Itoa(pid) }

const (
	orphansTimeout = 5 * time.Minute // lvm2's commands have three
	orphansPoll    = 100 * time.Millisecond
)

// awaitOrphans waits until the commands of a dead process have ended. Before that, what its journal names may yet come
// into being, after recovery has looked and found nothing. They are not killed: lvm2 suspends devices while it works.
func awaitOrphans(ctx context.Context, pid int) error {
	deadline := time.Now().Add(orphansTimeout)
	for {
		orphan, err := findOrphan("/proc", pid)
		switch {
		case err != nil:
			return err
		case orphan == "":
			return nil
		case time.Now().After(deadline):
			return say.WithHint(fmt.Errorf("process %s of that run is still at work: nothing is removed before it ends", orphan),
				fmt.Sprintf("look at it with `ps -fp %s`, then run `voltar cleanup`", orphan))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(orphansPoll):
		}
	}
}

// findOrphan returns the number of a living process that carries the mark of another, or "". Daemons that a command of
// lvm2 started carry it too; they stay, and have a session of their own.
func findOrphan(proc string, owner int) (string, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	mark := []byte(ownerEnv(owner))
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if session, err := unix.Getsid(pid); err != nil || session == pid {
			continue
		}
		environment, err := os.ReadFile(filepath.Join(proc, entry.Name(), "environ"))
		if err != nil {
			continue // it has ended, or is not ours to look at and so not of root's making
		}
		for variable := range bytes.SplitSeq(environment, []byte{0}) {
			if bytes.Equal(variable, mark) {
				return entry.Name(), nil
			}
		}
	}
	return "", nil
}

// inheritedTimeout is how long to wait for a lock of a dead process. A child of it that was just about to start a command
// has the lock's descriptor until it does.
const inheritedTimeout = 10 * time.Second

// LockConfiguration takes the lock of a configuration. Only a process that lives, or the end of ctx, keeps it from that.
func LockConfiguration(ctx context.Context, locks *journal.Locks, name string) (*journal.Lock, error) {
	deadline := time.Now().Add(inheritedTimeout)
	for {
		lock, err := locks.TryLock(journal.ScopeConfig, name)
		var held *journal.HeldError
		if !errors.As(err, &held) || isAlive(held.Holder.PID) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(orphansPoll):
		}
	}
}

// isAlive tells whether there is a process of that number. 0 is a holder that has not yet said who it is, or is just
// letting go: that is over in a moment.
func isAlive(pid int) bool { return pid != 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
