package patient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/internal/store/patient"
	"voltar/internal/store/storetest"
)

func onDisk(t *testing.T) store.Store {
	t.Helper()
	s, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestItIsTheSameStore runs the conformance suite: whoever has patience notices nothing of it.
func TestItIsTheSameStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return patient.Wrap(onDisk(t), 0, "") })
}

// stuck is a store of which one kind of call hangs, whatever its context says, until it is freed.
type stuck struct {
	store.Store
	call  string
	calls atomic.Int64
	free  chan struct{} // closed to let go of the calls that hang
	ended chan struct{} // gets one for each of them
}

// newStuck returns a store that hangs until the test ends.
func newStuck(t *testing.T, call string) *stuck {
	t.Helper()
	s := &stuck{Store: onDisk(t), call: call, free: make(chan struct{}), ended: make(chan struct{}, 10)}
	t.Cleanup(func() { // before the folder goes
		close(s.free)
		for range s.calls.Load() {
			<-s.ended
		}
	})
	return s
}

func (s *stuck) hang(call string) {
	if call != s.call {
		return
	}
	s.calls.Add(1)
	<-s.free
	s.ended <- struct{}{}
}

func (s *stuck) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	s.hang("create")
	w, err := s.Store.Create(ctx, key, opts)
	return &stuckWriter{w, s}, err
}

func (s *stuck) Open(ctx context.Context, key string) (store.Reader, error) {
	s.hang("open")
	r, err := s.Store.Open(ctx, key)
	return &stuckReader{r, s}, err
}

func (s *stuck) List(ctx context.Context, prefix string) ([]store.Object, error) {
	s.hang("list")
	return s.Store.List(ctx, prefix)
}

func (s *stuck) Usage(ctx context.Context) (store.Usage, error) {
	s.hang("usage")
	return s.Store.Usage(ctx)
}

func (s *stuck) Place(context.Context) (string, error) {
	s.hang("place")
	return "here", nil
}

func (s *stuck) Pending(context.Context) string {
	s.hang("pending")
	return "not yet"
}

type stuckWriter struct {
	store.Writer
	store *stuck
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	w.store.hang("write")
	return w.Writer.Write(p)
}

func (w *stuckWriter) Commit(ctx context.Context) (store.Object, error) {
	w.store.hang("commit")
	return w.Writer.Commit(ctx)
}

type stuckReader struct {
	store.Reader
	store *stuck
}

func (r *stuckReader) Read(p []byte) (int, error) {
	r.store.hang("read")
	return r.Reader.Read(p)
}

// use makes every kind of call until one fails.
func use(ctx context.Context, s store.Store) error {
	if placed, ok := store.As[store.Placed](s); ok {
		if _, err := placed.Place(ctx); err != nil {
			return err
		}
	}
	_ = store.PendingNote(ctx, s) // which the next call says to be down
	if inner, ok := store.As[*stuck](s); ok {
		if _, err := patient.Ask(ctx, s, func(context.Context) (struct{}, error) { inner.hang("ask"); return struct{}{}, nil }); err != nil {
			return err
		}
	}
	_, _ = store.SharingOf(ctx, s) // as is this
	if _, err := s.Usage(ctx); err != nil {
		return err
	}
	w, err := s.Create(ctx, "a/b", store.PutOptions{})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "text"); err != nil {
		return errors.Join(err, w.Abort())
	}
	if _, err := w.Commit(ctx); err != nil {
		return err
	}
	if _, err := s.List(ctx, ""); err != nil {
		return err
	}
	r, err := s.Open(ctx, "a/b")
	if err != nil {
		return err
	}
	_, err = io.ReadAll(r)
	return errors.Join(err, r.Close())
}

// timeless runs a subtest whose clock stands still while anything works: a slow machine changes nothing.
func timeless(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}

// TestAStoreThatHangsIsDown hangs each kind of call: it ends, and no later call reaches the store.
func TestAStoreThatHangsIsDown(t *testing.T) {
	for _, call := range []string{"usage", "create", "write", "commit", "list", "open", "read", "place", "pending", "ask"} {
		timeless(t, call, func(t *testing.T) {
			inner := newStuck(t, call)
			s := patient.Wrap(inner, time.Minute, "")
			if err := use(t.Context(), s); !errors.Is(err, store.ErrDown) {
				t.Fatalf("a %s that hangs ended with %v", call, err)
			}
			for range 3 {
				if err := use(t.Context(), s); !errors.Is(err, store.ErrDown) {
					t.Fatalf("after that, use ended with %v", err)
				}
			}
			if n := inner.calls.Load(); n != 1 {
				t.Errorf("%d calls reached a store that is down, want the first alone", n)
			}
		})
	}
}

// holding is a store that tells what of it is still held.
type holding struct {
	store.Store
	let chan string // gets a word for each writer and reader that is let go
}

func (s holding) List(context.Context, string) ([]store.Object, error) {
	return nil, store.ErrUnreachable
}

func (s holding) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	return &heldWriter{w, s.let}, err
}

func (s holding) Open(ctx context.Context, key string) (store.Reader, error) {
	r, err := s.Store.Open(ctx, key)
	return &heldReader{r, s.let}, err
}

type heldWriter struct {
	store.Writer
	let chan string
}

func (w *heldWriter) Abort() error {
	err := w.Writer.Abort()
	w.let <- "writer"
	return err
}

type heldReader struct {
	store.Reader
	let chan string
}

func (r *heldReader) Close() error {
	err := r.Reader.Close()
	r.let <- "reader"
	return err
}

// What writers and readers hold is let go of, also when their store is down by then: other stores share the memory.
func TestAStoreThatIsDownHoldsNothing(t *testing.T) {
	inner := holding{onDisk(t), make(chan string, 10)}
	s := patient.Wrap(inner, 0, "")
	w, err := s.Create(t.Context(), "a/b", store.PutOptions{})
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	aborted, err := s.Create(t.Context(), "a/c", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	committed, err := s.Create(t.Context(), "a/d", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrDown) {
		t.Fatalf("the listing ended with %v", err)
	}
	_, err = committed.Commit(t.Context())
	for what, err := range map[string]error{"abort": aborted.Abort(), "commit": err, "close": r.Close()} {
		if !errors.Is(err, store.ErrDown) {
			t.Errorf("%s ended with %v", what, err)
		}
	}
	let := map[string]int{}
	for range 3 {
		select {
		case what := <-inner.let:
			let[what]++
		case <-time.After(time.Minute):
			t.Fatalf("only %v were let go", let)
		}
	}
	if let["writer"] != 2 || let["reader"] != 1 {
		t.Errorf("%v were let go", let)
	}
}

// What was cancelled is over: no further call reaches the store, where it could hang as the first one does.
func TestNoCallBeginsWhenItsContextIsOver(t *testing.T) {
	inner := newStuck(t, "read")
	s := patient.Wrap(inner, 5*time.Second, "")
	w, err := s.Create(t.Context(), "a/b", store.PutOptions{})
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := s.Open(ctx, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped by hand")
	cancel(stopped)
	for range 3 {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, stopped) || errors.Is(err, store.ErrDown) {
			t.Errorf("reading ended with %v", err)
		}
	}
	if n := inner.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the store", n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// What no store is open on is waited for as long, and may end earlier.
func TestWhatHangsWithoutAStoreIsLeftBehind(t *testing.T) {
	hang := func() (int, error) { time.Sleep(time.Hour); return 1, nil }
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := patient.Within(t.Context(), time.Minute, hang)
		if err == nil || err.Error() != "it does not answer for 1m0s" || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, io.ErrUnexpectedEOF)
		defer cancel()
		if _, err := patient.Within(ctx, time.Minute, hang); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a context that is over: %v", err)
		}
		n, err := patient.Within(t.Context(), time.Minute, func() (int, error) { time.Sleep(time.Second); return 7, io.EOF })
		if n != 7 || !errors.Is(err, io.EOF) {
			t.Errorf("what answers: %d, %v", n, err)
		}
		time.Sleep(2 * time.Hour) // what was left behind ends by itself
	})
}

// A call of many steps has no more patience than others while it is silent: people wait for it.
func TestASilentListingHasThePatienceOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := patient.Wrap(newStuck(t, "list"), 50*time.Millisecond, "").List(t.Context(), "")
		if !errors.Is(err, store.ErrDown) || !strings.Contains(err.Error(), "does not answer for 50ms") {
			t.Errorf("it ended with %v", err)
		}
	})
}

// endless is a store whose listings go on, a step at a time, until they are given up or have so many.
type endless struct {
	store.Store
	steps int
	step  time.Duration
}

func (s endless) List(ctx context.Context, _ string) ([]store.Object, error) {
	for range s.steps {
		select {
		case <-time.After(s.step):
			store.Progress(ctx)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

func TestAListingThatGoesOnHasMore(t *testing.T) {
	for _, test := range []struct {
		name           string
		patience, step time.Duration
		steps          int
		want           string // "" when it succeeds
	}{
		{"longer than the patience", time.Second, 50 * time.Millisecond, 40, ""},
		{"for ever", time.Second, time.Millisecond, math.MaxInt, "not done after 5s"},
	} {
		timeless(t, test.name, func(t *testing.T) {
			_, err := patient.Wrap(endless{onDisk(t), test.steps, test.step}, test.patience, "").List(t.Context(), "")
			if test.want == "" && err != nil ||
				test.want != "" && (!errors.Is(err, store.ErrDown) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("it ended with %v, want %q", err, test.want)
			}
		})
	}
}

// failing is a store whose listing fails in a way of its own.
type failing struct {
	store.Store
	err error
}

func (s failing) List(context.Context, string) ([]store.Object, error) { return nil, s.err }

func TestOnlyWhatCannotBeReachedIsDown(t *testing.T) {
	for _, test := range []struct {
		err  error
		down bool
	}{
		{store.ErrUnreachable, true},
		{store.ErrNoSpace, false},
		{store.ErrNotExist, false},
		{errors.New("access denied"), false},
	} {
		s := patient.Wrap(failing{onDisk(t), test.err}, 0, "")
		if _, err := s.List(t.Context(), ""); !errors.Is(err, test.err) || errors.Is(err, store.ErrDown) != test.down {
			t.Errorf("%v: the listing ended with %v", test.err, err)
		}
		_, err := s.Usage(t.Context())
		var whole *store.WholeError
		if errors.Is(err, store.ErrDown) != test.down || errors.As(err, &whole) != test.down {
			t.Errorf("%v: the next call ended with %v", test.err, err)
		}
	}
}

// TestWhoCancelsDoesNotBlameTheStore cancels a call that hangs.
func TestWhoCancelsDoesNotBlameTheStore(t *testing.T) {
	inner := newStuck(t, "list")
	s := patient.Wrap(inner, time.Hour, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by hand")
	time.AfterFunc(10*time.Millisecond, func() { cancel(stopped) })
	if _, err := s.List(ctx, ""); !errors.Is(err, stopped) || errors.Is(err, store.ErrDown) {
		t.Errorf("a listing that was cancelled ended with %v", err)
	}
	if _, err := s.Usage(t.Context()); err != nil {
		t.Errorf("the next call ended with %v", err)
	}
}

// TestLockingShowsThrough asks for what stores can do beside: a store has it through its patience, or has it not.
func TestLockingShowsThrough(t *testing.T) {
	if _, found := store.As[store.Locker](patient.Wrap(onDisk(t), 0, "")); found {
		t.Error("a disk that has patience locks objects")
	}
	if _, found := store.As[interface{ Folder() string }](patient.Wrap(onDisk(t), 0, "")); !found {
		t.Error("a disk that has patience has no folder")
	}
	locks := patient.Wrap(lockingStore{onDisk(t)}, 0, "")
	locker, found := store.As[store.Locker](locks)
	if !found {
		t.Fatal("a bucket that has patience does not lock objects")
	}
	if err := locker.Lock(t.Context(), nil, time.Time{}); !errors.Is(err, store.ErrDown) {
		t.Errorf("a lock on a store that cannot be reached ended with %v", err)
	}
	if _, err := locks.List(t.Context(), ""); !errors.Is(err, store.ErrDown) {
		t.Errorf("the next call ended with %v", err)
	}
}

// lockingStore cannot be reached when it is to lock.
type lockingStore struct{ store.Store }

func (lockingStore) LockFor() time.Duration                                 { return time.Hour }
func (lockingStore) Lock(context.Context, []string, time.Time) error        { return store.ErrUnreachable }
func (lockingStore) CheckDelete(context.Context, []string) error            { return nil }
func (lockingStore) LockedUntil(context.Context, string) (time.Time, error) { return time.Time{}, nil }

// slow is a store whose writes and commits take longer than the patience while data moves, and whose reads drip.
type slow struct {
	store.Store
	moved atomic.Int64
	pace  int64         // bytes that move in each step
	steps int           // of a call
	step  time.Duration // how long each takes
}

func (s *slow) MovedBytes() int64 { return s.moved.Load() }

func (s *slow) wait() {
	for range s.steps {
		time.Sleep(s.step)
		s.moved.Add(s.pace)
	}
}

func (s *slow) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	return &slowWriter{w, s}, err
}

func (s *slow) Open(ctx context.Context, key string) (store.Reader, error) {
	r, err := s.Store.Open(ctx, key)
	return &slowReader{r, s}, err
}

type slowWriter struct {
	store.Writer
	store *slow
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.store.wait()
	return w.Writer.Write(p)
}

func (w *slowWriter) Commit(ctx context.Context) (store.Object, error) {
	w.store.wait()
	return w.Writer.Commit(ctx)
}

type slowReader struct {
	store.Reader
	store *slow
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.store.step)
	return r.Reader.Read(p[:min(1, len(p))])
}

// A line that takes longer for what a call waits for than the patience lasts is not down while data moves on it.
func TestAStoreToWhichDataMovesIsNotDown(t *testing.T) {
	for _, test := range []struct {
		name string
		pace int64
		down bool
	}{
		{"moves", 1 << 20, false},
		{"hangs", 0, true},
		{"drips", 1, true},
	} {
		timeless(t, test.name, func(t *testing.T) {
			inner := &slow{Store: onDisk(t), pace: test.pace, steps: 40, step: 50 * time.Millisecond}
			s := patient.Wrap(inner, time.Second, "")
			w, err := s.Create(t.Context(), "a/b", store.PutOptions{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(make([]byte, 1<<20))
			if err == nil {
				_, err = w.Commit(t.Context())
			}
			if errors.Is(err, store.ErrDown) != test.down || !test.down && err != nil {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// A store that gives a byte now and then answers every call in time, and would take days for a file.
func TestAStoreThatDripsIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slow{Store: onDisk(t), step: 5 * time.Millisecond}
		w, err := inner.Store.Create(t.Context(), "a/b", store.PutOptions{})
		if err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		if err == nil {
			_, err = w.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		s := patient.Wrap(inner, 200*time.Millisecond, "")
		r, err := s.Open(t.Context(), "a/b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, store.ErrDown) {
			t.Errorf("reading ended with %v", err)
		}
		if _, err := s.Usage(t.Context()); !errors.Is(err, store.ErrDown) {
			t.Errorf("the next call ended with %v", err)
		}
	})
}

// naming is a store whose errors name what was asked for.
type naming struct{ store.Store }

func (naming) Open(_ context.Context, key string) (store.Reader, error) {
	return nil, fmt.Errorf("open %s: %w", key, fmt.Errorf("%w: refused", store.ErrUnreachable))
}

// Why a store is down does not name the object whose turn it was: whoever asks for others gets the same error.
func TestAStoreThatIsDownNamesNoObject(t *testing.T) {
	s := patient.Wrap(naming{onDisk(t)}, 0, "wait")
	for _, key := range []string{"a1", "z1"} {
		_, err := s.Open(t.Context(), key)
		if want := "given up: " + s.String() + ": it cannot be reached: refused"; err == nil || err.Error() != want || !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
		if hints := say.Hints(err); !slices.Equal(hints, []string{"wait"}) {
			t.Errorf("hints %q", hints)
		}
	}
}
