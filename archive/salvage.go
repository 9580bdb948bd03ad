package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// RebuildIndex makes the index of an archive from the archive alone, for one whose index is lost, and returns where its
// list of blocks begins. The archive must be sound and its members must declare their lengths. What only the original
// index had is not in it: ctimes, inode numbers, chattr flags, sockets, attributes that tar cannot express, and which
// files were damaged when they were backed up. An error leaves out unfinished and useless.
func RebuildIndex(ctx context.Context, src io.ReaderAt, sizeBytes int64, out io.Writer) (blocksOffset int64, err error) {
	r, err := NewReader(ctx, src, sizeBytes, ReaderOptions{})
	if err != nil {
		return 0, fmt.Errorf("rebuild index: %w", err)
	}
	return rebuildIndex(r, out, defaultLimits())
}

func rebuildIndex(r *Reader, out io.Writer, limits *Limits) (blocksOffset int64, err error) {
	b := rebuilder{out: newIndexWriter(out, limits), files: newPathTable(limits)}
	defer b.files.close()
	r.began = func(m Member) { b.members = append(b.members, m) }
	b.t = &tarReader{r: r, whole: true}
	blocksOffset, err = b.run()
	if err = errors.Join(err, r.Close()); err != nil {
		return 0, fmt.Errorf("rebuild index: %w", err)
	}
	return blocksOffset, nil
}

// rebuilder holds the members and entries that are not yet in the index.
type rebuilder struct {
	out     *indexWriter
	t       *tarReader
	files   *pathTable // where they are in the tar stream, for hard links
	members []Member
	entries []Entry
}

func (b *rebuilder) run() (int64, error) {
	for {
		e, err := b.t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if err := b.entry(e); err != nil {
			return 0, fmt.Errorf("%q: %w", e.Path, err)
		}
		if err := b.write(e.TarOffset); err != nil {
			return 0, err
		}
	}
	if err := b.write(b.t.r.offset); err != nil {
		return 0, err
	}
	return b.out.finish()
}

// entry takes over an entry as the index has it.
func (b *rebuilder) entry(e *tarEntry) error {
	if len(b.members) == 0 {
		return errors.New("cannot tell where the archive's members lie: they do not declare their lengths")
	}
	in := e.Entry
	var err error
	if in.Path, err = cleanPath(in.Path); err != nil {
		return err
	}
	in.CTime = in.MTime
	switch in.Type {
	case TypeHardlink:
		if in.Linkname, err = cleanPath(in.Linkname); err != nil {
			return err
		}
		_, offset, known, err := b.files.get(in.Linkname)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("cannot find %q, which it is a hard link to", in.Linkname)
		}
		in.DataOffset = offset
	case TypeDir:
	default:
		if err := b.files.put(in.Path, "", in.TarOffset); err != nil {
			return err
		}
	}
	b.entries = append(b.entries, in)
	return nil
}

// write puts into the index the members that end at or before an offset of the tar stream, and the entries that end in
// them.
func (b *rebuilder) write(offset int64) error {
	for len(b.members) > 0 {
		m := b.members[0]
		end := m.TarOffset + m.TarBytes
		if end > offset {
			return nil
		}
		n := 0
		for n < len(b.entries) && b.entries[n].TarOffset+b.entries[n].TarBytes <= end {
			n++
		}
		if err := b.out.member(summedMember{Member: m}, b.entries[:n]); err != nil {
			return err
		}
		b.entries, b.members = b.entries[n:], b.members[1:]
	}
	return nil
}
