package restore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"voltar/internal/catalog"
)

// Every byte of an image is compared, zeros around partitions too, but for what sfdisk wrote.
func TestImageIsCompared(t *testing.T) {
	const at, sizeBytes = 512, 100 << 10
	image := bytes.Repeat([]byte("voltar"), sizeBytes/6+1)[:sizeBytes]
	clear(image[50<<10:])
	path := filepath.Join(t.TempDir(), "image")
	gpt := &writeTable{written: true, want: &catalog.Table{Label: "gpt", SectorBytes: 512}, layout: &layout{targetBytes: 1 << 30}}
	for _, c := range []struct {
		name   string
		spoilt int64 // byte of the volume; 0 for none
		table  *writeTable
		same   bool
	}{
		{"as it was", 0, nil, true},
		{"data", 20 << 10, nil, false},
		{"zeros within a partition", 60 << 10, nil, true},
		{"zeros around partitions", 60 << 10, gpt, false},
		{"the table that sfdisk wrote", 1100, gpt, true},
		{"behind that table", 34*512 + 1, gpt, false},
		{"the table that came with the image", 1100, &writeTable{want: gpt.want, layout: gpt.layout}, false},
	} {
		have := bytes.Clone(image)
		if c.spoilt > 0 {
			have[c.spoilt-at] ^= 1
		}
		if err := os.WriteFile(path, have, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		compared := &imageComparer{file: file, at: at, except: c.table.anew(), zeros: c.table != nil}
		_, err = compared.WriteAt(image[:50<<10], 0)
		if err == nil {
			err = compared.PunchHole(50<<10, 50<<10)
		}
		if same := err == nil; same != c.same || err != nil && !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
