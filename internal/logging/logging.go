// Package logging writes the log: plain lines for people, structured records for systemd's journal.
package logging

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"

	"voltar/internal/say"
)

// New returns the log at a level: "debug", "info", "warn" or "error". It writes plain lines to clean, which cleans what goes to
// raw, or structured records to the journal when raw is the standard error that leads there. What libraries log by themselves,
// as net/http does of an answer that nobody asked for, goes the same way, for who looks for faults: otherwise it would reach
// the terminal as a server wrote it.
func New(level string, clean, raw io.Writer) (*slog.Logger, error) {
	handler, err := newHandler(level, clean, raw)
	if err != nil {
		return nil, err
	}
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(handler, slog.LevelDebug).Writer())
	return slog.New(handler), nil
}

func newHandler(name string, clean, raw io.Writer) (slog.Handler, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", name)
	}
	if file, ok := raw.(*os.File); ok {
		if toJournal, err := journal.StderrIsJournalStream(); err == nil && toJournal && file == os.Stderr {
			return newJournalHandler(level), nil
		}
	}
	return newLineHandler(clean, level), nil
}

// lineHandler writes one plain line for each record: "voltar: warning: message key=value".
type lineHandler struct {
	mu    *sync.Mutex
	out   io.Writer
	level slog.Level
	attrs []slog.Attr
}

func newLineHandler(out io.Writer, level slog.Level) *lineHandler {
	return &lineHandler{mu: &sync.Mutex{}, out: out, level: level}
}

func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *lineHandler) Handle(_ context.Context, record slog.Record) error {
	message, attrs, below := words(h.attrs, record, true)
	line := message
	for _, a := range attrs {
		line += " " + a.key + "=" + a.value
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	line += below + "\n"
	var err error
	switch word := strings.ToLower(record.Level.String()) + ":"; {
	case record.Level >= slog.LevelError:
		_, err = say.Painted(h.out, "voltar: ", say.Red, word, " "+line)
	case record.Level >= slog.LevelWarn:
		_, err = say.Painted(h.out, "voltar: ", say.Yellow, word, " "+line)
	case record.Level == slog.LevelInfo:
		_, err = io.WriteString(h.out, "voltar: "+line)
	default:
		_, err = io.WriteString(h.out, "voltar: "+word+" "+line)
	}
	return err
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineHandler{h.mu, h.out, h.level, append(append([]slog.Attr{}, h.attrs...), attrs...)}
}

func (h *lineHandler) WithGroup(string) slog.Handler { return h }

// journalHandler sends records to systemd's journal: run, volume and the like become fields VOLTAR_RUN, VOLTAR_VOLUME.
type journalHandler struct {
	level slog.Level
	attrs []slog.Attr
}

func newJournalHandler(level slog.Level) *journalHandler { return &journalHandler{level: level} }

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *journalHandler) Handle(_ context.Context, record slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "voltar"}
	text, attrs, below := words(h.attrs, record, false)
	for _, a := range attrs {
		fields["VOLTAR_"+strings.ToUpper(strings.Map(fieldRune, a.key))] = a.value
		if a.key != "run" {
			text += " " + a.key + "=" + a.value
		}
	}
	return journal.Send(text+below, journalPriority(record.Level), fields)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.level, append(append([]slog.Attr{}, h.attrs...), attrs...)}
}

func (h *journalHandler) WithGroup(string) slog.Handler { return h }

func journalPriority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// fieldRune keeps the characters that names of journal fields may hold.
func fieldRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

// attr is an attribute as it is shown, in one line.
type attr struct{ key, value string }

// words takes a record apart: the first line of its message, the attributes that belong behind that, and what comes below:
// the further lines of the message and the hints of its attributes, which what a line is about is no part of. The further lines of
// attributes, such as errors that were joined, come below as well, or stand behind the first in one line.
func words(held []slog.Attr, record slog.Record, inLines bool) (message string, attrs []attr, below string) {
	var hints, more []string
	add := func(a slog.Attr) bool {
		of, nothingElse := say.HintsOf(a)
		hints = append(hints, of...)
		if nothingElse {
			return true
		}
		lines := strings.Split(strings.TrimSpace(a.Value.String()), "\n")
		if inLines {
			more = append(more, lines[1:]...)
			lines = lines[:1]
		}
		attrs = append(attrs, attr{a.Key, say.Clean(strings.Join(lines, "; "))})
		return true
	}
	for _, a := range held {
		add(a)
	}
	record.Attrs(add)
	text := strings.Join(append([]string{strings.TrimSpace(record.Message)}, more...), "\n")
	message, below, found := strings.Cut(say.CleanLines(say.Lines(text, hints...)), "\n")
	if found {
		below = "\n" + below
	}
	return message, attrs, below
}
