package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/say"
)

// Of an image of which many machines are made each would take the others' backups for its own.
func TestMachineID(t *testing.T) {
	const good = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ content, want, wrong string }{
		{content: good + "\n", want: good},
		{content: "uninitialized\n", wrong: `holds "uninitialized"`},
		{content: "\n", wrong: "is empty"},
		{content: "", wrong: "is empty"},
		{content: good[1:], wrong: "which is no machine ID"},
	} {
		path := filepath.Join(t.TempDir(), "machine-id")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readMachineID(path)
		switch {
		case c.wrong == "" && (err != nil || got != c.want):
			t.Errorf("%q: %q, %v", c.content, got, err)
		case c.wrong != "" && (err == nil || !strings.Contains(say.Text(err), c.wrong) || !strings.Contains(say.Text(err), "systemd-machine-id-setup")):
			t.Errorf("%q: %v, want %q with what to do", c.content, err, c.wrong)
		}
	}
	if _, err := readMachineID(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a machine without a number has one")
	}
}
