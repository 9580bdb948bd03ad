package loopdev

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseList(t *testing.T) {
	const report = `{"loopdevices": [
		{"name":"/dev/loop0", "back-file":"/images/a.img"},
		{"name":"/dev/loop1", "back-file":"/images/b.img"},
		{"name":"/dev/loop2", "back-file":"/images/a.img (deleted)"},
		{"name":"/dev/loop3", "back-file":null}
	]}`
	got, err := parseList([]byte(report), sameAs("/images/a.img"))
	if want := []string{"/dev/loop0", "/dev/loop2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
	if got, err := parseList([]byte("\n"), sameAs("/images/a.img")); err != nil || got != nil {
		t.Errorf("no loop devices: %v %v", got, err)
	}
	for _, bad := range []string{"{", `{"loopdevices": [{"name":"loop0", "back-file":"/images/a.img"}]}`} {
		if _, err := parseList([]byte(bad), sameAs("/images/a.img")); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// The kernel names a backing file by its real path.
func TestBackingFileByAnotherPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if same := sameAs(link); !same(file) || same(filepath.Join(dir, "other")) {
		t.Error("a link and its target are not told to be the same, or other files are")
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`{"loopdevices": [{"name":"/dev/loop0", "back-file":"/a"}]}`))
	f.Fuzz(func(t *testing.T, report []byte) {
		devices, err := parseList(report, func(string) bool { return true })
		if err != nil && devices != nil {
			t.Error("devices beside an error")
		}
	})
}
