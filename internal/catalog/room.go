package catalog

// What a filesystem needs is estimated: the filesystem itself has the last word.
const (
	byHandSpareBytes = 64 << 20
	byHandRoundBytes = 4 << 20
)

// OwnBytes is the data of an extent's files with what they share counted once.
func (x *Extent) OwnBytes() int64 {
	if x.UniqueBytes > 0 {
		return x.UniqueBytes
	}
	return x.ContentBytes
}

// NeededBytes is what the files of an extent take at least: with their data shared again, or as they are unpacked from a plain
// archive. That a filesystem was compressed does not come back.
func (x *Extent) NeededBytes(shared bool) int64 {
	needed := max(x.UsedBytes, x.OwnBytes())
	if !shared {
		needed += x.ContentBytes - x.OwnBytes()
	}
	return needed
}

// ByHandBytes is how large a filesystem has to be made for its files to be unpacked by standard tools, where that is more than it
// had; 0 otherwise.
func (x *Extent) ByHandBytes() int64 {
	needed := x.NeededBytes(false)
	if x.State != StateFiles || needed <= x.SizeBytes {
		return 0
	}
	needed += needed/8 + byHandSpareBytes
	return (needed + byHandRoundBytes - 1) / byHandRoundBytes * byHandRoundBytes
}
