// Package say holds what all messages for people have in common: hints travel beside an error and not in its text, and are
// put under the failure that they belong to where a message is shown.
package say

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// HintLabel stands before a hint wherever one is shown to a person. No other package writes it.
const HintLabel = "hint: "

// hintKey is the attribute of a log record that holds hints.
const hintKey = "hint"

// hinter is an error that says what a person can do about it.
type hinter interface {
	error
	Hint() string // one or more plain sentences, or "" for nothing
}

// hinted is an error together with what a person can do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

func (h *hinted) Hint() string { return h.hint }

// WithHint returns err with what a person can do about it: one or more plain sentences, without "hint:" before them. The text
// of the error stays as it is; Hints brings the hint out. WithHint of nil is nil, and so is no hint at all. Error types may
// have a method Hint of their own instead.
func WithHint(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &hinted{err, hint}
}

// AsRoot adds to an error of what this user may not do that root may. It leaves others as they are, and all of root's.
func AsRoot(err error) error {
	if os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return WithHint(err, "run it as root")
}

// Hints returns every hint that err carries, in the order in which its text names the causes, each once. It follows wrapped
// and joined errors.
func Hints(err error) []string {
	var hints []string
	collect(err, func(hint string) { hints = addHint(hints, hint) })
	return hints
}

func addHint(hints []string, hint string) []string {
	hint = strings.Join(strings.Fields(hint), " ") // a hint is one line
	if hint == "" || slices.Contains(hints, hint) {
		return hints
	}
	return append(hints, hint)
}

func collect(err error, add func(string)) {
	if h, ok := err.(hinter); ok { //nolint:errorlint // the tree of errors is walked here
		add(h.Hint())
	}
	switch e := err.(type) { //nolint:errorlint // see above
	case interface{ Unwrap() error }:
		collect(e.Unwrap(), add)
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			collect(cause, add)
		}
	}
}

// Cause is one of the failures that are joined in an error.
type Cause struct {
	Message string
	Hints   []string // what a person can do about it, each on one line
}

// Causes takes apart what errors.Join has joined, so that each failure keeps the hints that are its own. An error that
// others are wrapped in is one cause, with all their hints. Causes of nil are none.
func Causes(err error) []Cause {
	if err == nil {
		return nil
	}
	var causes []Cause
	for _, joined := range Joined(err) {
		causes = append(causes, Causes(joined)...)
	}
	if len(causes) > 0 {
		return causes
	}
	if e, ok := err.(interface{ Unwrap() error }); ok { //nolint:errorlint // the tree of errors is walked here
		if inner := e.Unwrap(); inner != nil && inner.Error() == err.Error() {
			causes = Causes(inner)
		}
	}
	if len(causes) < 2 {
		return []Cause{{err.Error(), Hints(err)}}
	}
	if h, ok := err.(hinter); ok { //nolint:errorlint // see above
		last := &causes[len(causes)-1]
		last.Hints = addHint(last.Hints, h.Hint())
	}
	return causes
}

// Joined returns the errors that errors.Join has joined: the text has a line of each. It returns none of an error that wraps several
// in words of its own.
func Joined(err error) []error {
	e, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the tree of errors is walked here
	if !ok {
		return nil
	}
	var texts []string
	for _, joined := range e.Unwrap() {
		texts = append(texts, joined.Error())
	}
	if strings.Join(texts, "\n") != err.Error() {
		return nil
	}
	return e.Unwrap()
}

// Text is an error as a person reads it: each cause with its hints on lines of their own under it.
func Text(err error) string {
	var parts []string
	for _, cause := range Causes(err) {
		parts = append(parts, Lines(cause.Message, cause.Hints...))
	}
	return strings.Join(parts, "\n")
}

// Lines is a message with its hints on lines of their own under it. Further lines of the message are marked, so that no line
// of a command's output or a guest's name passes for one of ours.
func Lines(message string, hints ...string) string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(strings.TrimSpace(message), "\n", "\n| "))
	for _, hint := range hints {
		b.WriteString("\n" + HintLabel + hint)
	}
	return b.String()
}

// Indented writes a message with its hints as Lines has it, behind a beginning whose spaces all its lines have. All is cleaned; line
// ends pass.
func Indented(to io.Writer, begin, message string, hints ...string) {
	indent := begin[:len(begin)-len(strings.TrimLeft(begin, " "))]
	text := begin + strings.ReplaceAll(Lines(message, hints...), "\n", "\n"+indent)
	_, _ = io.WriteString(to, CleanLines(text)+"\n") // whoever cares for errors of the output sees those of the last line
}

// Log logs each cause of an error as a record of its own, with its hints as an attribute that HintsOf finds.
func Log(log func(msg string, args ...any), err error, args ...any) {
	for _, cause := range Causes(err) {
		log(cause.Message, append(slices.Clone(args), HintAttr(cause.Hints...))...)
	}
}

// HintAttr is the attribute of a log record that holds hints; without any it is empty, which handlers leave out.
func HintAttr(hints ...string) slog.Attr {
	if len(hints) == 0 || hints[0] == "" {
		return slog.Attr{}
	}
	return slog.String(hintKey, strings.Join(hints, "\n"))
}

// HintsOf returns the hints that an attribute of a log record holds: those of HintAttr, which holds nothing else, or those of
// an error.
func HintsOf(a slog.Attr) (hints []string, nothingElse bool) {
	if a.Equal(slog.Attr{}) {
		return nil, true
	}
	if a.Key == hintKey {
		return strings.Split(a.Value.String(), "\n"), true
	}
	err, _ := a.Value.Any().(error)
	return Hints(err), false
}
