package verify

import (
	"strings"

	"voltar/internal/catalog"
)

// what a file of a backup is, by the manifest.
type what int

const (
	whatOther what = iota // read whole for its sums alone
	whatTree              // an archive of files
	whatImage             // an image of an extent
	whatIndex
	whatSmallImage // the beginning of a filesystem
	whatTable      // the partition table
	whatSums       // the list of sums
	whatStream     // gzip of something without structure: a dump
)

// kind says what a file is and which extent it belongs to.
type kind struct {
	what   what
	extent *catalog.Extent // of archives, images and indexes
}

// kindsOf tells the kind of every file. Names are not parsed but for those that the manifest gives no role.
func kindsOf(m *catalog.Manifest) map[string]kind {
	kinds := map[string]kind{}
	names := catalog.NamesOf(m.Source.Ref(), false)
	for _, file := range m.Files {
		plain := strings.TrimSuffix(file.Name, catalog.AgeSuffix)
		switch {
		case plain == names.Table():
			kinds[file.Name] = kind{what: whatTable}
		case plain == names.Checksum():
			kinds[file.Name] = kind{what: whatSums}
		case strings.HasSuffix(plain, ".gz"):
			kinds[file.Name] = kind{what: whatStream}
		}
	}
	for i := range m.Extents {
		x := &m.Extents[i]
		if x.BootArea != "" {
			kinds[x.BootArea] = kind{what: whatSmallImage, extent: x}
		}
		switch x.State {
		case catalog.StateFiles:
			kinds[x.Archive] = kind{what: whatTree, extent: x}
			if x.Index != nil {
				kinds[x.Index.Name] = kind{what: whatIndex, extent: x}
			}
		case catalog.StateImage:
			kinds[x.Archive] = kind{what: whatImage, extent: x}
		}
	}
	return kinds
}
