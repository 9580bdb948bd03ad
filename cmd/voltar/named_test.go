package main

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"
)

// A command is typed where a person reads it, unless systemd started it.
func TestIsTyped(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var file bytes.Buffer
	for name, tt := range map[string]struct {
		stdin          io.Reader
		stdout, stderr io.Writer
		invocation     string
		want           bool
	}{
		"input":              {terminal, &file, &file, "", true},
		"output":             {&file, terminal, &file, "", true},
		"errors":             {&file, &file, terminal, "", true},
		"none":               {&file, &file, &file, "", false},
		"a unit's output":    {&file, terminal, terminal, "0123abcd", false},
		"systemd-run --pty":  {terminal, terminal, terminal, "0123abcd", true},
		"a unit's, no input": {&file, &file, &file, "0123abcd", false},
	} {
		t.Setenv("INVOCATION_ID", tt.invocation)
		if got := newApp(tt.stdin, tt.stdout, tt.stderr, time.Now).isTyped(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
