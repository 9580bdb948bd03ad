package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

// hangingFolder is a filesystem that never answers, as one of a server that is gone.
func hangingFolder(t *testing.T) string {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := unix.Mount("hanging", folder, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := device.Close(); err != nil { // which ends what hangs
			t.Error(err)
		}
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// A folder that a flag names is waited for as long as any destination.
func TestLabAFolderThatHangs(t *testing.T) {
	folder := hangingFolder(t)
	began := time.Now()
	code, _, errs := voltar(t, "list", "--config", newSite(t, "").config, "--from", folder+"/")
	if code != exitUsage || !strings.Contains(errs, "--from "+folder+"/: it does not answer for 30s") {
		t.Errorf("list ended with %d: %s", code, errs)
	}
	if took := time.Since(began); took > lab.Patience(2*time.Minute) {
		t.Errorf("it took %s", took)
	}
}
