package verify

import (
	"context"
	"io"
	"sync"

	"voltar/archive"
	"voltar/internal/store"
)

// summing is a file that is summed up while others read it. What they read in order counts; sum reads the rest. So a
// file that is read from its beginning to its end is read once, and one that is only looked into is summed all the same.
type summing struct {
	ctx  context.Context
	file store.Reader
	read func(bytes int64)

	mu   sync.Mutex
	sums *archive.Sums
	next int64 // all before it is summed up
	done bool
}

// newSumming takes the sums of an open file, which stays the caller's; unless wanted, it only counts what is read. The
// caller calls abandon in the end.
func newSumming(ctx context.Context, file store.Reader, wanted bool, read func(int64)) *summing {
	return &summing{ctx: ctx, file: file, read: read, done: !wanted}
}

func (s *summing) SizeBytes() int64 { return s.file.SizeBytes() }

// Close does nothing: the file is the caller's.
func (s *summing) Close() error { return nil }

func (s *summing) ReadAt(p []byte, offset int64) (int, error) {
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

// sum reads what nobody has read and returns the sums of the whole file. From then on reads are not summed.
func (s *summing) sum() (archive.Digest, error) {
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

// abandon ends the goroutine that sums up, whether sum was called or not.
func (s *summing) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.sums != nil {
		s.sums.Sum()
	}
}
