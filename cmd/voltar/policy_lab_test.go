package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/report"
)

// Everything that can go wrong with a freeze, once for a volume that may go on and once for one that must not: each ends
// as its policy says, and the mail has the reason.
func TestLabFreezePolicies(t *testing.T) {
	lab.VG(t, "vg", 160*mib)
	ssh := filepath.Join(t.TempDir(), "ssh_config")
	writeFile(t, ssh, []byte("Host nowhere\n  HostName 127.0.0.1\n  Port 1\n"))
	cases := []struct{ name, guest, reason string }{
		{"unreachable", "method = \"ssh\"\nhost = \"nowhere\"\nssh_config = \"" + ssh + "\"\nmountpoints = [\"/srv\"]\n", "Connection refused"},
		{"hanging", "method = \"command\"\nfreeze = [\"sleep\", \"600\"]\nthaw = [\"true\"]\ntimeout = \"2s\"\n", "(no answer within|not done after) 2s"},
		{"failing", "method = \"command\"\nfreeze = [\"sh\", \"-c\", \"echo no such application >&2; exit 4\"]\nthaw = [\"true\"]\n", "no such application"},
		{"lying", "method = \"command\"\nfreeze = [\"true\"]\nthaw = [\"false\"]\n", "no longer frozen"},
		{"refused", "method = \"local\"\nmountpoints = [\"/\"]\n", "cannot be frozen here"},
		{"database", "method = \"none\"\ndatabase = \"mysql\"\nclient = [\"mysql\", \"--socket=/nowhere\"]\n", "Can't connect to local"},
	}
	config := "parallel = 6\n"
	mail := startMail(t)
	rest := mail.config()
	for _, c := range cases {
		for _, policy := range []string{"go-on", "fail"} {
			name := c.name + "-" + policy
			lab.LV(t, "vg", name, 4*mib)
			rest += "[[volume]]\nmatch = \"" + name + "\"\nfreeze = [\"" + name + "\"]\n" +
				"[[guest]]\nname = \"" + name + "\"\non_failure = \"" + policy + "\"\n" + c.guest
		}
	}
	s := newSite(t, rest)
	prepend(t, s.config, config)
	result := s.run(t, exitAttention)
	for _, c := range cases {
		reason := regexp.MustCompile(c.reason)
		v := wantStatus(t, result, "vg/"+c.name+"-go-on", report.VolumeOK)
		if v.Quiesce != "crash-consistent" || len(v.Warnings) != 1 || !reason.MatchString(v.Warnings[0].Message) || v.Warnings[0].Hint == "" {
			t.Errorf("%s may go on: %s %+v", c.name, v.Quiesce, v.Warnings)
		}
		if m := manifest(t, s.backupsOf(t, v.Name)[0]); m.Quiesce.Level != "crash-consistent" || !reason.MatchString(m.Quiesce.Note) {
			t.Errorf("%s: the manifest says %+v", c.name, m.Quiesce)
		}
		v = wantStatus(t, result, "vg/"+c.name+"-fail", report.VolumeFailed)
		if v.Error == nil || !reason.MatchString(v.Error.Message) {
			t.Errorf("%s must not go on: %+v", c.name, v.Error)
		}
		if left := s.backupsOf(t, v.Name); len(left) > 0 {
			t.Errorf("%s: there is %q", c.name, left)
		}
	}
	if subject := mail.subjects(); len(subject) != 1 || !strings.Contains(subject[0], "FAILED 6 of 12") {
		t.Errorf("the subject is %q", subject)
	}
	for _, c := range cases {
		if found := regexp.MustCompile(c.reason).FindAllString(mail.last(), -1); len(found) != 2 {
			t.Errorf("the mail does not tell twice why %s could not be frozen:\n%s", c.name, mail.last())
		}
	}
}

// prepend puts text, such as keys of the top level, before the configuration.
func prepend(t *testing.T, file, text string) {
	t.Helper()
	lab.Do(t, "sed", "-i", "1i "+strings.TrimSpace(text), file)
}
