package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"voltar/internal/durable"
)

// Note is what a check found wrong with a backup, as it stands in a file of Notes.
type Note struct {
	Backup string    `json:"backup"` // the catalog.Place of its folder
	Found  time.Time `json:"found"`
	Level  Level     `json:"level"` // the closest look that found something
	What   string    `json:"what"`
}

// String says when and what in the words of a message.
func (n Note) String() string {
	return fmt.Sprintf("on %s: %s", n.Found.Local().Format(time.DateOnly), n.What)
}

// Notes remembers which backups are damaged, so that they count as good no more: one folder with a JSON file for each,
// named after a hash of where the backup lies. Several processes may use it at once.
type Notes struct {
	dir   string
	files *durable.FS
}

// NewNotes returns the notes in a folder, which is made when it is needed. files is durable.Host(nil) but for tests.
func NewNotes(dir string, files *durable.FS) *Notes { return &Notes{dir: dir, files: files} }

const noteSuffix = ".json"

func (n *Notes) path(backup string) string {
	sum := sha256.Sum256([]byte(backup))
	return filepath.Join(n.dir, hex.EncodeToString(sum[:16])+noteSuffix)
}

// All returns every note by its backup. With an error, which names the files that cannot be used, come the others.
func (n *Notes) All() (map[string]Note, error) {
	all := map[string]Note{}
	entries, err := os.ReadDir(n.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return all, fmt.Errorf("read what is known of damaged backups: %w", err)
	}
	var bad []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), noteSuffix) || durable.IsTemp(e.Name()) {
			continue
		}
		note, err := n.read(filepath.Join(n.dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // found good by another process just now
		case err != nil:
			bad = append(bad, err)
		default:
			all[note.Backup] = note
		}
	}
	return all, errors.Join(bad...)
}

func (n *Notes) read(path string) (note Note, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &note)
	}
	if err == nil && n.path(note.Backup) != path {
		err = fmt.Errorf("it is about %q", note.Backup)
	}
	if err != nil {
		err = fmt.Errorf("read what is known of a damaged backup: %s: %w", path, err)
	}
	return note, err
}

// Enter notes what a check of a backup found, in the note's What, which is empty when it found nothing. An older note
// goes when the backup was good at a look at least as close; a good sample says no more than a quick look.
func (n *Notes) Enter(found Note) error {
	path := n.path(found.Backup)
	old, err := n.read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if found.What == "" {
			return nil
		}
	} else if err == nil { // one that cannot be read is overwritten, or removed
		look := found.Level
		if found.What == "" && look == Sample {
			look = Quick
		}
		if found.What == "" && look < old.Level {
			return nil
		}
		found.Level = max(found.Level, old.Level)
	}
	if found.What == "" {
		return n.Forget(found.Backup)
	}
	text, err := json.Marshal(found)
	if err == nil {
		err = n.files.MkdirAll(n.dir, 0o700)
	}
	if err == nil {
		err = n.files.WriteFile(path, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note that %s is damaged: %w", found.Backup, err)
	}
	return nil
}

// Forget removes the note on a backup, if there is one.
func (n *Notes) Forget(backup string) error {
	if err := n.files.Remove(n.path(backup)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that %s was damaged: %w", backup, err)
	}
	return nil
}
