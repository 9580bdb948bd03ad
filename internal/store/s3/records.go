package s3

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"voltar/internal/durable"
)

// records note which keys have uploads under way, one file for each: some servers list unfinished uploads only for the
// exact key, and a dead program can no longer say what it had begun. The zero value notes nothing.
type records struct {
	dir   string
	store string // the name of the store
}

// record is the content of a file.
type record struct {
	Store string `json:"store"`
	Key   string `json:"key"` // the store's
	// Upload is the server's name of the upload, once it is known: some servers list none at all.
	Upload string `json:"upload,omitempty"`
}

const (
	uploadsDir   = "uploads"
	recordSuffix = ".json"
)

func openRecords(stateDir, name string) (records, error) {
	if stateDir == "" {
		return records{}, nil
	}
	r := records{dir: filepath.Join(stateDir, uploadsDir), store: name}
	if err := durable.MkdirAll(r.dir, 0o700); err != nil {
		return records{}, fmt.Errorf("make the folder for notes on uploads: %w", err)
	}
	return r, nil
}

// note is the record of one upload under way. The nil note records nothing.
type note struct {
	file string
	record
}

// note records an upload that is about to begin.
func (r records) note(key string) (*note, error) {
	if r.dir == "" {
		return nil, nil
	}
	n := &note{filepath.Join(r.dir, rand.Text()+recordSuffix), record{Store: r.store, Key: key}}
	return n, n.write()
}

func (n *note) write() error {
	data, err := json.Marshal(n.record)
	if err != nil {
		return fmt.Errorf("cannot note the upload of %s: %w", n.Key, err)
	}
	if err := durable.WriteFile(n.file, data, 0o600); err != nil {
		return fmt.Errorf("note the upload of %s: %w", n.Key, err)
	}
	return nil
}

// begun adds the server's name of the upload.
func (n *note) begun(upload string) error {
	if n == nil {
		return nil
	}
	n.Upload = upload
	return n.write()
}

// end removes the record.
func (n *note) end() error {
	if n == nil {
		return nil
	}
	return removeRecord(n.file)
}

// ForgetUploads removes the notes of uploads to a store that is no more, by its name, and returns their keys.
func ForgetUploads(stateDir, name string) (keys []string, err error) {
	notes, err := records{dir: filepath.Join(stateDir, uploadsDir), store: name}.below("")
	if err != nil {
		return nil, err
	}
	for _, n := range notes {
		if err := n.end(); err != nil {
			return keys, err
		}
		keys = append(keys, n.Key)
	}
	return keys, nil
}

func removeRecord(file string) error {
	if err := durable.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// below returns the records of keys below a prefix of this store.
func (r records) below(prefix string) ([]note, error) {
	var found []note
	if r.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the notes on uploads: %w", err)
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != recordSuffix {
			continue
		}
		file := filepath.Join(r.dir, entry.Name())
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its upload has ended
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read a note on an upload: %w", err)
		}
		var one record
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("cannot read the note on an upload %s: %w", file, err)
		}
		if one.Store == r.store && (prefix == "" || strings.HasPrefix(one.Key, prefix+"/")) {
			found = append(found, note{file, one})
		}
	}
	return found, nil
}
