// Package store is the contract that every destination keeps: bytes under slash-separated keys, which appear whole or
// not at all. Package storetest holds the conformance suite, store/disk and store/s3 the implementations.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	// ErrNotExist is wrapped by the error of an operation on a key that is not there.
	ErrNotExist = errors.New("no such object")
	// ErrNoSpace is wrapped by the error of a write that found the store full or over its quota, in a WholeError.
	ErrNoSpace = errors.New("no space left in the destination")
	// ErrLocked is wrapped by the error of a deletion that the store's own retention forbids.
	ErrLocked = errors.New("object is locked")
	// ErrNoLock is wrapped by the error of a write that was to be held against deletion by a store that does not do that.
	ErrNoLock = errors.New("this destination does not lock objects")
	// ErrUnreachable is wrapped by the error of a call that got no answer for as long as the store tries again.
	ErrUnreachable = errors.New("it cannot be reached")
	// ErrDown is wrapped by the error of every call on a store that was given up, in a WholeError; see package patient.
	ErrDown = errors.New("given up")
	// ErrExists is wrapped by the error of a Commit of what was to appear only where there is nothing, and found something.
	ErrExists = errors.New("there is such an object already")
	// ErrBadKey is wrapped by the error of a key, or prefix, that no store takes.
	ErrBadKey = errors.New("not a valid key")
)

// LockedError is the ErrLocked of a store that knows when the object may go.
type LockedError struct{ Until time.Time }

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s until %s", ErrLocked, e.Until.UTC().Format(time.RFC3339))
}

func (e *LockedError) Unwrap() error { return ErrLocked }

// WholeError is the failure of a destination as a whole, whichever object met it first: it is full, down, or not there. What others wrap
// around it is about that object.
type WholeError struct{ Err error }

func (e *WholeError) Error() string { return e.Err.Error() }

func (e *WholeError) Unwrap() error { return e.Err }

// Whole returns the failure of the destination as a whole that an error wraps, or the error itself where it wraps none.
func Whole(err error) error {
	var whole *WholeError
	if errors.As(err, &whole) {
		return whole
	}
	return err
}

// Object is what a store knows of one key.
type Object struct {
	Key       string
	SizeBytes int64
	Modified  time.Time // UTC, as the store's clock has it; zero from a Commit of stores that would have to ask
	// Mark comes with listings alone. It is another one when another object has taken the key, or the object was changed; ""
	// where the store cannot tell.
	Mark string
}

// Folder is one folder, and the objects directly in it that were asked for.
type Folder struct {
	Name    string
	Objects []Object
	Err     error // why there may be more objects: the store could not look at one of them
}

// PutOptions say what is known of an object before it is written.
type PutOptions struct {
	MaxBytes int64             // of its size, as far as that is known beforehand: more is taken all the same; 0 when nothing is known
	Tags     map[string]string // kept with the object where the store can
	// LockUntil holds the object as Locker.Lock does, from when it appears: one that cannot be held does not appear. Only
	// for stores that implement Locker; others refuse it.
	LockUntil time.Time
	// IfAbsent has the object appear only where there is none of its key: otherwise Commit fails with ErrExists, and what is
	// there stays. Of any number who try at once, one at most succeeds. ErrExists may also tell of the object itself, when
	// it has appeared and the store's answer was lost: whoever must know reads it back.
	IfAbsent bool
}

// Writer takes one object. It is not safe for concurrent use, but any number may write to one key: the last to commit
// wins, whole. Until Commit the object is not there; an earlier one of the same key stays, and can be read.
type Writer interface {
	// Write takes more of the object. After an error the writer can only be aborted, and Commit fails.
	io.Writer
	// Commit makes the object appear, durably, and returns what the store holds. After an error nothing has appeared,
	// and Abort is not needed; the one exception is an earlier object of the same key, which a store that failed in
	// its very last step may have replaced. A second Commit, and one after Abort, fails.
	Commit(ctx context.Context) (Object, error)
	// Abort throws away what was written, and leaves nothing of it. After Commit or another Abort it does nothing.
	Abort() error
}

// Reader reads one object, at any offset. What it gives is of the object as it was opened, or an error. ReadAt is safe
// for concurrent use and does not move Read.
type Reader interface {
	io.Reader
	io.ReaderAt
	io.Closer
	SizeBytes() int64
}

// Marked is implemented by readers that know which objects they are of.
type Marked interface {
	// Marks are those that listings have of what is read: of the object, and of any other without which it would not be read.
	Marks() []string
}

// Usage is the room of a destination. Sizes that the store cannot know are -1.
type Usage struct {
	TotalBytes int64
	FreeBytes  int64 // to this user, reserved blocks not counted
	Inodes     int64 // how many files it can hold in all; 0 where that is not fixed
	FreeInodes int64 // of Inodes
}

// Store keeps objects. Keys are as CheckKey has them, and no key is the folder of another. Every method is safe for
// concurrent use; a context that ends makes each return early with its cause, writers and readers included, for which
// the context of Create and Open holds. A call that takes many steps, as List, Look, Sweep and Probe do, tells of each with Progress.
type Store interface {
	// Create begins an object. The caller must Commit or Abort it. A full store may say so here, in Write or in Commit.
	Create(ctx context.Context, key string, opts PutOptions) (Writer, error)
	// Open opens an object for reading. The caller must close it.
	Open(ctx context.Context, key string) (Reader, error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields every object below a prefix, which is a folder without its final slash or "" for all, in bytewise
	// order of keys. What a writer that was neither committed nor aborted left behind is not listed.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Folders yields the names of the folders directly below a prefix, sorted. A folder without any object may be among
	// them or not; one that others made under a name that no key can have is not.
	Folders(ctx context.Context, prefix string) ([]string, error)
	// Look yields the folders directly below a prefix, as Folders does, each with those of the objects directly in it that
	// have one of some names, or with all without any name. A folder that cannot be looked into says so itself; the others are there.
	Look(ctx context.Context, prefix string, names ...string) ([]Folder, error)
	// Delete removes an object, durably, and the folders that it leaves empty. One that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Sweep removes what unfinished writers left below a prefix, and returns the bytes freed. The caller knows that
	// they are dead.
	Sweep(ctx context.Context, prefix string) (freedBytes int64, err error)
	// Probe tries out what backups need, that one of several can be the first to write an object included, leaves nothing,
	// and returns what people should know of the store.
	Probe(ctx context.Context) (notes []string, err error)
	// Usage tells the room there is.
	Usage(ctx context.Context) (Usage, error)
	// String names the store for people, without secrets: "/backups", "s3://bucket/prefix".
	String() string
}

// As returns what a store, or one that it wraps, can do beside the contract: T is one of the interfaces below. A store
// that wraps another has a method Unwrap.
func As[T any](s Store) (_ T, found bool) {
	for s != nil {
		if as, ok := s.(T); ok {
			return as, true
		}
		wrapper, ok := s.(interface{ Unwrap() Store })
		if !ok {
			break
		}
		s = wrapper.Unwrap()
	}
	var none T
	return none, false
}

// DeleteChecker is implemented by stores that can tell beforehand whether their own retention forbids a deletion, so
// that a backup is deleted whole or not at all.
type DeleteChecker interface {
	// CheckDelete returns an error that wraps ErrLocked, and says until when, if any of the keys cannot be deleted now.
	CheckDelete(ctx context.Context, keys []string) error
}

// Locker is implemented by stores that can hold objects against deletion, even by whoever wrote them.
type Locker interface {
	// LockFor returns for how long objects are to be held, counted from when they are locked; 0 for not at all.
	LockFor() time.Duration
	// Lock holds the objects of the keys until a time. One that is held for longer already stays so.
	Lock(ctx context.Context, keys []string, until time.Time) error
	// LockedUntil returns when an object's lock ends, or the zero time.
	LockedUntil(ctx context.Context, key string) (time.Time, error)
}

// TagWriter is implemented by writers of stores that keep tags with objects.
type TagWriter interface {
	// SetTag adds to the tags of PutOptions what is known only when all is written. It comes before Commit.
	SetTag(name, value string)
}

// Sharer is implemented by writers of stores in which objects can lie in the same place where they are the same.
type Sharer interface {
	// Share is Write for data that an object of the same store holds at an offset, by a reader of it. Where both can share that
	// place, isShared is true and the data takes no room of its own; everywhere else it is written.
	Share(data []byte, with Reader, offset int64) (isShared bool, err error)
}

// Sharing is implemented by stores in which objects may lie in the same place; see Sharer.
type Sharing interface {
	// Shares tells whether they do, where the store is now.
	Shares(ctx context.Context) bool
	// Pieces tells where the data of an object lie, without its holes, in their order.
	Pieces(ctx context.Context, key string) ([]Piece, error)
}

// Piece is a part of an object that lies in one place.
type Piece struct {
	AtBytes     int64 // where; -1 where that does not tell whether another object lies there
	LengthBytes int64
	IsShared    bool // something else lies there, too: the place is not free when the object goes
}

// SharingOf returns what tells where the objects of a store lie, if they may share their place there.
func SharingOf(ctx context.Context, s Store) (sharing Sharing, ok bool) {
	sharing, ok = As[Sharing](s)
	return sharing, ok && sharing.Shares(ctx)
}

// Noter is implemented by stores with properties that a report should mention.
type Noter interface {
	// Notes returns what is known of them without asking.
	Notes() []string
}

// Placed is implemented by stores that can be told apart however they are named.
type Placed interface {
	// Place is the same for two stores that keep one and the same objects.
	Place(ctx context.Context) (string, error)
}

// Pending is implemented by stores that the first object which is written makes.
type Pending interface {
	// Pending says so, for people, of a store that is not there yet; "" of one that is.
	Pending(ctx context.Context) string
}

// PendingNote is what a store says that is not there yet, or "".
func PendingNote(ctx context.Context, s Store) string {
	if p, ok := As[Pending](s); ok {
		return p.Pending(ctx)
	}
	return ""
}

// AllShower is implemented by stores to which Look costs no more for all objects of a folder than for some.
type AllShower interface{ ShowsAll() }

// Mover is implemented by stores to which data goes on while a call waits: it tells a slow one from one that hangs.
type Mover interface {
	// MovedBytes counts what went to the store so far. What is sent again counts once.
	MovedBytes() int64
}

type progressKey struct{}

// WithProgress has a store call made at each step of what a call with the context does, such as a page of a listing: it
// tells a long call from one that hangs.
func WithProgress(ctx context.Context, made func()) context.Context {
	return context.WithValue(ctx, progressKey{}, made)
}

// Progress is called by stores at each step of a call that takes several.
func Progress(ctx context.Context) {
	if made, ok := ctx.Value(progressKey{}).(func()); ok {
		made()
	}
}

// Limits of keys: those of S3 and of Linux file systems.
const (
	MaxKeyBytes     = 1024
	MaxSegmentBytes = 255
)

// CheckKey returns an error that wraps ErrBadKey unless the key is one that every store takes: relative, UTF-8, of
// segments between slashes that are neither empty nor "." nor "..", without control characters.
func CheckKey(key string) error {
	reason := ""
	switch {
	case len(key) > MaxKeyBytes:
		reason = fmt.Sprintf("it is longer than %d bytes", MaxKeyBytes)
	case !utf8.ValidString(key):
		reason = "it is not UTF-8"
	case strings.ContainsFunc(key, isControl):
		reason = "it holds a control character"
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "" || segment == "." || segment == "..":
			reason = fmt.Sprintf("it has a segment %q", segment)
		case len(segment) > MaxSegmentBytes:
			reason = fmt.Sprintf("it has a segment longer than %d bytes", MaxSegmentBytes)
		}
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %q: %s", ErrBadKey, key, reason)
}

// CheckPrefix is CheckKey for prefixes, of which "" is one.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckKey(prefix)
}

func isControl(r rune) bool {
	return r < 0x20 || r == 0x7f
}
