package archive

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Attributes that no list has are asked for, and stored where attributes of their kind are.
func TestUnlistedAttributes(t *testing.T) {
	values := map[string]string{"user.a": "1", "system.ntfs_security": "sd"}
	for _, c := range []struct {
		name   string
		list   string // "" is a filesystem without lists
		absent error  // of what is not there
		failed bool
		xattrs int
	}{
		{"beside a list", "user.a\x00", unix.EOPNOTSUPP, false, 1},
		{"none of that name", "user.a\x00", unix.ENOENT, false, 1},
		{"without a list", "", unix.ENODATA, false, 0},
		{"cannot be read", "", unix.EIO, true, 0},
		{"a listed one that is not supported", "user.b\x00", unix.EOPNOTSUPP, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := new(attrReader).read(func(buf []byte) (int, error) {
				if c.list == "" {
					return 0, unix.EOPNOTSUPP
				}
				return copy(buf, c.list), nil
			}, func(name string, buf []byte) (int, error) {
				if value, ok := values[name]; ok {
					return copy(buf, value), nil
				}
				return 0, c.absent
			}, []string{"system.ntfs_security", "system.dos_attrib"})
			if (err != nil) != c.failed || len(a.xattrs) != c.xattrs {
				t.Errorf("%d attributes in the tar stream, error %v", len(a.xattrs), err)
			}
			if diff := cmp.Diff(map[string][]byte{"system.ntfs_security": []byte("sd")}, a.odd); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Where modes stand for something else than permissions, they can be left out.
func TestExtractWithoutModes(t *testing.T) {
	src := t.TempDir()
	writeFile(t, filepath.Join(src, "odd"), []byte("x"), 0o604)
	must(t, unix.Mkfifo(filepath.Join(src, "pipe"), 0o604))
	must(t, os.Chmod(filepath.Join(src, "pipe"), 0o604))
	made := writeTreeOf(t, src, TreeOptions{})
	for _, without := range []bool{false, true} {
		dir, _, err := extractBytes(t, made.archive, ExtractOptions{NoMode: without})
		must(t, err)
		for _, name := range []string{"odd", "pipe"} {
			info, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			if got := info.Mode().Perm() == 0o604; got == without {
				t.Errorf("without modes: %v: %s has mode %o", without, name, info.Mode().Perm())
			}
		}
	}
}
