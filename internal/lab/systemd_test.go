package lab

import (
	"bytes"
	"strings"
	"testing"
)

func TestBootSystemd(t *testing.T) {
	const script = `cat /proc/1/comm; systemctl is-active systemd-udevd systemd-journald
systemctl --failed --no-legend --plain
truncate -s 64M /run/disk; losetup /dev/loop0 /run/disk; mkfs.ext4 -q -L seen /dev/loop0; udevadm trigger --settle /dev/loop0
readlink /dev/disk/by-label/seen
exit 3
`
	var stdout bytes.Buffer
	status, err := Run(t.Context(), Machine{Script: script, Systemd: true, Stdout: &stdout})
	const want = "systemd\nactive\nactive\n../../loop0\n"
	if got := strings.ReplaceAll(stdout.String(), "\r", ""); err != nil || status != 3 || got != want {
		t.Errorf("status %d, error %v, output %q, want 3, none and %q", status, err, got, want)
	}
}
