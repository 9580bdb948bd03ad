package patient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
)

// writer is a store's writer with a bound on every call.
type writer struct {
	store  *Store
	mu     sync.Mutex // over inner: a call that was left behind may still be at work when the next one comes
	inner  store.Writer
	ctx    context.Context
	cancel context.CancelCauseFunc
	buffer []byte // what the inner writer is given: a call that was left behind reads on from it
	bytes  int64
	pace   pace
}

// pace holds what one reader or writer moved against the time that its calls took.
type pace struct {
	took  time.Duration
	bytes int64
}

// keep takes the store as down when it was too slow for as long as its patience lasts.
func (p *pace) keep(s *Store, began time.Time, n int) error {
	p.took += time.Since(began)
	p.bytes += int64(n)
	if p.took < s.patience {
		return nil
	}
	took, moved := p.took, p.bytes
	*p = pace{}
	if moved >= leastBytes(took) {
		return nil
	}
	return s.judge(fmt.Errorf("%w: %s in %s", errSlow, say.Size(moved), took.Round(time.Second)))
}

func (w *writer) Write(p []byte) (int, error) {
	return w.write(p, func(buffer []byte) (int, error) { return w.inner.Write(buffer) })
}

// Share has the inner writer share the data, where it can and the reader is of the same store; see store.Sharer.
func (w *writer) Share(p []byte, with store.Reader, offset int64) (isShared bool, err error) {
	sharer, ok := w.inner.(store.Sharer)
	r, isPatient := with.(*reader)
	if !ok || !isPatient || r.store != w.store {
		_, err = w.Write(p)
		return false, err
	}
	var shared atomic.Bool
	_, err = w.write(p, func(buffer []byte) (int, error) {
		r.reading.RLock()
		defer r.reading.RUnlock()
		isShared, err := sharer.Share(buffer, r.inner, offset)
		shared.Store(isShared)
		if err != nil {
			return 0, err
		}
		return len(buffer), nil
	})
	return err == nil && shared.Load(), err
}

// write makes a call of the inner writer that takes a copy of p.
func (w *writer) write(p []byte, take func(buffer []byte) (int, error)) (int, error) {
	buffer := append(w.buffer[:0], p...)
	w.buffer = nil
	began := time.Now()
	n, err := within(w.ctx, w.cancel, w.store, w.store.patience, w.store.moved, func() (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return take(buffer)
	}, nil)
	if err == nil {
		w.buffer = buffer
		err = w.pace.keep(w.store, began, n)
	}
	w.bytes += int64(n)
	return n, err
}

func (w *writer) Commit(ctx context.Context) (store.Object, error) {
	defer w.cancel(nil)
	switch err := w.store.refuses(ctx); {
	case errors.Is(err, store.ErrDown):
		return store.Object{}, w.Abort() // which says so
	case err != nil:
		return store.Object{}, errors.Join(err, w.Abort())
	}
	limit := w.store.patience + time.Duration(min(w.bytes, commitMaxBytes)/commitBytesASecond)*time.Second
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return watch(ctx, cancel, w.store, limit, w.store.moved, func() (store.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.inner.Commit(ctx)
	}, nil)
}

func (w *writer) Abort() error {
	defer w.cancel(nil)
	return w.store.release(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.inner.Abort()
	})
}

// SetTag adds to the tags of the object where the store keeps them; see store.TagWriter.
func (w *writer) SetTag(name, value string) {
	if tagger, ok := w.inner.(store.TagWriter); ok {
		tagger.SetTag(name, value)
	}
}

// reader is a store's reader with a bound on every call.
type reader struct {
	store     *Store
	reading   sync.RWMutex // shared by calls of ReadAt alone: all else waits for those that were left behind
	inner     store.Reader
	ctx       context.Context
	cancel    context.CancelCauseFunc
	sizeBytes int64
	buffer    []byte // of Read
	pace      pace   // of Read; the calls of ReadAt are bounded each by itself
}

func (r *reader) SizeBytes() int64 { return r.sizeBytes }

// Marks are those of the inner reader, which has known them since it was opened; see store.Marked.
func (r *reader) Marks() []string {
	if m, ok := r.inner.(store.Marked); ok {
		return m.Marks()
	}
	return nil
}

// Read reads into a buffer of the reader's own, as a call that is left behind may still write to it.
func (r *reader) Read(p []byte) (int, error) {
	buffer := r.buffer
	r.buffer = nil
	if cap(buffer) < len(p) {
		buffer = make([]byte, len(p))
	}
	began := time.Now()
	n, err := r.bounded(&r.reading, func() (int, error) { return r.inner.Read(buffer[:len(p)]) })
	copy(p, buffer[:n])
	if err == nil {
		r.buffer = buffer
		err = r.pace.keep(r.store, began, n)
	}
	return n, err
}

// ReadAt may be called by several at once; each call has a buffer of its own.
func (r *reader) ReadAt(p []byte, offset int64) (int, error) {
	buffer := make([]byte, len(p))
	n, err := r.bounded(r.reading.RLocker(), func() (int, error) { return r.inner.ReadAt(buffer, offset) })
	copy(p, buffer[:n])
	return n, err
}

func (r *reader) bounded(lock sync.Locker, read func() (int, error)) (int, error) {
	return within(r.ctx, r.cancel, r.store, r.store.patience, nothing, func() (int, error) {
		lock.Lock()
		defer lock.Unlock()
		return read()
	}, nil)
}

func (r *reader) Close() error {
	defer r.cancel(nil)
	return r.store.release(func() error {
		r.reading.Lock()
		defer r.reading.Unlock()
		return r.inner.Close()
	})
}
