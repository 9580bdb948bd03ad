// Package patient puts a bound on what any store may take. A call that makes no progress for as long as the patience lasts
// is given up, and the store is then down: every later call fails at once, with the first cause, until the program ends. So
// a destination that hangs, or refuses every connection, costs a run its patience once, and not once for each volume.
//
// Data on its way is progress: a call that waits for it goes on for as long as the store is no slower than
// leastBytesASecond. One that is, byte by byte, is as good as one that hangs, however short each call of its own is.
// The steps of a call that takes many are progress, too: a listing that is silent has the patience once, and one that goes on
// stepsFactor times that.
//
// A call that hangs in the kernel, as one on a dead NFS mount does, cannot be ended. It is left behind in a goroutine
// of its own, which works on copies of the caller's buffers and closes what it may still come back with.
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

// Default is for how long a destination may give no answer.
const Default = 2 * time.Minute

// stepsFactor is how many times its patience a call of many steps may take in all, such as a listing: one that is silent has
// the patience once, like any other.
const stepsFactor = 5

// A Commit may make progress that cannot be seen from outside, and gets more than the patience.
const (
	commitBytesASecond = 4 << 20 // what even a slow disk makes durable
	commitMaxBytes     = 8 << 30 // more is not left to the end
)

// leastBytesASecond is the pace of data, either way, below which a store is given up.
const leastBytesASecond = 16 << 10

// looks is how often within its limit a call that hangs is looked at, whether data moves: a store that stops is given up
// no later than one part of the limit after it.
const looks = 8

// lastWord is for how long a call that was told to end may take to say why.
const lastWord = 2 * time.Second

// errSilent and errSlow are causes with which a store is given up.
var (
	errSilent = errors.New("it does not answer")
	errSlow   = errors.New("it is too slow")
)

// Store is a store with a bound on every call.
type Store struct {
	inner    store.Store
	patience time.Duration
	hint     string // for who meets it when it is down

	mu   sync.Mutex
	down error
}

// locking is a Store over one that holds objects against deletion.
type locking struct {
	*Store
	locker
}

type locker interface {
	store.Locker
	store.DeleteChecker
}

// Wrap bounds every call on a store. The patience is Default when 0. hint says what can be done about a store that is down.
func Wrap(inner store.Store, patience time.Duration, hint string) store.Store {
	if patience == 0 {
		patience = Default
	}
	s := &Store{inner: inner, patience: patience, hint: hint}
	if l, ok := inner.(locker); ok {
		return &locking{s, l}
	}
	return s
}

// Unwrap returns the store itself, for what it can do beside; see store.As.
func (s *Store) Unwrap() store.Store { return s.inner }

// Down returns why the store was given up, an error that wraps store.ErrDown, or nil.
func (s *Store) Down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// downError is the reason why a store is down, without the object whose turn it was: others get the same error.
type downError struct {
	text  string
	cause error
}

func (e *downError) Error() string { return e.text }

func (e *downError) Unwrap() []error { return []error{store.ErrDown, e.cause} }

// giveUp takes the store as down. The first cause counts; kind is what of it says so.
func (s *Store) giveUp(cause, kind error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil {
		reason := cause
		for next := cause; next != nil && next != kind && errors.Is(next, kind); next = errors.Unwrap(next) {
			reason = next
		}
		s.down = say.WithHint(&store.WholeError{Err: &downError{fmt.Sprintf("%v: %s: %v", store.ErrDown, s, reason), cause}}, s.hint)
	}
	return s.down
}

// judge takes the store as down when a call came to an error that says so.
func (s *Store) judge(err error) error {
	for _, down := range []error{store.ErrUnreachable, errSilent, errSlow} {
		if errors.Is(err, down) && !errors.Is(err, store.ErrDown) {
			return s.giveUp(err, down)
		}
	}
	return err
}

// nothing moves while a call asks or opens.
func nothing() int64 { return 0 }

// moved counts what goes to the store, where it tells.
func (s *Store) moved() int64 {
	if m, ok := store.As[store.Mover](s.inner); ok {
		return m.MovedBytes()
	}
	return 0
}

// call makes one call, which must return within the limit. What comes back later goes to drop.
func call[T any](ctx context.Context, s *Store, limit time.Duration, do func(context.Context) (T, error), drop func(T)) (T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return within(ctx, cancel, s, limit, nothing, func() (T, error) { return do(ctx) }, drop)
}

// stepwise is call for one of many steps, each of which puts the limit off. All together have stepsFactor times the patience.
func stepwise[T any](ctx context.Context, s *Store, do func(context.Context) (T, error)) (T, error) {
	whole := stepsFactor * s.patience
	inner, stop := context.WithTimeoutCause(ctx, whole, fmt.Errorf("%w: not done after %s", errSlow, whole))
	defer stop()
	inner, cancel := context.WithCancelCause(inner)
	defer cancel(nil)
	var moved atomic.Int64
	inner = store.WithProgress(inner, func() {
		moved.Add(leastBytes(s.patience)) // a step counts for as much data as has to move
		store.Progress(ctx)
	})
	return within(inner, cancel, s, s.patience, moved.Load, func() (T, error) { return do(inner) }, nil)
}

// within is call for calls whose context is that of a reader or writer, which lives on. What moved counts puts
// the limit off for as long as it grows.
func within[T any](ctx context.Context, cancel context.CancelCauseFunc, s *Store, limit time.Duration, moved func() int64,
	do func() (T, error), drop func(T)) (value T, err error) {
	if err := s.refuses(ctx); err != nil {
		return value, err
	}
	return watch(ctx, cancel, s, limit, moved, do, drop)
}

// refuses returns why no call is to begin: the store is down, or the context over. One that cannot be ended would be left behind.
func (s *Store) refuses(ctx context.Context) error {
	if err := s.Down(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return s.judge(context.Cause(ctx))
	}
	return nil
}

// watch is within for a call that is not refused.
func watch[T any](ctx context.Context, cancel context.CancelCauseFunc, s *Store, limit time.Duration, moved func() int64,
	do func() (T, error), drop func(T)) (value T, err error) {
	type outcome struct {
		value T
		err   error
	}
	start := moved()
	done := make(chan outcome, 1)
	go func() {
		value, err := do()
		done <- outcome{value, err}
	}()
	look := time.NewTicker(max(limit/looks, 1))
	defer look.Stop()
	var seen [looks]int64 // of moved, at the last looks
	for at := 0; ctx.Err() == nil; {
		select {
		case o := <-done:
			return o.value, s.judge(o.err)
		case <-ctx.Done():
		case <-look.C:
			at++
			now := moved() - start
			if at >= looks && now-seen[at%looks] < leastBytes(limit) {
				cancel(fmt.Errorf("%w for %s", errSilent, limit))
			}
			seen[at%looks] = now
		}
	}
	select {
	case o := <-done:
		return o.value, s.judge(o.err)
	case <-time.After(min(lastWord, limit)):
	}
	go func() {
		if o := <-done; o.err == nil && drop != nil {
			drop(o.value)
		}
	}()
	return value, s.judge(context.Cause(ctx))
}

// leastBytes is what has to move in so long.
func leastBytes(d time.Duration) int64 { return max(int64(d.Seconds()*leastBytesASecond), 1) }

// Create begins an object; see store.Store.
func (s *Store) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	inner, err := within(ctx, cancel, s, s.patience, nothing, func() (store.Writer, error) { return s.inner.Create(ctx, key, opts) },
		func(w store.Writer) { _ = w.Abort() }) // nobody waits for it any more
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &writer{store: s, inner: inner, ctx: ctx, cancel: cancel}, nil
}

// Open opens an object for reading; see store.Store.
func (s *Store) Open(ctx context.Context, key string) (store.Reader, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	inner, err := within(ctx, cancel, s, s.patience, nothing, func() (store.Reader, error) { return s.inner.Open(ctx, key) },
		func(r store.Reader) { _ = r.Close() })
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &reader{store: s, inner: inner, ctx: ctx, cancel: cancel, sizeBytes: inner.SizeBytes()}, nil
}

// Stat describes an object; see store.Store.
func (s *Store) Stat(ctx context.Context, key string) (store.Object, error) {
	return call(ctx, s, s.patience, func(ctx context.Context) (store.Object, error) { return s.inner.Stat(ctx, key) }, nil)
}

// List yields objects; see store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	return stepwise(ctx, s, func(ctx context.Context) ([]store.Object, error) { return s.inner.List(ctx, prefix) })
}

// Folders yields names of folders; see store.Store.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	return stepwise(ctx, s, func(ctx context.Context) ([]string, error) { return s.inner.Folders(ctx, prefix) })
}

// Look yields folders; see store.Store.
func (s *Store) Look(ctx context.Context, prefix string, names ...string) ([]store.Folder, error) {
	return stepwise(ctx, s, func(ctx context.Context) ([]store.Folder, error) { return s.inner.Look(ctx, prefix, names...) })
}

// Delete removes an object; see store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.act(ctx, s.patience, func(ctx context.Context) error { return s.inner.Delete(ctx, key) })
}

// Sweep removes what unfinished writers left; see store.Store.
func (s *Store) Sweep(ctx context.Context, prefix string) (int64, error) {
	return stepwise(ctx, s, func(ctx context.Context) (int64, error) { return s.inner.Sweep(ctx, prefix) })
}

// Probe tries out what backups need; see store.Store.
func (s *Store) Probe(ctx context.Context) ([]string, error) {
	return stepwise(ctx, s, s.inner.Probe)
}

// Usage tells the room there is; see store.Store.
func (s *Store) Usage(ctx context.Context) (store.Usage, error) {
	return call(ctx, s, s.patience, s.inner.Usage, nil)
}

// String names the store; see store.Store.
func (s *Store) String() string { return s.inner.String() }

// Place tells the store from others; see store.Placed. It is "" for a store that cannot be told.
func (s *Store) Place(ctx context.Context) (string, error) {
	placed, ok := store.As[store.Placed](s.inner)
	if !ok {
		return "", nil
	}
	return call(ctx, s, s.patience, placed.Place, nil)
}

// Shares tells whether objects may lie in the same place; see store.Sharing. Those of a store that does not answer do not.
func (s *Store) Shares(ctx context.Context) bool {
	sharing, ok := store.As[store.Sharing](s.inner)
	if !ok {
		return false
	}
	shares, err := call(ctx, s, s.patience, func(ctx context.Context) (bool, error) { return sharing.Shares(ctx), nil }, nil)
	return err == nil && shares
}

// Pieces tells where an object lies; see store.Sharing. Of a store that does not share, it does not know.
func (s *Store) Pieces(ctx context.Context, key string) ([]store.Piece, error) {
	sharing, ok := store.As[store.Sharing](s.inner)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return call(ctx, s, s.patience, func(ctx context.Context) ([]store.Piece, error) { return sharing.Pieces(ctx, key) }, nil)
}

// Pending says that the store is not there yet; see store.Pending. Of one that does not answer that is not known.
func (s *Store) Pending(ctx context.Context) string {
	pending, ok := store.As[store.Pending](s.inner)
	if !ok {
		return ""
	}
	note, err := call(ctx, s, s.patience, func(ctx context.Context) (string, error) { return pending.Pending(ctx), nil }, nil)
	if err != nil {
		return ""
	}
	return note
}

// Ask makes a call that touches what a store lies on, and is none of the store's own. It has the bound of the store's calls, where
// these have one: a call that hangs is left behind, and must not touch what the caller has.
func Ask[T any](ctx context.Context, s store.Store, do func(context.Context) (T, error)) (T, error) {
	p, ok := store.As[interface{ itself() *Store }](s)
	if !ok {
		return do(ctx)
	}
	return call(ctx, p.itself(), p.itself().patience, do, nil)
}

func (s *Store) itself() *Store { return s }

// Within makes a call that touches a filesystem which no store is open on. A call that hangs is left behind as with Ask.
func Within[T any](ctx context.Context, patience time.Duration, do func() (T, error)) (value T, err error) {
	var (
		got    T
		gotErr error
		done   = make(chan struct{})
		end    = time.NewTimer(patience)
	)
	defer end.Stop()
	go func() {
		defer close(done)
		got, gotErr = do()
	}()
	select {
	case <-done:
		return got, gotErr
	case <-ctx.Done():
		return value, context.Cause(ctx)
	case <-end.C:
		return value, fmt.Errorf("%w for %s", errSilent, patience)
	}
}

// act is call for calls that return nothing but an error.
func (s *Store) act(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	_, err := call(ctx, s, limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) }, nil)
	return err
}

// release lets go of what a reader or writer holds. It is done whatever becomes of the store, whose memory and descriptors
// others need; nobody waits for it on one that is down.
func (s *Store) release(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return s.act(context.Background(), s.patience, func(context.Context) error { return <-done })
}

// CheckDelete asks for locks; see store.DeleteChecker.
func (l *locking) CheckDelete(ctx context.Context, keys []string) error {
	_, err := stepwise(ctx, l.Store, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.locker.CheckDelete(ctx, keys) })
	return err
}

// Lock holds objects; see store.Locker.
func (l *locking) Lock(ctx context.Context, keys []string, until time.Time) error {
	_, err := stepwise(ctx, l.Store, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.locker.Lock(ctx, keys, until) })
	return err
}

// LockedUntil returns when a lock ends; see store.Locker.
func (l *locking) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	return call(ctx, l.Store, l.patience, func(ctx context.Context) (time.Time, error) { return l.locker.LockedUntil(ctx, key) }, nil)
}
