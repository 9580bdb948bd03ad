package main

import (
	"context"
	"errors"

	"voltar/internal/agefile"
	"voltar/internal/backup"
	"voltar/internal/browse"
	"voltar/internal/exitcode"
	"voltar/internal/journal"
	"voltar/internal/restore"
)

// Exit codes, by short names of this package's own.
const (
	exitDone         = exitcode.Done
	exitNothing      = exitcode.Nothing
	exitUsage        = exitcode.Usage
	exitAttention    = exitcode.Attention
	exitLocked       = exitcode.Locked
	exitNotDelivered = exitcode.NotDelivered
	exitInterrupted  = exitcode.Interrupted
	exitUnread       = exitcode.Unread
)

// usageError is a wrong command line or configuration.
func usageError(err error) error { return exitcode.UsageError(err) }

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
	case exitcode.IsUsage(err), errors.Is(err, backup.ErrUsage), errors.Is(err, restore.ErrUsage),
		errors.Is(err, browse.ErrUsage), errors.Is(err, browse.ErrEncrypted), errors.Is(err, agefile.ErrNoKey):
		return exitUsage
	}
	return exitNothing
}
