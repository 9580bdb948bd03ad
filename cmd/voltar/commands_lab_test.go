package main

import (
	"maps"
	"regexp"
	"testing"

	"voltar/internal/lab"
)

var commandLogged = regexp.MustCompile(`(?m)argv="?\[([a-z.]+)`)

// commands returns how often a run calls each command.
func (s site) commands(t *testing.T, args ...string) map[string]int {
	t.Helper()
	code, _, errs := voltar(t, append([]string{"run", "--log-level", "debug", "--config", s.config}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errs)
	}
	counts := map[string]int{}
	for _, match := range commandLogged.FindAllStringSubmatch(errs, -1) {
		counts[match[1]]++
	}
	return counts
}

// What a night costs beside its data: one inventory, and for each volume a few commands, however many volumes there are.
func TestLabCommandsOfAVolume(t *testing.T) {
	lab.VG(t, "vg", 400*mib)
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "128M", "--name", "pool", "vg")
	lab.Do(t, "lvcreate", "--yes", "--virtualsize", "16M", "--thin", "vg/pool", "--name", "thin0")
	lab.Do(t, "mkfs.ext4", "-q", "/dev/vg/thin0")
	lab.Do(t, "lvcreate", "--yes", "-kn", "--snapshot", "vg/thin0", "--name", "thin1")
	t.Cleanup(func() { lab.Do(t, "lvremove", "--force", "--yes", "vg/thin1") }) // lvm2 calls it a snapshot
	lab.Do(t, "tune2fs", "-U", "random", "/dev/vg/thin1")
	for _, name := range []string{"classic0", "classic1"} {
		lab.Do(t, "mkfs.ext4", "-q", lab.LV(t, "vg", name, 16*mib))
	}
	for _, name := range []string{"disk0", "disk1"} {
		shell(t, `printf 'label: gpt\nsize=12M, type=L\nsize=12M, type=L\n' | sfdisk -q --no-reread --no-tell-kernel "$1"
			mke2fs -q -t ext4 -E offset=1048576 "$1" 12M; mke2fs -q -t ext4 -E offset=13631488 "$1" 12M`, lab.LV(t, "vg", name, 32*mib))
	}
	s := newSite(t, "")
	plain := map[string]int{"lvcreate": 1, "blkid": 1, "lvremove": 1}
	for kind, want := range map[string]map[string]int{
		"thin": plain, "classic": plain,
		"disk": {"lvcreate": 1, "blkid": 2, "dmsetup": 4, "lvremove": 1}, // a map for each partition, made and removed
	} {
		for _, volumes := range [][]string{{"vg/" + kind + "0"}, {"vg/" + kind + "0", "vg/" + kind + "1"}} {
			expected := map[string]int{"lvm": 1}
			for command, times := range want {
				expected[command] = times * len(volumes)
			}
			if got := s.commands(t, volumes...); !maps.Equal(got, expected) {
				t.Errorf("%q: %v, want %v", volumes, got, expected)
			}
		}
	}
	if got, want := s.commands(t, "--dry-run"), map[string]int{"lvm": 1}; !maps.Equal(got, want) {
		t.Errorf("a dry run: %v, want %v", got, want)
	}
}
