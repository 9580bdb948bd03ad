package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"voltar/internal/durable"
	"voltar/internal/say"
	"voltar/internal/store"
)

// Written keeps, in a folder of this host that may be removed at any time, the SHA-256 of the manifest of the last complete backup
// that this host wrote of each source to each store. A manifest that has it, read from a store that anybody may write to, is as
// good as a signed one: it has the sums of all other files of its backup. A nil one keeps nothing.
//
// There is a file of one JSON object for each source in each store, which appears whole or not at all.
type Written struct{ bounded }

// NewWritten returns what is kept in a folder, which is made when there is something to keep.
func NewWritten(dir string) *Written {
	return &Written{bounded{dir: dir, limits: limits{files: maxWritten}}}
}

// Bounds of the folder. There are too many files when volumes came and went for years.
const (
	maxWritten      = 10_000
	maxWrittenBytes = 4 << 10 // of one file
	writtenFormat   = "voltar-written/1"
)

// writtenFile is the content of a file.
type writtenFile struct {
	Format   string `json:"format"`
	Store    string `json:"store"`
	Folder   string `json:"folder"`
	Manifest string `json:"manifest"` // SHA-256, in hexadecimal
	Space
}

// Space is what a backup took when it was written.
type Space struct {
	Shares   bool  `json:"shares"` // it shares blocks with the backup before it
	NewBytes int64 `json:"new"`    // what it does not share; 0 where nothing is known
}

func (w *Written) path(s store.Store, host string, identity Identity) string {
	sum := sha256.Sum256([]byte(s.String() + "\x00" + host + "\x00" + string(identity)))
	return filepath.Join(w.dir, hex.EncodeToString(sum[:16])+".json")
}

func fileOf(s store.Store, b Backup, space Space) writtenFile {
	return writtenFile{writtenFormat, s.String(), b.Path(), hex.EncodeToString(b.ManifestSum[:]), space}
}

// Note keeps the sum of a backup that this host has just written, and what it took, in place of what was noted of the backup before it.
// Whoever calls it keeps others from the source meanwhile.
func (w *Written) Note(s store.Store, b Backup, space Space) error {
	if w == nil {
		return nil
	}
	text, err := json.Marshal(fileOf(s, b, space))
	if err == nil && len(text) > maxWrittenBytes {
		err = fmt.Errorf("it takes %d bytes", len(text))
	}
	if err == nil {
		err = durable.MkdirAll(w.dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFile(w.path(s, b.Host, b.Identity()), text, 0o600)
	}
	if err == nil {
		err = w.wrote(len(text))
	}
	if err != nil {
		return fmt.Errorf("note in %s that %s was written: %w", w.dir, b.ID, err)
	}
	return nil
}

// Wrote tells whether the manifest of a backup, as a store returned it, is the last that this host wrote of the source there. With
// an error it is not.
func (w *Written) Wrote(s store.Store, b Backup) (bool, error) {
	if w == nil {
		return false, nil
	}
	file, err := readWritten(w.path(s, b.Host, b.Identity()))
	if err != nil {
		return false, fmt.Errorf("read in %s whether %s was written here: %w", w.dir, b.ID, err)
	}
	return file == fileOf(s, b, file.Space), nil
}

// Shared tells whether the last backup of a source that this host wrote to a store shares blocks with the one before it, as far as is
// known.
func (w *Written) Shared(s store.Store, b Backup) bool {
	if w == nil {
		return false
	}
	file, err := readWritten(w.path(s, b.Host, b.Identity()))
	return err == nil && file.Shares
}

// spareFraction of a backup that shares is what the next one may take more than it did.
const spareFraction = 8

// NeedsBytes is what the next backup of a source takes on a store after e, the newest there: as much as that did when this host wrote it,
// and an eighth of its size. It is the size of e where this host did not write it, nothing was shared, or nothing is known.
func (w *Written) NeedsBytes(s store.Store, e Entry) int64 {
	if w == nil {
		return e.SizeBytes
	}
	file, err := readWritten(w.path(s, e.Host, e.Identity))
	if err != nil || file.Store != s.String() || file.Folder != e.Path() || !file.Shares || file.NewBytes == 0 {
		return e.SizeBytes
	}
	return min(e.SizeBytes, file.NewBytes+e.SizeBytes/spareFraction)
}

// Sources counts the sources of which this host wrote backups to a store, as far as is known.
func (w *Written) Sources(s store.Store) (count int, err error) {
	if w == nil {
		return 0, nil
	}
	paths, err := filepath.Glob(filepath.Join(w.dir, "*.json"))
	for _, path := range paths {
		file, readErr := readWritten(path)
		err = errors.Join(err, readErr)
		if file.Store == s.String() {
			count++
		}
	}
	return count, err
}

// Vanished says of a destination whose folder is not there that this host wrote backups to it: they are gone, or lie elsewhere. It is
// nil of one that is there, and of one that nothing was written to.
func (w *Written) Vanished(ctx context.Context, d Destination) error {
	if w == nil || store.PendingNote(ctx, d.Store) == "" {
		return nil
	}
	sources, err := w.Sources(d.Store)
	switch {
	case sources > 0:
		return At(d.Name, say.WithHint(&store.WholeError{Err: fmt.Errorf("its backups are gone or lie elsewhere: the folder %s, where "+
			"this host wrote some (sources: %d), was missing", d.Store, sources)},
			"if they lie on a disk that is not mounted, mount it and name it in require_mount; `voltar copy` brings back what others have"))
	case err != nil:
		return At(d.Name, fmt.Errorf("look whether it held backups before: %w", err))
	}
	return nil
}

// readWritten reads the note of a source; an empty one where there is none.
func readWritten(path string) (file writtenFile, err error) {
	text, _, err := readRegular(path, maxWrittenBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	return file, err
}
