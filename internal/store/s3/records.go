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

// note records an upload that is about to begin, and returns how the record is ended.
func (r records) note(key string) (end func() error, err error) {
	if r.dir == "" {
		return func() error { return nil }, nil
	}
	data, err := json.Marshal(record{Store: r.store, Key: key})
	if err != nil {
		return nil, fmt.Errorf("cannot note the upload of %s: %w", key, err)
	}
	file := filepath.Join(r.dir, rand.Text()+recordSuffix)
	if err := durable.WriteFile(file, data, 0o600); err != nil {
		return nil, fmt.Errorf("note the upload of %s: %w", key, err)
	}
	return func() error { return removeRecord(file) }, nil
}

func removeRecord(file string) error {
	if err := durable.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// below returns the records of keys below a prefix of this store, by their files.
func (r records) below(prefix string) (map[string]string, error) {
	found := map[string]string{}
	if r.dir == "" {
		return found, nil
	}
	entries, err := os.ReadDir(r.dir)
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
			found[file] = one.Key
		}
	}
	return found, nil
}
