package archive

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var madeLongAgo = time.Unix(1_600_000_000, 0)

// capabilities is cap_net_raw+ep, as the kernel keeps it.
var capabilities = []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// A guest's root may be anybody's and open to all. What it holds must not be, on a host, through the folder that it is put into.
func TestAFolderOfTheHostStaysAsItIs(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "tool"), []byte("x"), 0o600))
	must(t, os.Chmod(filepath.Join(src, "tool"), 0o755|os.ModeSetuid|os.ModeSetgid))
	must(t, os.Mkdir(filepath.Join(src, "mail"), 0o700))
	must(t, os.Chmod(filepath.Join(src, "mail"), 0o775|os.ModeSetgid|os.ModeSticky))
	must(t, os.Chmod(src, 0o777))
	must(t, os.Chtimes(src, madeLongAgo, madeLongAgo))
	privileged := os.Geteuid() == 0
	if privileged {
		must(t, unix.Lsetxattr(filepath.Join(src, "mail"), "trusted.overlay.opaque", []byte("y"), 0))
		must(t, unix.Lsetxattr(filepath.Join(src, "tool"), capabilityName, capabilities, 0))
	}
	m := writeTreeOf(t, src, TreeOptions{})
	index := m.openIndex(t)
	for _, c := range []struct {
		name       string
		opts       ExtractOptions
		root, tool uint32
		mail       uint32
		withheld   int64
	}{
		{"a folder", ExtractOptions{}, 0o700, 0o755, 0o1775, 2},
		{"a folder, with an index", ExtractOptions{Index: index}, 0o700, 0o755, 0o1775, 2},
		{"some of it", ExtractOptions{Index: index, Paths: []string{"tool"}}, 0o700, 0o755, 0, 1},
		{"a folder, with privileges", ExtractOptions{Privileges: true}, 0o700, 0o6755, 0o3775, 0},
		{"a filesystem that is made again", ExtractOptions{Rebuild: true, Index: index}, 0o777, 0o6755, 0o3775, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o700))
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			r, err := NewReader(context.Background(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
			must(t, err)
			defer r.Close()
			stats, err := Extract(context.Background(), r, root, c.opts)
			must(t, err)
			for name, want := range map[string]uint32{".": c.root, "tool": c.tool, "mail": c.mail} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(dir, name), &st); (err != nil || st.Mode&0o7777 != want) && want != 0 {
					t.Errorf("%s has mode %o, want %o (%v)", name, st.Mode&0o7777, want, err)
				}
			}
			info, err := os.Stat(dir)
			must(t, err)
			if got := info.ModTime().Equal(madeLongAgo); got != c.opts.Rebuild {
				t.Errorf("the folder itself is of %v", info.ModTime())
			}
			i := slices.IndexFunc(stats.Shortfalls, func(s Shortfall) bool { return s.What == Withheld })
			if count := c.withheld; (i >= 0) != (count > 0) || i >= 0 && stats.Shortfalls[i].Count != count {
				t.Errorf("shortfalls %+v, want %d withheld", stats.Shortfalls, count)
			}
			if !privileged || c.mail == 0 {
				return
			}
			for name, attribute := range map[string]string{"tool": capabilityName, "mail": "trusted.overlay.opaque"} {
				n, err := unix.Lgetxattr(filepath.Join(dir, name), attribute, nil)
				if has := err == nil && n > 0; has != (c.withheld == 0) {
					t.Errorf("%s has %s: %v", name, attribute, has)
				}
			}
		})
	}
}
