package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/verify"
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

// Nothing is advised that was just tried, and no name is printed that is lost.
func TestAdviceLeadsOn(t *testing.T) {
	c := verify.Checked{Backup: catalog.Backup{ID: catalog.ID{Ref: catalog.VolumeRef("vg", "v"), Time: time.Unix(0, 0)}}}
	c.Result.Repair, c.Result.Findings = true, []verify.Finding{{Message: "damaged"}}
	for _, tried := range []bool{false, true} {
		steps := nextSteps([]verify.Checked{c}, true, tried)
		if len(steps) != 1 || strings.Contains(steps[0], "--repair-index") == tried {
			t.Errorf("tried %t: %q", tried, steps)
		}
	}
	var out bytes.Buffer
	newApp(nil, &out, io.Discard, time.Now).printExtractedLine(extractedLine{Lost: []lostLine{{Reason: "cut"}}})
	if !strings.Contains(out.String(), "not restored: files whose names are lost: cut\n") {
		t.Error(out.String())
	}
}
