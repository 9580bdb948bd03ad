package agefile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"filippo.io/age"
)

var (
	// ErrNoKey is wrapped by the error of a file that none of the identities opens.
	ErrNoKey = errors.New("none of the identities opens it")
	// ErrDamaged is wrapped by the error of a file whose bytes are not those that were encrypted.
	ErrDamaged = errors.New("the encrypted file is damaged")
)

const (
	// headBytes are read at once when a file is opened: more than the header for a dozen recipients, or for some that
	// withstand quantum computers. Smaller files are read whole.
	headBytes = 8 << 10
	wholeMax  = 2 * storedChunk
	// pieceBytes is the most that is asked of the store, and held, in one piece: a multiple of chunks, and more than a
	// member of an archive mostly has.
	pieceBytes = 80 * chunkBytes
)

// File is an encrypted file as it was before, to be read at any offset. ReadAt is safe for concurrent use. It holds a
// few chunks, and as many bytes, up to 5 MiB, as are being read.
type File struct {
	source  *source
	plain   io.ReaderAt
	size    int64
	header  int64 // bytes before the first chunk
	lenient bool

	mu      sync.Mutex
	damaged []Range
}

// Range is a part of the plain file.
type Range struct{ OffsetBytes, LengthBytes int64 }

// OpenOptions of Open; the zero value takes damage for an error.
type OpenOptions struct {
	// Lenient reads chunks that are damaged as zeros and notes them, so that what is behind them can be had. Where the end
	// of the file is damaged or missing, that is what lies before the first damage.
	Lenient bool
}

// Open opens the sizeBytes of an encrypted file with the identity that fits. The stored file stays the caller's. The
// error wraps ErrNoKey when no identity fits, and ErrDamaged for a file that is cut short or not one of age.
func Open(stored io.ReaderAt, sizeBytes int64, identities *Identities, opts OpenOptions) (*File, error) {
	if identities.None() {
		return nil, ErrNoKey
	}
	f := &File{source: &source{stored: stored, size: sizeBytes}, lenient: opts.Lenient}
	head := int64(headBytes)
	if sizeBytes <= wholeMax {
		head = sizeBytes
	}
	if err := f.source.keepHead(head); err != nil {
		return nil, explain(err)
	}
	header, err := age.ExtractHeader(io.NewSectionReader(f.source, 0, sizeBytes))
	if err != nil {
		return nil, explain(err)
	}
	f.header = int64(len(header)) + nonceBytes
	f.plain, f.size, err = age.DecryptReaderAt(f.source, sizeBytes, identities.list...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &noMatch):
		return nil, fmt.Errorf("%w: they belong to %s", ErrNoKey, identities)
	case err == nil:
		return f, nil
	}
	if err = explain(err); opts.Lenient && errors.Is(err, ErrDamaged) && f.salvage(identities) == nil {
		return f, nil
	}
	return nil, err
}

// SizeBytes is the size before encryption.
func (f *File) SizeBytes() int64 { return f.size }

// Damaged lists what a lenient file has given as zeros so far, in order.
func (f *File) Damaged() []Range {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.damaged)
}

// ReadAt decrypts the chunks that hold a range. What it needs of the stored file it asks for in pieces as large as can
// be, because each may be a request to a server.
func (f *File) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, fmt.Errorf("cannot read at %d", offset)
	}
	if offset >= f.size {
		return 0, io.EOF
	}
	wanted := p[:min(int64(len(p)), f.size-offset)]
	for len(wanted[n:]) > 0 {
		at := offset + int64(n)
		end := min(at-at%chunkBytes+pieceBytes, offset+int64(len(wanted)))
		k, err := f.readPiece(wanted[n:int64(n)+end-at], at)
		n += k
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPiece reads a range with one request.
func (f *File) readPiece(p []byte, offset int64) (int, error) {
	first, last := offset/chunkBytes, (offset+int64(len(p))-1)/chunkBytes
	done, err := f.source.fetch(f.header+first*storedChunk, min(f.header+(last+1)*storedChunk, f.source.size))
	if err != nil {
		return 0, explain(err)
	}
	defer done()
	n, err := f.plain.ReadAt(p, offset)
	if n == len(p) {
		return n, nil // with or without the end of the file
	}
	if !f.lenient {
		return n, explain(fmt.Errorf("in the bytes %d to %d: %w", offset, offset+int64(len(p)), err))
	}
	return f.readAround(p, offset)
}

// readAround reads a range chunk by chunk, those that are damaged as zeros.
func (f *File) readAround(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		at := offset + int64(n)
		k := min(int64(len(p)-n), chunkBytes-at%chunkBytes)
		got, err := f.plain.ReadAt(p[n:][:k], at)
		if int64(got) < k {
			if err := explain(err); !errors.Is(err, ErrDamaged) {
				return n, err
			}
			clear(p[n:][:k])
			f.note(at / chunkBytes)
		}
		n += int(k)
	}
	return n, nil
}

// note remembers a damaged chunk.
func (f *File) note(chunk int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := chunk * chunkBytes
	i, found := slices.BinarySearchFunc(f.damaged, at, func(r Range, at int64) int { return cmp.Compare(r.OffsetBytes, at) })
	if !found {
		f.damaged = slices.Insert(f.damaged, i, Range{at, min(chunkBytes, f.size-at)})
	}
}

// source is the stored file. What fetch has got is given from memory.
type source struct {
	stored io.ReaderAt
	size   int64
	head   []byte

	mu     sync.Mutex
	pieces []*piece
	last   *piece // the chunk that was read last, with which the next read is likely to begin
}

// piece is a part of the stored file in memory.
type piece struct {
	offset int64
	data   []byte
}

// keepHead reads the beginning of the file.
func (s *source) keepHead(length int64) error {
	s.head = make([]byte, min(length, s.size))
	return s.read(s.head, 0)
}

// fetch reads the chunks of a range of the stored file with one request and keeps them until done is called.
func (s *source) fetch(from, to int64) (done func(), err error) {
	done = func() {}
	if s.kept(from, int(min(storedChunk, to-from))) != nil {
		from += storedChunk
	}
	if to-from <= storedChunk {
		return done, nil // the decryption asks for that itself
	}
	got := &piece{from, make([]byte, to-from)}
	if err := s.read(got.data, from); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pieces = append(s.pieces, got)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pieces = slices.DeleteFunc(s.pieces, func(p *piece) bool { return p == got })
		at := (int64(len(got.data)) - 1) / storedChunk * storedChunk
		s.last = &piece{from + at, slices.Clone(got.data[at:])}
	}, nil
}

// ReadAt is for the decryption, which asks for a chunk at a time.
func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= s.size {
		return 0, io.EOF
	}
	wanted := p[:min(int64(len(p)), s.size-offset)]
	if data := s.kept(offset, len(wanted)); data != nil {
		copy(wanted, data)
	} else if err := s.read(wanted, offset); err != nil {
		return 0, err
	} else {
		s.keepLast(wanted, offset)
	}
	if len(wanted) < len(p) {
		return len(wanted), io.EOF
	}
	return len(wanted), nil
}

func (s *source) keepLast(chunk []byte, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = &piece{offset, slices.Clone(chunk)}
}

// kept returns a range that is in memory; nil when it is not.
func (s *source) kept(offset int64, length int) []byte {
	if offset+int64(length) <= int64(len(s.head)) {
		return s.head[offset:][:length]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pieces := s.pieces
	if s.last != nil {
		pieces = append(slices.Clone(pieces), s.last)
	}
	for _, piece := range pieces {
		if at := offset - piece.offset; at >= 0 && at+int64(length) <= int64(len(piece.data)) {
			return piece.data[at:][:length]
		}
	}
	return nil
}

// read reads a range of the stored file whole.
func (s *source) read(p []byte, offset int64) error {
	n, err := s.stored.ReadAt(p, offset)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return &storeError{err}
}

// storeError is one of reading the stored file; all others are of what it holds.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// explain tells the two kinds of errors apart.
func explain(err error) error {
	var failed *storeError
	if errors.As(err, &failed) {
		return failed.error
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
