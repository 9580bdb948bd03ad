package lvm

import (
	"strings"
	"testing"
)

func TestValidName(t *testing.T) {
	for name, valid := range map[string]bool{
		"volume-00000001": true, "a": true, ".x": true, "+": true, "x_y": true, strings.Repeat("a", 127): true, "mysnapshot": true,
		"": false, ".": false, "..": false, "-a": false, "a b": false, "a/b": false, "a@b": false, "ü": false, "a\n": false,
		"snapshot": false, "snapshot-1": false, "pvmove0": false, "a_mlog": false, "a_tdata": false, "a_cvol": false,
		strings.Repeat("a", 128): false,
	} {
		if err := ValidName(name); (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := ValidVolumeName(strings.Repeat("v", 60), strings.Repeat("-", 1)+"a"); err == nil {
		t.Error("a hyphen first")
	}
	if err := ValidVolumeName(strings.Repeat("v", 60), "a"+strings.Repeat("-", 30)); err == nil {
		t.Error("hyphens count twice in the device's name")
	}
	if err := ValidVolumeName(strings.Repeat("v", 60), "a"+strings.Repeat("b", 30)); err != nil {
		t.Error(err)
	}
}

func TestValidTag(t *testing.T) {
	for tag, valid := range map[string]bool{
		"voltar": true, "voltar.run.2026-11-20T010001Z": true, "a=b&c#d!e:f/g+h": true, strings.Repeat("t", 1024): true,
		"": false, "-a": false, "a@b": false, "a b": false, "a,b": false, "a\n": false, strings.Repeat("t", 1025): false,
	} {
		if err := ValidTag(tag); (err == nil) != valid {
			t.Errorf("%q: %v", tag, err)
		}
	}
}

func TestDMName(t *testing.T) {
	if got := DMName("nova-volumes", "volume-1"); got != "nova--volumes-volume--1" {
		t.Error(got)
	}
}
