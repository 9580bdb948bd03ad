package archive

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// sparse reads the map of a sparse file in any of GNU's forms: 1.0, where it precedes the data, 0.1 and 0.0, where it is
// in pax records, and the old one, where it is in the header.
func (t *tarReader) sparse(e *tarEntry, h header, pax paxRecords, fail func(error) error) error {
	major, minor := pax.get("GNU.sparse.major"), pax.get("GNU.sparse.minor")
	var err error
	switch {
	case major == "1" && minor == "0":
		err = t.sparse10(e, pax)
	case major != "" && major != "0":
		err = fmt.Errorf("cannot read sparse files of form %.20q.%.20q", major, minor)
	case pax.has("GNU.sparse.map") || pax.has("GNU.sparse.numblocks"):
		err = e.sparse0(pax)
	case h.typeflag == 'S':
		err = t.sparseOld(e, h)
	default:
		return nil
	}
	if err == nil {
		err = e.checkPieces()
	}
	var damage *MemberError
	var skip *skipped
	if err == nil || errors.As(err, &damage) || errors.As(err, &skip) || t.r.err != nil {
		return err
	}
	return fail(err)
}

// checkPieces holds the map against the sizes: pieces in order, apart, inside the file, and as much as there is data.
func (e *tarEntry) checkPieces() error {
	var end, sum int64
	for _, p := range e.pieces {
		if p.offset < end || p.length < 0 || p.offset > math.MaxInt64-p.length {
			return errors.New("cannot use a sparse map that is not in order")
		}
		end = p.offset + p.length
		sum += p.length // cannot overflow: pieces are apart and end below 2^63
	}
	if end > e.SizeBytes {
		return fmt.Errorf("cannot use a sparse map that ends at byte %d of %d", end, e.SizeBytes)
	}
	if sum != e.StoredBytes {
		return fmt.Errorf("cannot use a sparse map of %d bytes for %d bytes of data", sum, e.StoredBytes)
	}
	return nil
}

// sparse10 reads the map that precedes the data: decimal numbers with a newline each, padded to whole blocks.
func (t *tarReader) sparse10(e *tarEntry, pax paxRecords) error {
	if name := pax.get("GNU.sparse.name"); name != "" {
		e.Path = name
	}
	if strings.IndexByte(e.Path, 0) >= 0 {
		return errors.New("cannot use a name with a NUL in it")
	}
	var err error
	if e.SizeBytes, err = parseDecimal(pax.get("GNU.sparse.realsize")); err != nil {
		return err
	}
	in := mapReader{t: t}
	count, err := in.number()
	if err != nil {
		return err
	}
	if count > SparseMaxPieces {
		return fmt.Errorf("cannot read a sparse map of %d pieces, the limit is %d", count, SparseMaxPieces)
	}
	e.pieces = make([]segment, 0, min(count, 1024))
	for range count {
		var p segment
		if p.offset, err = in.number(); err != nil {
			return err
		}
		if p.length, err = in.number(); err != nil {
			return err
		}
		e.pieces = append(e.pieces, p)
	}
	e.StoredBytes = t.remaining
	return nil
}

// mapReader reads numbers from the data of an entry, whole blocks at a time.
type mapReader struct {
	t    *tarReader
	rest []byte
}

func (m *mapReader) number() (int64, error) {
	var digits []byte
	for {
		if len(m.rest) == 0 {
			if m.t.remaining < tarBlockBytes {
				return 0, errors.New("cannot read a sparse map that is cut off")
			}
			if err := m.t.r.readFull(m.t.block[:]); err != nil {
				return 0, unexpected(err)
			}
			m.t.remaining -= tarBlockBytes
			m.rest = m.t.block[:]
		}
		c := m.rest[0]
		m.rest = m.rest[1:]
		if c == '\n' {
			return parseDecimal(string(digits))
		}
		if c == 0 {
			return 0, errors.New("cannot read a sparse map that is cut off")
		}
		if digits = append(digits, c); len(digits) > 19 || c < '0' || c > '9' {
			return 0, fmt.Errorf("cannot read number %q in a sparse map", digits)
		}
	}
}

// sparse0 reads the maps of forms 0.0, a pair of records for each piece, and 0.1, all in one record.
func (e *tarEntry) sparse0(pax paxRecords) error {
	if name := pax.get("GNU.sparse.name"); name != "" {
		e.Path = name
	}
	if strings.IndexByte(e.Path, 0) >= 0 {
		return errors.New("cannot use a name with a NUL in it")
	}
	var err error
	if e.SizeBytes, err = parseDecimal(pax.get("GNU.sparse.size")); err != nil {
		return err
	}
	var numbers []string
	if list := pax.get("GNU.sparse.map"); list != "" {
		numbers = strings.Split(list, ",")
	} else {
		for _, r := range pax {
			if r.key == "GNU.sparse.offset" || r.key == "GNU.sparse.numbytes" {
				numbers = append(numbers, r.value)
			}
		}
	}
	if len(numbers)%2 != 0 || len(numbers) > 2*SparseMaxPieces {
		return fmt.Errorf("cannot read a sparse map of %d numbers", len(numbers))
	}
	e.pieces = make([]segment, len(numbers)/2)
	for i := range e.pieces {
		if e.pieces[i].offset, err = parseDecimal(numbers[2*i]); err != nil {
			return err
		}
		if e.pieces[i].length, err = parseDecimal(numbers[2*i+1]); err != nil {
			return err
		}
	}
	return nil
}

// sparseOld reads the map in an old GNU header, four pieces of it, and in the blocks that follow, 21 pieces each.
func (t *tarReader) sparseOld(e *tarEntry, h header) error {
	if !h.gnu {
		return errors.New("cannot read a sparse file without the magic of GNU")
	}
	var err error
	if e.SizeBytes, err = parseNumber(h.block[483:495]); err != nil || e.SizeBytes < 0 {
		return fmt.Errorf("cannot read the size of a sparse file: %w", errors.Join(err, errNoHeader))
	}
	e.pieces = []segment{}
	if err := e.addOldPieces(h.block[386:482]); err != nil {
		return err
	}
	for more := h.block[482] != 0; more; more = t.block[504] != 0 {
		if err := t.r.readFull(t.block[:]); err != nil {
			return unexpected(err)
		}
		if err := e.addOldPieces(t.block[:504]); err != nil {
			return err
		}
	}
	return nil
}

func (e *tarEntry) addOldPieces(b []byte) error {
	for ; len(b) >= 24 && b[0] != 0; b = b[24:] {
		offset, err := parseNumber(b[:12])
		if err != nil {
			return err
		}
		length, err := parseNumber(b[12:24])
		if err != nil {
			return err
		}
		if len(e.pieces) == SparseMaxPieces {
			return fmt.Errorf("cannot read a sparse map of more than %d pieces", SparseMaxPieces)
		}
		e.pieces = append(e.pieces, segment{offset, length})
	}
	return nil
}
