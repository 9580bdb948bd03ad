package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/config"
	"voltar/internal/hostcmd"
	"voltar/lvm"
)

// A pattern behind "@guest/" means the disks of guests, by name, alias or ID, in every section that takes patterns.
func TestPatternsOfGuests(t *testing.T) {
	cfg, err := config.Parse([]byte(`
[select]
exclude = ["@guest/test-*"]
[[volume]]
match = "@guest/web*:vdb"
level = "best"
[[volume]]
match = "@guest/nobody"
[[group]]
name = "shop"
volumes = ["@guest/instance-0000002a"]
[[hook]]
name = "flush"
phase = "before"
command = ["true"]
volumes = ["@guest/id-of-web"]
`))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	tell := filepath.Join(root, "tell")
	if err := os.WriteFile(tell, []byte(`#!/bin/sh
cat <<END
{"volume": "vg/root", "guest": "id-of-web", "name": "web1", "disk": "vda"}
{"volume": "vg/data", "guest": "id-of-web", "name": "web1", "disk": "vdb"}
{"volume": "vg/test", "guest": "id-of-test", "name": "test-a/b", "disk": "vda"}
END
`), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg.FoundBy = config.FoundBy{Command: []string{tell}}
	s := &Setup{Config: cfg, Runner: hostcmd.New(hostcmd.Options{})}
	volume := func(name string) lvm.Volume { return lvm.Volume{VG: "vg", Name: name, UUID: name} }
	volumes := []lvm.Volume{volume("root"), volume("data"), volume("test"), volume("of-nobody")}
	if s.matches("@guest/*", volumes[0]) {
		t.Error("it means something before guests are known")
	}
	found := s.Guests(t.Context(), lvm.Inventory{Volumes: volumes})
	found.Guests[1].Alias = "instance-0000002a"
	if found.Guests[1].Name != "web1" {
		t.Fatal(found.Guests)
	}
	for pattern, want := range map[string]string{
		"@guest/*": "root data test", "@guest/web1": "root data", "@guest/web*:vdb": "data", "@guest/id-of-*:vda": "root test", "@guest/test-*": "test",
		"@guest/test-a/b": "test", "@guest/instance-0000002a": "root data", "@guest/nobody": "", "@guest/": "", "@guest/[": "", "data": "data", "vg/*": "root data test of-nobody",
	} {
		var names []string
		for _, v := range volumes {
			if s.matches(pattern, v) {
				names = append(names, v.Name)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s means %q, want %q", pattern, got, want)
		}
	}
	root0, data := s.volumeSettings(volumes[0]), s.volumeSettings(volumes[1])
	if root0.Group != "shop" || len(root0.Hooks) != 1 || root0.Level == data.Level || len(s.volumeSettings(volumes[2]).Hooks) > 0 {
		t.Errorf("%+v\n%+v", root0, data)
	}
	if diff := cmp.Diff([]string{`[[volume]] with match = "@guest/nobody"`}, s.Unmatched(volumes)); diff != "" {
		t.Error(diff)
	}
}

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
