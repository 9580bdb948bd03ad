package logging

import (
	"bytes"
	"errors"
	stdlog "log"
	"log/slog"
	"slices"
	"testing"
	"time"

	"voltar/internal/say"
)

// What a line is about stands in its first line, so that no hint ends in it.
func TestLineHandler(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{"it failed\nand more", "voltar: error: it failed destination=disk\n| and more\n"},
		{"it failed", "voltar: error: it failed destination=disk\n"},
		{"it \x1b[2Jfailed", "voltar: error: it \\x1b[2Jfailed destination=disk\n"},
	} {
		var out bytes.Buffer
		slog.New(newLineHandler(&out, slog.LevelInfo)).Error(c.message, "destination", "disk")
		if out.String() != c.want {
			t.Errorf("%q is logged as %q, want %q", c.message, out.String(), c.want)
		}
	}
}

// An error of several lines has each in a line of its own, marked as what is not ours to say; the journal has one line.
func TestErrorsOfSeveralLines(t *testing.T) {
	joined := errors.Join(errors.New("nothing listens"), say.WithHint(errors.New("no \x1b[2Jroom"), "make room"))
	var out bytes.Buffer
	slog.New(newLineHandler(&out, slog.LevelInfo)).Error("it failed", "err", joined, "destination", "disk")
	if want := "voltar: error: it failed err=nothing listens destination=disk\n| no \\x1b[2Jroom\nhint: make room\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	record := slog.NewRecord(time.Time{}, slog.LevelError, "it failed", 0)
	record.AddAttrs(slog.Any("err", joined))
	message, attrs, below := words(nil, record, false)
	if want := (attr{"err", "nothing listens; no \\x1b[2Jroom"}); message != "it failed" || !slices.Equal(attrs, []attr{want}) || below != "\nhint: make room" {
		t.Errorf("for the journal: %q, %q, %q", message, attrs, below)
	}
}

func TestHintsOfLogLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newLineHandler(&out, slog.LevelInfo))
	refused := say.WithHint(errors.New("nothing listens"), "start the server")
	log.Warn("it failed", say.HintAttr("mount it"), "destination", "disk")
	log.Warn("it failed", "err", refused, "destination", "disk")
	log.Warn("it failed", say.HintAttr())
	say.Log(log.Error, errors.Join(refused, say.WithHint(errors.New("no room"), "make space")), "run", "r1")
	const want = "voltar: warn: it failed destination=disk\nhint: mount it\n" +
		"voltar: warn: it failed err=nothing listens destination=disk\nhint: start the server\n" +
		"voltar: warn: it failed\n" +
		"voltar: error: nothing listens run=r1\nhint: start the server\n" +
		"voltar: error: no room run=r1\nhint: make space\n"
	if out.String() != want {
		t.Errorf("the log is\n%swant\n%s", out.String(), want)
	}
}

// net/http logs of itself what a server sent that nobody asked for.
func TestLibrariesLogLikeTheProgram(t *testing.T) {
	for _, c := range []struct{ level, want string }{
		{"debug", "voltar: debug: from a server: \\x1b[2J\n"},
		{"info", ""},
	} {
		var out bytes.Buffer
		if _, err := New(c.level, say.NewWriter(&out), &out); err != nil {
			t.Fatal(err)
		}
		stdlog.Print("from a server: \x1b[2J")
		if out.String() != c.want {
			t.Errorf("at level %s it prints %q, want %q", c.level, out.String(), c.want)
		}
	}
}

func TestColours(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelError: "voltar: \x1b[31merror:\x1b[0m it \\x1b[2Jfailed\n", slog.LevelWarn: "voltar: \x1b[33mwarn:\x1b[0m it \\x1b[2Jfailed\n",
		slog.LevelInfo: "voltar: it \\x1b[2Jfailed\n",
	} {
		var out bytes.Buffer
		clean := say.NewWriter(&out)
		clean.UseColors(true)
		slog.New(newLineHandler(clean, slog.LevelInfo)).Log(t.Context(), level, "it \x1b[2Jfailed")
		if out.String() != want {
			t.Errorf("%s: %q, want %q", level, out.String(), want)
		}
	}
}
