package setup

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/config"
	"voltar/lvm"
)

func TestUnmatchedPatterns(t *testing.T) {
	cfg, err := config.Parse([]byte(`
[select]
include = ["vg/*", "nova-volumes/*"]
exclude = ["no-such-volume"]
volume_groups = ["v?", "cindr-ssd"]
include_tags = ["nightly", "nigthly"]
[[volume]]
match = "vg/web*"
[[volume]]
match = "vg/volume-0000001*"
[[group]]
name = "pair"
volumes = ["db", "dp-log"]
[[hook]]
name = "flush"
phase = "before"
command = ["true"]
volumes = ["wbe"]
`))
	if err != nil {
		t.Fatal(err)
	}
	s := &Setup{Config: cfg}
	got := s.Unmatched([]lvm.Volume{{VG: "vg", Name: "web1", Tags: []string{"nightly"}}, {VG: "vg", Name: "db"}})
	want := []string{
		`[[volume]] with match = "vg/volume-0000001*"`, `[[group]] pair with volumes = ["dp-log"]`, `[[hook]] flush with volumes = ["wbe"]`,
		`select.include with "nova-volumes/*"`, `select.volume_groups with "cindr-ssd"`, `select.include_tags with "nigthly"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
