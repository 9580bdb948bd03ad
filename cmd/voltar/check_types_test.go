package main

import (
	"testing"

	"voltar/internal/config"
	"voltar/internal/mount"
)

// What the configuration may name is what is mounted on request, and the check knows the tools of each.
func TestMountTypesAgree(t *testing.T) {
	for _, name := range config.MountableTypes() {
		if !mount.Optional(name) {
			t.Errorf("mount_types may name %s, which is not mounted on request", name)
		}
		if typeTools[name].pkg == "" {
			t.Errorf("no tools are known for %s", name)
		}
	}
}
