package agefile

import (
	"errors"
	"io"
	"sync"

	"filippo.io/age"
)

// salvaged gives what lies before the first damage of a file whose end is damaged or missing. Such a file cannot be read
// at any offset, as the number of its chunks is not vouched for; so it is read from its beginning, and again from there
// when somebody goes back.
type salvaged struct {
	open func() (io.Reader, error)

	mu      sync.Mutex
	reader  io.Reader // stands at offset; nil when it has to be opened
	offset  int64
	end     int64 // of what is good, once failure is known
	failure error
}

// salvage opens a file whose end is damaged.
func (f *File) salvage(identities *Identities) error {
	open := func() (io.Reader, error) {
		return age.Decrypt(io.NewSectionReader(f.source, 0, f.source.size), identities.list...)
	}
	if _, err := open(); err != nil {
		return err
	}
	payload := max(0, f.source.size-f.header)
	chunks := (payload + storedChunk - 1) / storedChunk
	f.size = max(0, payload-chunks*tagBytes)
	f.plain = &salvaged{open: open}
	return nil
}

func (s *salvaged) ReadAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil && offset >= s.end {
		return 0, s.failure
	}
	if s.reader == nil || offset < s.offset {
		reader, err := s.open()
		if err != nil {
			return 0, err
		}
		s.reader, s.offset = reader, 0
	}
	skipped, err := io.CopyN(io.Discard, s.reader, offset-s.offset)
	s.offset += skipped
	n := 0
	if err == nil {
		n, err = io.ReadFull(s.reader, p)
		s.offset += int64(n)
	}
	if err != nil {
		s.reader = nil
		var failed *storeError
		if !errors.As(err, &failed) {
			s.failure, s.end = err, s.offset
		}
	}
	return n, err
}
