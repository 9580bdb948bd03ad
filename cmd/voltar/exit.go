package main

import (
	"context"
	"errors"

	"voltar/internal/agefile"
	"voltar/internal/backup"
	"voltar/internal/browse"
	"voltar/internal/journal"
	"voltar/internal/restore"
)

// Exit codes. Where several apply, the worst wins: 130, 4, 2, 1, 3, 5.
const (
	exitDone         = 0
	exitNothing      = 1   // nothing succeeded or nothing was selected
	exitUsage        = 2   // usage or configuration
	exitAttention    = 3   // done, but something needs a person
	exitLocked       = 4   // another run holds the lock
	exitNotDelivered = 5   // backups good, report not delivered
	exitInterrupted  = 130 // interrupted and cleaned up
)

// usageError is a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// statusError ends with a code of its own; its message, if any, was printed.
type statusError struct{ code int }

func (e statusError) Error() string { return "see above" }

// Is makes every statusError match errReported.
func (e statusError) Is(target error) bool { return target == errReported }

// errReported matches errors that were printed already.
var errReported = errors.New("reported")

// exitWith returns the error that ends the program with a code, or nil for 0.
func exitWith(code int) error {
	if code == exitDone {
		return nil
	}
	return statusError{code}
}

// exitCode maps what the program came to, in the one place that does.
func exitCode(ctx context.Context, err error) int {
	var status statusError
	var usage usageError
	var held *journal.HeldError
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &held):
		return exitLocked
	case errors.As(err, &usage), errors.Is(err, backup.ErrUsage), errors.Is(err, restore.ErrUsage),
		errors.Is(err, browse.ErrUsage), errors.Is(err, browse.ErrEncrypted), errors.Is(err, agefile.ErrNoKey):
		return exitUsage
	}
	return exitNothing
}
