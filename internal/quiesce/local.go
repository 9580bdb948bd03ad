package quiesce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// From linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	ioctlFreeze = 0xc0045877
	ioctlThaw   = 0xc0045878
)

// localFreezer freezes filesystems of this host. Their roots are opened before anything is frozen, so that nothing has
// to be looked up to thaw them.
type localFreezer struct {
	roots []*os.File

	mu     sync.Mutex // the deadline's thaw may come while the last freeze still hangs
	frozen []*os.File // in the order in which they were
}

func openLocal(mountpoints []string) (*localFreezer, error) {
	f := &localFreezer{}
	for _, point := range mountpoints {
		root, err := os.Open(point)
		if err != nil {
			return nil, err
		}
		f.roots = append(f.roots, root)
		// What can be written before, does not prolong the freeze.
		if err := unix.Syncfs(int(root.Fd())); err != nil {
			return nil, fmt.Errorf("cannot sync %s: %w", point, err)
		}
	}
	return f, nil
}

func (f *localFreezer) freeze(context.Context) error {
	for _, root := range f.roots {
		// A filesystem that somebody else has frozen is theirs to thaw: EBUSY.
		if err := freezeIoctl(root, ioctlFreeze); err != nil {
			return fmt.Errorf("cannot freeze %s: %w", root.Name(), errors.Join(err, f.thaw(context.Background())))
		}
		f.mu.Lock()
		f.frozen = append(f.frozen, root)
		f.mu.Unlock()
	}
	return nil
}

func (f *localFreezer) thaw(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []error
	for _, root := range slices.Backward(f.frozen) {
		all = append(all, thawRoot(root))
	}
	f.frozen = nil
	return errors.Join(all...)
}

// thawRoot thaws one filesystem. The kernel answers EINVAL when it is not frozen.
func thawRoot(root *os.File) error {
	err := freezeIoctl(root, ioctlThaw)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: %w", root.Name(), ErrNotHeld)
	}
	if err != nil {
		return fmt.Errorf("cannot thaw %s: %w", root.Name(), err)
	}
	return nil
}

func freezeIoctl(root *os.File, request uint) error {
	return unix.IoctlSetInt(int(root.Fd()), request, 0)
}

// ThawMount thaws the filesystem mounted at a path. One that is not frozen is an error that wraps ErrNotHeld.
func ThawMount(path string) (err error) {
	root, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return thawRoot(root)
}
