package main

import (
	"bytes"
	"strings"
	"testing"

	"voltar/internal/say"
)

// countingWriter counts how often it is written to.
type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(p)
}

// A table of ten thousand lines costs a few writes, as each is a system call, and has all its lines.
func TestTableIsWrittenInPieces(t *testing.T) {
	const lines = 10_000
	var out countingWriter
	a := &app{stdout: say.NewWriter(&out)}
	table := a.newTable()
	for range lines {
		say.Printf(table, "%s\t%s\n", "nova-volumes/volume-00000001", "complete")
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != lines || out.writes > lines/100 {
		t.Errorf("%d lines in %d writes, want %d lines in at most %d writes", n, out.writes, lines, lines/100)
	}
}
