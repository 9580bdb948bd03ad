package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTempFoldersOfDeadProcessesGo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	later := time.Now().Add(2 * tempGrace)
	living, err := newTempFolder()
	if err != nil {
		t.Fatal(err)
	}
	abandoned := filepath.Join(dir, tempPrefix+"dead")
	others := filepath.Join(dir, "other")
	for _, path := range []string{filepath.Join(abandoned, "out"), others} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAbandoned(dir, time.Now()); err != nil || !isFolder(abandoned) {
		t.Errorf("a folder as young as one not locked yet is gone (%v)", err)
	}
	if err := removeAbandoned(dir, later); err != nil {
		t.Fatal(err)
	}
	if isFolder(abandoned) || !isFolder(living.path) || !isFolder(others) {
		t.Errorf("left: abandoned %t, living %t, other %t, want only the abandoned gone",
			isFolder(abandoned), isFolder(living.path), isFolder(others))
	}
	if err := living.remove(); err != nil || isFolder(living.path) {
		t.Errorf("the folder was not removed: %v", err)
	}
}
