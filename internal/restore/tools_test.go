package restore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/owned"
	"voltar/internal/probe"
	"voltar/internal/say"
	"voltar/partmap"
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

// Without a device-mapper a restore that takes it ends before anything is touched, and names what works; others go on.
func TestMissingDeviceMapper(t *testing.T) {
	const bytes = 64 << 20
	whole := piece{Extent: catalog.Extent{SizeBytes: bytes}, targetBytes: bytes}
	partition := piece{Extent: catalog.Extent{Name: "p1", OffsetBytes: 1 << 20, SizeBytes: 8 << 20}, targetBytes: 8 << 20}
	guests := piece{Extent: catalog.Extent{Name: "p2", SizeBytes: 8 << 20, LV: &catalog.GuestLV{VG: "g", Name: "root"}}, targetBytes: 8 << 20}
	for _, c := range []struct {
		name  string
		steps []Step
		hint  string // a part of it; "" when nothing is in the way
	}{
		{"a filesystem that is all of the target", []Step{&restoreFilesystem{piece: whole}}, ""},
		{"a swap area that is all of the target", []Step{&makeSwap{piece: whole}}, ""},
		{"an image of a partition", []Step{&writeTable{}, &writeImage{partition}}, ""},
		{"a filesystem in a partition", []Step{&writeImage{partition}, &restoreFilesystem{piece: partition}}, "RESTORE.txt"},
		{"a swap area in a partition", []Step{&makeSwap{piece: partition}}, "RESTORE.txt"},
		{"a guest's volume", []Step{&writeImage{guests}}, "--to-dir DIR restores the files"},
	} {
		for _, host := range []struct {
			name, dmsetup string
			works         bool
		}{
			{"works", "echo 'No devices found'", true},
			{"without the driver", "echo 'Failure to communicate with kernel device-mapper driver.' >&2; exit 1", false},
			{"without dmsetup", "", false},
		} {
			t.Run(c.name+"/"+host.name, func(t *testing.T) {
				bin := t.TempDir()
				if host.dmsetup != "" {
					if err := os.WriteFile(filepath.Join(bin, "dmsetup"), []byte("#!/bin/sh\n"+host.dmsetup+"\n"), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				runner := hostcmd.New(hostcmd.Options{SearchPath: []string{bin}})
				p := &planner{plan: &Plan{Steps: c.steps, targetBytes: bytes}, Engine: &Engine{Deps: Deps{Host: &owned.Host{
					Runner: runner, Maps: partmap.NewMapper(runner, partmap.MapperOptions{}),
				}}}}
				err := p.checkMaps(t.Context())
				if c.hint == "" || host.works {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !errors.Is(err, ErrUsage) || !strings.Contains(strings.Join(say.Hints(err), "\n"), c.hint) {
					t.Errorf("%v, with the hints %q", err, say.Hints(err))
				}
			})
		}
	}
}
