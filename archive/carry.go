package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"time"
)

// Encoder names what compresses members. Members of another encoder are not carried over, as it may make other bytes of the
// same content. The number at its end goes up when member.go makes other bytes.
const Encoder = "klauspost/compress v1.20.3, voltar 2"

// storedSumBytes is how much of the SHA-256 of a stored member an index keeps.
const storedSumBytes = 16

// ErrRotten is wrapped by the error of a stored member that is not what it was.
var ErrRotten = errors.New("it is not what was stored")

var errStoredSum = errors.New("wrong checksum (SHA-256 of the stored member)")

// MemberSums are what an index says of one member beside its place. An index that was made again from its archive has none.
type MemberSums struct {
	Plain  [sha256.Size]byte    // SHA-256 of what the member inflates to
	Stored [storedSumBytes]byte // the first bytes of the SHA-256 of the member as it is stored
	Made   Day                  // when it was compressed
}

// Day is a day by UTC, in days since 1970; 0 when it is not known.
type Day int32

// DayOf returns the day of a time; the zero time has none.
func DayOf(t time.Time) Day {
	if t.IsZero() {
		return 0
	}
	return Day(t.Unix() / secondsPerDay)
}

const secondsPerDay = 24 * 60 * 60

func (d Day) String() string {
	return time.Unix(int64(d)*secondsPerDay, 0).UTC().Format(time.DateOnly)
}

// Carried counts what was carried over from the previous archive.
type Carried struct {
	Members int64
	Bytes   int64 // as they are stored
}

// CarriedWriter is implemented by outputs that need not write again what is carried over.
type CarriedWriter interface {
	// WriteCarried is Write for p, which the file of the previous archive holds at offset.
	WriteCarried(p []byte, file PreviousFile, offset int64) (int, error)
}

// carry appends to dst the member that the previous archive has for the job, when it is what it was and inflates to the job's
// content. The inflater is the worker's.
func (p *Previous) carry(inf *inflater, dst []byte, j *job) (packed []byte, carried bool) {
	m, ok := p.find(j.sums.Plain)
	if !ok {
		return dst, false
	}
	stored, err := p.readMember(inf, dst, m, j.plain)
	if err != nil {
		p.failed(m, err)
		return dst, false
	}
	j.sums.Stored, j.sums.Made, j.carriedFrom = m.stored, m.made, m.offset
	return stored, true
}

// readMember appends to dst a member that was found for plain, and checks it.
func (p *Previous) readMember(inf *inflater, dst []byte, m *previousMember, plain []byte) ([]byte, error) {
	if int64(m.length) < memberLeastBytes || int64(m.length) > storedAtMost(len(plain)) {
		return nil, fmt.Errorf("%w: a member of %d bytes cannot hold %d", ErrRotten, m.length, len(plain))
	}
	dst, err := p.readStored(dst, m)
	if err != nil {
		return nil, err
	}
	if err := p.check(inf, dst[len(dst)-int(m.length):], m, plain); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRotten, err)
	}
	return dst, nil
}

// readStored appends to dst a member as it was stored.
func (p *Previous) readStored(dst []byte, m *previousMember) ([]byte, error) {
	dst = grow(dst, int(m.length))
	stored := dst[len(dst)-int(m.length):]
	if n, err := p.src.ReadAt(stored, m.offset); n < len(stored) {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: its file ends before", ErrRotten)
		}
		return nil, err
	}
	if storedSum(stored) != m.stored {
		return nil, fmt.Errorf("%w: %w", ErrRotten, errStoredSum)
	}
	return dst, nil
}

// check holds a stored member of the right sum against what it must inflate to.
func (p *Previous) check(inf *inflater, stored []byte, m *previousMember, plain []byte) error {
	header, err := parseMemberHeader(stored)
	if err != nil {
		return unexpected(err)
	}
	if header.lengthBytes != memberHeadBytes || header.storedBytes != int64(m.length) || header.tarBytes != int64(len(plain)) {
		return errors.New("the member's header declares other lengths")
	}
	if err := checkTrailer(stored[len(stored)-gzipTrailerBytes:], crc32.ChecksumIEEE(plain), int64(len(plain))); err != nil {
		return err
	}
	if !p.isToBeProved(m) {
		return nil
	}
	data, err := inf.member(stored, header, int64(len(plain)))
	if err == nil && !bytes.Equal(data, plain) {
		err = errors.New("it inflates to something else")
	}
	return err
}

// storedAtMost is more than any member of so many bytes takes.
func storedAtMost(plainBytes int) int64 { return int64(plainBytes) + int64(plainBytes)/1000 + 64<<10 }

func storedSum(stored []byte) (sum [storedSumBytes]byte) {
	whole := sha256.Sum256(stored)
	copy(sum[:], whole[:])
	return sum
}

// appendSums appends the keys of a member's sums to its line.
func appendSums(dst []byte, s MemberSums) []byte {
	if s == (MemberSums{}) {
		return dst
	}
	dst = append(dst, `,"sha256":"`...)
	dst = hex.AppendEncode(dst, s.Plain[:])
	dst = append(dst, `","stored":"`...)
	dst = hex.AppendEncode(dst, s.Stored[:])
	dst = append(dst, '"')
	if s.Made != 0 {
		dst = append(dst, `,"made":"`...)
		dst = append(dst, s.Made.String()...)
		dst = append(dst, '"')
	}
	return dst
}

// sumsJSON is the form of the keys.
type sumsJSON struct {
	SHA256 string `json:"sha256"`
	Stored string `json:"stored"`
	Made   string `json:"made"`
}

func (j sumsJSON) sums() (s MemberSums, err error) {
	for _, field := range []struct {
		text string
		to   []byte
	}{{j.SHA256, s.Plain[:]}, {j.Stored, s.Stored[:]}} {
		if len(field.text) != hex.EncodedLen(len(field.to)) {
			return MemberSums{}, fmt.Errorf("cannot read the sum %q of a member", field.text)
		}
		if _, err := hex.Decode(field.to, []byte(field.text)); err != nil {
			return MemberSums{}, fmt.Errorf("cannot read the sum %q of a member", field.text)
		}
	}
	if j.Made == "" {
		return s, nil
	}
	made, err := time.Parse(time.DateOnly, j.Made)
	if err != nil {
		return MemberSums{}, fmt.Errorf("cannot read the day %q of a member", j.Made)
	}
	s.Made = DayOf(made)
	return s, nil
}

// appendEncoder appends the line that says how an archive's members were compressed.
func appendEncoder(dst []byte, level Level) []byte {
	dst = append(dst, `{"encoder":{"name":`...)
	dst = appendString(dst, Encoder)
	dst = append(dst, `,"level":`...)
	dst = strconv.AppendInt(dst, int64(level.orDefault()), 10)
	return append(dst, '}', '}', '\n')
}
