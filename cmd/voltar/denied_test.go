package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Who may not read the folder of a host is told so, and not that there is none: with its name and without.
func TestFoldersThatMayNotBeRead(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "voltar-denied-") // which lets everybody through, as a folder of TMPDIR may not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, "backups", "volume-host"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "voltar.toml"), []byte("host = \"elsewhere\"\nstate_dir = \"/nowhere/state\"\nrun_dir = \"/nowhere/run\"\n"))
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "backups"), 0o755),
		os.Chmod(filepath.Join(dir, "voltar.toml"), 0o644), os.Chmod(filepath.Join(dir, "backups", "volume-host"), 0)); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"list", "list --host volume-host", "list --all-hosts", "ls tree", "verify --all", "verify tree", "cat tree /f", "report --fleet",
		"restore tree --dry-run",
	} {
		cmd := exec.Command("/proc/self/exe", append(strings.Fields(args), "--config", filepath.Join(dir, "voltar.toml"), "--from", dir+"/backups/")...)
		var out bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asProgram+"=1"), &out, &out
		if os.Geteuid() == 0 { // who may read everything
			const other = 65534
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		}
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitNothing && exit.ExitCode() != exitAttention ||
			!strings.Contains(out.String(), "permission denied") || !strings.Contains(out.String(), "run it as root") ||
			strings.Contains(out.String(), "there is no") {
			t.Errorf("%s: %v: %s", args, err, &out)
		}
	}
}
