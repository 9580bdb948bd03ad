package archive

import (
	"encoding/binary"
	"hash/maphash"
)

const (
	linkOverheadBytes = 128     // of an entry in memory, beside its path
	linkSlotBytes     = 32      // of an entry in a temporary file, beside its path
	linkSlotsLeast    = 1 << 16 // of a table in a temporary file
	linkPageSlots     = 128     // read at once
	linkScanSlots     = 1 << 15 // when a table is made larger
)

// linkTable remembers the first names of inodes that have further ones. What is too much for memory goes into temporary
// files: a hash table, and the paths.
type linkTable struct {
	spill  *spill
	budget int // bytes in memory
	held   int
	first  map[inodeKey]firstName

	slots *spillFile // nil until it is needed; of a power of two of slots, at most half of them taken
	count int64
	size  int64 // in slots
	seed  maphash.Seed
	page  []byte

	paths      *spillFile
	pathsBytes int64
}

func newLinkTable(s *spill, budget int) *linkTable {
	return &linkTable{spill: s, budget: budget, first: make(map[inodeKey]firstName), seed: maphash.MakeSeed()}
}

// take returns the first name of an inode, one of whose further names has come. What is in memory is forgotten with the last.
func (t *linkTable) take(key inodeKey) (firstName, bool, error) {
	first, ok := t.first[key]
	if !ok {
		return t.find(key)
	}
	if first.left--; first.left > 0 {
		t.first[key] = first
	} else {
		delete(t.first, key)
		t.held -= len(first.path) + linkOverheadBytes
	}
	return first, true, nil
}

// put remembers the first name of an inode.
func (t *linkTable) put(key inodeKey, first firstName) error {
	cost := len(first.path) + linkOverheadBytes
	if t.held+cost > t.budget {
		return t.store(key, first)
	}
	t.held += cost
	t.first[key] = first
	return nil
}

// linkSlot is an entry of the table in a file; taken is 0 where there is none.
type linkSlot struct {
	key       inodeKey
	taken     int64 // the offset in the tar stream, plus one
	pathStart int64
}

func (s *linkSlot) encode(b []byte) {
	binary.LittleEndian.PutUint32(b, s.key.devMajor)
	binary.LittleEndian.PutUint32(b[4:], s.key.devMinor)
	binary.LittleEndian.PutUint64(b[8:], s.key.inode)
	binary.LittleEndian.PutUint64(b[16:], uint64(s.taken))
	binary.LittleEndian.PutUint64(b[24:], uint64(s.pathStart))
}

func decodeLinkSlot(b []byte) linkSlot {
	return linkSlot{
		key: inodeKey{
			binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]),
		},
		taken: int64(binary.LittleEndian.Uint64(b[16:])), pathStart: int64(binary.LittleEndian.Uint64(b[24:])),
	}
}

// store puts an entry into the files.
func (t *linkTable) store(key inodeKey, first firstName) (err error) {
	if t.paths == nil {
		if t.paths, err = t.spill.create(); err != nil {
			return err
		}
	}
	if 2*(t.count+1) > t.size {
		if err := t.enlarge(); err != nil {
			return err
		}
	}
	path := binary.LittleEndian.AppendUint32(nil, uint32(len(first.path)))
	path = append(path, first.path...)
	if err := t.paths.writeAt(path, t.pathsBytes); err != nil {
		return err
	}
	slot := linkSlot{key: key, taken: first.tarOffset + 1, pathStart: t.pathsBytes}
	t.pathsBytes += int64(len(path))
	t.count++
	return t.insert(&slot)
}

// enlarge makes a table of twice the size.
func (t *linkTable) enlarge() error {
	old, oldSize := t.slots, t.size
	slots, err := t.spill.create()
	if err != nil {
		return err
	}
	t.slots, t.size = slots, max(2*oldSize, linkSlotsLeast)
	if old == nil {
		return nil
	}
	defer old.close()
	buf := make([]byte, min(linkScanSlots, oldSize)*linkSlotBytes)
	for at := int64(0); at < oldSize*linkSlotBytes; at += int64(len(buf)) {
		if err := old.readAt(buf, at); err != nil {
			return err
		}
		for b := buf; len(b) > 0; b = b[linkSlotBytes:] {
			if slot := decodeLinkSlot(b); slot.taken != 0 {
				if err := t.insert(&slot); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// probe goes through the slots in which key may be, up to the first free one, until done says so.
func (t *linkTable) probe(key inodeKey, done func(at int64, s linkSlot) bool) error {
	at := int64(maphash.Comparable(t.seed, key) & uint64(t.size-1))
	for {
		n := min(linkPageSlots-at%linkPageSlots, t.size-at)
		t.page = grow(t.page[:0], int(n*linkSlotBytes))
		if err := t.slots.readAt(t.page, at*linkSlotBytes); err != nil {
			return err
		}
		for b := t.page; len(b) > 0; b = b[linkSlotBytes:] {
			if s := decodeLinkSlot(b); done(at, s) || s.taken == 0 {
				return nil
			}
			at++
		}
		at &= t.size - 1
	}
}

// insert puts an entry into the first free slot.
func (t *linkTable) insert(s *linkSlot) error {
	free := int64(-1)
	err := t.probe(s.key, func(at int64, other linkSlot) bool {
		if other.taken == 0 {
			free = at
		}
		return other.taken == 0
	})
	if err != nil {
		return err
	}
	var b [linkSlotBytes]byte
	s.encode(b[:])
	return t.slots.writeAt(b[:], free*linkSlotBytes)
}

// find looks an inode up in the files.
func (t *linkTable) find(key inodeKey) (first firstName, ok bool, err error) {
	if t.slots == nil {
		return firstName{}, false, nil
	}
	var found linkSlot
	err = t.probe(key, func(_ int64, s linkSlot) bool {
		if ok = s.taken != 0 && s.key == key; ok {
			found = s
		}
		return ok
	})
	if err != nil || !ok {
		return firstName{}, false, err
	}
	var length [4]byte
	if err := t.paths.readAt(length[:], found.pathStart); err != nil {
		return firstName{}, false, err
	}
	path := make([]byte, binary.LittleEndian.Uint32(length[:]))
	if err := t.paths.readAt(path, found.pathStart+int64(len(length))); err != nil {
		return firstName{}, false, err
	}
	return firstName{path: string(path), tarOffset: found.taken - 1}, true, nil
}

func (t *linkTable) close() {
	for _, f := range []*spillFile{t.slots, t.paths} {
		if f != nil {
			f.close()
		}
	}
}
