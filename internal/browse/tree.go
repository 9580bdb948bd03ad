package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

// linksFollowed is how many symbolic links one path may lead through, as in Linux.
const linksFollowed = 40

// Tree is an extent that is stored as files, with its index open. It is not safe for concurrent use.
type Tree struct {
	b      *Backup
	extent catalog.Extent
	index  *archive.Index
	file   File // of the index
	data   File // of the archive; nil until it is needed
}

// Tree opens the index of an extent. The error wraps ErrNoIndex when it is lost or damaged. The caller closes the tree.
func (b *Backup) Tree(ctx context.Context, x catalog.Extent) (*Tree, error) {
	if x.State != catalog.StateFiles {
		return nil, say.WithHint(fmt.Errorf("%w: %s is not stored as files: %s", ErrUsage, label(x), reason(x)),
			"`voltar cat` writes an image as it is, `voltar restore` brings all back")
	}
	t := &Tree{b: b, extent: x}
	if err := t.openIndex(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrEncrypted) || errors.Is(err, agefile.ErrNoKey) {
			return nil, err
		}
		return nil, say.WithHint(fmt.Errorf("%w: %w", ErrNoIndex, err), RepairIndex(b.backup.ID))
	}
	return t, nil
}

// RepairIndex is what to do about an index that is lost or damaged.
func RepairIndex(id catalog.ID) string {
	return fmt.Sprintf("`voltar verify --repair-index %s` makes it again from the archive", id)
}

func reason(x catalog.Extent) string {
	if x.Reason == "" {
		return string(x.State)
	}
	return string(x.State) + ", " + x.Reason
}

func (t *Tree) openIndex(ctx context.Context) error {
	if t.extent.Index == nil {
		return fmt.Errorf("open the index of %s: the manifest names none", label(t.extent))
	}
	file, err := t.b.openWhole(ctx, t.extent.Index.Name)
	if err != nil {
		return err
	}
	index, err := archive.OpenIndex(ctx, file, file.SizeBytes(), t.extent.Index.BlocksOffset)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	t.file, t.index = file, index
	return nil
}

// Close closes what the tree has open.
func (t *Tree) Close() error {
	err := t.file.Close()
	if t.data != nil {
		err = errors.Join(err, t.data.Close())
	}
	return err
}

// Index is that of the archive.
func (t *Tree) Index() *archive.Index { return t.index }

// Lookup finds the entry of a path, with symbolic links on the way followed as the guest would, its root being that of
// the extent. One that the path ends in is followed when asked. The error wraps fs.ErrNotExist when there is none.
func (t *Tree) Lookup(ctx context.Context, name string, follow bool) (archive.Entry, error) {
	e, _, err := t.lookup(ctx, name, follow)
	return e, err
}

func (t *Tree) lookup(ctx context.Context, name string, follow bool) (archive.Entry, []archive.Member, error) {
	e, members, err := t.index.Find(ctx, name)
	switch {
	case err == nil && (e.Type != archive.TypeSymlink || !follow):
		return e, members, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return archive.Entry{}, nil, err
	}
	resolved, err := t.resolve(ctx, name, follow)
	if err != nil {
		return archive.Entry{}, nil, err
	}
	return t.index.Find(ctx, resolved)
}

// resolve goes along a path name by name and follows the links in it.
func (t *Tree) resolve(ctx context.Context, name string, follow bool) (string, error) {
	at, rest := ".", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if next == "" || next == "." {
			continue
		}
		if next == ".." {
			at = path.Dir(at)
			continue
		}
		here := path.Join(at, next)
		e, _, err := t.index.Find(ctx, here)
		if err != nil {
			return "", err
		}
		if e.Type != archive.TypeSymlink || (len(rest) == 0 && !follow) {
			at = here
			continue
		}
		if links++; links > linksFollowed {
			return "", fmt.Errorf("find %q: too many symbolic links", name)
		}
		if strings.HasPrefix(e.Linkname, "/") {
			at = "."
		}
		rest = append(strings.Split(e.Linkname, "/"), rest...)
	}
	return at, nil
}

// List yields what is in a folder, in archive order; all that is below it when recursive.
func (t *Tree) List(ctx context.Context, dir string, recursive bool) iter.Seq2[archive.Entry, error] {
	return t.index.List(ctx, dir, recursive)
}

// Open opens a file for reading; links to it are followed. It reads the members that hold it and no others; what a Read
// met before an error is as it was stored. The caller closes what it gets before the tree.
func (t *Tree) Open(ctx context.Context, name string) (io.ReadCloser, archive.Entry, error) {
	return t.openWith(ctx, name, archive.OpenFile)
}

// OpenSalvaged is Open for a file that may be damaged; see archive.OpenSalvaged.
func (t *Tree) OpenSalvaged(ctx context.Context, name string) (io.ReadCloser, archive.Entry, error) {
	return t.openWith(ctx, name, archive.OpenSalvaged)
}

func (t *Tree) openWith(ctx context.Context, name string,
	open func(context.Context, io.ReaderAt, archive.Entry, []archive.Member) (io.ReadCloser, error)) (io.ReadCloser, archive.Entry, error) {
	e, members, err := t.lookup(ctx, name, true)
	if err != nil {
		return nil, archive.Entry{}, err
	}
	if e.Type != archive.TypeFile && e.Type != archive.TypeHardlink {
		err := fmt.Errorf("%w: %q is %s, not a file", ErrUsage, name, Kind(e.Type))
		if e.Type == archive.TypeDir {
			err = say.WithHint(err, "`voltar ls` lists what is in it, and `voltar extract` takes it out")
		}
		return nil, archive.Entry{}, err
	}
	if t.data == nil {
		if t.data, err = t.b.open(ctx, t.b.store, t.b.backup, t.extent.Archive); err != nil {
			return nil, archive.Entry{}, err
		}
	}
	r, err := open(ctx, t.data, e, members)
	if err != nil {
		return nil, archive.Entry{}, err
	}
	return r, e, nil
}

// Kind names a type of entry for people.
func Kind(t archive.EntryType) string {
	switch t {
	case archive.TypeFile:
		return "a file"
	case archive.TypeDir:
		return "a folder"
	case archive.TypeSymlink:
		return "a symbolic link"
	case archive.TypeHardlink:
		return "a hard link"
	case archive.TypeChar, archive.TypeBlock:
		return "a device"
	case archive.TypeFIFO:
		return "a FIFO"
	case archive.TypeSocket:
		return "a socket"
	}
	return "of the unknown type " + string(t)
}

// Image opens an extent that is stored as an image, to be read from its beginning. It never yields more than the extent
// had. The caller closes what it gets.
func (b *Backup) Image(ctx context.Context, x catalog.Extent) (io.ReadCloser, error) {
	return b.image(ctx, x, b.openWhole)
}

// ImageSalvaged is Image for a file that may be damaged: it gives what comes before the damage, also where the file is cut.
func (b *Backup) ImageSalvaged(ctx context.Context, x catalog.Extent) (io.ReadCloser, error) {
	return b.image(ctx, x, func(ctx context.Context, name string) (File, error) { return b.open(ctx, b.store, b.backup, name) })
}

func (b *Backup) image(ctx context.Context, x catalog.Extent, open func(context.Context, string) (File, error)) (io.ReadCloser, error) {
	if x.State != catalog.StateImage {
		return nil, say.WithHint(fmt.Errorf("%w: %s is not stored as an image: %s", ErrUsage, label(x), reason(x)),
			fmt.Sprintf("name a file in it, like %s", b.examples()))
	}
	file, err := open(ctx, x.Archive)
	if err != nil {
		return nil, err
	}
	r, err := archive.NewReader(ctx, file, file.SizeBytes(), archive.ReaderOptions{MaxBytes: x.SizeBytes})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &image{Reader: r, file: file, rest: x.SizeBytes}, nil
}

// image reads an image and the file that it is in.
type image struct {
	*archive.Reader
	file File
	rest int64
}

func (i *image) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	i.rest -= int64(n)
	if err == io.EOF && i.rest > 0 {
		err = fmt.Errorf("cannot find the last %d bytes of the image: %w", i.rest, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (i *image) Close() error { return errors.Join(i.Reader.Close(), i.file.Close()) }
