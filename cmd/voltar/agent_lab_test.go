//go:build slow

package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/report"
)

// The real guest agent of QEMU freezes and thaws filesystems, those that are named or all, and says when somebody else has thawed one. It
// listens on a socket of the host, as the one that QEMU hands through to a guest.
func TestLabRealGuestAgent(t *testing.T) {
	dir := guestDisk(t)
	state := t.TempDir()
	socket := filepath.Join(state, "qga")
	lab.Do(t, "sh", "-c", `qemu-ga -d -m unix-listen -p "$1/qga" -t "$1" -l "$1/log" -f "$1/pid"; until [ -S "$1/qga" ]; do sleep 0.1; done`, "sh", state)
	t.Cleanup(func() { lab.Do(t, "sh", "-c", "kill $(cat "+state+"/pid)") })
	agent := func(more string) string {
		return "\n[[guest]]\nname = \"web1\"\nmethod = \"agent\"\nsocket = \"" + socket + "\"\ntimeout = \"" + lab.Patience(30*time.Second).String() + "\"\n" + more
	}
	for name, more := range map[string]string{"all": "", "named": "mountpoints = [\"" + dir + "\"]\n"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, agent(more+"[[volume]]\nmatch = \"*\"\nfreeze = [\"web1\"]\n"))
			v := s.run(t, 0).Volumes[0]
			if v.Status != report.VolumeOK || !strings.HasPrefix(v.Quiesce, "frozen ") {
				t.Errorf("%s, %s: %+v", v.Status, v.Quiesce, v.Warnings)
			}
			if err := writeThrough(filepath.Join(dir, "after")); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("thawed by somebody", func(t *testing.T) {
		s := newSite(t, agent(`on_failure = "fail"
[[volume]]
match = "*"
freeze = ["web1", "meddler"]
[[guest]]
name = "meddler"
method = "command"
freeze = ["sh", "-c", "until fsfreeze -u `+dir+`; do sleep 0.1; done"]
thaw = ["true"]
`))
		if v := s.run(t, 1).Volumes[0]; v.Error == nil || !strings.Contains(v.Error.Message, "no longer frozen") {
			t.Errorf("%s: %+v", v.Status, v.Error)
		}
	})
	t.Run("killed", func(t *testing.T) {
		s := newSite(t, agent(slowGuest()+"[[volume]]\nmatch = \"*\"\nfreeze = [\"web1\", \"slow\"]\n"))
		note := filepath.Join(dir, "note")
		killWhileFrozen(t, s, func() error { return writeThrough(note) }, func() {
			if err := writeThrough(note); err != nil {
				t.Error(err)
			}
		})
	})
}
