package restore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/hostcmd"
	"voltar/internal/owned"
	"voltar/internal/probe"
	"voltar/internal/say"
)

// A tool that is missing ends a restore before anything is touched, with the package that has it.
func TestMissingTools(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mke2fs"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &planner{Engine: &Engine{Deps: Deps{Host: &owned.Host{Runner: hostcmd.New(hostcmd.Options{SearchPath: []string{bin}})}}}}
	if err := p.checkTools("xfs", probe.Recipe{Commands: [][]string{{"mke2fs"}}}); err != nil {
		t.Errorf("all is there, but: %v", err)
	}
	err := p.checkTools("ext4", probe.Recipe{Commands: [][]string{{"mke2fs"}}, Last: [][]string{{"tune2fs"}}})
	if !errors.Is(err, ErrUsage) || !strings.Contains(say.Text(err), "install the package e2fsprogs") {
		t.Errorf("without tune2fs: %v", err)
	}
}
