// Package store is the contract that every destination keeps: bytes under slash-separated keys, which appear whole or
// not at all. Package storetest holds the conformance suite, store/disk and store/s3 the implementations.
package store

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrNotExist is wrapped by the error of an operation on a key that is not there.
	ErrNotExist = errors.New("no such object")
	// ErrNoSpace is wrapped by the error of a write that found the store full or over its quota.
	ErrNoSpace = errors.New("no space left in the destination")
	// ErrLocked is wrapped by the error of a deletion that the store's own retention forbids.
	ErrLocked = errors.New("object is locked")
)

// Object is what a store knows of one key.
type Object struct {
	Key       string
	SizeBytes int64
	Modified  time.Time // UTC, as the store's clock has it
}

// PutOptions say what is known of an object before it is written.
type PutOptions struct {
	MaxBytes int64             // upper bound of its size; 0 when nothing is known
	Tags     map[string]string // kept with the object where the store can
}

// Writer takes one object. Until Commit returns nil the object is not there; an earlier one of the same key stays.
type Writer interface {
	io.Writer
	// Commit makes the object appear, durably, and returns what the store holds. After an error nothing has appeared.
	Commit(ctx context.Context) (Object, error)
	// Abort throws away what was written. After Commit or another Abort it does nothing.
	Abort() error
}

// Reader reads one object, at any offset.
type Reader interface {
	io.Reader
	io.ReaderAt
	io.Closer
	SizeBytes() int64
}

// Usage is the room of a destination. Fields that the store cannot know are -1.
type Usage struct {
	TotalBytes int64
	FreeBytes  int64 // to this user, reserved blocks not counted
}

// Store keeps objects. Keys are relative, of segments that are neither empty nor "." nor "..", and hold no NUL. Every
// method is safe for concurrent use; a context that ends makes each return early with its cause.
type Store interface {
	// Create begins an object. The caller must Commit or Abort it.
	Create(ctx context.Context, key string, opts PutOptions) (Writer, error)
	// Open opens an object for reading. The caller must close it.
	Open(ctx context.Context, key string) (Reader, error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields every object below a prefix, which is a folder without its final slash or "" for all, in bytewise
	// order of keys. What a writer that was neither committed nor aborted left behind is not listed.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Folders yields the names of the folders directly below a prefix, sorted.
	Folders(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Sweep removes what unfinished writers left below a prefix, and returns the bytes freed. The caller knows that
	// they are dead.
	Sweep(ctx context.Context, prefix string) (freedBytes int64, err error)
	// Usage tells the room there is.
	Usage(ctx context.Context) (Usage, error)
	// String names the store for people, without secrets: "/backups", "s3://bucket/prefix".
	String() string
}
