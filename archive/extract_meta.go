package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const capabilityName = "security.capability"

// Flags of FS_IOC_SETFLAGS (linux/fs.h) that a person or a program sets, which are those worth restoring, by the letters
// of chattr. lateFlags can be set only when all else is done, as they forbid further changes. Every filesystem that has
// flags knows commonFlags, or nearly.
const (
	flagImmutable = 0x10 // i
	flagAppend    = 0x20 // a

	lateFlags     = flagImmutable | flagAppend
	commonFlags   = lateFlags | 0x8 /* S */ | 0x40 /* d */ | 0x80 /* A */ | 0x10000 /* D */
	settableFlags = commonFlags | 0x1 /* s */ | 0x2 /* u */ | 0x4 /* c */ | 0x4000 /* j */ | 0x8000 /* t */ |
		0x20000 /* T */ | 0x800000 /* C */ | 0x2000000 /* x */ | 0x20000000 /* P */
)

// procPath names an open descriptor, for calls that take a path alone.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// refused says whether an error means that the system or the filesystem does not let us, rather than that something
// went wrong.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTTY)
}

// finishOpen gives an open file all that its entry has but times. The owner comes first, as a change of it takes set-id
// bits and capabilities away; then attributes and ACLs, then the mode, which an ACL changes.
func (x *extractor) finishOpen(fd int, e *tarEntry) error {
	mode := x.withhold(e)
	if !e.isImplicit() {
		owned, err := x.setOwner(fd, "", e)
		if err != nil {
			return err
		}
		if !owned {
			mode &^= unix.S_ISUID | unix.S_ISGID // they would lend someone else's rights
		}
	}
	path := procPath(fd)
	if err := x.setXattrs(path, e); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("cannot set mode %o: %w", mode, err)
	}
	return nil
}

// withhold takes what would give an entry a say on this host away from it, unless that was asked for, and returns its mode. It is
// called once for each entry.
func (x *extractor) withhold(e *tarEntry) uint32 {
	if x.opts.Privileges {
		return e.Mode
	}
	const setID = unix.S_ISUID | unix.S_ISGID
	mode, attributes := e.Mode, len(e.xattrs)
	mode &^= setID
	if !x.opts.NoXattrs {
		e.xattrs = slices.DeleteFunc(e.xattrs, func(a xattr) bool {
			return strings.HasPrefix(a.name, "security.") || strings.HasPrefix(a.name, "trusted.")
		})
	}
	if mode != e.Mode || len(e.xattrs) != attributes {
		x.shortfall(Withheld, e.Path, nil)
	}
	return mode
}

// finishFolder gives a folder all that its entry has.
func (x *extractor) finishFolder(f *folder) error {
	if err := x.finishOpen(f.fd.fd, f.meta); err != nil {
		return err
	}
	x.setAccounting(f.fd.fd, f.meta)
	if flags := f.meta.Flags &^ lateFlags; flags != 0 {
		x.setFlags(f.fd.fd, f.meta, flags)
	}
	if f.meta.isImplicit() {
		return nil
	}
	return x.setTimesAt(unix.AT_FDCWD, procPath(f.fd.fd), f.meta, 0)
}

// finishNode gives a device, FIFO or socket all that its entry has but times.
func (x *extractor) finishNode(f *folder, name string, e *tarEntry) error {
	owned, err := x.setOwner(f.fd.fd, name, e)
	if err != nil {
		return err
	}
	mode := x.withhold(e)
	if !owned {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	fd, err := unix.Openat(f.fd.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	path := procPath(fd)
	if f.inherits {
		if err := dropACLsAt(path); err != nil {
			return err
		}
	}
	if err := x.setXattrs(path, e); err != nil {
		return err
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("cannot set mode %o: %w", mode, err)
	}
	return nil
}

// setOwner sets the owner of name in dir, or of dir itself when name is empty, and says whether it is right now.
func (x *extractor) setOwner(dir int, name string, e *tarEntry) (bool, error) {
	if x.opts.NoOwner {
		return false, nil
	}
	err := unix.Fchownat(dir, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	if refused(err) || errors.Is(err, unix.EINVAL) { // ids that a user namespace does not map are invalid
		x.shortfall("owner", e.Path, err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot set owner %d:%d: %w", e.UID, e.GID, err)
	}
	return true, nil
}

// setXattrs sets attributes and ACLs. Capabilities come last.
func (x *extractor) setXattrs(path string, e *tarEntry) error {
	if !x.opts.NoXattrs {
		for _, a := range e.xattrs {
			if a.name == capabilityName || a.name == aclAccessName || a.name == aclDefaultName {
				continue
			}
			if err := x.setXattr(path, "xattr", a.name, a.value, e); err != nil {
				return err
			}
		}
	}
	if !x.opts.NoACLs && e.Type != TypeSymlink {
		if err := x.setACLs(path, e); err != nil {
			return err
		}
	}
	if !x.opts.NoXattrs {
		for _, a := range e.xattrs {
			if a.name == capabilityName {
				return x.setXattr(path, "xattr", a.name, a.value, e)
			}
		}
	}
	return nil
}

func (x *extractor) setXattr(path, what, name string, value []byte, e *tarEntry) error {
	set := unix.Setxattr
	if e.Type == TypeSymlink {
		set = unix.Lsetxattr
	}
	err := set(path, name, value, 0)
	if err == nil {
		return nil
	}
	if refused(err) {
		x.shortfall(what, e.Path, fmt.Errorf("%s: %w", name, err))
		return nil
	}
	return fmt.Errorf("cannot set attribute %q (%d bytes): %w", name, len(value), err)
}

// setACLs sets ACLs from their text, or from attributes with the kernel's own form where there is no text.
func (x *extractor) setACLs(path string, e *tarEntry) error {
	for _, a := range []struct{ name, text string }{{aclAccessName, e.aclAccess}, {aclDefaultName, e.aclDefault}} {
		var raw []byte
		if a.text != "" {
			var err error
			if raw, err = parseACL(a.text); err != nil {
				x.shortfall("acl", e.Path, err)
				continue
			}
		} else if i := slices.IndexFunc(e.xattrs, func(v xattr) bool { return v.name == a.name }); i >= 0 {
			raw = e.xattrs[i].value
		}
		if len(raw) == 0 {
			continue
		}
		if err := x.setXattr(path, "acl", a.name, raw, e); err != nil {
			return err
		}
	}
	return nil
}

// setTimes sets the modification time of name in dir.
func (x *extractor) setTimes(dir int, name string, e *tarEntry) error {
	return x.setTimesAt(dir, name, e, unix.AT_SYMLINK_NOFOLLOW)
}

func (x *extractor) setTimesAt(dir int, name string, e *tarEntry, flags int) error {
	mtime, err := unix.TimeToTimespec(e.MTime)
	if err == nil {
		err = unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, flags)
	}
	if errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EINVAL) || refused(err) {
		x.shortfall("time", e.Path, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot set time: %w", err)
	}
	return nil
}

// setFlags sets chattr flags. Those that the filesystem does not know are a shortfall.
func (x *extractor) setFlags(fd int, e *tarEntry, flags uint32) {
	err := changeFlags(fd, flags&settableFlags, settableFlags&^lateFlags|flags&lateFlags)
	if err != nil && flags&settableFlags&^commonFlags != 0 {
		x.shortfall("flags", e.Path, err)
		err = changeFlags(fd, flags&commonFlags, flags&commonFlags)
		if err == nil {
			return
		}
	}
	if err != nil {
		x.shortfall("flags", e.Path, fmt.Errorf("cannot set flags %#x: %w", flags, err))
	}
}

// changeFlags sets those flags of mask that are in flags and clears the others of it.
func changeFlags(fd int, flags, mask uint32) error {
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := have&^mask | flags
	if want == have {
		return nil
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(want))
}

// lateFlags makes immutable what was, after everything else. It goes through the index again.
func (x *extractor) lateFlags() error {
	for e, err := range x.opts.Index.All(x.ctx) {
		if err != nil {
			if err := x.fail("", err); err != nil {
				return err
			}
			continue
		}
		if e.Path == rootPath && !x.opts.Rebuild {
			continue
		}
		if e.Flags&lateFlags == 0 || e.Type != TypeFile && e.Type != TypeDir || !x.sel.matches(e.Path) {
			continue
		}
		if err := x.lateFlagsOf(e); err != nil && !errors.Is(err, unix.ENOENT) { // what is lost is listed already
			x.shortfall("flags", e.Path, err)
		}
	}
	return nil
}

func (x *extractor) lateFlagsOf(e Entry) error {
	parent, name := splitPath(e.Path)
	dir, err := x.walk(parent)
	if err != nil {
		return err
	}
	defer dir.release()
	fd := dir.fd
	if name != "" {
		fd, err = unix.Openat(dir.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	return changeFlags(fd, e.Flags&lateFlags, e.Flags&lateFlags)
}

// walk opens a folder from the root.
func (x *extractor) walk(path string) (*dirHandle, error) {
	at := x.top.fd.hold()
	if path == rootPath {
		return at, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		fd, err := openFolder(at.fd, name)
		at.release()
		if err != nil {
			return nil, err
		}
		at = newDirHandle(fd)
	}
	return at, nil
}

func hasDefaultACL(fd int) bool {
	n, err := unix.Fgetxattr(fd, aclDefaultName, nil)
	return err == nil && n > 0
}

// dropACLs removes ACLs that something new has inherited.
func dropACLs(fd int) error { return dropACLsAt(procPath(fd)) }

func dropACLsAt(path string) error {
	for _, name := range []string{aclAccessName, aclDefaultName} {
		err := unix.Removexattr(path, name)
		if err != nil && err != unix.ENODATA && !refused(err) {
			return fmt.Errorf("cannot remove an inherited ACL: %w", err)
		}
	}
	return nil
}

// parseACL makes the kernel's form of the text of an ACL, such as "user::rw-,user:1000:r--,group::r--,mask::r--,other::r--",
// with commas or newlines between. A name of a user or a group must be followed by its number in a further field.
func parseACL(text string) ([]byte, error) {
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	var entries []entry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimPrefix(strings.TrimSpace(line), "default:")
		if line == "" {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			fields = slices.Insert(fields, 1, "") // "other:r--" and "mask:r--" may lack the empty field
		}
		if len(fields) < 3 || len(fields) > 4 {
			return nil, fmt.Errorf("cannot read ACL entry %q", line)
		}
		e := entry{id: math.MaxUint32}
		named := fields[1] != ""
		switch kind := fields[0]; {
		case (kind == "user" || kind == "u") && named:
			e.tag = aclUser
		case kind == "user" || kind == "u":
			e.tag = aclUserObj
		case (kind == "group" || kind == "g") && named:
			e.tag = aclGroup
		case kind == "group" || kind == "g":
			e.tag = aclGroupObj
		case (kind == "mask" || kind == "m") && !named:
			e.tag = aclMask
		case (kind == "other" || kind == "o") && !named:
			e.tag = aclOther
		default:
			return nil, fmt.Errorf("cannot read ACL entry %q", line)
		}
		if named {
			id, err := parseID(fields[len(fields)-1])
			if len(fields) == 3 {
				id, err = parseID(fields[1])
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read ACL entry %q: no number", line)
			}
			e.id = id
		}
		for _, c := range fields[2] {
			switch c {
			case 'r':
				e.perm |= 4
			case 'w':
				e.perm |= 2
			case 'x':
				e.perm |= 1
			case '-':
			default:
				return nil, fmt.Errorf("cannot read ACL entry %q", line)
			}
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if a.tag != b.tag {
			return int(a.tag) - int(b.tag)
		}
		return int(int64(a.id) - int64(b.id))
	})
	raw := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		raw = binary.LittleEndian.AppendUint16(raw, e.tag)
		raw = binary.LittleEndian.AppendUint16(raw, e.perm)
		raw = binary.LittleEndian.AppendUint32(raw, e.id)
	}
	return raw, nil
}
