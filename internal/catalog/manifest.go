// Package catalog knows the backups in a store: their identity VG/LV@TIME, every path and file name, the manifest and
// its JSON, how a backup is begun, committed, listed and deleted, and whose machine a host's folder belongs to. The
// format is described in docs/format.md.
package catalog

import "time"

// Format is what manifest.json of this version says of itself. Readers ignore unknown fields; a manifest whose format
// has another number behind the slash is listed and kept, but not restored.
const Format = "voltar/1"

// Names of the files that every backup has, or may have, beside its archives.
const (
	ManifestName = "manifest.json"
	RecipeName   = "RESTORE.txt"
	// SignatureName is of the manifest's signature, where it is signed; see package sign.
	SignatureName = ManifestName + ".sig"
	MarkerName    = "voltar.json" // beneath the host's folder: the machine that it belongs to
)

// Status of a backup that stands.
type Status string

// A damaged backup lacks data that could not be read; what it lacks is listed.
const (
	StatusComplete Status = "complete"
	StatusDamaged  Status = "damaged"
)

// Manifest describes one backup. It is the last file written: a folder without it is no backup.
type Manifest struct {
	Format  string    `json:"format"`
	Voltar  string    `json:"voltar"` // version of the program
	Status  Status    `json:"status"`
	Host    Host      `json:"host"`
	Run     string    `json:"run"`
	Source  Source    `json:"source"`
	Time    time.Time `json:"time"`    // of the snapshot, UTC seconds: the TIME of its identity
	Started time.Time `json:"started"` // UTC
	Ended   time.Time `json:"ended"`   // UTC

	Encryption *Encryption `json:"encryption,omitempty"` // nil for a backup that everybody can read

	Snapshot *Snapshot `json:"snapshot,omitempty"`
	Quiesce  *Quiesce  `json:"quiesce,omitempty"`
	Table    *Table    `json:"table,omitempty"` // nil when the volume has no partition table
	Extents  []Extent  `json:"extents"`         // the ledger of the volume, by offset
	Dumps    []Dump    `json:"dumps,omitempty"` // outputs of commands: beside a volume, or the source itself
	// Definition names the file that has what defines the guest whose disk the volume was: a gzipped tar archive.
	Definition string   `json:"definition,omitempty"`
	Files      []File   `json:"files"` // every file of the backup but this one
	Warnings   []string `json:"warnings,omitempty"`
}

// Host is the machine that made a backup.
type Host struct {
	Name      string `json:"name"`
	MachineID string `json:"machine_id"`
}

// SourceKind says what was backed up.
type SourceKind string

// Kinds of sources; all but volumes stand in the catalog under "@KIND/NAME".
const (
	SourceVolume    SourceKind = "volume"
	SourceDirectory SourceKind = "directory"
	SourceDump      SourceKind = "dump"
	SourceStream    SourceKind = "stream"
)

// Source is what was backed up. All but Kind and Name are of volumes only.
type Source struct {
	Kind           SourceKind `json:"kind"`
	Name           string     `json:"name"` // the LV's, or the name that the configuration gives
	VG             string     `json:"vg,omitempty"`
	VGUUID         string     `json:"vg_uuid,omitempty"`
	LVUUID         string     `json:"lv_uuid,omitempty"` // with VGUUID the identity of a volume
	LVKind         string     `json:"lv_kind,omitempty"` // linear, striped, thin, raid1, …
	SizeBytes      int64      `json:"size,omitempty"`
	LogicalSector  int        `json:"logical_sector,omitempty"`  // bytes
	PhysicalSector int        `json:"physical_sector,omitempty"` // bytes
	Tags           []string   `json:"tags,omitempty"`
	ThinPool       string     `json:"thin_pool,omitempty"`
	VGExtentBytes  int64      `json:"vg_extent,omitempty"`
	Path           string     `json:"path,omitempty"`  // of a directory
	Guest          *Guest     `json:"guest,omitempty"` // whose disk the volume is; nil where nobody knows
}

// Snapshot tells what the backup was read from.
type Snapshot struct {
	Kind        string  `json:"kind"` // classic or thin
	SizeBytes   int64   `json:"size"` // copy-on-write space; 0 for thin
	PeakBytes   int64   `json:"peak"`
	PeakPercent float64 `json:"peak_percent"`
	Extended    int     `json:"extended,omitempty"` // times that it was made larger while it was read
}

// Quiesce tells how consistent the snapshot is.
type Quiesce struct {
	Level        string `json:"level"` // crash-consistent, filesystem-consistent, application-consistent
	Method       string `json:"method,omitempty"`
	FrozenMillis int64  `json:"frozen_ms,omitempty"`
	Group        string `json:"group,omitempty"`
	Note         string `json:"note,omitempty"`
	// Databases has what each database said of itself while it was held, by guest: MySQL the file of its binary log and
	// the position in it, PostgreSQL the content of the file backup_label.
	Databases map[string]string `json:"databases,omitempty"`
}

// Table is the partition table of a volume.
type Table struct {
	Label       string   `json:"label"` // gpt or dos
	ID          string   `json:"id"`    // disk identifier, as sfdisk writes it
	SectorBytes int      `json:"sector_bytes"`
	Notes       []string `json:"notes,omitempty"`  // what was odd about it: the backup header was used, …
	Losses      []string `json:"losses,omitempty"` // what of it the text for sfdisk cannot carry; the images of the gaps have all
}

// State says what became of one extent.
type State string

// States of the ledger. A gap holds nothing that any table or filesystem lays claim to.
const (
	StateFiles    State = "files"
	StateImage    State = "image"
	StateSwap     State = "swap" // UUID and label alone
	StateLVM      State = "lvm"  // a physical volume of the guest: its head, and its logical volumes as extents of their own
	StateTable    State = "table"
	StateExcluded State = "excluded"
	StateFailed   State = "failed"
)

// Extent is one contiguous part of a volume and what became of it; or a logical volume of the guest's own, which lies on
// parts of others whose state is StateLVM, and follows them.
type Extent struct {
	Name        string `json:"name"`             // p1, p5, boot, p2.lv1; "" for a volume without a table
	Number      int    `json:"number,omitempty"` // of the partition
	OffsetBytes int64  `json:"offset"`
	SizeBytes   int64  `json:"size"`
	State       State  `json:"state"`
	Reason      string `json:"reason,omitempty"`
	PartType    string `json:"part_type,omitempty"` // as the table has it
	PartUUID    string `json:"part_uuid,omitempty"`
	PartName    string `json:"part_name,omitempty"`

	Filesystem *Filesystem `json:"filesystem,omitempty"`
	Archive    string      `json:"archive,omitempty"` // name of the file that holds it
	Index      *Index      `json:"index,omitempty"`
	Members    string      `json:"members,omitempty"`   // of an image: name of the file that lists its members
	Carried    *Carried    `json:"carried,omitempty"`   // what of Archive was carried over from the previous backup; nil when there was none
	BootArea   string      `json:"boot_area,omitempty"` // name of the file that holds the first sectors of the filesystem

	PV *GuestPV `json:"guest_pv,omitempty"` // of StateLVM
	LV *GuestLV `json:"guest_lv,omitempty"` // of a logical volume of the guest

	UsedBytes       int64            `json:"used,omitempty"` // as statfs has it
	Entries         int64            `json:"entries,omitempty"`
	ContentBytes    int64            `json:"content,omitempty"`  // data of files, without holes
	UniqueBytes     int64            `json:"unique,omitempty"`   // ContentBytes with shared data counted once; 0 when none is shared
	ExcludedBytes   int64            `json:"excluded,omitempty"` // of entries that a pattern left out
	ExcludedEntries int64            `json:"excluded_entries,omitempty"`
	LongPaths       int64            `json:"long_paths,omitempty"` // entries with paths of 4,096 bytes or more, or links to such
	NotStored       map[string]int64 `json:"not_stored,omitempty"` // what tar cannot express, counted by kind; it is in the index
	Damaged         []Damage         `json:"damaged,omitempty"`
	DamagedCount    int64            `json:"damaged_count,omitempty"` // all of them; Damaged holds the first 1,000 at most
}

// Carried says what of an archive was carried over from the same extent of the previous backup.
type Carried struct {
	From    string `json:"from"`    // ID of that backup
	Members int64  `json:"members"` // of the archive
	Bytes   int64  `json:"bytes"`   // of the archive, as they are stored

	NewMembers int64 `json:"new_members"`
	NewBytes   int64 `json:"new_bytes"`

	UnreadBytes int64 `json:"unread,omitempty"` // of the extent, of which it was known without reading that they had not changed
}

// GuestPV is a physical volume of the guest's LVM. Archive is the image of its first HeadBytes: label and metadata of the
// volume group, which make all logical volumes again when they are copied back.
type GuestPV struct {
	UUID      string `json:"uuid"`
	VG        string `json:"vg"`
	VGUUID    string `json:"vg_uuid"`
	HeadBytes int64  `json:"head"`
	Tail      string `json:"tail,omitempty"`       // name of the file that holds what lies behind its extents, when that is metadata
	TailBytes int64  `json:"tail_bytes,omitempty"` // at the end of the extent
}

// GuestLV is a logical volume of the guest's LVM and where it lies. OffsetBytes of its extent is where its first segment
// begins; it is contiguous only when it has one segment without stripes.
type GuestLV struct {
	VG       string         `json:"vg"`
	VGUUID   string         `json:"vg_uuid"`
	Name     string         `json:"name"`
	UUID     string         `json:"uuid"`
	Segments []GuestSegment `json:"segments"`
}

// GuestSegment is a contiguous part of a logical volume, of one range of the backed-up volume or striped over several of
// the same size.
type GuestSegment struct {
	SizeBytes   int64   `json:"size"`
	StripeBytes int64   `json:"stripe,omitempty"` // of one stripe, where there are several offsets
	Offsets     []int64 `json:"offsets"`          // bytes, in the volume
}

// AreaBytes is how much of each of its areas a segment takes.
func (s GuestSegment) AreaBytes() int64 { return s.SizeBytes / int64(len(s.Offsets)) }

// Dump is the kept output of a command.
type Dump struct {
	Name   string `json:"name"` // as the configuration has it
	File   string `json:"file"`
	Preset string `json:"preset,omitempty"` // mysql or postgresql, whose clients read it; else it is the command's own
}

// Index says where the index of an archive is.
type Index struct {
	Name         string `json:"name"`
	BlocksOffset int64  `json:"blocks_offset"` // of the last gzip member, which lists the blocks
	// Rebuilt says that the index was lost and made again from the archive: it lacks what only the original had.
	Rebuilt bool `json:"rebuilt,omitempty"`
}

// Filesystem is what an extent held and what makes it again.
type Filesystem struct {
	Type       string            `json:"type"` // as blkid names it
	UUID       string            `json:"uuid,omitempty"`
	Label      string            `json:"label,omitempty"`
	BlockBytes int64             `json:"block_bytes,omitempty"`
	Mkfs       [][]string        `json:"mkfs,omitempty"`       // the whole commands, in order; the device is the last word "DEVICE"
	MkfsLast   [][]string        `json:"mkfs_last,omitempty"`  // those to run when the files are there and it is unmounted again
	MkfsEnv    []string          `json:"mkfs_env,omitempty"`   // KEY=VALUE set for all of them
	MkfsNotes  []string          `json:"mkfs_notes,omitempty"` // what will differ from the original
	Params     map[string]string `json:"params,omitempty"`     // what the command follows from, by the names of dumpe2fs, xfs_info, fsck.fat
	Subvolumes []Subvolume       `json:"subvolumes,omitempty"` // of btrfs; parents come before what lies in them
}

// Subvolume is one of a btrfs: a folder in its archive, and made again as a subvolume before that is unpacked. Of Path and
// PathB64, which is for names that are not UTF-8, there is one.
type Subvolume struct {
	Path     string `json:"path,omitempty"` // beneath the top of the filesystem, without a slash in front
	PathB64  []byte `json:"path_b64,omitempty"`
	ID       uint64 `json:"id"`
	ReadOnly bool   `json:"read_only,omitempty"` // to be set when the files are there
	Default  bool   `json:"default,omitempty"`   // what a mount without options shows
}

// Name returns the path, whatever its bytes.
func (s Subvolume) Name() string { return s.Path + string(s.PathB64) }

// Damage is one entry, or one range of an image, that could not be read.
type Damage struct {
	Path        string `json:"path,omitempty"`
	PathB64     []byte `json:"path_b64,omitempty"`
	OffsetBytes int64  `json:"offset,omitempty"`
	LengthBytes int64  `json:"length,omitempty"`
	Reason      string `json:"reason"`
}

// File is one file of a backup as it is stored: with encryption, sums and size are of the cipher text.
type File struct {
	Name           string `json:"name"`
	SizeBytes      int64  `json:"size"`
	SHA1           string `json:"sha1"`
	SHA256         string `json:"sha256"`
	PlainSizeBytes int64  `json:"plain_size,omitempty"` // of an encrypted file before encryption
}
