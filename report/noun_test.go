package report

import (
	"testing"

	"voltar/internal/say"
)

func TestNounOf(t *testing.T) {
	for want, names := range map[string][]string{
		"0 sources": nil, "1 volume": {"vg/lv"}, "2 directories": {"@directory/a", "@directory/b"}, "1 dump": {"@dump/a"},
		"3 sources": {"vg/lv", "@dump/a", "vg/lv2"}, "2 streams": {"@stream/a", "@stream/b"},
	} {
		if got := say.Counted(int64(len(names)), nounOf(names)); got != want {
			t.Errorf("%q are %s, want %s", names, got, want)
		}
	}
}
