package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/safedir"
)

// isStream says that a backup is the output of a command, and has no extents.
func isStream(m *catalog.Manifest) bool {
	return m.Source.Kind == catalog.SourceDump || m.Source.Kind == catalog.SourceStream
}

// unpackDump writes what a command wrote to a file of the dump's name.
type unpackDump struct {
	dump    catalog.Dump
	path    string // of the folder
	replace bool
}

func (s *unpackDump) Describe() []string {
	return []string{fmt.Sprintf("unpack %s into %s", s.dump.File, filepath.Join(s.path, s.dump.Name))}
}

func (s *unpackDump) do(ctx context.Context, w *work) (err error) {
	root, err := safedir.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if s.replace {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := root.OpenFile(s.dump.Name, flags, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r, err := w.plan.source.archive(ctx, s.dump.File, archive.ReaderOptions{KeepGoing: w.plan.keepGoing})
	if err != nil {
		return err
	}
	n, err := io.Copy(file, r)
	if err := w.tolerate(r.finish(err)); err != nil {
		return fmt.Errorf("unpack %s: %w", s.dump.File, err)
	}
	w.progress(n)
	w.result.Bytes += n
	w.result.Parts = append(w.result.Parts, PartResult{Name: s.dump.Name, As: "dump", Bytes: n})
	return file.Sync()
}
