package store

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckKey(t *testing.T) {
	long := strings.Repeat("x", MaxSegmentBytes)
	for _, key := range []string{"a", "host/vg/lv/2026-11-20T010001Z/manifest.json", "@dump/a b%2F+ü", "..a", "a..", "-",
		long, long + "/" + long} {
		if err := CheckKey(key); err != nil {
			t.Error(err)
		}
	}
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/./b", "a\x00b", "a\nb",
		"a\x7f", "\xff", long + "x", strings.Repeat("a/", MaxKeyBytes/2) + "b"} {
		if err := CheckKey(key); !errors.Is(err, ErrBadKey) {
			t.Errorf("CheckKey(%q) = %v", key, err)
		}
	}
	if err := CheckPrefix(""); err != nil {
		t.Error(err)
	}
	if err := CheckPrefix("../a"); !errors.Is(err, ErrBadKey) {
		t.Errorf("CheckPrefix = %v", err)
	}
}
