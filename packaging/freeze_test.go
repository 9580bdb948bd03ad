package packaging_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/lab"
)

// frozenConfiguration freezes a filesystem of the host for as long as another freeze takes its time.
func frozenConfiguration() string {
	return configuration + `
[[volume]]
match = "guest-whole"
freeze = ["own", "slow"]
[[guest]]
name = "slow"
method = "command"
freeze = ["sleep", "900"]
thaw = ["true"]
deadline = "1h"
timeout = "1h"
[[guest]]
name = "own"
method = "local"
timeout = "` + lab.Patience(30*time.Second).String() + `"
`
}

// serviceDiesWhileFrozen ends the service while a filesystem of the host is frozen. What thaws lives in a unit of its own:
// neither a run that hangs nor a service that is killed with all its processes keeps it from that.
func serviceDiesWhileFrozen(t *testing.T) {
	dir := lab.Mount(t, "/dev/vg/own", "defaults")
	// Nobody else thaws, and a stop does not wait for long.
	write(t, "/run/systemd/system/voltar.service.d/test.conf", "[Unit]\nOnFailure=\n[Service]\nTimeoutStopSec=3\n")
	lab.Do(t, "systemctl", "daemon-reload")
	for _, test := range []struct {
		name, deadline string
		end            func(t *testing.T)
	}{
		{"hangs", lab.Patience(3 * time.Second).String(), func(*testing.T) {}},
		{"is stopped", "1h", func(t *testing.T) { lab.Do(t, "systemctl", "stop", "voltar.service") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, "/etc/voltar/voltar.toml", frozenConfiguration()+"deadline = \""+test.deadline+"\"\nmountpoints = [\""+dir+"\"]\n")
			lab.Do(t, "systemctl", "start", "--no-block", "voltar.service")
			written := lab.UntilFrozen(t, func() error { return os.WriteFile(filepath.Join(dir, "note"), []byte("x"), 0o600) })
			lab.Do(t, "systemctl", "kill", "--kill-whom=main", "--signal=STOP", "voltar.service")
			if units := unitsOf(t, "freeze-child"); len(units) != 2 || slices.ContainsFunc(units, func(unit string) bool { return !strings.HasSuffix(unit, ".scope") }) {
				t.Errorf("what thaws lives in %q", units)
			}
			test.end(t)
			if err := <-written; err != nil { // hangs with the filesystem
				t.Error(err)
			}
			lab.Do(t, "systemctl", "kill", "--signal=KILL", "voltar.service")
			waitFor(t, "the service's end", func() bool { return state("voltar.service") == "failed" })
			lab.Do(t, "systemctl", "reset-failed", "voltar.service")
		})
	}
	write(t, "/etc/voltar/voltar.toml", configuration)
	if err := os.RemoveAll("/run/systemd/system/voltar.service.d"); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "systemctl", "daemon-reload")
	lab.Do(t, "systemctl", "start", "voltar-cleanup.service")
	waitFor(t, "the slow child's end", func() bool { return len(unitsOf(t, "freeze-child")) == 0 })
	nothingLeft(t)
}

// unitsOf returns the units of the processes that have a word as an argument.
func unitsOf(t *testing.T, word string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var units []string
	for _, path := range paths {
		cmdline, _ := os.ReadFile(path) // gone meanwhile
		if !slices.Contains(strings.Split(string(cmdline), "\x00"), word) {
			continue
		}
		group, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
		units = append(units, filepath.Base(strings.TrimSpace(string(group))))
	}
	return units
}
