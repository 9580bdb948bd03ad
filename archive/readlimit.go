package archive

import (
	"context"
	"sync"
	"time"
)

// readLimit spreads reads out in time. All that share it together read no more than its rate; nil sets no limit.
type readLimit struct {
	bytesPerSecond int64
	now            func() time.Time

	mu   sync.Mutex
	next time.Time // when all that was read so far is paid for
}

// wait returns when n bytes may be read. It returns the cause of ctx when that ends first.
func (l *readLimit) wait(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	delay := l.reserve(n)
	if delay <= 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reserve returns how long to wait before n bytes are read, and counts them. Time in which nobody read is lost, and not
// made up for by haste.
func (l *readLimit) reserve(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.next.Before(now) {
		l.next = now
	}
	delay := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.bytesPerSecond) * float64(time.Second)))
	return delay
}
