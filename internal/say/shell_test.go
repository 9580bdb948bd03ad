package say

import (
	"os/exec"
	"strings"
	"testing"
)

func TestShellWords(t *testing.T) {
	words := []string{"sh", "-c", `echo "$HOME" 'x'`, "", "a;b\n"}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf '<%s>' "+ShellWords(words)).Output()
	if err != nil || string(out) != "<"+strings.Join(words, "><")+">" {
		t.Errorf("%q %v", out, err)
	}
}
