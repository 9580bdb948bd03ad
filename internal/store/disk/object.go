package disk

import (
	"context"
	"errors"
	"io"
	"os"

	"voltar/internal/durable"
	"voltar/internal/store"
)

// writer is an object that is being written.
type writer struct {
	store *Store
	ctx   context.Context // kept: an io.Writer has no other way to learn of it
	key   string
	file  *durable.File
}

func (w *writer) Write(data []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, w.store.wrap("write", w.key, context.Cause(w.ctx))
	}
	n, err := w.file.Write(data)
	if err != nil {
		return n, w.store.wrap("write", w.key, err)
	}
	return n, nil
}

// Share has the data share its place with another file of the filesystem; see store.Sharer.
func (w *writer) Share(data []byte, with store.Reader, offset int64) (isShared bool, err error) {
	r, ok := with.(*reader)
	if !ok {
		_, err = w.Write(data)
		return false, err
	}
	if w.ctx.Err() != nil {
		return false, w.store.wrap("write", w.key, context.Cause(w.ctx))
	}
	if isShared, err = w.file.Share(data, r.file, offset); err != nil {
		return false, w.store.wrap("write", w.key, err)
	}
	return isShared, nil
}

func (w *writer) Commit(ctx context.Context) (store.Object, error) {
	for _, c := range []context.Context{w.ctx, ctx} {
		if c.Err() != nil {
			return store.Object{}, w.store.wrap("commit", w.key, errors.Join(context.Cause(c), w.file.Abort()))
		}
	}
	if err := w.file.Commit(); err != nil {
		return store.Object{}, w.store.wrap("commit", w.key, err)
	}
	return store.Object{Key: w.key, SizeBytes: w.file.Size(), Modified: w.file.ModTime().UTC()}, nil
}

func (w *writer) Abort() error {
	if err := w.file.Abort(); err != nil {
		return w.store.wrap("abort", w.key, err)
	}
	return nil
}

// reader reads an object.
type reader struct {
	ctx  context.Context // kept: an io.Reader has no other way to learn of it
	file *os.File
	size int64
	mark string
}

var _ io.ReaderAt = (*reader)(nil)

func (r *reader) Read(buf []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.file.Read(buf)
}

func (r *reader) ReadAt(buf []byte, offset int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.file.ReadAt(buf, offset)
}

func (r *reader) Close() error { return r.file.Close() }

func (r *reader) SizeBytes() int64 { return r.size }

// Marks is of the file as it was opened; see store.Marked.
func (r *reader) Marks() []string { return []string{r.mark} }
