package probe

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrUnsupported is wrapped by the error of ReadFilesystem for a type whose superblock it does not read.
var ErrUnsupported = errors.New("type is not one that can be described")

// ErrNoSuperblock is wrapped by the error of ReadFilesystem where the superblock is not what the type has.
var ErrNoSuperblock = errors.New("no valid superblock")

// State says how a filesystem was left.
type State string

// A dirty filesystem has a journal to replay or was not unmounted; one with errors had them recorded by the kernel. The
// superblock of xfs says nothing of its log, so xfs is unknown unless marked for repair.
const (
	StateClean   State = "clean"
	StateDirty   State = "dirty"
	StateErrors  State = "errors"
	StateUnknown State = "unknown"
)

// Filesystem is what the superblock tells: enough to make an empty filesystem of the same features and geometry. Exactly
// one of Ext, XFS, FAT, Btrfs and Swap is set. Strings are as the guest wrote them, up to the first NUL.
type Filesystem struct {
	Type        string // as blkid names it: ext2, ext3, ext4, xfs, vfat, btrfs, swap
	UUID        string `param:"uuid"` // FAT: the volume id as XXXX-XXXX
	Label       string `param:"label"`
	SizeBytes   int64  `param:"size_bytes"` // of the filesystem, which may be less than the extent
	BlockBytes  int64  `param:"block_bytes"`
	FreeBytes   int64  `param:"free_bytes"` // as the superblock counts, which lags while mounted; -1 unknown
	State       State  `param:"state"`
	LastMounted string `param:"last_mounted"` // folder, in the guest; "" when not told

	Ext   *Ext
	XFS   *XFS
	FAT   *FAT
	Btrfs *Btrfs
	Swap  *Swap
}

// ReadFilesystem reads the superblock of a filesystem of type fsType (in blkid's words) that begins at offset 0 of r and
// may fill sizeBytes. It reads a few KiB, and never more than 1 MiB, whatever the superblock claims.
func ReadFilesystem(r io.ReaderAt, sizeBytes int64, fsType string) (*Filesystem, error) {
	var fs *Filesystem
	var err error
	bounded := io.NewSectionReader(r, 0, max(sizeBytes, 0))
	switch fsType {
	case "ext2", "ext3", "ext4":
		fs, err = readExt(bounded)
	case "xfs":
		fs, err = readXFS(bounded)
	case "vfat":
		fs, err = readFAT(bounded)
	case "btrfs":
		fs, err = readBtrfs(bounded)
	case "swap":
		fs, err = readSwap(bounded)
	default:
		return nil, fmt.Errorf("read filesystem: %w: %q", ErrUnsupported, fsType)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s superblock: %w", fsType, err)
	}
	fs.Type = fsType
	if fs.SizeBytes > sizeBytes && fs.Type != "swap" {
		return nil, fmt.Errorf("read %s superblock: %w: the filesystem has %d bytes, the extent %d",
			fsType, ErrNoSuperblock, fs.SizeBytes, sizeBytes)
	}
	return fs, nil
}

// invalid returns an error that wraps ErrNoSuperblock.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNoSuperblock, fmt.Sprintf(format, args...))
}

// UsedBytes estimates how much of the filesystem is in use, from counters that a mounted filesystem writes late; -1 when
// the superblock does not tell.
func (f *Filesystem) UsedBytes() int64 {
	if f.FreeBytes < 0 || f.FreeBytes > f.SizeBytes {
		return -1
	}
	return f.SizeBytes - f.FreeBytes
}

// BootAreaBytes is how much at the beginning belongs to boot loaders and no file: the first 1 KiB of ext, the reserved
// sectors of FAT (which hold the superblock too), the first 64 KiB of btrfs. 0 means that there is nothing of the kind.
func (f *Filesystem) BootAreaBytes() int64 {
	switch {
	case f.Ext != nil:
		return extSuperOffset
	case f.FAT != nil:
		return int64(f.FAT.ReservedSectors) * int64(f.FAT.SectorBytes)
	case f.Btrfs != nil:
		return btrfsSuperOffset
	}
	return 0
}

// Range is a part of a filesystem, in bytes from its beginning.
type Range struct{ OffsetBytes, SizeBytes int64 }

// BootCodeRanges lists the parts of the boot area that hold boot code alone: what may be written over a filesystem that
// mkfs has just made, whatever its size. The superblock in FAT's boot sector is not among them, nor are the copy of that
// sector and the count of free clusters.
func (f *Filesystem) BootCodeRanges() []Range {
	switch {
	case f.Ext != nil:
		return []Range{{0, extSuperOffset}}
	case f.FAT != nil:
		return f.FAT.bootCodeRanges()
	}
	return nil
}

// Mountable says whether the filesystem may be mounted for reading its files, and if not, why not; an extent that may
// not is stored as an image.
func (f *Filesystem) Mountable() (ok bool, reason string) {
	switch {
	case f.Ext != nil:
		reason = f.Ext.whyNotMountable()
	case f.XFS != nil:
		reason = f.XFS.whyNotMountable()
	case f.Btrfs != nil:
		reason = f.Btrfs.whyNotMountable()
	case f.Swap != nil:
		reason = "swap space has no files"
	}
	return reason == "", reason
}

// MkfsOptions vary what Mkfs makes. The zero value makes the filesystem as it was.
type MkfsOptions struct {
	// SizeBytes is the size of the device, when it is not that of the original filesystem; 0 means the original's. What
	// depends on the size (inodes, allocation groups, the journal of a much smaller one) is scaled or left to mkfs.
	SizeBytes int64

	// XFSProgs is the version of xfsprogs that will run, as {6, 1}: newer ones switch features on that older ones cannot
	// name, so which are named as off depends on it. The zero value means 6.1.
	XFSProgs [2]int
}

// Device is the word that stands for the device in the commands of a Recipe: the last one of a command. Before it, it is a word
// like any other, as a label may be.
const Device = "DEVICE"

// quotaNote is for a filesystem with quotas.
const quotaNote = "limits of quotas are not kept, only what counts to them: owners, groups and projects"

// On returns a command of a Recipe with the device in its place.
func On(argv []string, device string) []string {
	words := slices.Clone(argv)
	if at := DeviceIn(argv); at >= 0 {
		words[at] = device
	}
	return words
}

// DeviceIn returns where in a command of a Recipe the device belongs, or -1.
func DeviceIn(argv []string) int {
	for at := len(argv) - 1; at >= 0; at-- {
		if argv[at] == Device {
			return at
		}
	}
	return -1
}

// Recipe makes an empty filesystem.
type Recipe struct {
	Commands [][]string // mkfs first, then what it cannot set; run in order. The last word "DEVICE" of each stands for the device
	Last     [][]string // what can be set only when the files are there and the filesystem is unmounted
	Env      []string   // KEY=VALUE set for all of them
	Notes    []string   // what will differ from the original, in words for people
}

// Mkfs returns the commands that make an empty filesystem of the same features, identifiers and geometry. Everything is
// named on the command line, so that the result does not depend on the defaults of the host's tools.
func (f *Filesystem) Mkfs(opts MkfsOptions) (Recipe, error) {
	if opts.SizeBytes < 0 {
		return Recipe{}, fmt.Errorf("cannot make a filesystem of %d bytes", opts.SizeBytes)
	}
	switch {
	case f.Ext != nil:
		return f.mkfsExt(opts)
	case f.XFS != nil:
		return f.mkfsXFS(opts)
	case f.FAT != nil:
		return f.mkfsFAT(opts)
	case f.Btrfs != nil:
		return f.mkfsBtrfs(opts)
	case f.Swap != nil:
		return f.mkfsSwap(opts)
	}
	return Recipe{}, fmt.Errorf("cannot make %q: %w", f.Type, ErrUnsupported)
}

// details returns the part of f that is particular to its type.
func (f *Filesystem) details() any {
	switch {
	case f.Ext != nil:
		return f.Ext
	case f.XFS != nil:
		return f.XFS
	case f.FAT != nil:
		return f.FAT
	case f.Btrfs != nil:
		return f.Btrfs
	}
	return f.Swap
}

// validate checks what the arithmetic of Mkfs relies on.
func (f *Filesystem) validate() error {
	if f.SizeBytes < 0 || f.BlockBytes <= 0 {
		return invalid("%d bytes in blocks of %d", f.SizeBytes, f.BlockBytes)
	}
	switch {
	case f.Ext != nil:
		return f.Ext.validate(f)
	case f.XFS != nil:
		return f.XFS.validate()
	case f.FAT != nil:
		return f.FAT.validate()
	case f.Btrfs != nil:
		return f.Btrfs.validate()
	}
	return f.Swap.validate()
}

// hexSuffix marks a parameter whose text is no UTF-8 and which is therefore given in hexadecimal digits.
const hexSuffix = "_hex"

// Params returns everything in f but its type as text that survives JSON; FromParams turns it back.
func (f *Filesystem) Params() map[string]string {
	params := map[string]string{}
	for _, part := range []any{f, f.details()} {
		eachParam(part, func(name string, v reflect.Value) {
			switch v.Kind() {
			case reflect.String:
				if s := v.String(); !utf8.ValidString(s) {
					params[name+hexSuffix] = hex.EncodeToString([]byte(s))
				} else if s != "" {
					params[name] = s
				}
			case reflect.Bool:
				params[name] = strconv.FormatBool(v.Bool())
			case reflect.Int64:
				params[name] = strconv.FormatInt(v.Int(), 10)
			case reflect.Uint32:
				params[name] = strconv.FormatUint(v.Uint(), 10)
			}
		})
	}
	if f.Ext != nil {
		params["features"] = strings.Join(f.Ext.Features(), " ") // for people: the bits are what counts
	}
	return params
}

// FromParams makes a Filesystem of what Params returned for one of type fsType, so that it can be made again, in another
// size too, when the original is gone. Names that it does not know are passed over.
func FromParams(fsType string, params map[string]string) (*Filesystem, error) {
	f := &Filesystem{Type: fsType}
	switch fsType {
	case "ext2", "ext3", "ext4":
		f.Ext = &Ext{}
	case "xfs":
		f.XFS = &XFS{}
	case "vfat":
		f.FAT = &FAT{}
	case "btrfs":
		f.Btrfs = &Btrfs{}
	case "swap":
		f.Swap = &Swap{}
	default:
		return nil, fmt.Errorf("read parameters: %w: %q", ErrUnsupported, fsType)
	}
	var errs []error
	for _, part := range []any{f, f.details()} {
		eachParam(part, func(name string, v reflect.Value) {
			if err := setParam(v, name, params); err != nil {
				errs = append(errs, fmt.Errorf("parameter %s: %w", name, err))
			}
		})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("read parameters: %w", err)
	}
	return f, nil
}

func setParam(v reflect.Value, name string, params map[string]string) error {
	if digits, ok := params[name+hexSuffix]; ok && v.Kind() == reflect.String {
		raw, err := hex.DecodeString(digits)
		v.SetString(string(raw))
		return err
	}
	text, ok := params[name]
	if !ok {
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err
	case reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		v.SetInt(n)
		return err
	case reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, 32)
		v.SetUint(n)
		return err
	}
	return nil
}

// eachParam calls visit for the fields of the struct that part points to which have a `param` tag.
func eachParam(part any, visit func(name string, v reflect.Value)) {
	v := reflect.ValueOf(part).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("param"); name != "" {
			visit(name, v.Field(i))
		}
	}
}

// cString returns b up to its first NUL.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// uuidString writes 16 bytes the usual way; all zero gives "".
func uuidString(b []byte) string {
	if [16]byte(b) == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// isPowerOfTwo says whether v is one and lies within the limits.
func isPowerOfTwo(v, least, most int64) bool { return v >= least && v <= most && v&(v-1) == 0 }

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

func onOff(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
