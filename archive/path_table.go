package archive

import (
	"hash/maphash"
	"math"
	"os"
)

// pathTable remembers something of many paths in bounded memory, by their hashes. Whoever chooses the paths does not know
// how they are hashed. What is too much for memory goes into temporary files.
type pathTable struct {
	links *linkTable
	seeds [2]maphash.Seed
}

// newPathTable keeps to LinkBytes and SpillBytes of the limits.
func newPathTable(limits *Limits) *pathTable {
	temp := &spill{dir: os.TempDir(), limit: limits.SpillBytes}
	return &pathTable{newLinkTable(temp, limits.LinkBytes), [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

func (t *pathTable) key(path string) inodeKey {
	high, low := maphash.String(t.seeds[0], path), maphash.String(t.seeds[1], path)
	return inodeKey{devMajor: uint32(high >> 32), devMinor: uint32(high), inode: low}
}

// put remembers of a path, once, another one, or an offset.
func (t *pathTable) put(path, other string, offset int64) error {
	return t.links.put(t.key(path), firstName{path: other, tarOffset: offset, left: math.MaxUint32})
}

// get returns what is remembered of a path.
func (t *pathTable) get(path string) (other string, offset int64, ok bool, err error) {
	first, ok, err := t.links.take(t.key(path))
	return first.path, first.tarOffset, ok, err
}

func (t *pathTable) close() { t.links.close() }
