// Package archive writes a tree or a raw extent as a stream of gzip members and reads it back, whole, in part or
// around damage, with an index beside it. It knows neither stores nor LVM. The format is described in docs/format.md.
package archive

import "time"

// Sizes of the members that an archive is cut into. Writers follow them; readers must not depend on them.
const (
	MemberCutBytes  = 128 << 10 // past this, a member ends at the next entry whose path's hash says so
	MemberMaxBytes  = 8 << 20   // at this, a member ends at the next entry in any case
	FileMemberBytes = 4 << 20   // a large file continues in members of this much of its data
	BlockEntries    = 1000      // entries of one index block
)

// LongPathBytes is where the kernel takes a path no more (PATH_MAX), and GNU tar fails. Extract goes from folder to folder.
const LongPathBytes = 4096

// Extra field of each gzip member that voltar writes (RFC 1952, section 2.3.1.1): subfield "VT", 8 bytes of data, two
// little-endian uint32: the length of the whole member as stored, and the length of what it inflates to. A reader can
// so step from member to member, or find the next one behind damage, without inflating; one that does not know the
// subfield passes over it.
const (
	ExtraID1, ExtraID2 = 'V', 'T'
	ExtraDataBytes     = 8
)

// EntryType is the kind of a file system entry, with the letters of find -type.
type EntryType string

// Entry types. A socket is in the index alone: tar cannot express it.
const (
	TypeFile     EntryType = "f"
	TypeDir      EntryType = "d"
	TypeSymlink  EntryType = "l"
	TypeHardlink EntryType = "h" // a further name of an earlier entry, which Linkname holds
	TypeChar     EntryType = "c"
	TypeBlock    EntryType = "b"
	TypeFIFO     EntryType = "p"
	TypeSocket   EntryType = "s"
)

// Entry is one line of the index: one name of the archived tree. Paths are relative to the root of the tree, without
// a leading "./"; the root itself is ".". Path and Linkname may hold any bytes but NUL; in JSON such as are not UTF-8
// are in path_b64 and link_b64 instead (encoding/json would merge names).
type Entry struct {
	Path        string
	Type        EntryType
	SizeBytes   int64  // apparent size; 0 for all but files
	StoredBytes int64  // data in the tar stream, without holes
	Mode        uint32 // permission, set-id and sticky bits
	UID, GID    uint32
	MTime       time.Time // UTC, nanoseconds
	CTime       time.Time // UTC, nanoseconds
	Inode       uint64
	DevMajor    uint32 // of devices
	DevMinor    uint32
	Linkname    string            // target of a symbolic link, or path of the entry that a hard link names
	TarOffset   int64             // of the first header block of the entry in the tar stream; -1 for a socket
	TarBytes    int64             // of headers, data and padding in the tar stream
	DataOffset  int64             // hard links: TarOffset of the entry that holds the data
	Flags       uint32            // chattr flags as FS_IOC_GETFLAGS gives them, 0 where there are none
	Accounting                    // of files and folders
	Shared      []Shared          // files: data that lie where those of an earlier range do; in the order of their offsets
	HasAttrs    bool              // attributes or ACLs are in the tar stream; an index of an earlier version does not tell
	Damaged     string            // why the data is not what it should be; empty when it is
	OddXattrs   map[string][]byte // attributes that PAX cannot express (names with "=")
}

// Member says where one gzip member of an archive lies.
type Member struct {
	Offset      int64 `json:"offset"`     // in the archive file
	LengthBytes int64 `json:"length"`     // in the archive file
	TarOffset   int64 `json:"tar_offset"` // in the inflated stream
	TarBytes    int64 `json:"tar_length"` // of the inflated stream
}

// Block says where one gzip member of an index lies, and what it begins with. Blocks are in archive order, which is
// a depth-first walk with the names of a folder compared bytewise: a path is found by bisection (see ComparePaths).
type Block struct {
	Offset      int64
	LengthBytes int64
	FirstPath   string
	Entries     int
	TarOffset   int64 // where the archive member that the block's first line names begins in the tar stream
}
