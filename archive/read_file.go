package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
)

// OpenFile reads one file out of an archive by the members that hold it, both as Index.Find returns them: no more than
// those members are read. Holes of a sparse file read as zeros; a hard link reads as the file that it names. The error
// of a Read is that of the member that it met; io.EOF comes only when all members read were sound. The caller closes
// what it gets, which does not close src.
func OpenFile(ctx context.Context, src io.ReaderAt, entry Entry, members []Member) (io.ReadCloser, error) {
	return openEntry(ctx, src, entry, ReaderOptions{Members: members})
}

// OpenSalvaged is OpenFile for a file that may be damaged: before the *MemberError come the bytes that can be read. Nobody vouches for
// those of a damaged member.
func OpenSalvaged(ctx context.Context, src io.ReaderAt, entry Entry, members []Member) (io.ReadCloser, error) {
	return openEntry(ctx, src, entry, ReaderOptions{Members: members, Salvage: true})
}

func openEntry(ctx context.Context, src io.ReaderAt, entry Entry, opts ReaderOptions) (io.ReadCloser, error) {
	offset := entry.TarOffset
	switch entry.Type {
	case TypeFile:
	case TypeHardlink:
		offset = entry.DataOffset
	default:
		return nil, fmt.Errorf("open %q: cannot read an entry of type %q as a file", entry.Path, entry.Type)
	}
	f, err := openFile(ctx, src, entry, opts, offset)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", entry.Path, err)
	}
	return f, nil
}

func openFile(ctx context.Context, src io.ReaderAt, entry Entry, opts ReaderOptions, offset int64) (*memberFile, error) {
	if len(opts.Members) == 0 || offset < opts.Members[0].TarOffset {
		return nil, errors.New("cannot find its first member")
	}
	r, err := NewReader(ctx, src, math.MaxInt64, opts)
	if err != nil {
		return nil, err
	}
	t := &tarReader{r: r}
	e, err := fileAt(t, offset)
	if err == nil && e.Type != TypeFile {
		err = fmt.Errorf("cannot use the index: an entry of type %q is at byte %d", e.Type, offset)
	}
	if err == nil {
		path, perr := cleanPath(e.Path)
		want := entry.Path
		if entry.Type == TypeHardlink {
			want = entry.Linkname
		}
		if perr != nil || path != want {
			err = fmt.Errorf("cannot use the index: %q is at byte %d", e.Path, offset)
		}
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &memberFile{t: t, size: e.SizeBytes, pieces: wholePieces(e)}, nil
}

// fileAt goes to the entry whose headers begin at offset in the tar stream.
func fileAt(t *tarReader, offset int64) (*tarEntry, error) {
	for {
		err := t.r.fill()
		var skip *skipped
		if err != nil && !errors.As(err, &skip) {
			return nil, unexpected(err)
		}
		if err == nil {
			break
		}
	}
	if t.r.offset > offset {
		return nil, fmt.Errorf("cannot find byte %d of the tar stream: the member begins at %d", offset, t.r.offset)
	}
	t.remaining = offset - t.r.offset
	if err := t.skipData(); err != nil {
		return nil, unexpected(err)
	}
	if t.lost || t.r.offset != offset {
		return nil, fmt.Errorf("cannot find byte %d of the tar stream: members are missing", offset)
	}
	return t.next()
}

// wholePieces returns the pieces of any file; one that is not sparse is one piece.
func wholePieces(e *tarEntry) []segment {
	if e.pieces != nil {
		return e.pieces
	}
	return []segment{{0, e.SizeBytes}}
}

// memberFile reads the data of an entry with its holes.
type memberFile struct {
	t      *tarReader
	at     int64 // offset in the file
	size   int64
	pieces []segment
	err    error
}

func (f *memberFile) Read(p []byte) (int, error) {
	if len(p) == 0 || f.err != nil {
		return 0, f.err
	}
	n, err := f.read(p)
	f.at += int64(n)
	f.err = err
	return n, err
}

func (f *memberFile) read(p []byte) (int, error) {
	for len(f.pieces) > 0 && f.at >= f.pieces[0].offset+f.pieces[0].length {
		f.pieces = f.pieces[1:]
	}
	if f.at >= f.size {
		return 0, f.finish()
	}
	hole := f.size - f.at
	if len(f.pieces) > 0 {
		hole = f.pieces[0].offset - f.at
	}
	if hole > 0 {
		p = p[:min(hole, int64(len(p)))]
		clear(p)
		return len(p), nil
	}
	end := f.pieces[0].offset + f.pieces[0].length
	data, err := f.t.data(min(int64(len(p)), end-f.at))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return copy(p, data), err
}

// finish is called behind the last byte: what is left of the last member must be sound as well, as its checksum covers
// the file too.
func (f *memberFile) finish() error {
	for {
		_, err := f.t.r.next(math.MaxInt64)
		var skip *skipped
		if err != nil && !errors.As(err, &skip) {
			return err
		}
	}
}

// Close frees what reading holds.
func (f *memberFile) Close() error { return f.t.r.Close() }
