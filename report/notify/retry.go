package notify

import (
	"context"
	"errors"
	"time"
)

// Retry bounds how often and how patiently a delivery is tried.
type Retry struct {
	Attempts int           // in all; 0 means 3
	Wait     time.Duration // before the second attempt, doubled before each one after; 0 means 2 s
	MaxWait  time.Duration // 0 means 30 s
}

// do calls send until it succeeds, fails for good, has been tried often enough or ctx ends. It returns the number of
// calls and the last one's error.
func (r Retry) do(ctx context.Context, send func() error) (attempts int, err error) {
	limit, wait, maxWait := r.Attempts, r.Wait, r.MaxWait
	if limit == 0 {
		limit = 3
	}
	if wait == 0 {
		wait = 2 * time.Second
	}
	if maxWait == 0 {
		maxWait = 30 * time.Second
	}
	for {
		attempts++
		err = send()
		if err == nil || attempts >= limit || isPermanent(err) || isPartial(err) {
			return attempts, err
		}
		timer := time.NewTimer(min(wait, maxWait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return attempts, err
		case <-timer.C:
		}
		wait *= 2
	}
}

type kind int

const (
	permanent kind = iota + 1
	partial
)

type kindError struct {
	kind kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// Permanent wraps an error that trying again at once cannot mend: a refused address, a wrong password.
func Permanent(err error) error { return &kindError{permanent, err} }

// Partial wraps the error of a message that reached some of its recipients: it counts as delivered, for sending it again
// would reach those a second time.
func Partial(err error) error { return &kindError{partial, err} }

func isPermanent(err error) bool { return isKind(err, permanent) }
func isPartial(err error) bool   { return isKind(err, partial) }

func isKind(err error, k kind) bool {
	var e *kindError
	return errors.As(err, &e) && e.kind == k
}
