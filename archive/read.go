package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"

	"voltar/internal/say"
)

const (
	// memberLimitBytes is the largest member, stored or inflated, that is held in memory as one. A longer one, and one
	// without the VT subfield, is inflated in pieces of readPieceBytes.
	memberLimitBytes = 2*MemberMaxBytes + 1<<20
	readPieceBytes   = 1 << 20
	readBufferBytes  = 256 << 10
	// readAheadBytes bounds what all members on their way through a Reader hold, stored and inflated.
	readAheadBytes = 64 << 20
)

var (
	// ErrExpansion is wrapped by the error of a stream that inflates to more than was declared or allowed.
	ErrExpansion = errors.New("inflates to more than allowed")
	// ErrNotArchive is wrapped by the error of a source that does not begin with a gzip member.
	ErrNotArchive = errors.New("not a gzip stream")
)

// MemberError is a part of an archive that cannot be read: a member that does not inflate to what it declares, or bytes
// between members that are none. It is an error.
type MemberError struct {
	Offset      int64 // in the archive file
	LengthBytes int64 // in the archive file; -1 when it is not known where the damage ends
	TarOffset   int64 // in the inflated stream; -1 behind damage of unknown length
	TarBytes    int64 // lost from the inflated stream; -1 when not known
	Err         error

	prefix []byte // what the member inflates to before its fault; nobody vouches for it. Only with Salvage
}

func (d *MemberError) Error() string {
	return fmt.Sprintf("damaged member at byte %d: %v", d.Offset, d.Err)
}

func (d *MemberError) Unwrap() error { return d.Err }

// ReaderOptions of NewReader and NewStreamReader; the zero value serves.
type ReaderOptions struct {
	// Workers is how many members are inflated at a time; 0 means one for each CPU.
	Workers int
	// MaxBytes is the most that the whole stream may inflate to before it is refused with ErrExpansion; 0 sets no
	// limit. Whatever it is, no member with a VT subfield yields more than it declares there (at most 17 MiB), one
	// that an index lists no more than the index says, and others are inflated piecewise: memory stays bounded.
	MaxBytes int64
	// KeepGoing goes on behind damage: a Read that meets it returns a *MemberError once, and the next one goes on at the
	// next good member.
	KeepGoing bool
	// Salvage inflates damaged members once more, up to their faults: the first one is given so far, and then the *MemberError. With
	// KeepGoing, Extract takes files out of each instead. Nobody vouches for that data: no sum covers a part of a member.
	Salvage bool
	// Members are those to read, in rising order, as the index lists them; all when nil. What lies between them is
	// passed over. Only for a source with random access.
	Members []Member
}

// Reader gives the inflated stream of an archive, inflating its members in parallel. It takes any gzip stream, with
// one member or many, and reports every fault in it: wrong sums, lengths that differ from those declared, missing
// bytes, and bytes behind the last member that are no member. It is not safe for concurrent use.
type Reader struct {
	ctx    context.Context
	cancel context.CancelFunc
	opts   ReaderOptions
	src    io.Reader
	at     *io.SectionReader

	queue   chan *future
	jobs    chan *future
	budget  *semaphore.Weighted
	wg      sync.WaitGroup
	started bool
	load    func(Member) ([]byte, error) // gives each of the listed members when it is needed; nil reads them ahead
	began   func(Member)                 // is told of each member that declares its lengths, before its data is handed out

	cur         *future // whose data is being handed out
	rest        []byte  // of cur
	zeros       bool    // rest is nothing but zeros
	offset      int64   // in the inflated stream, of rest; not exact behind damage of unknown length
	exact       bool    // offset is
	memberStart bool    // rest begins a member
	given       int64
	err         error
}

// future is one piece of the stream, in order, before it is known.
type future struct {
	// Set before it is queued.
	offset    int64  // in the archive file, of the member
	stored    []byte // the whole member
	header    memberHeader
	declared  int64 // what it must inflate to
	tarOffset int64 // of a listed member; -1 when it has to be counted
	first     bool  // begins a member
	cost      int64 // of budget

	done     chan struct{} // closed when data and err are final
	data     []byte
	zeros    bool  // data is known to be nothing but zeros
	err      error // *MemberError, io.EOF or what ends the stream
	followed chan struct{}
	// trusted, final when followed is closed, says that the next member begins where this one's header said.
	trusted bool
}

// NewReader returns a Reader of the sizeBytes of src. The caller closes it, which does not close src.
func NewReader(ctx context.Context, src io.ReaderAt, sizeBytes int64, opts ReaderOptions) (*Reader, error) {
	if sizeBytes < 0 {
		return nil, fmt.Errorf("cannot read an archive of %d bytes", sizeBytes)
	}
	r := newReader(ctx, opts)
	r.at = io.NewSectionReader(src, 0, sizeBytes)
	r.src = r.at
	return r, nil
}

// NewStreamReader returns a Reader of a source that can only be read once and in order, such as a decrypted stream.
func NewStreamReader(ctx context.Context, src io.Reader, opts ReaderOptions) (*Reader, error) {
	if opts.Members != nil {
		return nil, errors.New("cannot pick members out of a source without random access")
	}
	r := newReader(ctx, opts)
	r.src = src
	return r, nil
}

func newReader(ctx context.Context, opts ReaderOptions) *Reader {
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	r := &Reader{opts: opts, exact: true}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.queue = make(chan *future, opts.Workers+2)
	r.jobs = make(chan *future, opts.Workers+2)
	r.budget = semaphore.NewWeighted(readAheadBytes)
	return r
}

// begin starts the goroutines at the first read, so that a Reader that is never read costs nothing.
func (r *Reader) begin() {
	r.started = true
	for range r.opts.Workers {
		r.wg.Go(r.inflateJobs)
	}
	r.wg.Go(func() {
		defer close(r.queue)
		defer close(r.jobs)
		var err error
		if r.opts.Members != nil {
			err = r.dispatchListed()
		} else {
			d := dispatcher{r: r, src: newByteSource(r.src)}
			err = d.run()
		}
		if err == nil {
			err = io.EOF
		}
		_ = r.enqueue(readyFuture(err)) // fails only when the consumer is gone
	})
}

func readyFuture(err error) *future {
	f := &future{tarOffset: -1, err: err, done: make(chan struct{}), followed: make(chan struct{})}
	close(f.done)
	close(f.followed)
	return f
}

func (r *Reader) enqueue(f *future) error {
	select {
	case r.queue <- f:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// submit queues a whole member for a worker.
func (r *Reader) submit(f *future) error {
	if err := r.enqueue(f); err != nil {
		return err
	}
	select {
	case r.jobs <- f:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func (r *Reader) inflateJobs() {
	var inf inflater
	for f := range r.jobs {
		if inf.zeros.match(f.stored, f.declared) {
			f.data, f.zeros = inf.zeros.data, true
			close(f.done)
			continue
		}
		data, err := inf.member(f.stored, f.header, f.declared)
		if err != nil {
			damage := &MemberError{Offset: f.offset, LengthBytes: int64(len(f.stored)), TarOffset: -1, TarBytes: -1, Err: err}
			if r.opts.Salvage {
				damage.prefix = inf.prefix(f.stored, f.header, f.declared)
			}
			f.err = damage
		} else {
			f.data = data
			inf.zeros.note(f.stored, data)
		}
		close(f.done)
	}
}

// Close ends reading and frees what it holds. It waits for a Read of the source that is under way: where that may never
// return, end it first.
func (r *Reader) Close() error {
	r.cancel()
	r.wg.Wait()
	if r.err == nil {
		r.err = errors.New("cannot read from a closed archive")
	}
	r.cur, r.rest = nil, nil
	return nil
}

// Read implements io.Reader. What lies between picked Members is passed over without a word.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		piece, err := r.next(int64(len(p)))
		var skip *skipped
		if errors.As(err, &skip) {
			continue
		}
		return copy(p, piece), err
	}
}

// readFull fills p. When damage comes before p is full, what there was is lost.
func (r *Reader) readFull(p []byte) error {
	for n := 0; n < len(p); {
		piece, err := r.next(int64(len(p) - n))
		if err != nil {
			if n > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n += copy(p[n:], piece)
	}
	return nil
}

// next returns up to limit bytes, at least one, without copying them. They stay valid until the next call.
func (r *Reader) next(limit int64) ([]byte, error) {
	if err := r.fill(); err != nil {
		return nil, err
	}
	n := min(limit, int64(len(r.rest)))
	piece := r.rest[:n]
	r.rest = r.rest[n:]
	r.offset += n
	r.memberStart = false
	return piece, nil
}

// nextOrZeros is next, but where nothing but zeros lies ahead as far as is known, it returns them all whatever the limit.
func (r *Reader) nextOrZeros(limit int64) (piece []byte, zeros bool, err error) {
	if err := r.fill(); err != nil {
		return nil, false, err
	}
	if zeros = r.zeros; zeros {
		limit = int64(len(r.rest))
	}
	piece, err = r.next(limit)
	return piece, zeros, err
}

// skipPiece discards what is left of the piece that is being handed out.
func (r *Reader) skipPiece() {
	r.offset += int64(len(r.rest))
	r.rest = nil
	r.memberStart = false
}

// fill makes sure that there is something to hand out, or returns why not. A *MemberError or a *skipped is returned once and
// leaves the Reader behind the gap; what is left of the stream follows with KeepGoing, and after every *skipped.
func (r *Reader) fill() error {
	for len(r.rest) == 0 {
		if r.err != nil {
			return r.err
		}
		if r.cur != nil {
			r.budget.Release(r.cur.cost)
			r.cur = nil
		}
		f, open := r.nextFuture()
		if !open {
			r.err = context.Cause(r.ctx)
			if r.err == nil {
				r.err = io.ErrUnexpectedEOF
			}
			return r.err
		}
		r.cur = f
		if err := r.take(f); err != nil {
			return err
		}
	}
	return nil
}

// nextFuture waits for the next piece of the stream; false where the context ended.
func (r *Reader) nextFuture() (f *future, open bool) {
	if r.load != nil {
		return r.loadNext(), true
	}
	if !r.started {
		r.begin()
	}
	select {
	case f, open = <-r.queue:
	case <-r.ctx.Done():
	}
	if open {
		select {
		case <-f.done:
		case <-r.ctx.Done():
			open = false
		}
	}
	return f, open
}

// take makes f what is handed out next.
func (r *Reader) take(f *future) error {
	if f.tarOffset >= 0 && f.err == nil && f.tarOffset != r.offset {
		gap := &skipped{from: r.offset, to: f.tarOffset}
		r.offset, r.exact = f.tarOffset, true
		r.rest, r.zeros, r.memberStart = f.data, f.zeros, f.first
		r.given += int64(len(f.data))
		return gap
	}
	var damage *MemberError
	if errors.As(f.err, &damage) {
		return r.takeDamage(f, damage)
	}
	var rest *skipped
	if errors.As(f.err, &rest) {
		rest.from, r.exact = r.offset, false
		return rest
	}
	if f.err != nil {
		r.err = f.err
		return r.err
	}
	if r.began != nil && f.stored != nil {
		r.began(Member{Offset: f.offset, LengthBytes: int64(len(f.stored)), TarOffset: r.offset, TarBytes: f.declared})
	}
	r.rest, r.zeros, r.memberStart = f.data, f.zeros, f.first
	r.given += int64(len(f.data))
	if r.opts.MaxBytes > 0 && r.given > r.opts.MaxBytes {
		r.rest = nil
		r.err = fmt.Errorf("archive at byte %d: %w: %s", f.offset, ErrExpansion, say.Size(r.opts.MaxBytes))
		return r.err
	}
	return nil
}

func (r *Reader) takeDamage(f *future, damage *MemberError) error {
	if !r.opts.KeepGoing {
		r.err = damage
	} else {
		select {
		case <-f.followed:
		case <-r.ctx.Done():
			r.err = context.Cause(r.ctx)
			return r.err
		}
		if f.trusted && damage.TarBytes < 0 {
			damage.TarBytes = f.declared
		}
	}
	if f.tarOffset >= 0 {
		r.offset, r.exact = f.tarOffset, true
	}
	if damage.TarOffset < 0 && r.exact {
		damage.TarOffset = r.offset
	}
	if r.opts.Salvage && !r.opts.KeepGoing && len(damage.prefix) > 0 {
		r.rest, r.zeros, r.memberStart, damage.prefix = damage.prefix, false, true, nil
		return nil
	}
	if damage.TarBytes >= 0 {
		r.offset += damage.TarBytes
	} else {
		r.exact = false
	}
	return damage
}

// skipped reports that the stream goes on in members that were not asked for.
type skipped struct{ from, to int64 } // to is -1 where no member that was asked for follows

func (s *skipped) Error() string {
	if s.to < 0 {
		return fmt.Sprintf("byte %d of the stream and all behind it are in members that were not asked for", s.from)
	}
	return fmt.Sprintf("bytes %d to %d of the stream are in members that were not asked for", s.from, s.to)
}

// dispatchListed reads the members of a list. Where the archive goes on behind the last of them, the end is a gap like those
// between them: what it cuts off is not lost.
func (r *Reader) dispatchListed() error {
	var end int64
	for _, m := range r.opts.Members {
		if m.Offset < end || m.LengthBytes <= 0 || m.TarBytes < 0 || m.TarOffset < 0 ||
			m.Offset+m.LengthBytes < 0 || m.TarOffset+m.TarBytes < 0 {
			return fmt.Errorf("cannot read member at byte %d: the list of members is not in order", m.Offset)
		}
		end = m.Offset + m.LengthBytes
		if err := r.dispatchMember(m); err != nil {
			return err
		}
	}
	if end < r.at.Size() {
		return r.enqueue(readyFuture(&skipped{to: -1}))
	}
	return nil
}

func (r *Reader) dispatchMember(m Member) error {
	var prefix []byte
	fail := func(err error) error {
		f := readyFuture(&MemberError{
			Offset: m.Offset, LengthBytes: m.LengthBytes, TarOffset: m.TarOffset, TarBytes: m.TarBytes, Err: err, prefix: prefix})
		f.tarOffset = m.TarOffset
		return r.enqueue(f)
	}
	if m.LengthBytes > memberLimitBytes || m.TarBytes > memberLimitBytes {
		return r.dispatchLongMember(m, fail)
	}
	cost := m.LengthBytes + m.TarBytes
	if err := r.budget.Acquire(r.ctx, cost); err != nil {
		return err
	}
	stored := make([]byte, m.LengthBytes)
	if n, err := r.at.ReadAt(stored, m.Offset); n < len(stored) {
		r.budget.Release(cost)
		prefix = r.salvage(stored[:n], m.TarBytes)
		return fail(unexpected(err))
	}
	header, err := parseMemberHeader(stored)
	if err != nil {
		r.budget.Release(cost)
		return fail(err)
	}
	f := &future{offset: m.Offset, stored: stored, header: header, declared: m.TarBytes, tarOffset: m.TarOffset,
		first: true, cost: cost, done: make(chan struct{}), followed: make(chan struct{}), trusted: true}
	close(f.followed)
	return r.submit(f)
}

// salvage is the prefix of a member of which only the beginning is stored, where it is asked for.
func (r *Reader) salvage(stored []byte, declared int64) []byte {
	header, err := parseMemberHeader(stored)
	if err != nil || !r.opts.Salvage {
		return nil
	}
	return new(inflater).prefix(stored, header, declared)
}

// dispatchLongMember inflates a listed member that is too large to be held as one.
func (r *Reader) dispatchLongMember(m Member, fail func(error) error) error {
	src := newByteSource(io.NewSectionReader(r.at, m.Offset, m.LengthBytes))
	d := dispatcher{r: r, src: src, listed: &m}
	header, err := src.header()
	if err == nil {
		err = d.longMember(m.Offset, header, m.TarBytes)
	}
	if err != nil && r.ctx.Err() == nil {
		m.TarOffset, m.TarBytes = m.TarOffset+d.given, m.TarBytes-d.given
		return fail(err)
	}
	return err
}

// unexpected makes of the end of a source the error that it is inside of something.
// unexpected makes an error of an end that comes too early.
func unexpected(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// byteSource is a buffered source that knows its offset and can be set back.
type byteSource struct {
	br  *bufio.Reader // over in
	in  front
	end int64 // offset of the first byte that in has not handed out
}

// front puts bytes in front of a reader.
type front struct {
	pending []byte
	src     io.Reader
	err     error // of src, other than io.EOF
	end     *int64
}

func (f *front) Read(p []byte) (n int, err error) {
	if len(f.pending) > 0 {
		n = copy(p, f.pending)
		f.pending = f.pending[n:]
	} else if n, err = f.src.Read(p); err != nil && err != io.EOF {
		f.err = err
	}
	*f.end += int64(n)
	return n, err
}

func newByteSource(src io.Reader) *byteSource {
	s := &byteSource{in: front{src: src}}
	s.in.end = &s.end
	s.br = bufio.NewReaderSize(&s.in, readBufferBytes)
	return s
}

// pos returns the offset of the next byte.
func (s *byteSource) pos() int64 { return s.end - int64(s.br.Buffered()) }

// setBack puts bytes that were read last in front again.
func (s *byteSource) setBack(p []byte) {
	buffered, _ := s.br.Peek(s.br.Buffered()) // cannot fail
	pending := make([]byte, 0, len(p)+len(buffered)+len(s.in.pending))
	pending = append(append(append(pending, p...), buffered...), s.in.pending...)
	s.end -= int64(len(p) + len(buffered))
	s.in.pending = pending
	s.br.Reset(&s.in)
}

// failed returns the error of the source itself, which must not be taken for damage of the archive.
func (s *byteSource) failed() error { return s.in.err }

// header reads past the header of a member. io.EOF means that the source ends here.
func (s *byteSource) header() (memberHeader, error) {
	peeked, err := s.peekHeader()
	if err != nil {
		return memberHeader{}, err
	}
	_, err = s.br.Discard(peeked.lengthBytes)
	return peeked, err
}

// peekHeader parses the header of the next member.
func (s *byteSource) peekHeader() (memberHeader, error) {
	for n := memberHeadBytes; ; n = min(4*n, readBufferBytes) {
		p, err := s.br.Peek(n)
		if len(p) == 0 {
			return memberHeader{}, err
		}
		header, perr := parseMemberHeader(p)
		if perr == nil || !errors.Is(perr, io.ErrUnexpectedEOF) || err != nil || n == readBufferBytes {
			return header, perr
		}
	}
}
