package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"voltar/archive"
	"voltar/internal/catalog"
)

// RandomTree is an extent that is stored as files, to be read at any place by several at once.
type RandomTree struct {
	*archive.RandomTree
	tree *Tree
	data *lazyFile
}

// RandomTree opens the index of an extent, and its archive when it is first read; both as long as ctx lasts. Errors are those of Tree.
// The caller closes it.
func (b *Backup) RandomTree(ctx context.Context, x catalog.Extent, cache *archive.Cache) (*RandomTree, error) {
	tree, err := b.Tree(ctx, x)
	if err != nil {
		return nil, err
	}
	data := &lazyFile{open: func() (File, error) { return b.open(ctx, b.store, b.backup, x.Archive) }}
	return &RandomTree{RandomTree: archive.NewRandomTree(tree.index, data, cache), tree: tree, data: data}, nil
}

// Close closes what the tree has open.
func (t *RandomTree) Close() error {
	t.RandomTree.Close()
	return errors.Join(t.tree.Close(), t.data.Close())
}

// RandomImage is an extent that is stored as an image, to be read at any place by several at once.
type RandomImage struct {
	*archive.RandomImage
	// ListErr says why the list of the image's members cannot be used. The image can be read without: it goes from header to header.
	ListErr error
	file    File
}

// RandomImage opens an extent that is stored as an image, as long as ctx lasts. The caller closes it.
func (b *Backup) RandomImage(ctx context.Context, x catalog.Extent, cache *archive.Cache) (*RandomImage, error) {
	if x.State != catalog.StateImage {
		return nil, fmt.Errorf("%w: %s is not stored as an image: %s", ErrUsage, label(x), reason(x))
	}
	file, err := b.open(ctx, b.store, b.backup, x.Archive)
	if err != nil {
		return nil, err
	}
	m := &RandomImage{file: file}
	storedBytes := b.plainBytes(x.Archive)
	if x.Members != "" {
		if m.RandomImage, m.ListErr = b.listedImage(ctx, x, file, storedBytes, cache); m.ListErr == nil {
			return m, nil
		}
	}
	if m.RandomImage, err = archive.OpenRandomImage(file, storedBytes, x.SizeBytes, nil, cache); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return m, nil
}

func (b *Backup) listedImage(
	ctx context.Context, x catalog.Extent, file File, storedBytes int64, cache *archive.Cache,
) (m *archive.RandomImage, err error) {
	list, err := b.openWhole(ctx, x.Members)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, list.Close()) }()
	return archive.OpenRandomImage(file, storedBytes, x.SizeBytes, io.NewSectionReader(list, 0, list.SizeBytes()), cache)
}

// plainBytes is how large a file of the backup is before encryption.
func (b *Backup) plainBytes(name string) int64 {
	file, _ := b.backup.Manifest.File(name) // it is opened by the manifest
	if Encrypted(name) {
		return file.PlainSizeBytes
	}
	return file.SizeBytes
}

// Close closes what the image has open.
func (m *RandomImage) Close() error {
	m.RandomImage.Close()
	return m.file.Close()
}

// OpenStored opens a file of the backup as it was before encryption. The caller closes it.
func (b *Backup) OpenStored(ctx context.Context, name string) (File, error) {
	return b.openWhole(ctx, name)
}

// StoredBytes is how large OpenStored gives a file.
func (b *Backup) StoredBytes(name string) int64 { return b.plainBytes(name) }

// lazyFile is opened when it is first read. An error is not kept.
type lazyFile struct {
	open func() (File, error)
	mu   sync.Mutex
	file File
}

func (l *lazyFile) ReadAt(p []byte, offset int64) (int, error) {
	file, err := l.get()
	if err != nil {
		return 0, err
	}
	return file.ReadAt(p, offset)
}

func (l *lazyFile) get() (_ File, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		l.file, err = l.open()
	}
	return l.file, err
}

func (l *lazyFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
