package mountfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// subtype is that of the filesystem in the table of mounts.
const subtype = "voltar"

// device is the way to the kernel's part.
const device = "/dev/fuse"

// CheckFolder tells whether a filesystem can be mounted at a folder, and returns its path without symbolic links. A mount that died
// there is no place for another one.
func CheckFolder(folder string) (string, error) {
	refuse := func(err error, hint string) (string, error) {
		return "", say.WithHint(fmt.Errorf("cannot mount at %s: %w", folder, err), hint)
	}
	path, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	if errors.Is(unix.Access(path, unix.F_OK), unix.ENOTCONN) {
		return refuse(errors.New("what was mounted there has died"), "`umount "+folder+"`")
	}
	path, err = filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(errors.New("it is not there"), "`mkdir "+folder+"`")
	}
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return refuse(errors.New("it is no folder"), "name an empty folder")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return "", err
	}
	if len(mounts) > 0 {
		hint := "name another folder"
		if mounts[0].FSType == "fuse."+subtype {
			hint = "`umount " + folder + "`, or " + hint
		}
		return refuse(errors.New("something is mounted there"), hint)
	}
	names, err := readOneName(path)
	if err != nil {
		return "", err
	}
	if len(names) > 0 {
		return refuse(errors.New("it is not empty"), "name an empty folder")
	}
	return path, nil
}

func readOneName(folder string) ([]string, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// checkDevice tells what is missing on this host.
func checkDevice() error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		return file.Close()
	}
	err = fmt.Errorf("cannot mount: %w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return say.WithHint(err, "the kernel's module is not loaded: `modprobe fuse`")
	case errors.Is(err, fs.ErrPermission):
		return say.WithHint(err, "run it as root; in a container, the device has to be handed in")
	}
	return err
}

// checkHelper tells whether one who may not mount has the program that does.
func checkHelper() error {
	if os.Geteuid() == 0 {
		return nil
	}
	for _, folder := range append(filepath.SplitList(os.Getenv("PATH")), "/bin") {
		for _, name := range []string{"fusermount3", "fusermount"} {
			if unix.Access(filepath.Join(folder, name), unix.X_OK) == nil {
				return nil
			}
		}
	}
	return say.WithHint(errors.New("cannot mount: only root may, and there is no fusermount3"), "run it as root, or install fuse3")
}

// Serve mounts the filesystem at a folder that CheckFolder has found fit, calls ready, and answers until somebody unmounts it or ctx
// ends, when it unmounts it itself: what is in use then goes away with its last user, but not from the eyes of anybody. name is what
// the table of mounts shows.
func (f *FS) Serve(ctx context.Context, folder, name string, ready func()) error {
	if err := errors.Join(checkDevice(), checkHelper()); err != nil {
		return err
	}
	server, err := fusefs.Mount(folder, f.root, f.options(name))
	if err != nil {
		return fmt.Errorf("cannot mount at %s: %w", folder, err)
	}
	ready()
	ended := make(chan struct{})
	go func() {
		server.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	f.cancel() // whoever waits for a store gets an error
	if err := server.Unmount(); err != nil {
		return f.detach(folder, err)
	}
	return nil
}

// detach takes a mount that is in use out of the sight of all.
func (f *FS) detach(folder string, busy error) error {
	f.log.Warn(folder+" is in use: it is unmounted all the same, and who uses it gets errors", "err", busy)
	if os.Geteuid() == 0 {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", folder, err)
		}
		return nil
	}
	return say.WithHint(fmt.Errorf("cannot unmount %s: %w", folder, busy), "`fusermount3 -uz "+folder+"`")
}

// options are those of the mount. The files are a hostile guest's: no device of theirs is one here, and no program runs.
func (f *FS) options(name string) *fusefs.Options {
	timeout := forever
	negative := forever
	o := &fusefs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout, NegativeTimeout: &negative, NullPermissions: true,
		RootStableAttr: &fusefs.StableAttr{Ino: f.ino},
		MountOptions: fuse.MountOptions{
			FsName: name, Name: subtype, DirectMount: os.Geteuid() == 0, DirectMountStrict: os.Geteuid() == 0,
			DirectMountFlags: unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NOATIME,
			MaxReadAhead:     maxReadAhead, MaxWrite: maxReadAhead, Logger: log.New(io.Discard, "", 0),
			PanicHandler: func(cause any) fuse.Status {
				f.log.Error("voltar has a fault: please report it", "cause", cause, "stack", string(debug.Stack()))
				return fuse.EIO
			},
		},
	}
	if !o.DirectMount {
		o.Options = []string{"ro", "nodev", "nosuid", "noexec", "noatime"}
	}
	return o
}

// maxReadAhead is what the kernel asks for at once.
const maxReadAhead = 1 << 20
