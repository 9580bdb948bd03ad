//go:build boot

// Package boottest boots guests that were backed up and restored. A guest is a real Debian installation on a logical
// volume, and what boots it is a real firmware in an emulated PC: `make test-boot` installs what that needs.
package boottest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/lab"
)

const (
	// cacheFolder keeps the guests' root file system from one run to the next.
	cacheFolder = "../../../.cache/boot"
	// diskBytes is the size of the volume group's disk, a sparse file.
	diskBytes = 8 << 30
	// installTimeLimit is for fetching and unpacking a Debian.
	installTimeLimit = 30 * time.Minute
	// bootTimeLimit is for a guest to reach its login prompt: an emulated CPU is slow.
	bootTimeLimit = 20 * time.Minute
	// firmware for UEFI, of the package ovmf.
	firmware = "/usr/share/ovmf/OVMF.fd"
)

// packages make the smallest Debian that boots and checks its file systems.
var packages = []string{"linux-image-cloud-amd64", "systemd-sysv", "udev", "e2fsprogs", "dosfstools"}

func TestBootRestoredGuests(t *testing.T) {
	share := t.TempDir()
	restoreGuests(t, share)
	for _, guest := range []struct {
		name, image, host string
		firmware          []string
	}{
		{"MBR from a volume", "mbr.img", "guest-mbr", nil},
		{"GPT from an image file", "gpt.img", "guest-gpt", []string{"-bios", firmware}},
		{"GPT brought back by hand", "by-hand.img", "guest-gpt", []string{"-bios", firmware}},
	} {
		t.Run(guest.name, func(t *testing.T) {
			bootsTo(t, guest.host+" login:", append(guest.firmware,
				"-drive", "if=virtio,format=raw,snapshot=on,file="+filepath.Join(share, guest.image)))
		})
	}
}

// restoreGuests makes the guests in a lab machine and has voltar back them up and restore them to images in share.
func restoreGuests(t *testing.T, share string) {
	t.Helper()
	program, disk := filepath.Join(t.TempDir(), "voltar"), filepath.Join(t.TempDir(), "disk.img")
	command(t, hostcmd.Cmd{Name: goProgram(t), Args: []string{"build", "-trimpath", "-buildvcs=false", "-o", program, "../../../cmd/voltar"},
		Env: []string{"CGO_ENABLED=0"}, Timeout: installTimeLimit})
	if err := lab.NewDisk(disk, diskBytes); err != nil {
		t.Fatal(err)
	}
	layers, err := lab.Debs(t.Context(), "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/lab.sh")
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("VOLTAR='/host%s'\nROOT='/host%s'\n", program, rootFilesystem(t))
	status, err := lab.Run(t.Context(), lab.Machine{
		Script: settings + string(script), Stdout: t.Output(), Disk: disk, Share: share, Layers: layers,
	})
	if err != nil || status != 0 {
		t.Fatalf("the guests were not made, backed up and restored: status %d, %v", status, err)
	}
}

// rootFilesystem returns the tar file of a Debian like the host's, from the mirror that the host itself uses.
func rootFilesystem(t *testing.T) string {
	t.Helper()
	suite, source := aptSource(t)
	args := []string{"--variant=minbase", "--format=tar", "--include=" + strings.Join(packages, ","), suite}
	sum := sha256.Sum256([]byte(strings.Join(args, "\n")))
	path, err := filepath.Abs(filepath.Join(cacheFolder, fmt.Sprintf("%s-%x.tar", suite, sum[:6])))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	unfinished := path + ".new"
	command(t, hostcmd.Cmd{Name: "mmdebstrap", Args: append(args, unfinished, source), Timeout: installTimeLimit})
	if err := os.Rename(unfinished, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// aptSource returns the release of Debian that the host is, and the line of a sources.list that says where it gets it.
func aptSource(t *testing.T) (suite, line string) {
	t.Helper()
	out := command(t, hostcmd.Cmd{Name: "apt-get", Args: []string{"indextargets",
		"--format", "$(CODENAME) $(RELEASE) $(REPO_URI)", "Identifier: Packages", "Origin: Debian", "Component: main"}})
	for target := range strings.Lines(out) {
		fields := strings.Fields(target)
		if len(fields) == 3 && fields[0] == fields[1] { // not its updates or security
			return fields[0], fmt.Sprintf("deb %s %s main", fields[2], fields[1])
		}
	}
	t.Fatalf("apt has no release of Debian; it knows\n%s\n`apt-get update` may help", out)
	return "", ""
}

// bootsTo boots an emulated PC from a disk and waits for a text on its serial console.
func bootsTo(t *testing.T, text string, args []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeLimit)
	defer cancel()
	serial := &console{until: []byte(text), seen: cancel}
	started := time.Now()
	_, err := hostcmd.New(hostcmd.Options{}).Run(ctx, hostcmd.Cmd{
		Name: "qemu-system-x86_64",
		Args: append([]string{"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768", "-nographic",
			"-monitor", "none", "-nic", "none", "-no-reboot"}, args...),
		Stdout: serial, Stderr: serial, Timeout: -1,
	})
	if !serial.found() {
		t.Fatalf("no %q (%v); the serial console was\n%s", text, err, serial.text.String())
	}
	t.Logf("%q after %s", text, time.Since(started).Round(time.Second))
}

// console keeps what a machine writes, and calls seen at a text.
type console struct {
	until []byte
	seen  func()
	mu    sync.Mutex
	text  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text.Write(p)
	c.mu.Unlock()
	if c.found() {
		c.seen()
	}
	return len(p), nil
}

func (c *console) found() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.text.Bytes(), c.until)
}

// goProgram is the path of the go command, which is on no host's usual search path.
func goProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// command runs a command on the host and returns what it wrote to standard output.
func command(t *testing.T, cmd hostcmd.Cmd) string {
	t.Helper()
	result, err := hostcmd.New(hostcmd.Options{}).Run(t.Context(), cmd)
	if err != nil {
		var failed *hostcmd.Error
		if errors.As(err, &failed) {
			t.Fatalf("%v\n%s\n`make test-boot` installs what is missing", err, failed.Stderr)
		}
		t.Fatalf("%v: `make test-boot` installs what is missing", err)
	}
	return string(result.Stdout)
}
