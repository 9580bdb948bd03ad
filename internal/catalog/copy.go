package catalog

import (
	"context"
	"fmt"
	"path"
	"slices"

	"voltar/internal/say"
	"voltar/internal/store"
)

// ManifestText returns the manifest of a backup as it is stored, for CommitText in another store. One that has changed
// since the backup was listed is refused.
func (b Backup) ManifestText(ctx context.Context, s store.Store) ([]byte, error) {
	data, _, err := read(ctx, s, path.Join(b.Path(), ManifestName), MaxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", b.ID, err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", b.ID, err)
	}
	if m.ID().Compare(b.ID) != 0 || !slices.Equal(m.Files, b.Manifest.Files) {
		return nil, say.WithHint(fmt.Errorf("read the manifest of %s: cannot go on: somebody else has changed it", b.ID),
			"try again")
	}
	return data, nil
}

// CommitText is Commit for a copy of a backup of another store: the manifest is taken over byte for byte, fields of
// newer versions included. Nothing in it says where the backup is kept.
func (d *Draft) CommitText(ctx context.Context, text []byte) (Backup, error) {
	m, err := ParseManifest(text)
	if err != nil {
		return Backup{}, fmt.Errorf("commit backup %s: %w", d.id, err)
	}
	return d.commit(ctx, m, text)
}
