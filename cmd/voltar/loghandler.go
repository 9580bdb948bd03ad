package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

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
	var line bytes.Buffer
	line.WriteString("voltar: ")
	if record.Level != slog.LevelInfo {
		line.WriteString(strings.ToLower(record.Level.String()) + ": ")
	}
	message, more, _ := strings.Cut(quoteControls(record.Message), "\n") // of a hint, which what follows is no part of
	line.WriteString(message)
	forEachAttr(h.attrs, record, func(a slog.Attr) {
		fmt.Fprintf(&line, " %s=%s", a.Key, quoteControls(a.Value.String()))
	})
	line.WriteByte('\n')
	if more != "" {
		line.WriteString(more + "\n")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.out.Write(line.Bytes())
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
	text, more, _ := strings.Cut(quoteControls(record.Message), "\n")
	forEachAttr(h.attrs, record, func(a slog.Attr) {
		fields["VOLTAR_"+strings.ToUpper(strings.Map(fieldRune, a.Key))] = a.Value.String()
		if a.Key != "run" {
			text += fmt.Sprintf(" %s=%s", a.Key, quoteControls(a.Value.String()))
		}
	})
	if more != "" {
		text += "\n" + more
	}
	return journal.Send(text, journalPriority(record.Level), fields)
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

func forEachAttr(held []slog.Attr, record slog.Record, do func(slog.Attr)) {
	for _, a := range held {
		do(a)
	}
	record.Attrs(func(a slog.Attr) bool { do(a); return true })
}

// quoteControls makes control characters visible: what a guest named itself must not steer a terminal.
func quoteControls(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
