package notify

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
	"syscall"
)

// Entry is a message that waits for its channel.
type Entry struct {
	Channel   string  `json:"channel"`
	Message   Message `json:"message"`
	Attempts  int     `json:"attempts"`
	LastError string  `json:"last_error"`
}

// Spool keeps entries from run to run.
type Spool interface {
	// Lock keeps other processes from flushing; ok is false when one is at it. release ends it.
	Lock() (release func() error, ok bool, err error)
	// Put adds an entry, or replaces the one of the same channel and message. After nil it survives a power cut.
	Put(Entry) error
	// Entries gives all entries, oldest message first. Those that cannot be read are set aside and named in the
	// error, beside which the others are returned.
	Entries() ([]Entry, error)
	// Remove removes an entry. One that is not there is no error.
	Remove(Entry) error
}

// Files writes and removes files so that they are there whole, or gone, after a power cut. The *durable.FS of the host
// does.
type Files interface {
	MkdirAll(path string, perm fs.FileMode) error
	WriteFile(path string, data []byte, perm fs.FileMode) error
	Rename(oldPath, newPath string) error
	Remove(path string) error
}

// Dir is a Spool of one JSON file for each entry in a folder, which is made when it is needed. Files are readable by
// their owner alone, since reports name what a host holds. What a writer that died left behind has other names, and is
// not read.
type Dir struct {
	path  string
	files Files
}

// NewDir returns the spool in the folder path.
func NewDir(path string, files Files) *Dir { return &Dir{path: path, files: files} }

const (
	entrySuffix   = ".json"
	damagedSuffix = ".damaged"
	lockName      = ".lock"
	entryPerm     = 0o600
	folderPerm    = 0o700
)

// Lock takes an flock on a file of the folder.
func (d *Dir) Lock() (release func() error, ok bool, err error) {
	if err := d.make(); err != nil {
		return nil, false, err
	}
	file, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("cannot lock the spool: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, false, file.Close()
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("cannot lock the spool %s: %w", d.path, err), file.Close())
	}
	return file.Close, true, nil
}

// Put writes the entry's file.
func (d *Dir) Put(entry Entry) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("cannot encode a report for the spool: %w", err)
	}
	if err := d.make(); err != nil {
		return err
	}
	if err := d.files.WriteFile(d.entryPath(entry), data, entryPerm); err != nil {
		return fmt.Errorf("spool a report: %w", err)
	}
	return nil
}

// Entries reads the folder.
func (d *Dir) Entries() ([]Entry, error) {
	names, err := os.ReadDir(d.path) // sorted, and names begin with the time
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the spool: %w", err)
	}
	var entries []Entry
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(name.Name(), ".") || !strings.HasSuffix(name.Name(), entrySuffix) {
			continue
		}
		path := filepath.Join(d.path, name.Name())
		entry, err := readEntry(path)
		if err != nil {
			err = fmt.Errorf("%w; set aside as %s", err, path+damagedSuffix)
			errs = append(errs, err, d.files.Rename(path, path+damagedSuffix))
			continue
		}
		entries = append(entries, entry)
	}
	return entries, errors.Join(errs...)
}

func readEntry(path string) (Entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, fmt.Errorf("cannot read a spooled report: %w", err)
	}
	var entry Entry
	if err := json.Unmarshal(data, &entry); err != nil {
		return Entry{}, fmt.Errorf("cannot read the spooled report %s: %w", path, err)
	}
	if entry.Channel == "" || entry.Message.Subject == "" {
		return Entry{}, fmt.Errorf("cannot read the spooled report %s: it names no channel or subject", path)
	}
	return entry, nil
}

// Remove deletes the entry's file.
func (d *Dir) Remove(entry Entry) error {
	if err := d.files.Remove(d.entryPath(entry)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a spooled report: %w", err)
	}
	return nil
}

// entryPath names the file after the message's time, so that names sort by age, and a sum of what tells entries apart: no
// name from outside becomes part of a path.
func (d *Dir) entryPath(entry Entry) string {
	sum := sha256.Sum256([]byte(entry.Channel + "\x00" + entry.Message.ID))
	when := entry.Message.Created.UTC().Format("20060102T150405.000000000Z")
	return filepath.Join(d.path, when+"-"+hex.EncodeToString(sum[:8])+entrySuffix)
}

func (d *Dir) make() error {
	if err := d.files.MkdirAll(d.path, folderPerm); err != nil {
		return fmt.Errorf("make the spool: %w", err)
	}
	return nil
}
