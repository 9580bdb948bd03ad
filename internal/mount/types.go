package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoDriver is wrapped by the error of Available for a type that the kernel has no driver for.
var ErrNoDriver = errors.New("there is no module")

// access says whether a mount can be written to. Its text is an argument of the child.
type access string

const (
	readOnly access = "ro"
	writable access = "rw"
)

// setting is one parameter of fsconfig(2): a flag when it has no value.
type setting struct{ key, value string }

// policy is how filesystems of one type are mounted.
type policy struct {
	driver   string // of the kernel
	settings []setting
	// anonymous says that the filesystem's st_dev is not the number of its device.
	anonymous bool
	// optional says that a guest's is mounted only where the operator asks for it: the driver has seen less of the world.
	optional bool
}

// policyOf returns the policy of a type, in blkid's words, and whether there is one. Nothing else is ever mounted.
//
// Common to all: read-only unless access says otherwise, and by the mount's attributes nodev, nosuid, noexec. Neither
// noload nor norecovery: a journal is to be replayed. errors=remount-ro keeps a guest's errors=panic from taking down the
// host at the first bad block. Drivers are those of the kernel, and never programs (FUSE), which a guest could take over.
func policyOf(fsType string) (policy, bool) {
	switch fsType {
	case "ext2", "ext3", "ext4":
		// One driver for all three: it is the one that is maintained and that most kernels have.
		return policy{driver: "ext4", settings: []setting{{"errors", "remount-ro"}}}, true
	case "xfs":
		// nouuid: the original may be mounted on this host, and xfs has each UUID once.
		return policy{driver: "xfs", settings: []setting{{"nouuid", ""}}}, true
	case "vfat":
		// Without utf8, names beyond the code page become question marks. FAT has local times and no permissions: tz and
		// umask make what is read independent of this host's and this process's settings.
		return policy{driver: "vfat", settings: []setting{{"utf8", ""}, {"tz", "UTC"}, {"umask", "022"},
			{"errors", "remount-ro"}}}, true
	case "btrfs":
		// The top of the tree, and not the subvolume that the guest has made its default.
		return policy{driver: "btrfs", settings: []setting{{"subvolid", "5"}}, anonymous: true}, true
	case "exfat":
		// It has no owners and permissions either; its times know their zone.
		return policy{driver: "exfat", optional: true, settings: []setting{{"uid", "0"}, {"gid", "0"}, {"umask", "022"},
			{"iocharset", "utf8"}, {"errors", "remount-ro"}}}, true
	case "ntfs":
		// Of owners and modes there is what WSL stores, which goes before these.
		return policy{driver: "ntfs3", optional: true, settings: []setting{{"uid", "0"}, {"gid", "0"}, {"umask", "022"},
			{"iocharset", "utf8"}}}, true
	case "f2fs":
		return policy{driver: "f2fs", optional: true}, true
	case "jfs":
		// Without iocharset names are the bytes that a Linux guest without that option wrote.
		return policy{driver: "jfs", optional: true, settings: []setting{{"errors", "remount-ro"}}}, true
	}
	return policy{}, false
}

// Allowed says whether filesystems of a type, in blkid's words, are mounted at all.
func Allowed(fsType string) bool {
	_, ok := policyOf(fsType)
	return ok
}

// Optional says whether a guest's filesystems of a type are mounted only where the operator asks for it. That is for the
// caller to heed.
func Optional(fsType string) bool {
	policy, _ := policyOf(fsType)
	return policy.optional
}

// Available finds out whether this host's kernel has the driver for a type, and has it load the module as a mount would. An
// error that wraps ErrNoDriver names the module that is missing.
func Available(fsType string) error {
	policy, ok := policyOf(fsType)
	if !ok {
		return ErrNotAllowed
	}
	context, err := unix.Fsopen(policy.driver, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w %s", ErrNoDriver, policy.driver)
	}
	if err != nil {
		return fmt.Errorf("cannot ask the kernel for its driver %s: %w", policy.driver, err)
	}
	return unix.Close(context)
}
