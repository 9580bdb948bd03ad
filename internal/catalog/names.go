package catalog

import (
	"errors"
	"fmt"
	"strings"
)

// AgeSuffix is on the name of every file that is encrypted.
const AgeSuffix = ".age"

// Names makes the file names of one backup. Only writers use it: readers take names from the manifest.
type Names struct {
	base   string
	suffix string
}

// NamesOf returns the names for a source's backup. Those of what is encrypted end in AgeSuffix.
func NamesOf(ref Ref, encrypted bool) Names {
	names := Names{base: ref.Name}
	if encrypted {
		names.suffix = AgeSuffix
	}
	return names
}

// Archive is of an extent that is stored as files: "volume-00000001.p1.tar.gz"; extent is "" without a table.
func (n Names) Archive(extent string) string { return n.of(extent, "tar.gz") }

// Index is of an archive's index: "volume-00000001.p1.index.gz".
func (n Names) Index(extent string) string { return n.of(extent, "index.gz") }

// Image is of an extent that is stored as an image: "volume-00000001.p3.img.gz".
func (n Names) Image(extent string) string { return n.of(extent, "img.gz") }

// Members is of the list of an image's members: "volume-00000001.p3.members.gz".
func (n Names) Members(extent string) string { return n.of(extent, "members.gz") }

// Boot is of the boot code and everything before the first partition: "volume-00000001.boot.gz".
func (n Names) Boot() string { return n.of("", "boot.gz") }

// BootArea is of the first sectors of a filesystem: "volume-00000001.p1.boot.gz".
func (n Names) BootArea(extent string) string { return n.of(extent, "boot.gz") }

// Table is of the partition table: "volume-00000001.sfdisk".
func (n Names) Table() string { return n.of("", "sfdisk") }

// Dump is of a dump tied to the source: "volume-00000001.mysql.dump.gz"; dump is "" for a source that is a dump itself.
func (n Names) Dump(dump string) string { return n.of(dump, "dump.gz") }

// Guest is of what defines the guest whose disk the source is: "volume-00000001.guest.tar.gz".
func (n Names) Guest() string { return n.of("guest", "tar.gz") }

// Details is of the whole manifest of an encrypted backup: "volume-00000001.manifest.json.age".
func (n Names) Details() string { return n.of("", ManifestName) }

// Checksum is of the list of sums, which is never encrypted: "volume-00000001.checksum".
func (n Names) Checksum() string { return n.base + checksumSuffix }

const checksumSuffix = ".checksum"

func (n Names) of(part, kind string) string {
	name := n.base
	if part != "" {
		name += "." + part
	}
	return name + "." + kind + n.suffix
}

// Summed returns those files of a backup that its .checksum lists: all but that itself and RESTORE.txt, which people may change.
// As sha1sum fails on a list of nothing, RESTORE.txt is in it where there is no other, as in the backup of a swap area.
func Summed(files []File) []File {
	var list, recipe []File
	for _, file := range files {
		switch {
		case file.Name == RecipeName:
			recipe = append(recipe, file)
		case !strings.HasSuffix(file.Name, checksumSuffix):
			list = append(list, file)
		}
	}
	if len(list) == 0 {
		return recipe
	}
	return list
}

// Checksum is the text of the .checksum file for some files of a backup, as "sha1sum -c" reads it: a name with a
// backslash, which it would take for an escape, is escaped and its line marked by one in front.
func Checksum(files []File) ([]byte, error) {
	var text strings.Builder
	for _, file := range files {
		if err := errors.Join(CheckFileName(file.Name), checkHex("SHA-1", file.SHA1, sha1HexBytes)); err != nil {
			return nil, fmt.Errorf("list the sum of %q: %w", file.Name, err)
		}
		mark, name := "", file.Name
		if strings.Contains(name, `\`) {
			mark, name = `\`, strings.ReplaceAll(name, `\`, `\\`)
		}
		fmt.Fprintf(&text, "%s%s  %s\n", mark, file.SHA1, name)
	}
	return []byte(text.String()), nil
}
