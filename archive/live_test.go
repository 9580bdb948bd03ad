package archive

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// In a live tree a file that is written to, cut or removed has changed; one that cannot be read is damaged all the same.
func TestChangesOfALiveTreeAreNoDamage(t *testing.T) {
	cut := func(sys *system) {
		pread := sys.pread
		sys.pread = func(fd int, path string, p []byte, offset int64) (int, error) {
			if path == "large" {
				p = p[:max(0, min(int64(len(p)), 1000-offset))]
			}
			if len(p) == 0 {
				return 0, nil
			}
			return pread(fd, path, p, offset)
		}
	}
	shrunk := statAfterRead("large", func(st *unix.Statx_t) { st.Size = 1000 })
	for name, c := range map[string]struct {
		faults           []func(*system)
		changed, damaged string // reasons
	}{
		"grows":                     {[]func(*system){statAfterRead("small", func(st *unix.Statx_t) { st.Size++ })}, "changed size from 100 B to 101 B", ""},
		"is written to":             {[]func(*system){statAfterRead("small", func(st *unix.Statx_t) { st.Mtime.Nsec ^= 1 })}, "changed while", ""},
		"is cut":                    {[]func(*system){cut, shrunk}, "ends early, at byte 1000", ""},
		"ends early and is as ever": {[]func(*system){cut}, "", "ends early, at byte 1000"},
		"cannot be read":            {[]func(*system){badBlocks("small", 0, 100)}, "", "100 B cannot be read"},
		"cannot be read, and cut":   {[]func(*system){badBlocks("large", 0, 100), cut, shrunk}, "changed size", "cannot be read"},
		"is removed": {[]func(*system){func(sys *system) {
			statx := sys.statx
			sys.statx = func(fd int, name string, flags int, path string) (unix.Statx_t, error) {
				if path == "small" {
					return unix.Statx_t{}, unix.ENOENT
				}
				return statx(fd, name, flags, path)
			}
		}}, "no such file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "large"), bytes.Repeat([]byte("x"), 5<<20), 0o644)
			writeFile(t, filepath.Join(dir, "small"), bytes.Repeat([]byte("x"), 100), 0o644)
			sys := hostSystem()
			for _, fault := range c.faults {
				fault(sys)
			}
			m := writeTreeOf(t, dir, TreeOptions{sys: sys, Live: true})
			for _, list := range []struct {
				want  string
				got   []Damage
				count int64
			}{{c.changed, m.stats.Changed, m.stats.ChangedCount}, {c.damaged, m.stats.Damaged, m.stats.DamagedCount}} {
				switch {
				case list.want == "" && list.count == 0 && len(list.got) == 0:
				case list.want != "" && list.count == 1 && len(list.got) == 1 && strings.Contains(list.got[0].Reason, list.want):
				default:
					t.Errorf("%d: %+v, want %q", list.count, list.got, list.want)
				}
			}
			entries, _ := readIndex(t, m)
			for _, e := range entries {
				if (e.Damaged != "") != (c.damaged != "" && e.Path == m.stats.Damaged[0].Path) {
					t.Errorf("the index says of %s: %q", e.Path, e.Damaged)
				}
			}
		})
	}
}
