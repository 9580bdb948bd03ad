// Package packaging_test installs the Debian package on a machine with systemd, udevd and a real mail server, and uses it
// as an administrator would.
package packaging_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"mime"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/lab"
)

const (
	firstVersion  = "1.0.0"
	secondVersion = "1.0.1"
)

// Mailboxes of root and of everybody else.
const root, operations = "/var/lib/mailboxes/root", "/var/lib/mailboxes/operations"

func TestMain(m *testing.M) {
	if lab.Inside() {
		os.Exit(lab.Main(m, lab.Options{}))
	}
	os.Exit(testOnHost(m))
}

func testOnHost(m *testing.M) int {
	share, err := os.MkdirTemp("", "voltar-packaging-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(share) }() // a temporary folder
	return lab.Main(m, lab.Options{
		MemoryBytes: 3 << 30, Share: share, Systemd: true,
		Layers: func(ctx context.Context) ([]string, error) {
			if err := prepare(ctx, share); err != nil {
				return nil, err
			}
			return lab.Debs(ctx, "exim4-daemon-light")
		},
	})
}

// prepare puts two versions of the package, and a certificate for the mail server, into a folder.
func prepare(ctx context.Context, folder string) error {
	// The second version differs by its number alone, and is not compressed, to be there sooner.
	const script = `set -eu
packaging/build ` + firstVersion + ` "$1" "$(go env GOARCH)" deb
dpkg-deb -R "$1"/voltar_` + firstVersion + `_*.deb "$1/unpacked"
sed -i 's/^Version: .*/Version: ` + secondVersion + `/' "$1/unpacked/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$1/unpacked" "$1/voltar_` + secondVersion + `_test.deb"
rm -rf "$1/unpacked"`
	cmd := exec.CommandContext(ctx, "bash", "-c", script, "bash", folder)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the package: %w\n%s", err, out)
	}
	return writeCertificate(folder)
}

// writeCertificate makes key.pem and cert.pem for localhost.
func writeCertificate(folder string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644),
		os.WriteFile(filepath.Join(folder, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o644),
	)
}

const eximConfig = `primary_hostname = mail.example
tls_advertise_hosts = *
tls_certificate = /etc/exim4/cert.pem
tls_privatekey = /etc/exim4/key.pem
daemon_smtp_ports = 2525
acl_smtp_mail = check_tls
acl_smtp_rcpt = accept
begin acl
check_tls:
  deny !encrypted = *
       message = STARTTLS is wanted
  accept
begin routers
roots:
  driver = accept
  local_parts = root
  transport = root_mailbox
all:
  driver = accept
  transport = operations_mailbox
begin transports
root_mailbox:
  driver = appendfile
  file = ` + root + `
  user = Debian-exim
operations_mailbox:
  driver = appendfile
  file = ` + operations + `
  user = Debian-exim
`

const configuration = `host = "volume-host"
parallel = 1
[select]
include = ["guest-*"]
[mail]
to = ["operations@example.org"]
from = "voltar@example.org"
server = "localhost"
port = 2525
ca_file = "/etc/exim4/cert.pem"
[metrics]
textfile = "/var/lib/metrics/voltar.prom"
[[destination]]
name = "disk"
type = "disk"
path = "/srv/backups"
require_mount = "none"
`

func TestLabServiceOnAHost(t *testing.T) {
	startExim(t)
	makeVolumes(t)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"install", install},
		{"units are sound", unitsAreSound},
		{"the timer's run is mailed and moves no link", timerRuns},
		{"a drill brings back what only root may have", drillRuns},
		{"the journal has fields", journalHasFields},
		{"a killed run is cleaned up and reported", killedRun},
		{"a stopped run cleans up and reports itself", stoppedRun},
		{"a broken configuration is reported to root", brokenConfiguration},
		{"a service that dies while something is frozen", serviceDiesWhileFrozen},
		{"an upgrade keeps the configuration", upgrade},
		{"a purge keeps backups", purge},
	} {
		if !t.Run(step.name, step.do) {
			t.Fatal(lab.Do(t, "journalctl", "--no-pager", "-n", "60"))
		}
	}
}

// startExim starts a mail server that keeps what comes over TLS. Set-user-id bits have no effect in the lab, so it
// delivers as its own user.
func startExim(t *testing.T) {
	appendTo(t, "/etc/passwd", "Debian-exim:x:997:997::/var/spool/exim4:/usr/sbin/nologin\n")
	appendTo(t, "/etc/group", "Debian-exim:x:997:\n")
	write(t, "/etc/exim4/exim4.conf", eximConfig)
	write(t, "/etc/exim4/cert.pem", read(t, "/out/cert.pem"))
	write(t, "/etc/exim4/key.pem", read(t, "/out/key.pem"))
	lab.Do(t, "sh", "-c", `chown root:root /etc/exim4/*; chown root:Debian-exim /etc/exim4/key.pem; chmod 640 /etc/exim4/key.pem
cd /var && mkdir -p spool/exim4 log/exim4 lib/mailboxes && chown Debian-exim:Debian-exim spool/exim4 log/exim4 lib/mailboxes`)
	lab.Do(t, "systemd-run", "--unit=mta", "/usr/sbin/exim4", "-bdf")
	t.Cleanup(func() { lab.Do(t, "systemctl", "stop", "mta.service") })
}

// makeVolumes makes two guests, one of them partitioned, and a volume of the host's own that has a guest's label.
func makeVolumes(t *testing.T) {
	lab.VG(t, "vg", 700<<20)
	whole := lab.LV(t, "vg", "guest-whole", 32<<20)
	lab.Do(t, "mkfs.ext4", "-q", "-L", "whole", whole)
	lab.Do(t, "sh", "-c", `mount "$1" /mnt && cp /bin/true /mnt/su && chmod 4755 /mnt/su && mknod /mnt/disk b 8 0 && chattr +i /mnt/su && umount /mnt`, "sh", whole)
	disk := lab.LV(t, "vg", "guest-disk", 128<<20)
	lab.Do(t, "sh", "-c", `echo 'start=2048, type=83' | sfdisk --quiet --no-reread --no-tell-kernel "$1"
mkfs.ext4 -q -L shared -E offset=1048576 "$1" 126M && loop=$(losetup --find --show --offset 1048576 "$1") && mount "$loop" /mnt &&
head -c 24M /dev/urandom >/mnt/data && umount /mnt && losetup --detach "$loop"`, "sh", disk)
	own := lab.LV(t, "vg", "own", 32<<20)
	lab.Do(t, "mkfs.ext4", "-q", "-L", "shared", own)
	lab.Do(t, "udevadm", "trigger", "--settle", "--subsystem-match=block")
	if got := strings.TrimSpace(lab.Do(t, "blkid", "-L", "shared")); !sameDevice(t, got, own) {
		t.Fatalf("the label is %s's before the run already", got)
	}
}

func install(t *testing.T) {
	lab.Do(t, "sh", "-c", "dpkg --no-triggers -i /out/voltar_"+firstVersion+"_*.deb")
	for unit, want := range map[string]string{
		"voltar.timer": "disabled", "voltar-verify.timer": "disabled", "voltar-drill.timer": "disabled", "voltar-cleanup.service": "enabled",
	} {
		out, err := exec.Command("systemctl", "is-enabled", unit).Output() // its status tells the same
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("%s is %q (%v), want %q", unit, got, err, want)
		}
	}
	if got := lab.Do(t, "stat", "-c", "%a %U", "/etc/voltar/voltar.toml", "/var/lib/voltar", "/run/voltar"); got != "600 root\n700 root\n700 root\n" {
		t.Errorf("modes and owners are\n%s", got)
	}
	write(t, "/etc/voltar/voltar.toml", configuration)
	if err := os.MkdirAll("/var/lib/metrics", 0o755); err != nil {
		t.Fatal(err)
	}
}

func unitsAreSound(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", "voltar.service", "voltar.timer", "voltar-cleanup.service",
		"voltar-verify.service", "voltar-verify.timer", "voltar-drill.service", "voltar-drill.timer", "voltar-failure@voltar.service.service").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("udevadm", "test", "/sys/block/dm-0").CombinedOutput(); err != nil || bytes.Contains(out, []byte("57-voltar.rules:")) {
		t.Errorf("udevd finds fault with the rules: %v\n%s", err, out)
	}
	// The page on the service says how exposed each is; none may be more.
	page := read(t, "../docs/service.md")
	for _, unit := range []string{"voltar.service", "voltar-cleanup.service", "voltar-failure@.service", "voltar-verify.service", "voltar-drill.service"} {
		documented := regexp.MustCompile("\\| `" + regexp.QuoteMeta(unit) + "` \\| ([0-9.]+) \\|").FindStringSubmatch(page)
		out, _ := exec.Command("systemd-analyze", "security", "--no-pager", unit).Output() // the status is the verdict

		measured := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if documented == nil || measured == nil {
			t.Errorf("%s: documented %q, measured %q", unit, documented, measured)
			continue
		}
		if number(t, string(measured[1])) > number(t, documented[1]) {
			t.Errorf("%s has an exposure of %s, documented is %s", unit, measured[1], documented[1])
		}
	}
}

// drillRuns tries the volumes as the timer's service does, which may do what a restore needs, and moves no link.
func drillRuns(t *testing.T) {
	before, seen := links(t), lvmSees(t)
	ended := make(chan error, 1)
	go func() {
		var err error
		for range 3 {
			err = errors.Join(err, exec.CommandContext(t.Context(), "systemctl", "start", "voltar-drill.service").Run())
		}
		ended <- err
	}()
	looks := 0
	for working := true; working; looks++ {
		select {
		case err := <-ended:
			if working = false; err != nil {
				t.Errorf("voltar-drill.service: %v", err)
			}
		case <-time.After(50 * time.Millisecond):
		}
		linksAreThose(t, before)
		if now := lvmSees(t); now != seen {
			t.Errorf("LVM and blkid see, during a drill:\n%s\nand before:\n%s", now, seen)
		}
	}
	if looks < 5 {
		t.Errorf("looked %d times", looks)
	}
	out := lab.Do(t, "voltar", "report", "--list", "--json")
	if n := strings.Count(out, `"command": "drill"`); n != 3 {
		t.Errorf("%d drills in the history\n%s", n, out)
	}
	linksAreThose(t, before)
}

// lvmSees is what LVM and blkid tell of volumes and filesystems.
func lvmSees(t *testing.T) string {
	t.Helper()
	return lab.Do(t, "sh", "-c", "lvs --all --noheadings -o vg_name,lv_name,lv_uuid; pvs --noheadings -o name,uuid; blkid -c /dev/null | sort")
}

func timerRuns(t *testing.T) {
	write(t, "/etc/systemd/system/voltar.timer.d/test.conf", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/3\nRandomizedDelaySec=0\nAccuracySec=1s\n")
	before := links(t)
	lab.Do(t, "systemctl", "daemon-reload")
	lab.Do(t, "systemctl", "enable", "--now", "voltar.timer")
	waitForMap(t)
	stopSignal(t)
	lab.Do(t, "systemctl", "disable", "--now", "voltar.timer")
	if len(ownMaps(t)) == 0 {
		t.Error("the run has gone on: there is no map to see")
	}
	linksAreThose(t, before)
	pid := strings.TrimSpace(lab.Do(t, "systemctl", "show", "--value", "--property=MainPID", "voltar.service"))
	if ours, hosts := link(t, "/proc/"+pid+"/ns/mnt"), link(t, "/proc/1/ns/mnt"); ours != hosts {
		t.Error("the service has a mount namespace of its own: hooks could not mount and unmount for the host")
	}
	continueSignal(t)
	// The second guest has no partitions: its snapshot itself is a filesystem.
	whole := func() bool {
		return slices.ContainsFunc(devices(t, "dm/name", "vg-guest--whole--voltar--"), func(name string) bool {
			return strings.HasSuffix(name, "-cow\n") // there once the snapshot is whole
		})
	}
	waitFor(t, "the snapshot of the second guest", whole)
	stopSignal(t)
	if !whole() {
		t.Error("the run has gone on: there is no snapshot to see")
	}
	linksAreThose(t, before)
	continueSignal(t)
	waitFor(t, "the run's end", func() bool { return state("voltar.service") == "inactive" })
	mail := waitForMails(t, operations, 1)
	if !strings.Contains(mail, "Subject: ") || strings.Contains(subjects(mail)[0], "FAIL") {
		t.Errorf("the mail is\n%s", mail)
	}
	if log := read(t, "/var/log/exim4/mainlog"); !regexp.MustCompile(`<= voltar@example.org .* X=TLS1`).MatchString(log) {
		t.Errorf("the mail did not come over TLS:\n%s", log)
	}
	if metrics := read(t, "/var/lib/metrics/voltar.prom"); strings.Count(metrics, "voltar_last_success_timestamp_seconds{") != 2 {
		t.Errorf("the metrics are\n%s", metrics)
	}
	nothingLeft(t)
}

func stopSignal(t *testing.T) {
	t.Helper()
	signalRun(t, syscall.SIGSTOP)
	lab.Do(t, "udevadm", "settle")
}

func continueSignal(t *testing.T) { t.Helper(); signalRun(t, syscall.SIGCONT) }

// signalRun sends a signal to the run, at once: by the time that a command has started here the run may be over.
func signalRun(t *testing.T, signal syscall.Signal) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		dir := filepath.Dir(path)
		cmdline, _ := os.ReadFile(path)                               // empty when the process has gone meanwhile
		status, _ := os.ReadFile(filepath.Join(dir, "status"))        // likewise
		ofSystemd := strings.Contains(string(status), "\nPPid:\t1\n") // and no child that is about to become another program
		if string(cmdline) != "/usr/sbin/voltar\x00run\x00" || !ofSystemd {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil {
			err = syscall.Kill(pid, signal)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the run is over")
}

// linksAreThose checks that nothing in /dev/disk has come, gone or moved, and whose the guests' labels are.
func linksAreThose(t *testing.T, before []string) {
	t.Helper()
	if during := links(t); !slices.Equal(before, during) {
		t.Errorf("links in /dev/disk, before and during the run:\n%s\n\n%s", strings.Join(before, "\n"), strings.Join(during, "\n"))
	}
	for label, want := range map[string]string{"shared": "/dev/vg/own", "whole": "/dev/vg/guest-whole"} {
		if got := strings.TrimSpace(lab.Do(t, "blkid", "-L", label)); !sameDevice(t, got, want) {
			t.Errorf("blkid -L %s gives %s, want %s", label, got, want)
		}
	}
}

func journalHasFields(t *testing.T) {
	lab.Do(t, "journalctl", "--sync")
	t.Logf("journalctl -u voltar:\n%s", lab.Do(t, "journalctl", "--no-pager", "-u", "voltar"))
	volumes, runs := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(lab.Do(t, "journalctl", "--no-pager", "-o", "json", "-u", "voltar")) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if volume, ok := entry["VOLTAR_VOLUME"].(string); ok {
			volumes[volume] = true
		}
		if run, ok := entry["VOLTAR_RUN"].(string); ok {
			runs[run] = true
		}
	}
	if !volumes["vg/guest-whole"] || !volumes["vg/guest-disk"] || len(runs) != 1 {
		t.Errorf("the journal has the volumes %v and runs %v", volumes, runs)
	}
}

func killedRun(t *testing.T) {
	lab.Do(t, "systemctl", "start", "--no-block", "voltar.service")
	waitForMap(t)
	stopSignal(t)
	lab.Do(t, "systemctl", "kill", "--signal=KILL", "voltar.service")
	mail := waitForMails(t, operations, 2)
	waitFor(t, "the report's end", func() bool { return state("voltar-failure@voltar.service.service") == "inactive" })
	nothingLeft(t)
	t.Log(mail)
	if got := subjects(mail)[1]; !strings.Contains(got, "FAIL") {
		t.Errorf("the subject is %q", got)
	}
	if !strings.Contains(mail, "SIGKILL") || !strings.Contains(mail, "the end of its log") {
		t.Errorf("the mail does not say how it died:\n%s", mail)
	}
	lab.Do(t, "journalctl", "--sync")
	if out := lab.Do(t, "journalctl", "--no-pager", "-u", "voltar-cleanup"); !strings.Contains(out, "removed: snapshot") {
		t.Errorf("the cleanup says\n%s", out)
	}
}

func stoppedRun(t *testing.T) {
	lab.Do(t, "systemctl", "start", "--no-block", "voltar.service")
	waitForMap(t)
	stopSignal(t)
	lab.Do(t, "systemctl", "stop", "voltar.service") // which has it go on after SIGTERM
	nothingLeft(t)
	mail := waitForMails(t, operations, 3)
	if got := subjects(mail)[2]; !strings.Contains(strings.ToLower(got), "interrupted") {
		t.Errorf("the subject is %q", got)
	}
	lab.Do(t, "systemctl", "start", "voltar-failure@voltar.service.service")
	if got := len(subjects(read(t, operations))); got != 3 {
		t.Errorf("%d mails: the run has reported itself, and is reported again", got)
	}
}

func brokenConfiguration(t *testing.T) {
	write(t, "/etc/voltar/voltar.toml", configuration+"\nparalel = 3\n")
	if err := exec.Command("systemctl", "start", "voltar.service").Run(); err == nil {
		t.Error("the service started")
	}
	mail := waitForMails(t, root, 1)
	if !strings.Contains(mail, "paralel") || !strings.Contains(subjects(mail)[0], "FAIL") {
		t.Errorf("the mail to root is\n%s", mail)
	}
	waitFor(t, "the report's end", func() bool { return state("voltar-failure@voltar.service.service") == "inactive" })
	write(t, "/etc/voltar/voltar.toml", configuration)
}

func upgrade(t *testing.T) {
	lab.Do(t, "systemctl", "enable", "voltar.timer")
	lab.Do(t, "dpkg", "--no-triggers", "-i", "/out/voltar_"+secondVersion+"_test.deb")
	if got := read(t, "/etc/voltar/voltar.toml"); got != configuration {
		t.Errorf("the configuration is now\n%s", got)
	}
	if got := strings.TrimSpace(lab.Do(t, "systemctl", "is-enabled", "voltar.timer")); got != "enabled" {
		t.Errorf("the timer is %s", got)
	}
	if got := lab.Do(t, "dpkg-query", "-W", "-f", "${Version}", "voltar"); got != secondVersion {
		t.Errorf("version %q is installed", got)
	}
}

func purge(t *testing.T) {
	manifests, err := filepath.Glob("/srv/backups/volume-host/vg/*/*/manifest.json")
	if err != nil || len(manifests) < 2 {
		t.Fatalf("there are the backups %q, %v", manifests, err)
	}
	// Backups in the worst of places stay as well.
	write(t, "/var/lib/voltar/backups/manifest.json", "{}")
	lab.Do(t, "dpkg", "--no-triggers", "--purge", "voltar")
	for _, path := range append(manifests, "/var/lib/voltar/backups/manifest.json") {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{
		"/etc/voltar", "/run/voltar", "/var/lib/voltar/history", "/var/lib/voltar/journal", "/var/lib/voltar/spool",
		"/usr/sbin/voltar", "/etc/systemd/system/timers.target.wants/voltar.timer",
		"/etc/systemd/system/multi-user.target.wants/voltar-cleanup.service",
	} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
}

// links lists /dev/disk with what each link leads to.
func links(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("/dev/disk", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type() == fs.ModeSymlink && !strings.Contains(path, "/by-diskseq/") { // which counts how often loop devices were used
			all = append(all, path+" -> "+link(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownMaps lists the UUIDs of voltar's maps.
func ownMaps(t *testing.T) []string { t.Helper(); return devices(t, "dm/uuid", "LVM-voltar-") }

// devices lists one attribute of the device-mapper's devices where it begins so.
func devices(t *testing.T, attribute, prefix string) []string {
	t.Helper()
	paths, err := filepath.Glob("/sys/block/dm-*/" + attribute)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if value, err := os.ReadFile(path); err == nil && bytes.HasPrefix(value, []byte(prefix)) {
			found = append(found, string(value))
		}
	}
	return found
}

func snapshots(t *testing.T) []string {
	t.Helper()
	return strings.Fields(lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "--select", "lv_tags=voltar"))
}

func nothingLeft(t *testing.T) {
	t.Helper()
	if maps, left := ownMaps(t), snapshots(t); len(maps)+len(left) > 0 {
		t.Errorf("maps %q and snapshots %q are left", maps, left)
	}
}

func waitForMap(t *testing.T) {
	t.Helper()
	waitFor(t, "the run to map a partition", func() bool { return len(ownMaps(t)) > 0 })
}

// waitFor waits for something that takes seconds, and minutes on a busy machine.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(lab.Patience(5 * time.Minute)); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// waitForMails waits until a mailbox has so many mails, and returns it.
func waitForMails(t *testing.T, mailbox string, count int) string {
	t.Helper()
	var text []byte
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile("/var/log/exim4/mainlog") // missing when exim never started
			t.Logf("the log of the mail server:\n%s", log)
		}
	})
	waitFor(t, fmt.Sprintf("mail %d in %s", count, mailbox), func() bool {
		text, _ = os.ReadFile(mailbox) // missing before the first
		return len(subjects(string(text))) >= count
	})
	return string(text)
}

// subjects returns the subjects in a mailbox, unfolded and decoded.
func subjects(mailbox string) (list []string) {
	for _, header := range regexp.MustCompile(`(?m)^Subject:.*(\n[ \t].*)*`).FindAllString(mailbox, -1) {
		subject, err := new(mime.WordDecoder).DecodeHeader(regexp.MustCompile(`\s+`).ReplaceAllString(header, " "))
		if err != nil {
			subject = header
		}
		list = append(list, subject)
	}
	return list
}

func state(unit string) string {
	out, _ := exec.Command("systemctl", "is-active", unit).Output() // its status tells the same
	return strings.TrimSpace(string(out))
}

func sameDevice(t *testing.T, a, b string) bool {
	t.Helper()
	first, errA := filepath.EvalSymlinks(a)
	second, errB := filepath.EvalSymlinks(b)
	if err := errors.Join(errA, errB); err != nil {
		t.Error(err)
	}
	return first == second
}

func link(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	write(t, path, read(t, path)+text)
}
