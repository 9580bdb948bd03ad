package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

// Pool is a set of compression workers that all archives of a run share. It is safe for concurrent use.
type Pool struct {
	workers int
	jobs    chan *job
	running sync.WaitGroup
	limit   *readLimit // of what is read for all archives together; nil for none

	mu    sync.Mutex
	plain [][]byte      // free buffers for tar stream
	small [][]byte      // free buffers for what is compressed
	zeros map[int]zeros // whole members of nothing but zeros, by how many
}

// zeros is a member of nothing but zeros, without padding: with it, each would be twice as long.
type zeros struct {
	packed []byte // nobody may write to it
	sums   MemberSums
}

// zeroLevel is that at which zeros become the least. They are compressed once, whatever the level of the rest.
const zeroLevel = LevelBest

// job is one member on its way. Who makes it waits for done before reading packed and err, or using plain again.
type job struct {
	level    Level
	previous *Previous // nil carries nothing over
	made     Day       // of what is compressed
	plain    []byte    // what the member inflates to; the worker gives it back to the pool
	packed   []byte    // the member
	sums     MemberSums
	carried  bool // packed is of the previous archive
	err      error
	done     chan struct{}
	isZero   bool  // plain is nil and stands for length zeros
	length   int   // of what the member inflates to
	offset   int64 // in the stream
	entries  []Entry

	carriedFrom int64              // where packed is in the file of the previous archive
	unread      *previousMember    // that it is, as nothing of its content changed; nil where plain was read
	read        func([]byte) error // reads that content after all
	indexBytes  int                // what the entries take in the index
}

// isBare tells a job with nothing but entries that are not in the stream, for which there is no member.
func (j *job) isBare() bool { return j.length == 0 && len(j.entries) > 0 }

// NewPool starts workers; 0 or less means one for each CPU. Close ends them.
func NewPool(workers int) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: workers, jobs: make(chan *job), zeros: make(map[int]zeros)}
	for range workers {
		p.running.Go(p.work)
	}
	return p
}

// LimitReads makes all archives that use the pool read at most so many bytes a second, together. It must be called before
// the first of them begins.
func (p *Pool) LimitReads(bytesPerSecond int64) {
	p.limit = &readLimit{bytesPerSecond: bytesPerSecond, now: time.Now}
}

// Close ends the workers and waits for them. Nothing may be written with the pool any more.
func (p *Pool) Close() {
	close(p.jobs)
	p.running.Wait()
}

func (p *Pool) work() {
	var enc memberEncoder
	var inf inflater
	for j := range p.jobs {
		if j.isZero {
			j.err = p.zeroMember(&enc, j)
		} else {
			j.err = p.member(&enc, &inf, j)
			p.freePlain(j.plain)
			j.plain = nil
		}
		close(j.done)
	}
}

// member makes the member of a job: that of the previous archive where there is an equal one, a new one otherwise.
func (p *Pool) member(enc *memberEncoder, inf *inflater, j *job) (err error) {
	if j.unread != nil {
		if p.unreadMember(inf, j) {
			return nil
		}
		j.plain = grow(p.plainBuffer(), j.length)
		if err := j.read(j.plain); err != nil {
			return err
		}
	}
	j.sums.Plain = sha256.Sum256(j.plain)
	if j.packed, j.carried = j.previous.carry(inf, p.smallBuffer(), j); j.carried {
		return nil
	}
	if j.packed, err = enc.encode(j.packed, j.plain, j.level); err != nil {
		return err
	}
	j.packed = pad(j.packed, 0)
	j.sums.Stored, j.sums.Made = storedSum(j.packed), j.made
	return nil
}

// unreadMember makes the member of a job by that of the previous archive, unless that is not what it was.
func (p *Pool) unreadMember(inf *inflater, j *job) bool {
	packed, err := j.previous.carryUnread(inf, p.smallBuffer(), j.unread, int64(j.length))
	if err != nil {
		j.previous.failed(j.unread, err)
		j.previous = nil // which would have the same again
		return false
	}
	j.packed, j.sums, j.carriedFrom, j.carried = packed, j.unread.sums(), j.unread.offset, true
	return true
}

// zeroMember makes a member of zeros, compressed once for each length.
func (p *Pool) zeroMember(enc *memberEncoder, j *job) error {
	p.mu.Lock()
	member, ok := p.zeros[j.length]
	p.mu.Unlock()
	if !ok {
		plain := make([]byte, j.length)
		packed, err := enc.encode(nil, plain, zeroLevel)
		if err != nil {
			return err
		}
		packed = bytes.Clone(packed) // without the room to grow
		member = zeros{packed, MemberSums{Plain: sha256.Sum256(plain), Stored: storedSum(packed)}}
		p.mu.Lock()
		p.zeros[j.length] = member
		p.mu.Unlock()
	}
	j.packed, j.sums = member.packed, member.sums
	j.sums.Made = j.made
	return nil
}

func (p *Pool) plainBuffer() []byte {
	return p.take(&p.plain, MemberMaxBytes)
}

func (p *Pool) smallBuffer() []byte {
	return p.take(&p.small, FileMemberBytes/2)
}

func (p *Pool) take(free *[][]byte, size int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(*free); n > 0 {
		b := (*free)[n-1]
		*free = (*free)[:n-1]
		return b[:0]
	}
	return make([]byte, 0, size)
}

func (p *Pool) freePlain(b []byte) { p.give(&p.plain, b) }
func (p *Pool) freeSmall(b []byte) { p.give(&p.small, b) }

// give keeps a buffer for later: as many as one archive keeps in flight, and none that grew out of proportion.
func (p *Pool) give(free *[][]byte, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(*free) < p.inFlight() && cap(b) > 0 && cap(b) <= 2*MemberMaxBytes {
		*free = append(*free, b)
	}
}

// inFlight is how many members one archive has between its first byte read and its last byte written: one being
// filled, one for each worker, and one being written.
func (p *Pool) inFlight() int { return p.workers + 2 }

// memberWriter cuts a stream into members, has them compressed and writes them in order. All but writeMembers is for
// one goroutine, which calls finish at the end; writeMembers runs in another.
type memberWriter struct {
	pool    *Pool
	opts    memberOptions
	slots   chan struct{} // taken for each member in flight
	queue   chan *job     // in order
	cur     *job          // being filled; nil between members
	pos     int64         // bytes of stream so far
	carried Carried       // of what is written
}

// memberOptions say how members are made.
type memberOptions struct {
	level    Level
	previous *Previous // nil carries nothing over
	made     Day
}

func newMemberWriter(pool *Pool, opts memberOptions) *memberWriter {
	n := pool.inFlight()
	return &memberWriter{pool: pool, opts: opts, slots: make(chan struct{}, n), queue: make(chan *job, n)}
}

// newJob is a member that begins where the stream is.
func (w *memberWriter) newJob() *job {
	return &job{level: w.opts.level, previous: w.opts.previous, made: w.opts.made, done: make(chan struct{}), offset: w.pos}
}

// begin starts a member, after any that is open has ended.
func (w *memberWriter) begin(ctx context.Context) error {
	if err := w.start(ctx, 0); err != nil {
		return err
	}
	w.cur.plain = w.pool.plainBuffer()
	return nil
}

// end ends the open member, if there is one.
func (w *memberWriter) end(ctx context.Context) error {
	if w.cur == nil {
		return nil
	}
	j := w.cur
	w.cur = nil
	if !j.isZero && j.unread == nil {
		j.length = len(j.plain)
	}
	w.queue <- j // there is room: the queue is as long as there are slots
	if j.isBare() {
		w.pool.freePlain(j.plain)
		close(j.done)
		return nil
	}
	select {
	case w.pool.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// length returns how much the open member holds.
func (w *memberWriter) length() int {
	if w.cur == nil {
		return 0
	}
	return len(w.cur.plain)
}

// write adds to the open member.
func (w *memberWriter) write(p []byte) {
	w.cur.plain = append(w.cur.plain, p...)
	w.pos += int64(len(p))
}

// zeros adds n zeros to the open member.
func (w *memberWriter) zeros(n int) {
	clear(w.room(n))
}

// room adds n bytes to the open member for the caller to fill.
func (w *memberWriter) room(n int) []byte {
	w.cur.plain = grow(w.cur.plain, n)
	w.pos += int64(n)
	return w.cur.plain[len(w.cur.plain)-n:]
}

// grow lengthens b by n bytes of whatever was in the memory.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		larger := make([]byte, len(b), max(2*cap(b), len(b)+n))
		copy(larger, b)
		b = larger
	}
	return b[:len(b)+n]
}

// allZeros makes a whole member of n zeros.
func (w *memberWriter) allZeros(ctx context.Context, n int) error {
	if err := w.start(ctx, n); err != nil {
		return err
	}
	w.cur.isZero = true
	return w.end(ctx)
}

// unread makes a whole member of n bytes of that of the previous archive, or of what read reads where that is not what it was.
func (w *memberWriter) unread(ctx context.Context, n int, member *previousMember, read func([]byte) error) error {
	if err := w.start(ctx, n); err != nil {
		return err
	}
	w.cur.unread, w.cur.read = member, read
	return w.end(ctx)
}

// start starts a member of n bytes that are not there yet, after any that is open has ended.
func (w *memberWriter) start(ctx context.Context, n int) error {
	if err := w.end(ctx); err != nil {
		return err
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.cur = w.newJob()
	w.cur.length = n
	w.pos += int64(n)
	return nil
}

// discard takes back the open member, as if it had not been begun.
func (w *memberWriter) discard() {
	w.pos = w.cur.offset
	w.pool.freePlain(w.cur.plain)
	w.cur = nil
	<-w.slots
}

// finish ends the last member and the queue.
func (w *memberWriter) finish(ctx context.Context) error {
	err := w.end(ctx)
	close(w.queue)
	return err
}

// writeMembers writes members to out in order until the queue ends, and tells written of each. It returns at the first
// error, or when ctx ends.
func (w *memberWriter) writeMembers(ctx context.Context, out io.Writer, written func(summedMember, []Entry) error) error {
	o := memberOutput{w: w, out: out, written: written}
	var zero *job // of zeros: it is padded unless more zeros follow
	for {
		j, err := w.next(ctx)
		if err != nil {
			return err
		}
		if zero != nil {
			if j == nil || !j.isZero {
				zero.packed = pad(bytes.Clone(zero.packed), o.offset)
				zero.sums.Stored = storedSum(zero.packed)
			}
			if err := o.write(zero); err != nil {
				return err
			}
			zero = nil
		}
		switch {
		case j == nil:
			return nil
		case j.isZero:
			zero = j
		default:
			if err := o.write(j); err != nil {
				return err
			}
		}
	}
}

// next waits for the next member that is made; nil at the end.
func (w *memberWriter) next(ctx context.Context) (*job, error) {
	select {
	case j, more := <-w.queue:
		if !more {
			return nil, nil
		}
		select {
		case <-j.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if j.err != nil {
			return nil, fmt.Errorf("compress: %w", j.err)
		}
		return j, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// memberOutput is what members are written to.
type memberOutput struct {
	w       *memberWriter
	out     io.Writer
	written func(summedMember, []Entry) error
	offset  int64
}

// write writes one member, which it gives back.
func (o *memberOutput) write(j *job) error {
	m := summedMember{Member: Member{Offset: o.offset}}
	if !j.isBare() {
		if err := o.put(j); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		m.LengthBytes, m.TarOffset, m.TarBytes, m.sums = int64(len(j.packed)), j.offset, int64(j.length), j.sums
		o.offset += m.LengthBytes
		if j.carried {
			o.w.carried.Members++
			o.w.carried.Bytes += m.LengthBytes
		}
		if !j.isZero {
			o.w.pool.freeSmall(j.packed)
		}
		j.packed = nil
	}
	if err := o.written(m, j.entries); err != nil {
		return err
	}
	<-o.w.slots
	return nil
}

func (o *memberOutput) put(j *job) error {
	sharer, ok := o.out.(CarriedWriter)
	if !ok || !j.carried {
		return writeAll(o.out, j.packed)
	}
	n, err := sharer.WriteCarried(j.packed, j.previous.src, j.carriedFrom)
	if err == nil && n != len(j.packed) {
		err = io.ErrShortWrite
	}
	return err
}

// writeAll writes all of p or fails: a writer that takes less without saying why is in error too.
func writeAll(out io.Writer, p []byte) error {
	n, err := out.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	return err
}
