package archive

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

const (
	sumsBufferBytes = 256 << 10
	sumsBuffers     = 8
)

// Digest is what Sums makes of a file: lower-case hexadecimal sums, as sha1sum and sha256sum print them, and its size.
type Digest struct {
	SHA1, SHA256 string
	SizeBytes    int64
}

// Sums is an io.Writer that sums up what is written to it, SHA-1 and SHA-256, in a goroutine of its own, so that whoever
// writes does not wait for it. It holds at most 2 MiB that is not summed up yet. It is for one goroutine at a time, and
// Sum must be called in the end, after an error elsewhere too.
type Sums struct {
	full chan []byte
	free chan []byte
	cur  []byte
	size int64

	done   sync.WaitGroup
	sha1   hash.Hash
	sha256 hash.Hash
	once   sync.Once
	digest Digest
}

// NewSums starts the goroutine.
func NewSums() *Sums {
	s := &Sums{
		full: make(chan []byte, sumsBuffers), free: make(chan []byte, sumsBuffers), sha1: sha1.New(), sha256: sha256.New(),
	}
	for range sumsBuffers {
		s.free <- nil // made when it is first needed
	}
	s.done.Go(func() {
		for p := range s.full {
			_, _ = s.sha1.Write(p) // a hash.Hash never fails
			_, _ = s.sha256.Write(p)
			s.free <- p[:0]
		}
	})
	return s
}

// Write copies p and never fails. It must not be called after Sum.
func (s *Sums) Write(p []byte) (int, error) {
	n := len(p)
	s.size += int64(n)
	for len(p) > 0 {
		if s.cur == nil {
			if s.cur = <-s.free; s.cur == nil {
				s.cur = make([]byte, 0, sumsBufferBytes)
			}
		}
		k := min(len(p), cap(s.cur)-len(s.cur))
		s.cur = append(s.cur, p[:k]...)
		p = p[k:]
		if len(s.cur) == cap(s.cur) {
			s.full <- s.cur
			s.cur = nil
		}
	}
	return n, nil
}

// Sum ends the goroutine and returns the sums of all that was written. It can be called again.
func (s *Sums) Sum() Digest {
	s.once.Do(func() {
		if len(s.cur) > 0 {
			s.full <- s.cur
		}
		close(s.full)
		s.done.Wait()
		s.digest = Digest{
			SHA1: hex.EncodeToString(s.sha1.Sum(nil)), SHA256: hex.EncodeToString(s.sha256.Sum(nil)), SizeBytes: s.size,
		}
	})
	return s.digest
}
