package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store"
)

// headBytes is what the request that opens an object asks for: most objects that are read whole are manifests, signatures and
// markers, for which that is all.
const headBytes = 64 << 10

// Open opens an object for reading; see store.Store. One request tells its size and brings its first bytes.
func (s *Store) Open(ctx context.Context, key string) (store.Reader, error) {
	r := &reader{store: s, ctx: ctx, key: key}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", key, s, err)
	}
	return r, nil
}

func (r *reader) open() error {
	if err := store.CheckKey(r.key); err != nil {
		return err
	}
	empty := false
	err := r.store.try(r.ctx, quickRetryFor, func(ctx context.Context) error {
		err := r.getHead(ctx)
		empty = isCode(err, minio.InvalidRange)
		if empty {
			return nil
		}
		return err
	})
	if err != nil || !empty {
		return err
	}
	// There is no first byte of an object of none.
	info, err := r.store.stat(r.ctx, r.key, "")
	if err != nil {
		return err
	}
	r.describe(info, info.Size)
	return nil
}

// settled is for how long an object must have stood before it is known again by its time, which is one of whole seconds: what
// takes its place before that may have the same.
const settled = 2 * time.Second

// getHead asks for the first bytes of whatever object there is.
func (r *reader) getHead(ctx context.Context) (err error) {
	var opts minio.GetObjectOptions
	if err := opts.SetRange(0, headBytes-1); err != nil {
		return err
	}
	body, info, headers, err := r.store.core.GetObject(ctx, r.store.opts.Bucket, r.store.object(r.key), opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	size := info.Size
	if of := headers.Get("Content-Range"); of != "" { // which servers leave out that know no ranges
		if size, err = sizeOf(of); err != nil {
			return err
		}
	}
	r.describe(info, size)
	if now, err := http.ParseTime(headers.Get("Date")); err != nil || now.Sub(info.LastModified) < settled { // by the server's own clock
		r.mark = ""
	}
	r.head = make([]byte, min(size, headBytes))
	if _, err := io.ReadFull(body, r.head); errors.Is(err, io.EOF) { // where more was promised
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	return nil
}

// sizeOf is the size of an object by the Content-Range of one of its ranges, "bytes 0-99/1234".
func sizeOf(contentRange string) (int64, error) {
	_, of, _ := strings.Cut(contentRange, "/")
	size, err := strconv.ParseInt(of, 10, 64)
	if err != nil || size < 0 {
		return 0, fmt.Errorf("cannot read the range %q that the server says it sends", contentRange)
	}
	return size, nil
}

func (r *reader) describe(info minio.ObjectInfo, size int64) {
	r.etag, r.version, r.size, r.mark = info.ETag, info.VersionID, size, markOf(info, size)
}

// reader reads one object: in a row over one request, which is made again from where it broke off, and elsewhere with a
// request for each range.
type reader struct {
	store         *Store
	ctx           context.Context
	key           string
	etag, version string
	size          int64
	mark          string // as a listing has it
	head          []byte // the first bytes

	mu     sync.Mutex // Read and Close
	offset int64
	body   io.ReadCloser // the rest from offset on, or nil
	closed bool
}

func (r *reader) SizeBytes() int64 { return r.size }

// Marks is of the object that was opened; see store.Marked.
func (r *reader) Marks() []string { return []string{r.mark} }

// Read goes on where the last one ended.
func (r *reader) Read(p []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, fmt.Errorf("read %s: it is closed", r.key)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.offset < int64(len(r.head)) {
		n = copy(p, r.head[r.offset:])
		r.offset += int64(n)
		return n, nil
	}
	err = r.store.try(r.ctx, r.store.opts.RetryFor, func(ctx context.Context) error {
		if r.body == nil {
			if r.body, err = r.get(ctx, r.offset, r.size-1); err != nil {
				return err
			}
		}
		if n, err = readSome(r.body, p); n > 0 {
			return nil
		}
		closed := r.body.Close()
		r.body = nil
		return errors.Join(err, closed)
	})
	r.offset += int64(n)
	if err != nil {
		return n, fmt.Errorf("read %s in %s at %d: %w", r.key, r.store, r.offset, err)
	}
	return n, nil
}

// readSome reads what there is. An end where more was promised is an error.
func readSome(body io.Reader, p []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = body.Read(p)
	}
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// ReadAt asks for one range; see store.Reader.
func (r *reader) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, fmt.Errorf("read %s: cannot read at %d", r.key, offset)
	}
	if offset >= r.size {
		return 0, io.EOF
	}
	wanted := min(int64(len(p)), r.size-offset)
	if offset+wanted <= int64(len(r.head)) {
		n = copy(p, r.head[offset:])
	} else if wanted > 0 {
		err = r.store.try(r.ctx, r.store.opts.RetryFor, func(ctx context.Context) error {
			m, err := r.getRange(ctx, p[n:wanted], offset+int64(n))
			n += m
			return err
		})
	}
	switch {
	case err != nil:
		return n, fmt.Errorf("read %s in %s at %d: %w", r.key, r.store, offset+int64(n), err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

func (r *reader) getRange(ctx context.Context, p []byte, offset int64) (int, error) {
	body, err := r.get(ctx, offset, offset+int64(len(p))-1)
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(body, p)
	return n, errors.Join(err, body.Close())
}

// get asks for a range, both ends included, of the object that was opened and no other.
func (r *reader) get(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	opts := minio.GetObjectOptions{VersionID: r.version}
	if err := errors.Join(opts.SetRange(first, last), opts.SetMatchETag(r.etag)); err != nil {
		return nil, err
	}
	body, info, _, err := r.store.core.GetObject(ctx, r.store.opts.Bucket, r.store.object(r.key), opts)
	if err != nil {
		return nil, err
	}
	if info.ETag != r.etag {
		return nil, errors.Join(errReplaced, body.Close())
	}
	return body, nil
}

var errReplaced = errors.New("cannot read it on: another object has taken its place")

// Close ends reading.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
