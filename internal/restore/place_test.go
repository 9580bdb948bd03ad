package restore

import (
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/lvm"
)

// A volume continues the history of another only where it takes its name and its place, as a whole.
func TestWhoseHistoryIsContinued(t *testing.T) {
	source := catalog.Source{
		Kind: catalog.SourceVolume, VG: "vg", VGUUID: "vg-uuid", Name: "v", LVUUID: "old", Tags: []string{"web", "voltar.was=vg-uuid/older"},
	}
	other := lvm.Volume{VG: "vg", VGUUID: "vg-uuid", Name: "v", UUID: "new"}
	for name, c := range map[string]struct {
		lv   string
		host []lvm.Volume
		req  Request
		want string
	}{
		"gone":                   {"v", []lvm.Volume{other}, Request{}, "voltar.was=vg-uuid/old voltar.was=vg-uuid/older"},
		"still here, renamed":    {"v", []lvm.Volume{{VG: "vg", VGUUID: "vg-uuid", Name: "v-old", UUID: "old"}}, Request{}, ""},
		"under another name":     {"copy", nil, Request{}, ""},
		"one of its partitions":  {"v", nil, Request{Partitions: []string{"p1"}}, ""},
		"some of its files":      {"v", nil, Request{Paths: []string{"etc"}}, ""},
		"another group's volume": {"v", []lvm.Volume{{VG: "x", VGUUID: "x", Name: "v", UUID: "old"}}, Request{}, "voltar.was=vg-uuid/old voltar.was=vg-uuid/older"},
	} {
		p := &planner{req: c.req, m: &catalog.Manifest{Source: source}}
		if got := strings.Join(p.was("vg", c.lv, lvm.Inventory{Volumes: c.host}), " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
