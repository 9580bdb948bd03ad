package placement

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/recipe"
	"voltar/internal/sign"
	"voltar/internal/store"
	"voltar/report"
)

// encrypts says whether what goes to the branch is encrypted.
func (b *branch) encrypts() bool { return b.target.Recipients != nil }

// sealed encrypts one file on its way to one branch, and sums up what is stored.
type sealed struct {
	*agefile.Writer
	sums *archive.Sums
}

// newSealed begins an encrypted file. What is written to it goes to w, which stays the caller's.
func newSealed(recipients *agefile.Recipients, w store.Writer) (*sealed, error) {
	sums := archive.NewSums()
	writer, err := recipients.NewWriter(io.MultiWriter(sums, w))
	if err != nil {
		sums.Sum()
		return nil, err
	}
	return &sealed{writer, sums}, nil
}

// finish writes the end of the encrypted file and describes it. Its size follows from what was encrypted: any other
// would mean that something was left out.
func (s *sealed) finish(name string) (catalog.File, error) {
	if err := s.Close(); err != nil {
		return catalog.File{}, fmt.Errorf("encrypt: %w", err)
	}
	sums := s.sums.Sum()
	if sums.SizeBytes != s.StoredBytes() {
		return catalog.File{}, fmt.Errorf("%d bytes came out of the encryption of %d, where it should be %d", sums.SizeBytes,
			s.PlainBytes(), s.StoredBytes())
	}
	return catalog.File{
		Name: name, SizeBytes: sums.SizeBytes, SHA1: sums.SHA1, SHA256: sums.SHA256, PlainSizeBytes: s.PlainBytes(),
	}, nil
}

// seal makes of a manifest the one for a branch that encrypts, and what must be kept of it in an encrypted file because
// not everybody may read it; nil when that is nothing.
func seal(m *catalog.Manifest, recipients *agefile.Recipients) (public *catalog.Manifest, details []byte, err error) {
	whole := m.Encrypted(agefile.Format, recipients.Keys())
	public, withheld := whole.Public()
	if !withheld {
		return public, nil, nil
	}
	public.Encryption.Details = public.Names().Details()
	details, err = json.MarshalIndent(whole, "", "  ")
	return public, details, err
}

// Published is a backup that stands.
type Published struct {
	Backup      string // its ID
	StoredBytes int64  // on the destination where it takes most
	Warnings    []report.Problem
}

// Publish writes checksums, recipe and at last the manifest to each destination. From then on there is a backup. The manifest
// is given without the files of each destination, and without its end.
func (o *Output) Publish(ctx context.Context, m catalog.Manifest) (Published, error) {
	p := Published{Backup: o.ID.String()}
	for _, b := range o.alive() {
		own := m
		if own.Ended = o.run.Now().UTC(); own.Ended.Round(0).Before(own.Started.Round(0)) {
			own.Ended = own.Started // the clock was set back meanwhile; readers refuse a backup that ended before it began
		}
		backup, err := b.publish(ctx, own)
		if err != nil {
			b.drop(err)
			continue
		}
		b.copy.Path, b.copy.SharedBytes = catalog.Place(b.target.Store, backup.Path()), b.carried.shared
		p.Warnings = append(p.Warnings, b.note(backup)...)
		p.StoredBytes = max(p.StoredBytes, backup.SizeBytes)
	}
	return p, o.Failure()
}

// publish writes checksums, recipe and at last the manifest of what the branch has stored. A branch that encrypts makes
// the manifest that everybody may read of the one given.
func (b *branch) publish(ctx context.Context, m catalog.Manifest) (catalog.Backup, error) {
	if b.encrypts() {
		if err := b.sealManifest(ctx, &m); err != nil {
			return catalog.Backup{}, err
		}
	}
	m.Files = b.files
	if err := b.writeOpen(ctx, catalog.RecipeName, recipe.Text(&m, recipe.Options{Signed: sign.Signs(b.target.Store)})); err != nil {
		return catalog.Backup{}, err
	}
	sums, err := catalog.Checksum(catalog.Summed(b.files))
	if err != nil {
		return catalog.Backup{}, err
	}
	if err := b.writeOpen(ctx, catalog.NamesOf(m.Source.Ref(), b.encrypts()).Checksum(), sums); err != nil {
		return catalog.Backup{}, err
	}
	m.Files = b.files
	backup, err := b.draft.Commit(ctx, &m)
	if err != nil {
		return catalog.Backup{}, err
	}
	b.stands = true
	b.target.stock.Add(backup)
	return backup, nil
}

// alone is an output to this branch and no other.
func (b *branch) alone() *Output { return &Output{places: []*place{b.place}, branches: []*branch{b}} }

// writeOpen writes a file that is never encrypted.
func (b *branch) writeOpen(ctx context.Context, name string, text []byte) error {
	one := b.alone()
	one.plaintext = true
	_, err := one.Write(ctx, name, int64(len(text)), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	return err
}

// sealManifest makes of a manifest the one for a branch that encrypts. What of it not everybody may read goes into a
// file of its own.
func (b *branch) sealManifest(ctx context.Context, m *catalog.Manifest) error {
	public, details, err := seal(m, b.target.Recipients)
	if err != nil {
		return err
	}
	*m = *public
	if details == nil {
		return nil
	}
	one := b.alone()
	_, err = one.Write(ctx, strings.TrimSuffix(m.Encryption.Details, catalog.AgeSuffix), int64(len(details)), func(w io.Writer) error {
		_, err := w.Write(details)
		return err
	})
	return err
}
