package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Encryption says that the files of a backup are encrypted, all but the list of sums, the recipe and the manifest
// itself. Sums and sizes are of what is stored.
type Encryption struct {
	Format     string   `json:"format"`     // age-encryption.org/v1
	Recipients []string `json:"recipients"` // public keys, each of which can read it
	// Details names the encrypted file that has this manifest with what is left out of it: names of damaged files, and
	// warnings. There is none when nothing is left out.
	Details string `json:"details,omitempty"`
}

// Names are those of the backup's files.
func (m *Manifest) Names() Names { return NamesOf(m.Source.Ref(), m.Encryption != nil) }

// Encrypted returns the manifest of the same backup on a destination that encrypts: every file of an extent has the name
// of an encrypted one. The list of files is the caller's to set.
func (m *Manifest) Encrypted(format string, recipients []string) *Manifest {
	sealed := *m
	sealed.Encryption = &Encryption{Format: format, Recipients: slices.Clone(recipients)}
	sealed.Extents = slices.Clone(m.Extents)
	for i := range sealed.Extents {
		x := &sealed.Extents[i]
		x.Archive, x.Members, x.BootArea = sealedName(x.Archive), sealedName(x.Members), sealedName(x.BootArea)
		if x.Index != nil {
			index := *x.Index
			index.Name = sealedName(index.Name)
			x.Index = &index
		}
		if x.PV != nil {
			pv := *x.PV
			pv.Tail = sealedName(pv.Tail)
			x.PV = &pv
		}
	}
	sealed.Dumps = slices.Clone(m.Dumps)
	for i := range sealed.Dumps {
		sealed.Dumps[i].File = sealedName(sealed.Dumps[i].File)
	}
	sealed.Definition = sealedName(m.Definition)
	return &sealed
}

func sealedName(name string) string {
	if name == "" {
		return ""
	}
	return name + AgeSuffix
}

// Public returns a manifest without what must not be read by everyone who gets at an encrypted backup: names of a
// guest's files, and warnings, which may hold some. It says whether anything was left out.
func (m *Manifest) Public() (_ *Manifest, withheld bool) {
	public := *m
	withheld = len(m.Warnings) > 0
	public.Warnings = nil
	public.Extents = slices.Clone(m.Extents)
	for i := range public.Extents {
		x := &public.Extents[i]
		hasPath := func(d Damage) bool { return d.Path != "" || len(d.PathB64) > 0 }
		if slices.ContainsFunc(x.Damaged, hasPath) {
			x.Damaged = slices.DeleteFunc(slices.Clone(x.Damaged), hasPath)
			withheld = true
		}
	}
	return &public, withheld
}

// checkSecrecy refuses a manifest that calls a backup encrypted which has files that are not, or the other way round.
func (m *Manifest) checkSecrecy() error {
	if m.Encryption != nil && len(m.Encryption.Recipients) == 0 {
		return fmt.Errorf("a backup that is encrypted for nobody")
	}
	open := []string{m.Names().Checksum(), RecipeName}
	for _, file := range m.Files {
		encrypted := strings.HasSuffix(file.Name, AgeSuffix)
		if want := m.Encryption != nil && !slices.Contains(open, file.Name); encrypted != want {
			return fmt.Errorf("the file %q does not go with a backup that is encrypted: %t", file.Name, m.Encryption != nil)
		}
	}
	return nil
}
