package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Appender is a file of records, each on disk when Append returns. A record that could not be written whole is cut off
// again, so that the next one does not follow half of it; after a power cut the last record may be torn, and only the
// last. It is not safe for concurrent use.
type Appender struct {
	fs   *FS
	file *os.File
	path string
	size int64 // of the records that are whole
	err  error // what is on disk is no longer known
}

// OpenAppend opens a file of records, or makes an empty one with the permissions given, durably. The caller must close
// it.
func (f *FS) OpenAppend(path string, perm fs.FileMode) (*Appender, error) {
	a, err := f.openAppend(path, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return nil, err
	}
	if err := f.syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, a.file.Close())
	}
	return a, nil
}

// ReopenAppend opens a file of records that must be there. The caller must close it.
func (f *FS) ReopenAppend(path string) (*Appender, error) {
	return f.openAppend(path, os.O_RDWR, 0)
}

func (f *FS) openAppend(path string, flag int, perm fs.FileMode) (*Appender, error) {
	file, err := f.open(path, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Appender{fs: f, file: file, path: path, size: info.Size()}, nil
}

// File is the open file, to lock it and to read it. The Appender keeps ownership; nobody else may write to it.
func (a *Appender) File() *os.File { return a.file }

// Append adds a record and fsyncs it.
func (a *Appender) Append(record []byte) error {
	if a.err != nil {
		return a.err
	}
	if _, err := a.fs.write(a.file, a.path, record, a.size); err != nil {
		return errors.Join(err, a.Truncate(a.size))
	}
	if err := a.fs.sync(a.file, a.path); err != nil {
		a.err = fmt.Errorf("cannot append to %s after a failed fsync: %w", a.path, err)
		return err
	}
	a.size += int64(len(record))
	return nil
}

// Truncate cuts off everything behind the first sizeBytes.
func (a *Appender) Truncate(sizeBytes int64) error {
	err := a.fs.check(OpTruncate, a.path)
	if err == nil {
		err = a.file.Truncate(sizeBytes)
	}
	if err != nil {
		a.err = fmt.Errorf("cannot append to %s behind a torn record: %w", a.path, err)
		return err
	}
	a.size = sizeBytes
	return nil
}

// Close closes the file.
func (a *Appender) Close() error {
	return a.fs.closeFile(a.file, a.path)
}
