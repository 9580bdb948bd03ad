// Package browse looks into one backup: what its archives hold, one file of them, or many into a folder. It reads the
// index of an archive, and of the archive only the members that hold what is asked for (docs/format.md).
package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
)

var (
	// ErrUsage is wrapped by the error of a question that makes no sense for the backup.
	ErrUsage = errors.New("cannot look there")
	// ErrEncrypted is wrapped by the error of a file that is encrypted and for which there is no key.
	ErrEncrypted = errors.New("the file is encrypted")
	// ErrNoIndex is wrapped by the error of an archive whose index cannot be used.
	ErrNoIndex = errors.New("the index cannot be used")
)

// File is a file of a backup as it was before encryption, open for reading at any offset. ReadAt is safe for concurrent
// use.
type File interface {
	io.ReaderAt
	io.Closer
	SizeBytes() int64
}

// OpenFunc opens a file of a backup by its name in the manifest. All that reads archives goes through one, so that what
// is encrypted is decrypted in this one place. A file whose stored size is not the manifest's is opened all the same.
type OpenFunc func(ctx context.Context, s store.Store, b catalog.Backup, name string) (File, error)

// DecryptFunc gives an encrypted file of a backup as it was before. It takes the stored one over: closing what it returns
// closes that too, and an error has closed it. The error wraps ErrEncrypted when there is no key at all.
type DecryptFunc func(b catalog.Backup, name string, stored File) (File, error)

// Opener opens files as they are stored, and those that are encrypted with decrypt.
func Opener(decrypt DecryptFunc) OpenFunc {
	return opener(decrypt, func(ctx context.Context, s store.Store, b catalog.Backup, name string) (store.Reader, error) {
		return b.OpenStored(ctx, s, name)
	})
}

// Checked is an Opener of files whose sums are those of the manifest. It reads each whole before it gives anything of it, so
// that what a signed manifest vouches for is what is read. Another, even of the same size, is refused with an error that wraps
// catalog.ErrDamaged.
func Checked(decrypt DecryptFunc) OpenFunc { return opener(decrypt, openChecked) }

func opener(decrypt DecryptFunc, open func(context.Context, store.Store, catalog.Backup, string) (store.Reader, error)) OpenFunc {
	return func(ctx context.Context, s store.Store, b catalog.Backup, name string) (File, error) {
		stored, err := open(ctx, s, b, name)
		if err != nil {
			return nil, err
		}
		if !Encrypted(name) {
			return stored, nil
		}
		return decrypt(b, name, stored)
	}
}

func openChecked(ctx context.Context, s store.Store, b catalog.Backup, name string) (store.Reader, error) {
	stored, err := b.OpenFile(ctx, s, name)
	if err != nil {
		return nil, err
	}
	sums := archive.NewSums()
	_, err = io.Copy(sums, &interruptible{ctx, stored})
	digest := sums.Sum()
	want, _ := b.Manifest.File(name) // it was opened by the manifest
	if err == nil && (digest.SHA1 != want.SHA1 || digest.SHA256 != want.SHA256) {
		err = say.WithHint(fmt.Errorf("%w: its sums are not those in the manifest", catalog.ErrDamaged),
			"take another backup; `voltar verify` says what is wrong with this one, and --untrusted takes it as it is")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s of %s: %w", name, b.ID, err), stored.Close())
	}
	return stored, nil
}

// interruptible ends with a context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// Encrypted tells by the name of a file whether it is.
func Encrypted(name string) bool { return strings.HasSuffix(name, catalog.AgeSuffix) }

// Backup is one stored backup to look into. It is safe for concurrent use.
type Backup struct {
	store  store.Store
	backup catalog.Backup
	open   OpenFunc
}

// New returns a backup of a store; files are opened through open, OpenStored for one.
func New(s store.Store, b catalog.Backup, open OpenFunc) *Backup {
	return &Backup{store: s, backup: b, open: open}
}

// Extents is the ledger of the backup.
func (b *Backup) Extents() []catalog.Extent { return b.backup.Manifest.Extents }

// openWhole opens a file that has the size of the manifest.
func (b *Backup) openWhole(ctx context.Context, name string) (File, error) {
	f, err := b.open(ctx, b.store, b.backup, name)
	if err != nil {
		return nil, err
	}
	if err := b.checkSize(name, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkSize compares the size of an open file with the manifest's.
func (b *Backup) checkSize(name string, f File) error {
	check := b.backup.CheckSize
	if Encrypted(name) {
		check = b.backup.CheckPlainSize
	}
	if err := check(name, f.SizeBytes()); err != nil {
		return fmt.Errorf("open %s of %s: %w", name, b.backup.ID, err)
	}
	return nil
}

// Place is one place in a backup: an extent, and a path in it as the archive has it.
type Place struct {
	Extent catalog.Extent
	Path   string // relative, "." for the root; a pattern, where the question takes patterns
	Whole  bool   // the extent was named without a path
}

// Parse reads "EXTENT:/path" or "EXTENT", EXTENT being the name of a partition like p1. "/path" alone is in the only
// extent that is stored as files.
func (b *Backup) Parse(text string) (Place, error) {
	for _, x := range b.Extents() {
		if x.Name == "" {
			continue
		}
		if text == x.Name || text == x.Name+":" {
			return Place{Extent: x, Path: ".", Whole: true}, nil
		}
		if rest, ok := strings.CutPrefix(text, x.Name+":"); ok {
			return Place{Extent: x, Path: archivePath(rest)}, nil
		}
	}
	files := b.FileExtents()
	if _, rest, ok := strings.Cut(text, ":"); ok && !strings.HasPrefix(text, "/") && len(files) == 1 && files[0].Name == "" {
		return Place{}, say.WithHint(fmt.Errorf("%w: %q: %s has no partitions", ErrUsage, text, b.backup.ID), "say "+path.Join("/", rest))
	}
	if !strings.HasPrefix(text, "/") {
		return Place{}, say.WithHint(fmt.Errorf("%w: %q is neither an extent of %s nor a path in one", ErrUsage, text, b.backup.ID),
			"say "+b.examples())
	}
	if len(files) != 1 {
		return Place{}, say.WithHint(fmt.Errorf("%w: %q: %s has %d extents that are stored as files",
			ErrUsage, text, b.backup.ID, len(files)),
			"say "+b.examples())
	}
	return Place{Extent: files[0], Path: archivePath(text)}, nil
}

// FileExtents returns the extents that are stored as files.
func (b *Backup) FileExtents() []catalog.Extent {
	var list []catalog.Extent
	for _, x := range b.Extents() {
		if x.State == catalog.StateFiles {
			list = append(list, x)
		}
	}
	return list
}

// examples tells a person what a place can look like in this backup.
func (b *Backup) examples() string {
	var names []string
	for _, x := range b.FileExtents() {
		if x.Name == "" {
			names = append(names, "/path")
			continue
		}
		names = append(names, x.Name+":/path")
	}
	for _, x := range b.Extents() {
		if x.State == catalog.StateImage && x.Name != "" {
			names = append(names, x.Name)
		}
	}
	if len(names) == 0 {
		return "another backup: this one holds no files"
	}
	return strings.Join(names, " or ")
}

// archivePath gives a path that a person wrote the form that it has in an archive.
func archivePath(text string) string {
	clean := strings.TrimPrefix(path.Clean("/"+text), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// label names an extent for people.
func label(x catalog.Extent) string {
	if x.Name == "" {
		return "the volume"
	}
	return x.Name
}

// Dumps are the outputs of commands that the backup holds.
func (b *Backup) Dumps() []catalog.Dump { return b.backup.Manifest.Dumps }

// ID is the backup's.
func (b *Backup) ID() catalog.ID { return b.backup.ID }
