package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLockDir is where the locks of a production host are. It is on a tmpfs, so no lock outlives a reboot.
const DefaultLockDir = "/run/voltar"

// Scope says what a lock is for.
type Scope string

// Scopes of locks, with what names one of each.
const (
	ScopeConfig      Scope = "configuration"  // the absolute path of the configuration
	ScopeVolume      Scope = "volume"         // VG/LV
	ScopeDestination Scope = "destination"    // what the store's String gives: taken to prune and to sweep
	ScopeThinPool    Scope = "thin-pool"      // UUID of the pool's device: taken to hold a snapshot of its metadata
	ScopeScratch     Scope = "scratch folder" // its path
	ScopeBtrfs       Scope = "btrfs"          // UUID of the filesystem: the kernel takes two devices of one for the same
)

// Holder is who holds a lock, so that others can say it.
type Holder struct {
	PID     int       `json:"pid"`
	Run     string    `json:"run,omitempty"` // its ID, where it has one
	Command string    `json:"command"`       // "voltar run"
	Started time.Time `json:"started"`
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	text := fmt.Sprintf("%q, pid %d, since %s", h.Command, h.PID, h.Started.Local().Format("2006-01-02 15:04:05 MST"))
	if h.Run != "" {
		text += ", run " + h.Run
	}
	return text
}

// HeldError tells that somebody else holds a lock.
type HeldError struct {
	Scope  Scope
	Name   string
	Holder Holder // zero when the holder has not said yet who it is
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("the %s %s is in use by %s", e.Scope, e.Name, e.Holder)
}

// Locks takes locks on behalf of one process. It is safe for concurrent use. Two locks of one scope and name exclude
// each other within a process as they do between processes.
type Locks struct {
	dir  string
	self Holder
}

// NewLocks makes the folder of the locks where it is missing. An empty dir means DefaultLockDir; the PID of self is
// filled in when it is 0.
func NewLocks(dir string, self Holder) (*Locks, error) {
	if dir == "" {
		dir = DefaultLockDir
	}
	if self.PID == 0 {
		self.PID = os.Getpid()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of locks: %w", err)
	}
	return &Locks{dir: dir, self: self}, nil
}

// Lock is a lock that is held. It ends with Unlock, or with the process.
type Lock struct {
	file *os.File
}

// A lock is nobody's for an instant while it is taken, let go or looked at: it is held, and its file does not say by whom.
const (
	namelessTries = 5
	namelessWait  = 10 * time.Millisecond
)

// TryLock takes a lock, or returns a *HeldError at once.
func (l *Locks) TryLock(scope Scope, name string) (*Lock, error) {
	path := filepath.Join(l.dir, lockFileName(scope, name))
	for tries := 1; ; {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %s %s: %w", scope, name, err)
		}
		lock, err := l.take(file, path)
		switch {
		case err == nil:
			return lock, nil
		case errors.Is(err, errHeld):
			holder := readHolder(file)
			err = file.Close()
			if holder.PID != 0 || tries == namelessTries {
				return nil, errors.Join(&HeldError{Scope: scope, Name: name, Holder: holder}, err)
			}
			tries++
			time.Sleep(namelessWait)
		case errors.Is(err, errReplaced):
			err = file.Close()
		default:
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s %s: %w", scope, name, err)
		}
	}
}

var (
	errHeld     = errors.New("somebody else holds the lock")
	errReplaced = errors.New("the lock's file was replaced")
)

// take locks an open file and says in it who holds the lock. Somebody may have removed the file since it was opened
// (errReplaced): a lock on a file without a name locks nothing.
func (l *Locks) take(file *os.File, path string) (*Lock, error) {
	taken, err := flock(file)
	if err != nil {
		return nil, err
	}
	if !taken {
		return nil, errHeld
	}
	if !stillAt(file, path) {
		return nil, errReplaced
	}
	lock := &Lock{file: file}
	return lock, lock.write(l.self)
}

// Look returns a *HeldError if somebody holds a lock. Those who look do not get in each other's way, and who takes the
// lock meanwhile gets it.
func (l *Locks) Look(scope Scope, name string) (err error) {
	file, err := os.OpenFile(filepath.Join(l.dir, lockFileName(scope, name)), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the lock of %s %s: %w", scope, name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	free, err := flockShared(file)
	if err != nil || free {
		return err
	}
	return &HeldError{Scope: scope, Name: name, Holder: readHolder(file)}
}

// lockPoll is how often a waiting Lock looks again. flock(2) could wait by itself, but not for a context.
const lockPoll = 200 * time.Millisecond

// Lock waits for a lock. When the context ends first, its error names the holder (*HeldError) and the context's cause.
func (l *Locks) Lock(ctx context.Context, scope Scope, name string) (*Lock, error) {
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		lock, err := l.TryLock(scope, name)
		var held *HeldError
		if !errors.As(err, &held) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// Unlock gives the lock back. Its file stays: removing it could take a lock away from who has just opened it.
func (k *Lock) Unlock() error {
	return errors.Join(k.file.Truncate(0), k.file.Close())
}

// LockBackup takes the locks that keep runs from removing a volume's backups on one destination.
func LockBackup(ctx context.Context, runDir, command, volume, destination string) (unlock func() error, err error) {
	locks, err := NewLocks(runDir, Holder{Command: command, Started: time.Now()})
	if err != nil {
		return nil, err
	}
	ofVolume, err := locks.TryLock(ScopeVolume, volume)
	if err != nil {
		return nil, err
	}
	ofDestination, err := locks.Lock(ctx, ScopeDestination, destination)
	if err != nil {
		return nil, errors.Join(err, ofVolume.Unlock())
	}
	return func() error { return errors.Join(ofDestination.Unlock(), ofVolume.Unlock()) }, nil
}

// write says who holds the lock, in place: another file in its stead would be another lock.
func (k *Lock) write(self Holder) error {
	data, err := json.Marshal(self)
	if err != nil {
		return err
	}
	if err := k.file.Truncate(0); err != nil {
		return err
	}
	_, err = k.file.WriteAt(append(data, '\n'), 0)
	return err
}

// readHolder returns the zero Holder for what it cannot read: the holder may be just about to write it.
func readHolder(file *os.File) Holder {
	var holder Holder
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 64<<10))
	if err != nil || json.Unmarshal(data, &holder) != nil {
		return Holder{}
	}
	return holder
}

// lockFileName is one file name for each scope and name, whatever bytes the name holds.
func lockFileName(scope Scope, name string) string {
	const maxBytes = 200
	file := string(scope) + "-" + url.PathEscape(name)
	if len(file) > maxBytes {
		sum := sha256.Sum256([]byte(name))
		file = file[:maxBytes-2*len(sum)] + hex.EncodeToString(sum[:])
	}
	return file + ".lock"
}

// flock takes the exclusive lock of an open file, or reports that somebody else has it.
func flock(file *os.File) (taken bool, err error) { return tryFlock(file, unix.LOCK_EX) }

// flockShared takes a lock that others may have at the same time, as long as nobody has the exclusive one.
func flockShared(file *os.File) (taken bool, err error) { return tryFlock(file, unix.LOCK_SH) }

func tryFlock(file *os.File, how int) (taken bool, err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return false, err
	}
	var lockErr error
	if err := conn.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), how|unix.LOCK_NB) }); err != nil {
		return false, err
	}
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		return false, nil
	}
	if lockErr != nil {
		return false, fmt.Errorf("cannot flock %s: %w", file.Name(), lockErr)
	}
	return true, nil
}

// stillAt reports whether the path still names the open file.
func stillAt(file *os.File, path string) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

// flockPatience bounds how long a lock is waited for that others hold for moments only.
const flockPatience = 10 * time.Second

// awaitFlock is flock for a lock that others hold for moments only.
func awaitFlock(file *os.File) error {
	for deadline := time.Now().Add(flockPatience); ; time.Sleep(time.Millisecond) {
		taken, err := flock(file)
		if err != nil || taken {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot lock %s: another has held it for %s", file.Name(), flockPatience)
		}
	}
}
