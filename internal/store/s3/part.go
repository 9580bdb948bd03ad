package s3

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// DefaultMemoryBytes is what parts that are filled and sent take of memory, all together. What has no room there is
// kept in a file.
const DefaultMemoryBytes = 64 << 20

// maxMemoryPartBytes is the largest part that is kept in memory.
const maxMemoryPartBytes = 64 << 20

// chunkBytes is the piece in which memory is given out.
const chunkBytes = 1 << 20

// Memory is what any number of stores share to keep parts in. It never grows beyond its size.
type Memory struct {
	mu    sync.Mutex
	free  [][]byte
	unmet int // chunks that may still be made
}

// NewMemory returns a memory of so many bytes, taken when they are first used.
func NewMemory(sizeBytes int64) *Memory {
	return &Memory{unmet: int(sizeBytes / chunkBytes)}
}

// take returns a chunk, or nil when all are in use.
func (m *Memory) take() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := len(m.free) - 1; last >= 0 {
		chunk := m.free[last]
		m.free = m.free[:last]
		return chunk
	}
	if m.unmet == 0 {
		return nil
	}
	m.unmet--
	return make([]byte, chunkBytes)
}

func (m *Memory) give(chunks [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, chunks...)
}

// part is a piece of an object, in memory or in a file without a name. It is filled by one goroutine and then read by
// another.
type part struct {
	memory *Memory
	dir    string // for the file
	size   int64
	sum    hash.Hash

	chunks [][]byte
	file   *os.File // holds all when not nil

	mu    sync.Mutex // over moved: a request that failed may still read on
	moved int64      // how far it was on its way to the server at most
}

// onTheWay notes that a request has read so far, and returns how much of that had not been on its way before.
func (p *part) onTheWay(offset int64) (more int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	more = max(offset-p.moved, 0)
	p.moved += more
	return more
}

func newPart(memory *Memory, dir string, sum hash.Hash) *part {
	return &part{memory: memory, dir: dir, sum: sum}
}

// errNoMemory is returned by fill when the memory has no chunk left and the part is not in a file.
var errNoMemory = errors.New("no memory left for parts")

// fill appends data, as far as memory goes.
func (p *part) fill(data []byte) (n int, err error) {
	if p.file != nil {
		n, err = p.file.WriteAt(data, p.size)
		if err != nil {
			err = fmt.Errorf("cannot keep a part in a file in %s: %w", p.dir, err)
		}
	} else {
		n, err = p.remember(data)
	}
	p.sum.Write(data[:n])
	p.size += int64(n)
	return n, err
}

func (p *part) remember(data []byte) (n int, err error) {
	for len(data) > 0 {
		at := p.size + int64(n)
		if int(at/chunkBytes) == len(p.chunks) {
			chunk := p.memory.take()
			if chunk == nil {
				return n, errNoMemory
			}
			p.chunks = append(p.chunks, chunk)
		}
		moved := copy(p.chunks[at/chunkBytes][at%chunkBytes:], data)
		n += moved
		data = data[moved:]
	}
	return n, nil
}

// spool moves the part to a file, which has no name: nothing is left of it when the program dies.
func (p *part) spool() error {
	fd, err := unix.Open(p.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return p.spoolUnlinked(err)
	}
	return p.moveTo(os.NewFile(uintptr(fd), p.dir))
}

// spoolUnlinked is for file systems that know no files without a name.
func (p *part) spoolUnlinked(because error) error {
	file, err := os.CreateTemp(p.dir, ".voltar-part-")
	if err != nil {
		return fmt.Errorf("cannot make a file for a part: %w", errors.Join(because, err))
	}
	if err := os.Remove(file.Name()); err != nil {
		return errors.Join(fmt.Errorf("cannot make a file for a part: %w", err), file.Close())
	}
	return p.moveTo(file)
}

func (p *part) moveTo(file *os.File) error {
	if _, err := io.Copy(file, io.NewSectionReader(chunkReader(p.chunks), 0, p.size)); err != nil {
		return errors.Join(fmt.Errorf("cannot keep a part in a file in %s: %w", p.dir, err), file.Close())
	}
	p.memory.give(p.chunks)
	p.chunks, p.file = nil, file
	return nil
}

// reader reads the part from its beginning.
func (p *part) reader() *io.SectionReader {
	if p.file != nil {
		return io.NewSectionReader(p.file, 0, p.size)
	}
	return io.NewSectionReader(chunkReader(p.chunks), 0, p.size)
}

// release gives everything back. The part must not be used any more.
func (p *part) release() error {
	p.memory.give(p.chunks)
	p.chunks = nil
	if p.file != nil {
		return p.file.Close()
	}
	return nil
}

// chunkReader reads chunks in a row.
type chunkReader [][]byte

func (r chunkReader) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		at := offset + int64(n)
		if at/chunkBytes >= int64(len(r)) {
			return n, io.EOF
		}
		n += copy(p[n:], r[at/chunkBytes][at%chunkBytes:])
	}
	return n, nil
}

// Limits of the protocol, and what parts are chosen by.
const (
	maxParts         = 10_000
	maxPartBytes     = 5 << 30
	maxObjectBytes   = 5 << 40
	minPartBytes     = 16 << 20
	unknownPartBytes = 64 << 20

	// What was announced has evenParts at most, of one size, as some servers want it. An object that becomes larger (files
	// share their data, where archives do not) gets parts that double every doubleEvery: even the smallest reach
	// maxObjectBytes before the parts run out.
	evenParts   = 7_000
	doubleEvery = 300
)

// partBytes is the size of an object's parts, but for its last: so large that what was announced, or most streams of
// which nothing is known, have parts of one size.
func (s *Store) partBytes(maxBytes int64) (int64, error) {
	switch {
	case maxBytes > maxObjectBytes:
		return 0, say.WithHint(fmt.Errorf("cannot store an object of up to %s: S3 takes %s", say.Size(maxBytes), say.Size(maxObjectBytes)),
			"exclude something, or back this volume up to a disk")
	case maxBytes <= 0:
		return unknownPartBytes, nil
	}
	needed := (maxBytes + evenParts - 1) / evenParts
	rounded := (needed + chunkBytes - 1) / chunkBytes * chunkBytes
	return max(rounded, s.minPart), nil
}

// grownPartBytes is the size of the part behind so many others, of an object whose first parts have evenBytes.
func grownPartBytes(evenBytes int64, before int) int64 {
	size := evenBytes
	for at := evenParts; at <= before && size < maxPartBytes; at += doubleEvery {
		size *= 2
	}
	return min(size, maxPartBytes)
}
