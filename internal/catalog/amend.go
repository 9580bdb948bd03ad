package catalog

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
)

// Amendment replaces files of a backup that stands, each under its own name: Replace them, then Commit. The manifest
// comes last, and whatever happens in between it stays one that all untouched files fit; a file that was replaced does
// not fit it until then, and can be replaced again. So only files that are lost already, or that nobody needs to
// restore, may be amended. The caller holds the locks of the volume and of the destination.
type Amendment struct {
	store  store.Store
	backup Backup
	tags   map[string]string
	// Manifest is that of the amended backup, for the caller to change. Its list of files is kept by Replace.
	Manifest *Manifest
}

// Amend begins an amendment. The manifest is read again; one that has changed since the backup was listed, or that holds
// fields of a newer version, which would be lost, is refused.
func Amend(ctx context.Context, s store.Store, b Backup) (*Amendment, error) {
	data, _, err := read(ctx, s, path.Join(b.Path(), ManifestName), MaxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("amend %s: %w", b.ID, err)
	}
	m, err := ParseWholeManifest(data)
	if err != nil {
		return nil, fmt.Errorf("amend %s: %w", b.ID, err)
	}
	if m.ID().Compare(b.ID) != 0 || !slices.Equal(m.Files, b.Manifest.Files) {
		return nil, say.WithHint(fmt.Errorf("amend %s: cannot go on: somebody else has changed it", b.ID), "try again")
	}
	tags := map[string]string{"volume": b.ID.Ref.String(), "host": b.Host, "run": m.Run}
	return &Amendment{store: s, backup: b, tags: tags, Manifest: m}, nil
}

// ParseWholeManifest is ParseManifest for a manifest that is to be written anew: one that holds fields of a newer version,
// which would be lost, is refused.
func ParseWholeManifest(data []byte) (*Manifest, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(new(Manifest)); err != nil {
		return nil, say.WithHint(fmt.Errorf("cannot write its manifest without losing something: %w", err),
			"use the version of voltar that wrote it, or a newer one")
	}
	return ParseManifest(data)
}

// Create begins a file in the place of one of the backup. The caller has it hold exactly what Enter is told then.
func (a *Amendment) Create(ctx context.Context, name string, opts store.PutOptions) (store.Writer, error) {
	opts.Tags = a.tags
	return a.store.Create(ctx, path.Join(a.backup.Path(), name), opts)
}

// Enter enters a file that was replaced.
func (a *Amendment) Enter(file File) error {
	at := slices.IndexFunc(a.Manifest.Files, func(f File) bool { return f.Name == file.Name })
	if at < 0 {
		return fmt.Errorf("replace %s of %s: cannot find it in the manifest", file.Name, a.backup.ID)
	}
	a.Manifest.Files[at] = file
	return nil
}

// Replace writes a file anew. What produce writes takes the old one's place when it returns without an error, and not
// at all otherwise.
func (a *Amendment) Replace(ctx context.Context, name string, produce func(io.Writer) error) (err error) {
	if _, isThere := a.Manifest.File(name); !isThere {
		return fmt.Errorf("replace %s of %s: cannot find it in the manifest", name, a.backup.ID)
	}
	w, err := a.Create(ctx, name, store.PutOptions{})
	if err != nil {
		return fmt.Errorf("replace %s of %s: %w", name, a.backup.ID, err)
	}
	defer func() { err = errors.Join(err, w.Abort()) }()
	sum1, sum256, size := sha1.New(), sha256.New(), new(counter)
	if err := produce(io.MultiWriter(w, sum1, sum256, size)); err != nil {
		return fmt.Errorf("replace %s of %s: %w", name, a.backup.ID, err)
	}
	object, err := w.Commit(ctx)
	if err == nil && object.SizeBytes != size.bytes {
		err = fmt.Errorf("the store holds %d bytes where %d were sent", object.SizeBytes, size.bytes)
	}
	if err != nil {
		return fmt.Errorf("replace %s of %s: %w", name, a.backup.ID, err)
	}
	return a.Enter(File{
		Name: name, SizeBytes: size.bytes, SHA1: hex.EncodeToString(sum1.Sum(nil)), SHA256: hex.EncodeToString(sum256.Sum(nil)),
	})
}

// SetPlainSize enters the size that an encrypted file which was replaced had before encryption.
func (a *Amendment) SetPlainSize(name string, sizeBytes int64) {
	for i := range a.Manifest.Files {
		if a.Manifest.Files[i].Name == name {
			a.Manifest.Files[i].PlainSizeBytes = sizeBytes
		}
	}
}

// counter counts what is written to it.
type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

// Commit writes the list of sums anew, where the backup has one, and then the manifest.
func (a *Amendment) Commit(ctx context.Context) (Backup, error) {
	list := NamesOf(a.backup.ID.Ref, false).Checksum()
	if _, ok := a.Manifest.File(list); ok {
		text, err := Checksum(Summed(a.Manifest.Files))
		if err != nil {
			return Backup{}, fmt.Errorf("amend %s: %w", a.backup.ID, err)
		}
		err = a.Replace(ctx, list, func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
		if err != nil {
			return Backup{}, err
		}
	}
	data, err := a.Manifest.Encode()
	if err != nil {
		return Backup{}, err
	}
	until := lockEnd(a.store, time.Now())
	if err := lockFiles(ctx, a.store, a.backup.Path(), a.Manifest.Files, until); err != nil {
		return Backup{}, fmt.Errorf("amend %s: %w", a.backup.ID, err)
	}
	opts := store.PutOptions{Tags: a.tags, LockUntil: until}
	if err := write(ctx, a.store, path.Join(a.backup.Path(), ManifestName), data, opts); err != nil {
		return Backup{}, fmt.Errorf("amend %s: %w", a.backup.ID, err)
	}
	amended := a.backup
	amended.Manifest, amended.SizeBytes = a.Manifest, a.Manifest.FileBytes()+int64(len(data))
	return amended, nil
}
