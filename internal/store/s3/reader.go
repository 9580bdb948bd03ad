package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store"
)

// Open opens an object for reading; see store.Store.
func (s *Store) Open(ctx context.Context, key string) (store.Reader, error) {
	info, err := s.stat(ctx, key, "")
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", key, s, err)
	}
	return &reader{store: s, ctx: ctx, key: key, etag: info.ETag, version: info.VersionID, size: info.Size}, nil
}

// reader reads one object: in a row over one request, which is made again from where it broke off, and elsewhere with a
// request for each range.
type reader struct {
	store         *Store
	ctx           context.Context
	key           string
	etag, version string
	size          int64

	mu     sync.Mutex // Read and Close
	offset int64
	body   io.ReadCloser // the rest from offset on, or nil
	closed bool
}

func (r *reader) SizeBytes() int64 { return r.size }

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
	if wanted > 0 {
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
