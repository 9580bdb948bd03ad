package recipe

import (
	"cmp"
	"slices"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/sign"
)

// IsEncrypted says that the files have to be decrypted first.
func (v view) IsEncrypted() bool { return v.Encryption != nil }

// Recipients names the public keys for which the backup is encrypted.
func (v view) Recipients() string { return say.Clean(strings.Join(v.Encryption.Recipients, ", ")) }

// Command is what does all that the page says.
func (v view) Command() string {
	if v.IsEncrypted() {
		return "voltar restore --identity key.txt"
	}
	return "voltar restore"
}

// AlsoNeeded names the programs beside those that every backup needs.
func (v view) AlsoNeeded() string {
	also := ""
	if v.IsEncrypted() {
		also = ", age"
	}
	if v.Signed {
		also += ", ssh-keygen"
	}
	if slices.ContainsFunc(v.Extents, func(x catalog.Extent) bool { return x.LongPaths > 0 }) {
		also += ", findutils"
	}
	if v.IsVolume() {
		also += ", and the mkfs of each filesystem"
	}
	return also
}

// Namespace is of the signatures of manifests.
func (v view) Namespace() string { return sign.Namespace }

// Details names the file that says what is damaged.
func (v view) Details() string {
	if v.Encryption != nil && v.Encryption.Details != "" {
		return say.Clean(v.Encryption.Details)
	}
	return catalog.ManifestName
}

// TryKey is the command that fails with the wrong key, on the smallest of the files: all are for the same keys.
func (v view) TryKey() string {
	encrypted := slices.DeleteFunc(slices.Clone(v.Files), func(f catalog.File) bool { return !isEncrypted(f.Name) })
	if len(encrypted) == 0 {
		return "true" // nothing is stored but the words of this page
	}
	smallest := slices.MinFunc(encrypted, func(a, b catalog.File) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
	return decrypted(smallest.Name) + " > /dev/null"
}

func isEncrypted(name string) bool { return strings.HasSuffix(name, catalog.AgeSuffix) }

// decrypted is the command that writes out what a file held before it was encrypted.
func decrypted(name string) string { return `age -d -i "$IDENTITY" ` + say.ShellWord(name) }

// inflated is the command that writes out what is compressed in a file.
func inflated(name string) string {
	if isEncrypted(name) {
		return decrypted(name) + " | gzip -dc"
	}
	return "gzip -dc " + say.ShellWord(name)
}

// unpacked is the command that unpacks an archive with tar, whose options come before the name of the archive.
func unpacked(tar, name string) string {
	if isEncrypted(name) {
		return decrypted(name) + " | " + tar + " -"
	}
	return tar + " " + say.ShellWord(name)
}
