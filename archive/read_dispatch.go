package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// storedBlockBytes is the most that deflate (RFC 1951, section 3.2.4) passes through unchanged in one piece. So a file
// that is itself such an archive can show up inside a member with its own members readable, but never more of them in
// one piece than this.
const storedBlockBytes = 65535

// dispatcher steps through a stream from member to member. Members that declare their lengths it hands to the workers,
// others it inflates itself.
type dispatcher struct {
	r      *Reader
	src    *byteSource
	listed *Member // set when just this one is read
	prev   *future // the last member handed to a worker, until its successor is found
	given  int64   // inflated here and handed on
	flate  io.ReadCloser
	prefix []byte // of the member at which the source ends
}

func (d *dispatcher) run() error {
	if _, err := d.src.peekHeader(); err != nil && !d.r.opts.KeepGoing {
		if d.src.failed() != nil {
			return d.src.failed()
		}
		return fmt.Errorf("archive: %w: %w", ErrNotArchive, unexpected(err))
	}
	for {
		offset := d.src.pos()
		header, err := d.src.peekHeader()
		if failed := d.src.failed(); failed != nil {
			return failed
		}
		if err == io.EOF && offset > 0 {
			return d.end()
		}
		if err != nil {
			if err = d.resync(offset, unexpected(err)); err != nil {
				return err
			}
			continue
		}
		d.settle(true)
		if header.declares {
			err = d.shortMember(offset, header)
		} else {
			err = d.undeclaredMember(offset)
		}
		if err != nil {
			return err
		}
	}
}

// settle tells whoever waits for the last member whether it was followed by another, as its header said.
func (d *dispatcher) settle(followed bool) {
	if d.prev != nil {
		p := d.prev
		p.trusted = followed && len(p.stored) >= gzipTrailerBytes &&
			binary.LittleEndian.Uint32(p.stored[len(p.stored)-4:]) == uint32(p.declared)
		close(p.followed)
		d.prev = nil
	}
}

// end is reached where the source ends behind a member.
func (d *dispatcher) end() error {
	d.settle(true)
	return nil
}

// shortMember hands a member that declares its lengths to a worker.
func (d *dispatcher) shortMember(offset int64, header memberHeader) error {
	cost := header.storedBytes + header.tarBytes
	if err := d.r.budget.Acquire(d.r.ctx, cost); err != nil {
		return context.Cause(d.r.ctx)
	}
	stored := make([]byte, header.storedBytes)
	n, err := io.ReadFull(d.src.br, stored)
	if failed := d.src.failed(); failed != nil {
		return failed
	}
	if err != nil {
		d.r.budget.Release(cost)
		d.src.setBack(stored[:n])
		d.prefix = d.r.salvage(stored[:n], header.tarBytes)
		return d.resync(offset, io.ErrUnexpectedEOF)
	}
	f := &future{offset: offset, stored: stored, header: header, declared: header.tarBytes, tarOffset: -1, first: true,
		cost: cost, done: make(chan struct{}), followed: make(chan struct{})}
	d.prev = f
	return d.r.submit(f)
}

// undeclaredMember inflates a member of unknown length.
func (d *dispatcher) undeclaredMember(offset int64) error {
	header, err := d.src.header()
	if err == nil {
		err = d.longMember(offset, header, -1)
	}
	if err == nil || d.r.ctx.Err() != nil {
		return err
	}
	if failed := d.src.failed(); failed != nil {
		return failed
	}
	return d.resyncFrom(offset, err)
}

// longMember inflates a member in pieces. Each is handed on before the member's checksum is known: whoever reads to the
// end of the stream learns of it, and nothing is good before that. A limit of -1 is none.
func (d *dispatcher) longMember(offset int64, header memberHeader, limit int64) error {
	if d.flate == nil {
		d.flate = flate.NewReader(d.src.br)
	} else if err := d.flate.(flate.Resetter).Reset(d.src.br, nil); err != nil {
		return err
	}
	var sum uint32
	first := true
	d.given = 0
	for {
		if err := d.r.budget.Acquire(d.r.ctx, readPieceBytes); err != nil {
			return context.Cause(d.r.ctx)
		}
		data := make([]byte, readPieceBytes)
		n, err := io.ReadFull(d.flate, data)
		data = data[:n]
		sum = crc32.Update(sum, crc32.IEEETable, data)
		if limit >= 0 && d.given+int64(n) > limit {
			d.r.budget.Release(readPieceBytes)
			return fmt.Errorf("%w: more than the %d bytes declared", ErrExpansion, limit)
		}
		f := &future{offset: offset, tarOffset: -1, first: first, cost: readPieceBytes, data: data,
			done: make(chan struct{}), followed: make(chan struct{})}
		if d.listed != nil {
			f.tarOffset = d.listed.TarOffset + d.given
		}
		close(f.done)
		close(f.followed)
		d.given += int64(n)
		first = false
		if qerr := d.r.enqueue(f); qerr != nil {
			return qerr
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && d.flateEnded() {
			break
		}
		if err != nil {
			return err
		}
	}
	var trailer [gzipTrailerBytes]byte
	if _, err := io.ReadFull(d.src.br, trailer[:]); err != nil {
		return unexpected(err)
	}
	if err := checkTrailer(trailer[:], sum, d.given); err != nil {
		return err
	}
	if limit >= 0 && d.given != limit {
		return fmt.Errorf("holds %d bytes of %d", d.given, limit)
	}
	return nil
}

// flateEnded tells an end of the compressed data, which io.ReadFull turns into io.ErrUnexpectedEOF, from input that is
// cut off, which the decompressor reports by the same error: at its end it says io.EOF for ever.
func (d *dispatcher) flateEnded() bool {
	var more [1]byte
	n, err := d.flate.Read(more[:])
	return n == 0 && err == io.EOF
}

// resync reports damage at offset, where no good member begins, and finds the next one. When the member before does not
// inflate either, its header may have pointed here wrongly, and the search begins inside of it.
func (d *dispatcher) resync(offset int64, cause error) error {
	if !d.r.opts.KeepGoing {
		return &MemberError{Offset: offset, LengthBytes: -1, TarOffset: -1, TarBytes: -1, Err: cause}
	}
	if p := d.prev; p != nil {
		select {
		case <-p.done:
		case <-d.r.ctx.Done():
			return context.Cause(d.r.ctx)
		}
		if p.err != nil {
			d.src.setBack(p.stored[1:])
			d.settle(false)
			return d.search(nil)
		}
		d.settle(true)
	}
	return d.resyncFrom(offset, cause)
}

func (d *dispatcher) resyncFrom(offset int64, cause error) error {
	damage := &MemberError{Offset: offset, LengthBytes: -1, TarOffset: -1, TarBytes: -1, Err: cause, prefix: d.prefix}
	d.prefix = nil
	if !d.r.opts.KeepGoing {
		return damage
	}
	return d.search(damage)
}

// search goes to the next member that can be trusted and reports the damage, whose end is then known, if it is not nil.
func (d *dispatcher) search(damage *MemberError) error {
	found, err := d.src.findMember()
	if failed := d.src.failed(); failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	if damage != nil {
		damage.LengthBytes = d.src.pos() - damage.Offset
		if err := d.r.enqueue(readyFuture(damage)); err != nil {
			return err
		}
	}
	if !found {
		return io.EOF
	}
	return nil
}

// findMember goes forward to the next member that declares its lengths and inflates to them. As an archive kept inside
// the archive can look the same, it is trusted only as the first of a chain of such members that is longer than deflate
// could pass through or ends where the source does. It returns false at the end of the source.
func (s *byteSource) findMember() (bool, error) {
	for {
		p, err := s.br.Peek(memberHeadBytes)
		if len(p) < memberHeadBytes {
			_, _ = s.br.Discard(len(p)) // cannot fail: they are buffered
			if err == io.EOF {
				err = nil
			}
			return false, err
		}
		if p[0] != gzipID1 || p[1] != gzipID2 || p[2] != gzipDeflate || p[3] != gzipFlagExtra {
			_, _ = s.br.Discard(1)
			continue
		}
		if header, err := parseMemberHeader(p); err != nil || !header.declares {
			_, _ = s.br.Discard(1)
			continue
		}
		chain, good, err := s.readChain()
		if err != nil {
			return false, err
		}
		s.setBack(chain)
		if good {
			return true, nil
		}
		_, _ = s.br.Discard(1)
	}
}

// readChain reads members from here for as long as the chain has to be to be trusted, and returns all that it read.
func (s *byteSource) readChain() (read []byte, good bool, err error) {
	var inf inflater
	for {
		header, err := s.peekHeader()
		if err == io.EOF && len(read) > 0 {
			return read, true, nil
		}
		if err != nil || !header.declares {
			return read, false, s.failed()
		}
		member := make([]byte, header.storedBytes)
		n, err := io.ReadFull(s.br, member)
		read = append(read, member[:n]...)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return read, false, err
		}
		if _, err := inf.member(member, header, header.tarBytes); err != nil {
			return read, false, nil //nolint:nilerr // what cannot be inflated shows by itself that the guess was wrong
		}
		if len(read) > storedBlockBytes {
			return read, true, nil
		}
	}
}
