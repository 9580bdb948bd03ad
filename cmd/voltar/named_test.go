package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/verify"
)

// A command is typed where whoever gave it reads what it says, and neither by cron nor by a unit of systemd.
func TestIsTyped(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var file bytes.Buffer
	dir := t.TempDir()
	owned := filepath.Join(dir, "tty")
	writeFile(t, owned, nil)
	cron, ssh := filepath.Join(dir, "cron"), filepath.Join(dir, "ssh")
	for proc, names := range map[string][2]string{cron: {"cron", "sh (sshd) 1"}, ssh: {"sshd-session", "sudo) S 1 ("}} {
		for i, name := range names { // sudo below sshd below init
			parent, pid := []int{1, 7}[i], []int{7, os.Getppid()}[i]
			if err := os.MkdirAll(filepath.Join(proc, strconv.Itoa(pid)), 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(proc, strconv.Itoa(pid), "stat"), fmt.Appendf(nil, "%d (%s) S %d 4 4 0", pid, name, parent))
		}
	}
	for name, tt := range map[string]struct {
		stdin          io.Reader
		stdout, stderr io.Writer
		invocation     string
		tty, proc      string
		want           bool
	}{
		"input":               {terminal, &file, &file, "", "", cron, true},
		"output":              {&file, terminal, &file, "", "", cron, true},
		"errors":              {&file, &file, terminal, "", "", cron, true},
		"all redirected":      {&file, &file, &file, "", owned, cron, true},
		"ssh, no terminal":    {&file, &file, &file, "", "", ssh, true},
		"cron":                {&file, &file, &file, "", "", cron, false},
		"no processes":        {&file, &file, &file, "", "", dir, false},
		"a unit's output":     {&file, terminal, terminal, "0123abcd", "", cron, false},
		"systemd-run --pty":   {terminal, terminal, terminal, "0123abcd", owned, cron, true},
		"a terminal's window": {&file, &file, &file, "0123abcd", owned, cron, true},
		"a unit's, no input":  {&file, &file, &file, "0123abcd", "", ssh, false},
	} {
		t.Setenv("INVOCATION_ID", tt.invocation)
		a := newApp(tt.stdin, tt.stdout, tt.stderr, time.Now)
		a.tty, a.proc = tt.tty, tt.proc
		if got := a.isTyped(); got != tt.want {
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
