package catalog

import (
	"strings"
	"testing"
	"time"
)

func TestIdentities(t *testing.T) {
	for _, c := range []struct {
		id         ID
		text, path string
	}{
		{ID{VolumeRef("nova-volumes", "volume-00000001"), night}, "nova-volumes/volume-00000001@2026-11-20T010001Z",
			"h/nova-volumes/volume-00000001/2026-11-20T010001Z"},
		{ID{Ref{Kind: SourceDump, Name: "my sql"}, night}, "@dump/my sql@2026-11-20T010001Z",
			"h/@dump/my sql/2026-11-20T010001Z"},
		{ID{Ref{Kind: SourceDirectory, Name: "etc"}, night.In(time.FixedZone("CET", 3600))},
			"@directory/etc@2026-11-20T010001Z", "h/@directory/etc/2026-11-20T010001Z"},
	} {
		if c.id.String() != c.text || c.id.Path("h") != c.path {
			t.Errorf("%s and %s, want %s and %s", c.id, c.id.Path("h"), c.text, c.path)
		}
		if host, got, err := ParsePath(c.path); err != nil || got.Compare(c.id) != 0 || host != "h" {
			t.Errorf("ParsePath(%q) = %v, %v, %v", c.path, host, got, err)
		}
	}
}

func TestBadIdentities(t *testing.T) {
	for _, text := range []string{"", "lv", "vg/lv", "vg/lv@", "vg/lv@2026-11-20", "vg/lv@2026-11-20T01:00:01Z",
		"vg//lv@2026-11-20T010001Z",
		"vg/../x@2026-11-20T010001Z", "../lv@2026-11-20T010001Z", "-vg/lv@2026-11-20T010001Z", "vg/l v@2026-11-20T010001Z",
		"@dump/a/b@2026-11-20T010001Z", "@dump/..@2026-11-20T010001Z", "@dump/-x@2026-11-20T010001Z",
		"@volume/x@2026-11-20T010001Z",
		"@other/x@2026-11-20T010001Z", "@dump/a\nb@2026-11-20T010001Z", "vg/lv@2026-13-20T010001Z"} {
		name, when := cutTime(text)
		if _, id, err := ParsePath("h/" + name + "/" + when); err == nil {
			t.Errorf("%q is taken for %v", text, id)
		}
	}
	for _, folder := range []string{"", "h", "h/vg", "h/vg/lv", "h/vg/lv/x", "h/vg/lv/2026-11-20T010001Z/x",
		"../vg/lv/2026-11-20T010001Z",
		"@h/vg/lv/2026-11-20T010001Z", "/vg/lv/2026-11-20T010001Z", "h/vg/../2026-11-20T010001Z"} {
		if _, id, err := ParsePath(folder); err == nil {
			t.Errorf("ParsePath(%q) = %v", folder, id)
		}
	}
}

func TestCheckFileName(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../a", "-rf", "a\x00", "a\nb", "\xff", strings.Repeat("x", 256)} {
		if CheckFileName(name) == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, name := range []string{"volume-00000001.p1.tar.gz", ".hidden.tar.gz", "..a", "a b", `a\b`, "ü"} {
		if err := CheckFileName(name); err != nil {
			t.Error(err)
		}
	}
}
