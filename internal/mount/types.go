package mount

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
	}
	return policy{}, false
}

// Allowed says whether filesystems of a type, in blkid's words, are mounted at all.
func Allowed(fsType string) bool {
	_, ok := policyOf(fsType)
	return ok
}
