package lvm

import (
	"fmt"
	"slices"
)

// Kind is what a logical volume is, from lvm2's layout and role.
type Kind string

// The kinds that callers tell apart. Others carry lvm2's own word: linear, striped, mirror, raid1, raid5, raid6,
// raid10, cache, writecache, vdo, error, …
const (
	KindLinear    Kind = "linear"
	KindSnapshot  Kind = "snapshot" // classic, with copy-on-write space of its own
	KindThin      Kind = "thin"     // a thin volume or a thin snapshot: see Volume.IsThinSnapshot
	KindThinPool  Kind = "thin-pool"
	KindCachePool Kind = "cache-pool"
	KindVDOPool   Kind = "vdo-pool"
	KindUnknown   Kind = "unknown"
)

// Unknown is the value of a percentage that lvm2 does not tell, as for an inactive volume.
const Unknown = -1

// Volume is one logical volume as lvm2 reported it.
type Volume struct {
	VG, Name     string
	UUID, VGUUID string // with hyphens, as lvm2 writes them
	SizeBytes    int64
	Kind         Kind
	Layout       []string // lvm2's lv_layout
	Roles        []string // lvm2's lv_role: public, private, origin, snapshot, thinsnapshot, …
	Attr         string   // lvm2's lv_attr, for messages
	Tags         []string

	Internal       bool // a part of another volume, or hidden by lvm2; pools are not Internal but have their own kinds
	Active         bool // it has a device on this host
	Open           bool // and something holds it open
	Suspended      bool
	ReadOnly       bool
	ActivationSkip bool // the flag k: vgchange and lvchange pass it over
	Merging        bool // a snapshot on its way back into its origin, or the origin
	Converting     bool

	Origin, OriginUUID string // of snapshots, and of thin volumes made from another one
	OriginBytes        int64  // of classic snapshots and their origins: the origin's size
	Pool, PoolUUID     string // of thin, cached and VDO volumes
	Parent             string // of internal volumes

	KernelMajor, KernelMinor int    // -1 when not active
	Path                     string // /dev/VG/NAME; empty for hidden volumes
	DMPath                   string // /dev/mapper/…, which exists without udev's rules too

	Health          string  // lvm2's lv_health_status: empty, partial, refresh needed, …
	SnapshotInvalid bool    // a classic snapshot that overflowed
	ValidityKnown   bool    // lvm2 can tell whether it did; never for inactive ones and other kinds
	DataPercent     float64 // use of a snapshot's or a pool's space, or Unknown
	MetadataPercent float64 // use of a pool's metadata, or Unknown
	MetadataBytes   int64   // size of a pool's metadata
	WhenFull        string  // of thin pools: queue or error
	CheckNeeded     bool    // of thin pools and caches: the metadata wants a check
}

// String is VG/NAME.
func (v Volume) String() string { return v.VG + "/" + v.Name }

// IsClassicSnapshot says that v has copy-on-write space of its own.
func (v Volume) IsClassicSnapshot() bool { return v.Kind == KindSnapshot }

// IsThinSnapshot says that v is a thin volume made from another one that still exists: a backup's snapshot, or a linked
// clone that someone lives on. lvm2 does not tell the two apart.
func (v Volume) IsThinSnapshot() bool { return v.Kind == KindThin && v.Origin != "" }

// IsThin says that v lives in a thin pool, so that snapshots of it do too.
func (v Volume) IsThin() bool { return v.Kind == KindThin }

// ZeroesNewBlocks says of a thin pool, and of a volume in one, that a block is filled with zeros before its first use.
// Without that, what is not written of a block shows what another volume had there.
func (v Volume) ZeroesNewBlocks() bool { return len(v.Attr) > 7 && v.Attr[7] == 'z' }

// IsPool says that v only holds other volumes' data.
func (v Volume) IsPool() bool {
	return v.Kind == KindThinPool || v.Kind == KindCachePool || v.Kind == KindVDOPool
}

// HasClassicSnapshots says that v is the origin of at least one classic snapshot.
func (v Volume) HasClassicSnapshots() bool { return slices.Contains(v.Roles, "thickorigin") }

// HasTag says that v carries tag.
func (v Volume) HasTag(tag string) bool { return slices.Contains(v.Tags, tag) }

// Dev is v's device number; ok is false when it is not active.
func (v Volume) Dev() (dev Dev, ok bool) {
	return Dev{Major: v.KernelMajor, Minor: v.KernelMinor}, v.Active
}

// VG is one volume group as lvm2 reported it.
type VG struct {
	Name, UUID                        string
	SizeBytes, FreeBytes, ExtentBytes int64
	Tags                              []string
	Shared                            bool   // used by several hosts through lvmlockd
	LockType                          string // of shared groups: dlm, sanlock, idm
	Clustered                         bool   // of the old clvmd kind
	SystemID                          string // the host that owns it, when such ids are in use
	Foreign                           bool   // and that is another host than this
	Exported                          bool
	Partial                           bool // a physical volume is missing
	MissingPVs                        int64
	ReadOnly                          bool
}

// IsWhole says that no physical volume of the group is missing.
func (vg VG) IsWhole() bool { return !vg.Partial && vg.MissingPVs == 0 }

// PV is one physical volume as lvm2 reported it.
type PV struct {
	Name      string // of its device
	UUID      string
	VGUUID    string // empty for one in no group
	Dev       Dev    // -1:-1 when its device is not there
	Missing   bool
	Duplicate bool // another device carries the same UUID, and lvm2 uses that one
}

// Inventory is what one report told. Order is lvm2's.
type Inventory struct {
	VGs     []VG
	PVs     []PV
	Volumes []Volume
	// Warnings is what lvm2 complained of while it reported, such as a disk that it could not find, a line each. Callers
	// pass it on to a person.
	Warnings string
	// Incomplete says that lvm2 could not read everything, so that volumes may be missing.
	Incomplete bool
}

// VG returns the volume group of that name.
func (inv Inventory) VG(name string) (VG, bool) {
	i := slices.IndexFunc(inv.VGs, func(vg VG) bool { return vg.Name == name })
	if i < 0 {
		return VG{}, false
	}
	return inv.VGs[i], true
}

// VGOf returns the volume group of a volume, which may share its name with another.
func (inv Inventory) VGOf(v Volume) VG {
	if i := slices.IndexFunc(inv.VGs, func(vg VG) bool { return vg.UUID == v.VGUUID }); i >= 0 {
		return inv.VGs[i]
	}
	vg, _ := inv.VG(v.VG)
	return vg
}

// Volume returns the logical volume of that name, or an error that wraps ErrVGNotFound or ErrNotFound.
func (inv Inventory) Volume(vg, name string) (Volume, error) {
	i := slices.IndexFunc(inv.Volumes, func(v Volume) bool { return v.VG == vg && v.Name == name })
	if i >= 0 {
		return inv.Volumes[i], nil
	}
	if _, ok := inv.VG(vg); !ok {
		return Volume{}, fmt.Errorf("find %s/%s: %w", vg, name, ErrVGNotFound)
	}
	return Volume{}, fmt.Errorf("find %s/%s: %w", vg, name, ErrNotFound)
}

// SnapshotsOf returns the snapshots of origin, classic and thin.
func (inv Inventory) SnapshotsOf(origin Volume) []Volume {
	return filter(inv.Volumes, func(v Volume) bool { return v.OriginUUID != "" && v.OriginUUID == origin.UUID })
}

func filter[T any](all []T, keep func(T) bool) []T {
	var kept []T
	for _, v := range all {
		if keep(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
