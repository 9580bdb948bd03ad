package archive

import (
	"bytes"
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
			a, err := (&attrReader{limits: defaultLimits()}).read(func(buf []byte) (int, error) {
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

// What the filesystem gave an entry by itself goes, and what the archive has of that name stays. A folder that is there
// already stands for one that was just made.
func TestExtractRemovesUnbiddenAttributes(t *testing.T) {
	src := t.TempDir()
	for _, name := range []string{"bare", "own"} {
		must(t, os.Mkdir(filepath.Join(src, name), 0o755))
	}
	must(t, unix.Setxattr(filepath.Join(src, "own"), "user.mode", []byte("archived"), 0))
	made := writeTreeOf(t, src, TreeOptions{})
	dir := t.TempDir()
	for _, name := range []string{"bare", "own"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		must(t, unix.Setxattr(filepath.Join(dir, name), "user.mode", []byte("made up"), 0))
	}
	must(t, unix.Setxattr(filepath.Join(dir, "bare"), "user.other", []byte("kept"), 0))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	r, err := NewReader(t.Context(), bytes.NewReader(made.archive), int64(len(made.archive)), ReaderOptions{})
	must(t, err)
	defer r.Close()
	_, err = Extract(t.Context(), r, root, ExtractOptions{Unbidden: []string{"user.mode", "user.none"}})
	must(t, err)
	for _, c := range []struct{ entry, name, want string }{
		{"bare", "user.mode", ""}, {"bare", "user.other", "kept"}, {"own", "user.mode", "archived"},
	} {
		value := make([]byte, 100)
		n, err := unix.Getxattr(filepath.Join(dir, c.entry), c.name, value)
		if got := string(value[:max(n, 0)]); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s of %s is %q (%v), want %q", c.name, c.entry, got, err, c.want)
		}
	}
}
