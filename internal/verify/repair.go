package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
)

// rebuiltNote is the warning that an amended manifest carries.
const rebuiltNote = "the index of %s was lost and made again from the archive: times of change, inode numbers, chattr flags, " +
	"sockets and attributes that tar cannot express are not in it"

// Keys are what repairing an encrypted backup takes: the zero value is for one that is not.
type Keys struct {
	Decrypt    browse.DecryptFunc  // opens its archives
	Recipients *agefile.Recipients // those for whom new files are encrypted
}

// RepairIndexes makes the indexes that are lost or damaged again from their archives, which must be sound, and puts the
// list of sums right. It returns the names of the files that it wrote; one that cannot be made again does not keep the
// others. Nothing else of the backup changes, and after a crash it stands as it was, or with files that a further call
// puts right (catalog.Amendment). The caller holds the locks of the volume and of the destination, so that nobody
// removes the backup meanwhile.
func RepairIndexes(
	ctx context.Context, s store.Store, b catalog.Backup, keys Keys,
) (written []string, amended catalog.Backup, err error) {
	if keys.Decrypt == nil {
		keys.Decrypt = browse.Decrypt(nil, false)
	}
	a, err := catalog.Amend(ctx, s, b)
	if err != nil {
		return nil, b, err
	}
	var failed []error
	for i := range a.Manifest.Extents {
		x := &a.Manifest.Extents[i]
		if x.State != catalog.StateFiles || x.Index == nil {
			continue
		}
		if fits(ctx, s, b, x.Index.Name, func(f store.Reader) error { return checkIndex(ctx, b, *x.Index, f, keys) }) {
			continue
		}
		if err := rebuild(ctx, s, b, a, x, keys); err != nil {
			failed = append(failed, err)
			continue
		}
		written = append(written, x.Index.Name)
	}
	list := catalog.NamesOf(b.ID.Ref, false).Checksum()
	if _, ok := b.Manifest.File(list); ok && (len(written) > 0 || !fits(ctx, s, b, list, nil)) {
		written = append(written, list)
	}
	if len(written) == 0 || ctx.Err() != nil {
		return nil, b, errors.Join(append(failed, context.Cause(ctx))...)
	}
	amended, err = a.Commit(ctx)
	if err != nil {
		return written, b, errors.Join(append(failed, err)...)
	}
	return append(written, catalog.ManifestName), amended, errors.Join(failed...)
}

// fits says whether a file is there, has the sums of the manifest, and whatever else is asked of it.
func fits(ctx context.Context, s store.Store, b catalog.Backup, name string, also func(store.Reader) error) bool {
	f, err := b.OpenFile(ctx, s, name)
	if err != nil {
		return false
	}
	err = compare(ctx, b, name, f)
	if err == nil && also != nil {
		err = also(f)
	}
	return errors.Join(err, f.Close()) == nil
}

func compare(ctx context.Context, b catalog.Backup, name string, f store.Reader) error {
	source := NewSumming(ctx, f, true, func(int64) {})
	defer source.Abandon()
	return compareSumming(b, name, source)
}

func compareSumming(b catalog.Backup, name string, source *Summing) error {
	want, _ := b.Manifest.File(name) // it was opened by the manifest
	digest, err := source.Sum()
	if err == nil && (digest.SHA1 != want.SHA1 || digest.SHA256 != want.SHA256) {
		err = fmt.Errorf("%s: %w", name, errSums)
	}
	return err
}

// checkIndex looks whether an index can be opened. One that is encrypted, without a key, is taken for good when its sums
// are.
func checkIndex(ctx context.Context, b catalog.Backup, in catalog.Index, f store.Reader, keys Keys) (err error) {
	var plain browse.File = f
	if browse.Encrypted(in.Name) {
		plain, err = keys.Decrypt(b, in.Name, lent{f})
		if errors.Is(err, browse.ErrEncrypted) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	_, err = archive.OpenIndex(ctx, plain, plain.SizeBytes(), in.BlocksOffset)
	return err
}

// lent is a file that stays its owner's.
type lent struct{ store.Reader }

func (lent) Close() error { return nil }

// rebuild makes one index. The archive is summed up while it is read; one that is not what was stored gives no index.
func rebuild(ctx context.Context, s store.Store, b catalog.Backup, a *catalog.Amendment, x *catalog.Extent, keys Keys) (err error) {
	if browse.Encrypted(x.Index.Name) && keys.Recipients == nil {
		return say.WithHint(fmt.Errorf("cannot make %s again: its destination has no recipients to encrypt it for", x.Index.Name),
			"set recipients of the destination, as they were when the backup was made")
	}
	stored, err := b.OpenFile(ctx, s, x.Archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stored.Close()) }()
	source := NewSumming(ctx, stored, true, func(int64) {})
	defer source.Abandon()
	var plain browse.File = source
	if browse.Encrypted(x.Archive) {
		if plain, err = keys.Decrypt(b, x.Archive, source); err != nil {
			return err
		}
	}
	var offset, plainBytes int64
	produce := func(w io.Writer) error {
		var err error
		if offset, err = archive.RebuildIndex(ctx, plain, plain.SizeBytes(), w); err != nil {
			return err
		}
		return compareSumming(b, x.Archive, source)
	}
	if browse.Encrypted(x.Index.Name) {
		plain := produce
		produce = func(w io.Writer) (err error) {
			plainBytes, err = keys.Recipients.Encrypt(w, plain)
			return err
		}
	}
	if err := a.Replace(ctx, x.Index.Name, produce); err != nil {
		return err
	}
	a.SetPlainSize(x.Index.Name, plainBytes)
	x.Index.BlocksOffset, x.Index.Rebuilt = offset, true
	if note := fmt.Sprintf(rebuiltNote, label(x.Name)); !slices.Contains(a.Manifest.Warnings, note) {
		a.Manifest.Warnings = append(a.Manifest.Warnings, note)
	}
	return nil
}
