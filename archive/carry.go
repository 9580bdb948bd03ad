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
const Encoder = "klauspost/compress v1.20.3, voltar 1"

// storedSumBytes is how much of the SHA-256 of a stored member an index keeps.
const storedSumBytes = 16

// ErrRotten is wrapped by the error of a stored member that is not what it was.
var ErrRotten = errors.New("it is not what was stored")

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

// Carrier finds members of an earlier archive, so that what did not change since need not be compressed again. Its methods are
// called from several goroutines at once.
type Carrier interface {
	// Find looks for a member that inflates to what has the SHA-256 plain, made at the level and by the Encoder of the archive
	// that is written.
	Find(plain [sha256.Size]byte) (Found, bool)
	// Failed is told why a member that was found cannot be used. It is compressed anew. The error wraps ErrRotten when the member
	// is to blame; any other is of reading it.
	Failed(f Found, err error)
}

// Found is a member of an earlier archive.
type Found struct {
	Src         io.ReaderAt
	Offset      int64
	LengthBytes int64
	Sums        MemberSums
	Prove       bool // it is to be inflated and compared, and not only its sums
}

// Carried counts what was taken over from an earlier archive.
type Carried struct {
	Members int64
	Bytes   int64 // as they are stored
}

// carrier takes over members for one worker.
type carrier struct{ inf inflater }

// carry appends to dst the member that is found for the job, when it is what it was and inflates to the job's content.
func (c *carrier) carry(dst []byte, j *job) (packed []byte, carried bool) {
	if j.carrier == nil {
		return dst, false
	}
	f, ok := j.carrier.Find(j.sums.Plain)
	if !ok {
		return dst, false
	}
	stored, err := c.read(dst, f, j.plain)
	if err != nil {
		j.carrier.Failed(f, err)
		return dst, false
	}
	j.sums.Stored, j.sums.Made = f.Sums.Stored, f.Sums.Made
	return stored, true
}

// read appends to dst a member that was found for plain, and checks it.
func (c *carrier) read(dst []byte, f Found, plain []byte) ([]byte, error) {
	if f.LengthBytes < memberLeastBytes || f.LengthBytes > storedAtMost(len(plain)) {
		return nil, fmt.Errorf("%w: a member of %d bytes cannot hold %d", ErrRotten, f.LengthBytes, len(plain))
	}
	dst = grow(dst, int(f.LengthBytes))
	stored := dst[len(dst)-int(f.LengthBytes):]
	if n, err := f.Src.ReadAt(stored, f.Offset); n < len(stored) {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: its file ends before", ErrRotten)
		}
		return nil, err
	}
	if err := c.check(stored, f, plain); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRotten, err)
	}
	return dst, nil
}

// check holds a stored member against what it was found as, and against what it must inflate to.
func (c *carrier) check(stored []byte, f Found, plain []byte) error {
	if storedSum(stored) != f.Sums.Stored {
		return errors.New("wrong checksum (SHA-256 of the stored member)")
	}
	header, err := parseMemberHeader(stored)
	if err != nil {
		return unexpected(err)
	}
	if header.lengthBytes != memberHeadBytes || header.storedBytes != f.LengthBytes || header.tarBytes != int64(len(plain)) {
		return errors.New("the member's header declares other lengths")
	}
	if err := checkTrailer(stored[len(stored)-gzipTrailerBytes:], crc32.ChecksumIEEE(plain), int64(len(plain))); err != nil {
		return err
	}
	if !f.Prove {
		return nil
	}
	data, err := c.inf.member(stored, header, int64(len(plain)))
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
