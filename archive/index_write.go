package archive

import (
	"fmt"
	"io"
)

const indexLevel = LevelDefault

// indexEndsBytes is more than the first and the last line of an index's list of blocks take.
const indexEndsBytes = 512

// indexWriter writes the index of an archive as docs/format.md describes it. It holds one block and, for each block
// before it, one line.
type indexWriter struct {
	out    io.Writer
	limits *Limits
	enc    memberEncoder
	offset int64 // in the index

	block   Block
	lines   []byte // of the block
	packed  []byte
	blocks  []byte         // lines of the blocks so far
	pending []summedMember // not yet in any block
	last    summedMember   // the last one in any block
	total   indexTotal
}

func newIndexWriter(out io.Writer, limits *Limits) *indexWriter {
	return &indexWriter{out: out, limits: limits, lines: appendFormat(nil), total: indexTotal{TellsAttrs: true}}
}

// encoder says how the members are compressed; it comes first.
func (w *indexWriter) encoder(level Level) { w.lines = appendEncoder(w.lines, level) }

// member adds a member, and the entries that end in it. One of no bytes is none: its entries are not in the stream.
func (w *indexWriter) member(m summedMember, entries []Entry) error {
	if m.TarBytes > 0 {
		w.pending = append(w.pending, m)
		w.total.Members++
	}
	w.total.TarBytes += m.TarBytes
	w.total.ArchiveBytes += m.LengthBytes
	for i := range entries {
		if err := w.entry(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *indexWriter) entry(e *Entry) error {
	if w.block.Entries == w.limits.BlockEntries || w.block.Entries > 0 && len(w.lines) >= w.limits.BlockBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.block.Entries == 0 {
		w.beginBlock(e)
	}
	w.flushPending()
	w.lines = appendEntry(w.lines, e)
	w.block.Entries++
	w.total.Entries++
	return nil
}

// beginBlock repeats the last member's line when the block does not begin with a member of its own.
func (w *indexWriter) beginBlock(e *Entry) {
	w.block.FirstPath = e.Path
	switch {
	case len(w.pending) > 0:
		w.block.TarOffset = w.pending[0].TarOffset
	default:
		w.block.TarOffset = w.last.TarOffset
		w.lines = appendMember(w.lines, w.last)
	}
}

func (w *indexWriter) flushPending() {
	for _, m := range w.pending {
		w.lines = appendMember(w.lines, m)
		w.last = m
	}
	w.pending = w.pending[:0]
}

// flush writes the block as a gzip member.
func (w *indexWriter) flush() error {
	w.block.Offset = w.offset
	if len(w.lines) > IndexBlockMaxBytes {
		return &LimitError{What: LimitBlockBytes, Limit: IndexBlockMaxBytes, Got: int64(len(w.lines)), Path: w.block.FirstPath}
	}
	length, err := w.writeMember(w.lines)
	if err != nil {
		return err
	}
	w.block.LengthBytes = length
	w.blocks = appendBlock(w.blocks, w.block)
	if most := w.limits.IndexListBytes; len(w.blocks)+indexEndsBytes > most {
		return &LimitError{What: LimitIndexBytes, Limit: int64(most), Got: int64(len(w.blocks) + indexEndsBytes), Path: w.block.FirstPath}
	}
	w.block, w.lines = Block{}, w.lines[:0]
	return nil
}

func (w *indexWriter) writeMember(lines []byte) (int64, error) {
	packed, err := w.enc.encode(w.packed[:0], lines, indexLevel)
	if err != nil {
		return 0, fmt.Errorf("compress index: %w", err)
	}
	w.packed = packed
	if err := writeAll(w.out, packed); err != nil {
		return 0, fmt.Errorf("write index: %w", err)
	}
	w.offset += int64(len(packed))
	return int64(len(packed)), nil
}

// finish writes the last block and the list of blocks, and returns where that list begins.
func (w *indexWriter) finish() (blocksOffset int64, err error) {
	w.flushPending()
	if err := w.flush(); err != nil {
		return 0, err
	}
	blocksOffset = w.offset
	lines := append(appendFormat(w.lines[:0]), w.blocks...)
	if _, err := w.writeMember(appendTotal(lines, w.total)); err != nil {
		return 0, err
	}
	return blocksOffset, nil
}
