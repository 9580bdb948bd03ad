// Package say holds what all messages for people have in common: hints travel beside an error and not in its text.
package say

import (
	"slices"
)

// hinted is an error together with what a person can do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// WithHint returns err with what a person can do about it: one or more plain sentences, without "hint:" before them. The text
// of the error stays as it is; Hints brings the hint out. WithHint of nil is nil, and so is no hint at all.
func WithHint(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &hinted{err, hint}
}

// Hints returns every hint that err carries, in the order in which its text names the causes, each once. It follows wrapped
// and joined errors.
func Hints(err error) []string {
	var hints []string
	collect(err, func(hint string) {
		if !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	})
	return hints
}

func collect(err error, add func(string)) {
	if h, ok := err.(*hinted); ok {
		add(h.hint)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		collect(e.Unwrap(), add)
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			collect(cause, add)
		}
	}
}
