package main

import (
	"bytes"
	"log/slog"
	"testing"
)

// What a line is about stands in its first line, so that no hint ends in it.
func TestLineHandler(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{"it failed", "voltar: error: it failed destination=disk\n"},
		{"it failed\nhint: mount it", "voltar: error: it failed destination=disk\nhint: mount it\n"},
		{"it \x1b[2Jfailed", "voltar: error: it ?[2Jfailed destination=disk\n"},
	} {
		var out bytes.Buffer
		slog.New(newLineHandler(&out, slog.LevelInfo)).Error(c.message, "destination", "disk")
		if out.String() != c.want {
			t.Errorf("%q is logged as %q, want %q", c.message, out.String(), c.want)
		}
	}
}
