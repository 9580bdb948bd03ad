package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// PreviousMembers is how many members of one archive can be carried over: 8 TiB of an image, or 1 TiB of
// small files. What comes behind them in the
// archive is compressed anew.
const PreviousMembers = 2 << 20

// proveEvery is how often a member is inflated and compared whose sums are trusted: once in so many days.
const proveEvery = 16

// PreviousOptions say what of the previous archive is carried over.
type PreviousOptions struct {
	Level Level // of the archive that is written
	// Today is the day of the archive that is written, and FreshDays how old a compressed member may be.
	Today     Day
	FreshDays int
	All       bool // members of any level, encoder and age count, for CommonWriter
	Rewrite   bool // members count until FreshDays, and not from half of that on, for Rewrite
	Trusted   bool // whoever may write to the archive could not have written the sums; otherwise each member is proved
	// Failed is told why a member that was found cannot be used, by a *CarryError; from several goroutines at once. It is compressed
	// anew. The error wraps ErrRotten when the member is to blame; any other is of reading it.
	Failed func(err error)
}

// PreviousFile is the file of the previous archive. It is read by several goroutines at once.
type PreviousFile interface {
	io.ReaderAt
	io.Closer
}

// Previous is the archive or image of an extent in the previous backup, of which unchanged members are carried over. It holds 76
// bytes for each of them in memory, 152 MiB at most. A nil one has no members.
type Previous struct {
	src       PreviousFile
	opts      PreviousOptions
	sizeBytes int64            // of src
	members   []previousMember // by their offsets
	byPlain   []uint32         // places in members, by their plain sums
	ended     atomic.Bool      // it cannot be read any more
}

// Close closes the file.
func (p *Previous) Close() error {
	if p == nil {
		return nil
	}
	return p.src.Close()
}

type previousMember struct {
	plain     [sha256.Size]byte
	stored    [storedSumBytes]byte
	offset    int64
	tarOffset int64
	length    uint32
	made      Day
}

// ReadPrevious reads the index of an archive, or the list of an image's members, to its end. src is the archive, of sizeBytes;
// Close closes it when the new archive is written, and after an error the caller does. Members of another encoder or level, and
// those that are to be made anew, are left out.
func ReadPrevious(ctx context.Context, index io.Reader, src PreviousFile, sizeBytes int64, opts PreviousOptions) (*Previous, error) {
	p := &Previous{src: src, opts: opts, sizeBytes: sizeBytes}
	if err := p.read(ctx, index); err != nil {
		return nil, fmt.Errorf("read the sums of members: %w", err)
	}
	p.byPlain = make([]uint32, len(p.members))
	for i := range p.byPlain {
		p.byPlain[i] = uint32(i)
	}
	slices.SortFunc(p.byPlain, func(a, b uint32) int { return bytes.Compare(p.members[a].plain[:], p.members[b].plain[:]) })
	return p, nil
}

// previousLine is what matters of a line.
type previousLine struct {
	Member *struct {
		Member
		sumsJSON
	}
	Encoder *struct {
		Name  string
		Level Level
	}
	Total *indexTotal
}

func (p *Previous) read(ctx context.Context, index io.Reader) error {
	known := false
	return eachMemberLine(index, func(l *previousLine) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case l.Encoder != nil:
			known = p.opts.All || l.Encoder.Name == Encoder && l.Encoder.Level == p.opts.Level.orDefault()
		case l.Member != nil && known && l.Member.SHA256 != "":
			sums, err := l.Member.sums()
			if err != nil {
				return err
			}
			return p.add(l.Member.Member, sums)
		case l.Total != nil && l.Total.ArchiveBytes != p.sizeBytes:
			return fmt.Errorf("they are of an archive of %d bytes, and it has %d", l.Total.ArchiveBytes, p.sizeBytes)
		}
		return nil
	})
}

// eachMemberLine calls do for each line of an index, or of the list of an image's members, that is not of an entry. The last is the
// total; without one there is an error.
func eachMemberLine(index io.Reader, do func(*previousLine) error) error {
	const lineMaxBytes = 64 << 10 // of those that matter
	inflated, err := gzip.NewReader(bufio.NewReaderSize(index, 256<<10))
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(inflated, lineMaxBytes)
	ended := false
	for {
		line, err := readLine(lines)
		if err == io.EOF { //nolint:errorlint // an end is io.EOF itself
			break
		}
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte(`{"path`)) {
			continue
		}
		var l previousLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("cannot read a line: %w", err)
		}
		if err := do(&l); err != nil {
			return err
		}
		ended = ended || l.Total != nil
	}
	if !ended {
		return errors.New("their end is missing")
	}
	return nil
}

// readLine reads a line and passes over what of it is too long for the buffer. The line is good until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	if !bytes.HasPrefix(line, []byte(`{"path`)) {
		return nil, errors.New("a line is too long")
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return []byte(`{"path"`), err
}

// add takes a member into the table, unless it is time to make it anew.
func (p *Previous) add(m Member, sums MemberSums) error {
	if m.LengthBytes <= 0 || m.LengthBytes > memberLimitBytes || m.Offset < 0 || m.Offset > p.sizeBytes-m.LengthBytes {
		return fmt.Errorf("a member of %d bytes at %d is out of range", m.LengthBytes, m.Offset)
	}
	if m.Offset%memberUnitBytes != 0 || m.LengthBytes%memberUnitBytes != 0 { // zeros, which are not compressed each night
		return nil
	}
	if len(p.members) == PreviousMembers || !p.opts.All && !p.opts.isFresh(sums) {
		return nil
	}
	if n := len(p.members); n > 0 && p.members[n-1].offset >= m.Offset {
		if p.members[n-1].offset == m.Offset { // repeated at the beginning of a block
			return nil
		}
		return fmt.Errorf("a member at %d is out of order", m.Offset)
	}
	p.members = append(p.members, previousMember{sums.Plain, sums.Stored, m.Offset, m.TarOffset, uint32(m.LengthBytes), sums.Made})
	return nil
}

// isFresh tells whether a member is not yet to be made anew.
func (o *PreviousOptions) isFresh(sums MemberSums) bool {
	age, most := int(o.Today-sums.Made), o.FreshDays
	if !o.Rewrite {
		most = keptDays(sums.Plain, o.FreshDays)
	}
	return sums.Made != 0 && age >= 0 && age < most
}

// keptDays is at which age a member is made anew: from half of freshDays on, by its sum, so that not all are at once.
func keptDays(plain [sha256.Size]byte, freshDays int) int {
	return freshDays - int(binary.LittleEndian.Uint32(plain[:])%uint32(freshDays/2+1))
}

// find looks for a member that inflates to what has the SHA-256 plain.
func (p *Previous) find(plain [sha256.Size]byte) (*previousMember, bool) {
	if p == nil || p.ended.Load() {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(p.byPlain, plain, func(i uint32, plain [sha256.Size]byte) int {
		return bytes.Compare(p.members[i].plain[:], plain[:])
	})
	if !ok {
		return nil, false
	}
	return &p.members[p.byPlain[i]], true
}

// isToBeProved tells whether a member is to be inflated and compared, and not only its sums.
func (p *Previous) isToBeProved(m *previousMember) bool {
	return !p.opts.Trusted || (int(p.opts.Today)+int(m.plain[4]))%proveEvery == 0
}

// failed tells that a member cannot be used. When the archive cannot be read, nothing more of it is carried over.
func (p *Previous) failed(m *previousMember, err error) {
	if !errors.Is(err, ErrRotten) && !errors.Is(err, unix.EIO) {
		p.ended.Store(true)
	}
	p.opts.Failed(&CarryError{Sums: m.sums(), OffsetBytes: m.offset, Err: err})
}

// CarryError is why a stored member cannot be used.
type CarryError struct {
	Sums        MemberSums
	OffsetBytes int64 // in its archive
	Err         error
}

func (e *CarryError) Error() string {
	return fmt.Sprintf("the member at byte %d: %v", e.OffsetBytes, e.Err)
}

func (e *CarryError) Unwrap() error { return e.Err }

func (m *previousMember) sums() MemberSums { return MemberSums{m.plain, m.stored, m.made} }

// Holds tells whether the archive has a member of the same sums, byte for byte by its index, and whether that is still what was stored:
// otherwise the error, a *CarryError, says why not.
func (p *Previous) Holds(sums MemberSums) (bool, error) {
	m, ok := p.find(sums.Plain)
	if !ok || m.stored != sums.Stored {
		return false, nil
	}
	if _, err := p.readStored(nil, m); err != nil {
		return true, &CarryError{Sums: sums, OffsetBytes: m.offset, Err: err}
	}
	return true, nil
}
