package backup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHibernated(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                bool
	}{
		{"never", "", "", false},
		{"asleep", "hiberfil.sys", "hibr and more", true},
		{"asleep, in old letters", "HIBERFIL.SYS", "HIBR", true},
		{"awake", "hiberfil.sys", "wake up", false},
		{"never used", "hiberfil.sys", "\x00\x00\x00\x00\x00", false},
		{"empty", "hiberfil.sys", "", false},
		{"another file", "hiberfil.sys.txt", "hibr", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			root, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if got, err := hibernated(root); err != nil || got != c.want {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}
