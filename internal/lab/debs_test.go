package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBootLayersAddPackages(t *testing.T) {
	// The first set's package has files in /lib, which is a link on the host.
	layers, err := Debs(t.Context(), "openssh-server")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Debs(t.Context(), "openssh-server")
	if err != nil || !slices.Equal(again, layers) {
		t.Errorf("a second time %q, error %v, want %q", again, err, layers)
	}
	top := t.TempDir()
	write(t, filepath.Join(top, "on-top"), "the upper layer's\n")
	const script = `set -eu
mkdir /run/sshd && useradd --system sshd && ssh-keygen -q -A && echo 'Port 22' >/etc/ssh/sshd_config
/usr/sbin/sshd -t
test -L /lib && test -e /lib/systemd/system/ssh.service
cat /on-top
`
	var stdout bytes.Buffer
	m := Machine{Script: script, Stdout: &stdout, Layers: append([]string{top}, layers...)}
	status, err := Run(t.Context(), m)
	if err != nil || status != 0 || !strings.HasSuffix(stdout.String(), "the upper layer's\n") {
		t.Errorf("status %d, error %v, output %q", status, err, stdout.String())
	}
}

func TestMergeUsr(t *testing.T) {
	layer := t.TempDir()
	for _, path := range []string{"lib/a/one", "usr/lib/a/two", "bin/three", "etc/four"} {
		path = filepath.Join(layer, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, filepath.Base(path))
	}
	if err := mergeUsr(layer); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"usr/lib/a/one", "usr/lib/a/two", "usr/bin/three", "etc/four"} {
		if got := read(t, filepath.Join(layer, path)); got != filepath.Base(path) {
			t.Errorf("%s has %q", path, got)
		}
	}
	for _, path := range []string{"lib", "bin"} {
		if isFolder(filepath.Join(layer, path)) {
			t.Errorf("the folder %s is left", path)
		}
	}
}

func TestLockFileWaitsForItsTurnAndItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v while another holds it, want that of the context", err)
	}
	unlock()
	unlock, err = lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
