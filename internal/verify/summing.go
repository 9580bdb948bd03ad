package verify

import (
	"context"
	"io"
	"sync"

	"voltar/archive"
	"voltar/internal/store"
)

// Summing is a file that is summed up while others read it. What they read in order counts; sum reads the rest. So a
// file that is read from its beginning to its end is read once, and one that is only looked into is summed all the same.
type Summing struct {
	ctx  context.Context
	file store.Reader
	read func(bytes int64)

	mu   sync.Mutex
	sums *archive.Sums
	next int64 // all before it is summed up
	done bool
}

// NewSumming takes the sums of an open file, which stays the caller's; unless wanted, it only counts what is read. The
// caller calls Abandon in the end.
func NewSumming(ctx context.Context, file store.Reader, wanted bool, read func(int64)) *Summing {
	return &Summing{ctx: ctx, file: file, read: read, done: !wanted}
}

func (s *Summing) SizeBytes() int64 { return s.file.SizeBytes() }

// Close does nothing: the file is the caller's.
func (s *Summing) Close() error { return nil }

func (s *Summing) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.file.ReadAt(p, offset)
	s.read(int64(n))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done && offset <= s.next && s.next < offset+int64(n) {
		if s.sums == nil {
			s.sums = archive.NewSums()
		}
		_, _ = s.sums.Write(p[s.next-offset : n]) // never fails
		s.next = offset + int64(n)
	}
	return n, err
}

// Sum reads what nobody has read and returns the sums of the whole file. From then on reads are not summed.
func (s *Summing) Sum() (archive.Digest, error) {
	buf := make([]byte, min(1<<20, s.SizeBytes()))
	for s.next < s.SizeBytes() {
		if s.ctx.Err() != nil {
			return archive.Digest{}, context.Cause(s.ctx)
		}
		n, err := s.ReadAt(buf[:min(int64(len(buf)), s.SizeBytes()-s.next)], s.next)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return archive.Digest{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.sums == nil { // of an empty file
		s.sums = archive.NewSums()
	}
	return s.sums.Sum(), nil
}

// Abandon ends the goroutine that sums up, whether Sum was called or not.
func (s *Summing) Abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.sums != nil {
		s.sums.Sum()
	}
}
