package s3

import (
	"context"
	"io"
	"sync"
	"time"
)

// limiter keeps uploads below so many bytes a second, over all that share it. The nil *limiter does not.
type limiter struct {
	bytesPerSecond int64

	mu   sync.Mutex
	next time.Time // when what was let through so far is paid for
}

func newLimiter(bytesPerSecond int64) *limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &limiter{bytesPerSecond: bytesPerSecond}
}

// wait lets so many bytes through, and returns once they are paid for.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.bytesPerSecond) * float64(time.Second)))
	pause := l.next.Sub(now)
	l.mu.Unlock()
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reader gives what r gives, at the limit's pace.
func (l *limiter) reader(ctx context.Context, r io.Reader) io.Reader {
	if l == nil {
		return r
	}
	return &limitedReader{ctx, l, r}
}

type limitedReader struct {
	ctx   context.Context
	limit *limiter
	inner io.Reader
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p[:min(len(p), 16<<10)])
	if n > 0 {
		if waitErr := r.limit.wait(r.ctx, n); waitErr != nil {
			return n, waitErr
		}
	}
	return n, err
}
