package archive

import (
	"cmp"
	"fmt"
	"time"

	"voltar/internal/say"
)

// Limits of what an archive and its index hold. Writers keep to them, so that every reader can do with bounded memory, and
// readers refuse what is beyond; docs/format.md lists them.
const (
	// PAXMaxBytes bounds a pax header or a long name, which are held in memory.
	PAXMaxBytes = 8 << 20
	// SparseMaxPieces bounds the pieces of a sparse file, which are held in memory.
	SparseMaxPieces = 1 << 20
	// IndexBlockMaxBytes is the most that a block of an index may inflate to.
	IndexBlockMaxBytes = 128 << 20
	// IndexListMaxBytes is the most that the list of an index's blocks may inflate to.
	IndexListMaxBytes = 64 << 20
)

// Limits bound what WriteTree makes of a tree. Zeros stand for the defaults, which are named here. Where none is named,
// there is no bound: the caller derives one from what the filesystem can hold. What is beyond a bound ends the archive with
// a *LimitError, unless something else is said.
type Limits struct {
	StreamBytes int64         // of the tar stream, which holds the content of all files
	Entries     int64         // names in the tree, those included that are left out
	Duration    time.Duration // of the whole
	SpillBytes  int64         // of temporary files; 8 GiB

	Depth     int // of folders in folders; 4,096
	PathBytes int // of one path; 16 KiB

	// IndexListBytes is IndexListMaxBytes.
	IndexListBytes int

	// AttributeBytes of one entry go into the tar stream, 512 KiB, and OddAttributeBytes into the index, 256 KiB. What is
	// more is not stored, and counted as NotStoredXattrSize.
	AttributeBytes, OddAttributeBytes int
	// BlockBytes is where a block of the index ends, but for its last line; 4 MiB. BlockEntries as the constant.
	BlockBytes, BlockEntries int
	// MemberIndexBytes is what the entries of one member may take in the index, as indexCost has it; 4 MiB.
	MemberIndexBytes int
	// SparsePieces is how many pieces of data a file has before its smallest holes are taken for data; 65,536.
	SparsePieces int
	// Damaged is how many damaged entries are listed, of all that are counted, 1,000, and DamagedBytes what their paths and
	// reasons may take; 1 MiB.
	Damaged, DamagedBytes int

	// What is held in memory at most before it goes into temporary files: NameBytes, names of folders that are yet to be
	// archived, 16 MiB; LinkBytes, entries that further hard links may name, 16 MiB.
	NameBytes, LinkBytes int
}

func defaultLimits() *Limits {
	l := Limits{}.withDefaults()
	return &l
}

// withDefaults returns the limits without zeros but where there is no default.
func (l Limits) withDefaults() Limits {
	l.SpillBytes = cmp.Or(l.SpillBytes, 8<<30)
	l.Depth = cmp.Or(l.Depth, 4096)
	l.PathBytes = cmp.Or(l.PathBytes, 16<<10)
	l.IndexListBytes = cmp.Or(l.IndexListBytes, IndexListMaxBytes)
	l.AttributeBytes = cmp.Or(l.AttributeBytes, 512<<10) // Go's archive/tar reads pax headers up to 1 MiB
	l.OddAttributeBytes = cmp.Or(l.OddAttributeBytes, 256<<10)
	l.BlockBytes = cmp.Or(l.BlockBytes, 4<<20)
	l.BlockEntries = cmp.Or(l.BlockEntries, BlockEntries)
	l.MemberIndexBytes = cmp.Or(l.MemberIndexBytes, 4<<20)
	l.SparsePieces = cmp.Or(l.SparsePieces, 64<<10)
	l.Damaged = cmp.Or(l.Damaged, 1000)
	l.DamagedBytes = cmp.Or(l.DamagedBytes, 1<<20)
	l.NameBytes = cmp.Or(l.NameBytes, 16<<20)
	l.LinkBytes = cmp.Or(l.LinkBytes, 16<<20)
	return l
}

// What a LimitError can be about.
const (
	LimitStreamBytes = "bytes"
	LimitEntries     = "entries"
	LimitDepth       = "folders in one another"
	LimitPathBytes   = "bytes in one path"
	LimitIndexBytes  = "bytes in the list of the index's blocks"
	LimitBlockBytes  = "bytes in one block of the index"
	LimitHeaderBytes = "bytes in one header"
	LimitSpillBytes  = "bytes of temporary files"
	LimitDuration    = "seconds"
)

// LimitError ends the archive of a tree that is beyond a bound.
type LimitError struct {
	What  string // one of the constants
	Limit int64
	Got   int64 // at least; what made it too much
	Path  string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("more than %s %s", say.Count(e.Limit), e.What)
}
