package browse

import (
	"errors"
	"fmt"
	"strings"

	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

// Decrypt returns a DecryptFunc for those who have identities. A lenient one takes damage for zeros, so that what is
// behind it can be had; the files that it opens are Damageable.
func Decrypt(identities *agefile.Identities, lenient bool) DecryptFunc {
	return func(b catalog.Backup, name string, stored File) (File, error) {
		if identities.None() {
			return nil, errors.Join(noKey(b, name), stored.Close())
		}
		plain, err := agefile.Open(stored, stored.SizeBytes(), identities, agefile.OpenOptions{Lenient: lenient})
		if err != nil {
			if errors.Is(err, agefile.ErrNoKey) {
				err = fmt.Errorf("%w, and it is encrypted to %s", err, recipients(b))
			}
			return nil, errors.Join(fmt.Errorf("open %s of %s: %w", name, b.ID, err), stored.Close())
		}
		return &decrypted{plain, stored}, nil
	}
}

// Damageable is implemented by files in which damage reads as zeros.
type Damageable interface {
	// Damaged lists what of the file has been given as zeros so far.
	Damaged() []agefile.Range
}

// decrypted is an encrypted file that is open.
type decrypted struct {
	*agefile.File
	stored File
}

func (d *decrypted) Close() error { return d.stored.Close() }

// noKey is the error for who has no key.
func noKey(b catalog.Backup, name string) error {
	return say.WithHint(fmt.Errorf("open %s of %s: %w to %s", name, b.ID, ErrEncrypted, recipients(b)),
		"give the secret key of one of them: --identity FILE")
}

// recipients names those who can read a backup.
func recipients(b catalog.Backup) string {
	if b.Manifest == nil || b.Manifest.Encryption == nil {
		return "keys that its manifest does not name"
	}
	return strings.Join(b.Manifest.Encryption.Recipients, ", ")
}
