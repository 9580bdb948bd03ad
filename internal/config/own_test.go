package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

func TestConfigurationOfOthersIsRefused(t *testing.T) {
	const file = unix.S_IFREG
	for _, c := range []struct {
		name  string
		stat  unix.Stat_t
		runBy uint32
		want  string // "" when it is taken
	}{
		{"root's", unix.Stat_t{Mode: file | 0o644}, 0, ""},
		{"root's, run by another", unix.Stat_t{Mode: file | 0o644}, 1000, ""},
		{"one's own", unix.Stat_t{Mode: file | 0o600, Uid: 1000}, 1000, ""},
		{"of a group", unix.Stat_t{Mode: file | 0o660, Gid: 4}, 0, ""},
		{"everybody's", unix.Stat_t{Mode: file | 0o646}, 0, "everybody may write to /c, and commands of it would run as user 0\nhint: chmod o-w /c"},
		{"another's, run by root", unix.Stat_t{Mode: file | 0o600, Uid: 1000}, 0, "/c belongs to user 1000, and commands of it would run as user 0\nhint: chown root /c"},
		{"a pipe", unix.Stat_t{Mode: unix.S_IFIFO | 0o666}, 0, ""},
	} {
		err := checkOwn("/c", c.stat, c.runBy)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || say.Text(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}

	path := filepath.Join(t.TempDir(), "voltar.toml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o602); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "everybody may write to "+path) {
		t.Errorf("a file that everybody may write to: %v", err)
	}
}
