package main

import (
	"bytes"
	_ "embed"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/internal/store/s3/s3test"
)

//go:embed demo.sh
var script string

// What `make demo` shows is what happens, to the last line, and the backups are there for the host to look at.
func TestBootDemo(t *testing.T) {
	dir := t.TempDir()
	for name, pkg := range map[string]string{"voltar": "voltar/cmd/voltar", "demo-mail": "voltar/internal/lab/demo"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o",
			filepath.Join(dir, name), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	share, disk := filepath.Join(dir, "demo"), filepath.Join(dir, "disk.img")
	if err := os.Mkdir(share, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := lab.NewDisk(disk, 3<<30); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	status, err := lab.Run(t.Context(), lab.Machine{
		Script: script,
		Args:   []string{"/host" + dir + "/voltar", "/host" + s3test.Binary(t, s3test.Versitygw), "/host" + dir + "/demo-mail"},
		Stdout: &out, MemoryBytes: 3 << 30, Disk: disk, Share: share,
	})
	if err != nil || status != 0 {
		t.Fatalf("status %d, error %v, after\n%s", status, err, out.String())
	}
	for _, pattern := range []string{"mail.txt", "mail.eml", "backups/volume-host/nova-volumes/volume-00000002/*/manifest.json"} {
		if found, err := filepath.Glob(filepath.Join(share, pattern)); err != nil || len(found) != 1 {
			t.Errorf("%s: %v, %v", pattern, found, err)
		}
	}
	checkMail(t, filepath.Join(share, "mail.eml"))
}

// checkMail checks that a file is one message, of the second night.
func checkMail(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	message, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := message.Header.Date(); err != nil || sent.Day() != 24 || strings.Count("\n"+string(text), "\nSubject: ") != 1 {
		t.Errorf("%s: a message of %v, %v, with %d subjects", path, sent, err, strings.Count("\n"+string(text), "\nSubject: "))
	}
}
