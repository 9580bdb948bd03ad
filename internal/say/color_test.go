package say

import (
	"bytes"
	"testing"
)

func TestPainted(t *testing.T) {
	for _, c := range []struct {
		colors bool
		want   string
	}{
		{false, "a\\x1b[2J b: FAIL\\x1b no\nmore\n"},
		{true, "a\\x1b[2J b: \x1b[31mFAIL\\x1b\x1b[0m no\nmore\n"},
	} {
		var out bytes.Buffer
		w := NewWriter(&out)
		w.UseColors(c.colors)
		if _, err := Painted(w, "a\x1b[2J b: ", Red, "FAIL\x1b", " no\nmore\n"); err != nil || out.String() != c.want {
			t.Errorf("colours %v: %q, %v; want %q", c.colors, out.String(), err, c.want)
		}
	}
}
