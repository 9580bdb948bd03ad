package catalog

import (
	"context"
	"fmt"
	"path"

	"voltar/internal/store"
)

// LoadText reads a backup, and its manifest as it is stored, for CommitText in another store.
func (e Entry) LoadText(ctx context.Context, s store.Store) (Backup, []byte, error) {
	text, size, err := read(ctx, s, path.Join(e.Path(), ManifestName), MaxManifestBytes)
	if err != nil {
		return Backup{}, nil, fmt.Errorf("read the manifest of %s: %w", e.ID, err)
	}
	b, err := parseBackup(e.Host, e.ID, text, size)
	if err != nil {
		return Backup{}, nil, fmt.Errorf("read the manifest of %s: %w", e.ID, err)
	}
	b.Damage = e.Damage
	return b, text, nil
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
