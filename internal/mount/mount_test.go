package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

// holdArg makes the test binary a process that holds a mount until it is killed.
const holdArg = "hold-a-mount"

func TestMain(m *testing.M) {
	if status, handled := RunChild(os.Args); handled {
		os.Exit(status)
	}
	if len(os.Args) == 4 && os.Args[1] == holdArg {
		hold(os.Args[2], os.Args[3])
	}
	os.Exit(lab.Main(m, lab.Options{}))
}

// hold mounts a device, says so and waits for its end.
func hold(device, fsType string) {
	if _, err := New(Options{}).Mount(context.Background(), device, fsType); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("mounted")
	select {}
}

func TestMountRefusesTypes(t *testing.T) {
	for _, fsType := range []string{"", "ntfs", "exfat", "f2fs", "jfs", "fuse", "reiserfs", "squashfs", "nfs", "proc", "ext4 ", "LVM2_member", "swap"} {
		if Allowed(fsType) {
			t.Errorf("%q is allowed", fsType)
		}
		if _, err := New(Options{}).Mount(context.Background(), "/dev/null", fsType); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%q: %v, want ErrNotAllowed", fsType, err)
		}
		if r, fds := attempt(readOnly, fsType, "/dev/null"); r.failure() == nil || len(fds) != 0 {
			t.Errorf("the child mounts %q", fsType)
		}
	}
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "vfat", "btrfs"} {
		if !Allowed(fsType) {
			t.Errorf("%s is not allowed", fsType)
		}
	}
}

func TestMountWantsABlockDevice(t *testing.T) {
	for device, want := range map[string]string{
		"/dev/null": "no block device", filepath.Join(t.TempDir(), "missing"): "no such file",
	} {
		if _, err := New(Options{}).Mount(context.Background(), device, "ext4"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", device, err, want)
		}
	}
}

// program writes a program that stands in for the child.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "child")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestChildThatDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"ends":     {"exit 7", "exit status 7"},
		"succeeds": {"exit 0", "RunChild"},
		"babbles":  {"echo no >&3", "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Options{Exe: program(t, c.script)}).runChild(t.Context(), readOnly, "/dev/null", "ext4")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		_, err := New(Options{Exe: program(t, "exec sleep 1000"), Timeout: 50 * time.Millisecond}).runChild(t.Context(), readOnly, "/dev/x", "xfs")
		if !errors.Is(err, ErrHung) {
			t.Errorf("error %v, want ErrHung", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("stopped by a person")
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		_, err := New(Options{Exe: program(t, "exec sleep 1000")}).runChild(ctx, readOnly, "/dev/x", "xfs")
		if !errors.Is(err, cause) {
			t.Errorf("error %v, want the cause of cancellation", err)
		}
	})
}

func TestRunChildLeavesOthersAlone(t *testing.T) {
	for _, args := range [][]string{nil, {"voltar"}, {"voltar", "run", childArg}} {
		if _, handled := RunChild(args); handled {
			t.Errorf("%q was taken for a child", args)
		}
	}
	if status, handled := RunChild([]string{"voltar", childArg}); !handled || status != 2 {
		t.Errorf("without arguments: status %d, handled %v", status, handled)
	}
}

func TestReplyKeepsNumberAndMessages(t *testing.T) {
	err := reply{Step: "read the filesystem", Errno: unix.EUCLEAN, Messages: []string{"e bad geometry"}}.failure()
	if !errors.Is(err, unix.EUCLEAN) || !strings.Contains(err.Error(), "e bad geometry") {
		t.Errorf("error %v", err)
	}
	err = reply{Step: "look", Err: "two devices"}.failure()
	if err == nil || !strings.Contains(err.Error(), "two devices") {
		t.Errorf("error %v", err)
	}
}

func TestLogText(t *testing.T) {
	for record, want := range map[string]string{
		"3,12,99,-;EXT4-fs (dm-3): bad geometry\n SUBSYSTEM=x\n":   "EXT4-fs (dm-3): bad geometry",
		"3,12,99,-;XFS (dm-31): Invalid superblock\n":              "",
		"3,12,99,-;BTRFS error (device dm-3): open_ctree failed\n": "BTRFS error (device dm-3): open_ctree failed",
		"3,12,99,-;Buffer I/O error on dm-3, async page read":      "",
		"no record": "",
	} {
		if got, ok := logText(record, "dm-3"); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", record, got, ok, want)
		}
	}
}
