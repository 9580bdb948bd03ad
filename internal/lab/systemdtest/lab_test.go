// Package systemdtest tests machines that run systemd, journald and udevd.
package systemdtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{Systemd: true})) }

func TestLabUdevMakesTheLinksOfVolumes(t *testing.T) {
	if value, ok := os.LookupEnv("DM_DISABLE_UDEV"); ok {
		t.Errorf("DM_DISABLE_UDEV is %q: device-mapper would not wait for udevd", value)
	}
	const uuid = "8a2ad60d-6b50-4b5a-a2b2-9bbdb9cf7a41"
	lab.VG(t, "vg0", 64<<20)
	volume := lab.LV(t, "vg0", "data", 32<<20)
	lab.Do(t, "udevadm", "settle") // lvcreate ends before udevd watches the device, which is how it sees what mkfs does
	lab.Do(t, "mkfs.ext4", "-q", "-U", uuid, volume)
	waitFor(t, "/dev/disk/by-uuid/"+uuid) // once udevd has seen that mkfs closed the device
	lab.Do(t, "udevadm", "settle")        // it makes links before it notes what it knows
	for _, link := range []string{"/dev/disk/by-uuid/" + uuid, "/dev/disk/by-id/dm-name-vg0-data"} {
		target, err := filepath.EvalSymlinks(link)
		if want, _ := filepath.EvalSymlinks(volume); err != nil || target != want {
			t.Errorf("%s leads to %q (%v), want %s", link, target, err, want)
		}
	}
	udev := lab.Do(t, "udevadm", "info", "--query=property", volume)
	if !strings.Contains(udev, "ID_FS_TYPE=ext4\n") || !strings.Contains(udev, "DM_LV_NAME=data\n") {
		t.Errorf("udev knows of the volume only\n%s", udev)
	}
}

func TestLabTimerStartsASandboxedService(t *testing.T) {
	unit(t, "labtest.service", `[Service]
Type=oneshot
ProtectSystem=strict
PrivateTmp=yes
StateDirectory=labtest
ExecStart=sh -c 'echo >/usr/labtest; ls -A /tmp >$STATE_DIRECTORY/tmp; echo "<4>careful"; echo done >$STATE_DIRECTORY/done'
`)
	unit(t, "labtest.timer", "[Timer]\nOnActiveSec=100ms\nAccuracySec=1ms\n")
	lab.Do(t, "systemctl", "daemon-reload")
	lab.Do(t, "systemctl", "start", "labtest.timer")
	t.Cleanup(func() { lab.Do(t, "sh", "-c", "systemctl stop labtest.timer labtest.service; rm -r /var/lib/labtest") })
	waitFor(t, "/var/lib/labtest/done")
	if _, err := os.Stat("/usr/labtest"); err == nil {
		t.Error("the service could write to /usr")
	}
	if tmp, err := os.ReadFile("/var/lib/labtest/tmp"); err != nil || len(tmp) != 0 {
		t.Errorf("the service saw %q in /tmp (%v), want nothing", tmp, err)
	}
	lab.Do(t, "journalctl", "--sync")
	out := lab.Do(t, "journalctl", "--unit", "labtest", "--output", "json", "--priority", "warning", "--lines", "1")
	var entry struct {
		Message  string `json:"MESSAGE"`
		Priority string `json:"PRIORITY"`
		Unit     string `json:"_SYSTEMD_UNIT"`
	}
	if err := json.Unmarshal([]byte(out), &entry); err != nil {
		t.Fatalf("%v in the journal's %s", err, out)
	}
	if entry.Message != "careful" || entry.Priority != "4" || entry.Unit != "labtest.service" {
		t.Errorf("the journal has %+v", entry)
	}
}

func TestLabSystemIsUp(t *testing.T) {
	if got := lab.Do(t, "systemctl", "is-system-running", "--wait"); got != "running\n" {
		t.Errorf("the system is %q", got)
	}
	if got := lab.Do(t, "systemd-run", "--wait", "--pipe", "--quiet", "echo", "hello"); got != "hello\n" {
		t.Errorf("systemd-run wrote %q", got)
	}
}

// unit installs a unit until the test ends.
func unit(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("/etc/systemd/system", name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for limit := time.Now().Add(lab.Patience(5 * time.Minute)); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s did not appear\n%s", path, lab.Do(t, "journalctl", "--no-pager", "--lines", "50"))
}
