// Package exitcode knows the codes that the program ends with. Reports hold them, and systemd's units tell by them.
package exitcode

import "errors"

// The codes. Where several apply, the worst wins: 130, 4, 2, 1, 3, 5.
const (
	Done         = 0
	Nothing      = 1   // nothing succeeded or nothing was selected
	Usage        = 2   // usage or configuration
	Attention    = 3   // done, but something needs a person
	Locked       = 4   // another run holds the lock
	NotDelivered = 5   // backups good, report not delivered
	Interrupted  = 130 // interrupted and cleaned up
	Unread       = 141 // nobody read the output to its end: as of a program that SIGPIPE ends
)

// usageError is a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// UsageError returns err as one of the command line or the configuration, which IsUsage then knows.
func UsageError(err error) error { return usageError{err} }

// IsUsage tells whether an error is one of the command line or the configuration.
func IsUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}
