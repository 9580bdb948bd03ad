package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/safedir"
	"voltar/internal/say"
)

// planFolder plans the restore of files alone. Extents that are no files are noted.
func (p *planner) planFolder() error {
	t := p.req.Target
	if t.SizeBytes != 0 || t.Classic || t.ThinPool != "" || p.req.Grow {
		return fmt.Errorf("%w: a folder has no size", ErrUsage)
	}
	path, err := filepath.Abs(t.Path)
	if err != nil {
		return err
	}
	p.plan.Target = "folder " + path
	if err := safedir.Check(path); err != nil {
		return err
	}
	p.plan.mark = mark{text: fmt.Sprintf("What is in %s is incomplete.", path)}
	var holds []string
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case len(entries) > 0:
		holds = []string{say.Counted(len(entries), "entry")}
	}
	if err := (&place{what: p.plan.Target, holds: holds}).refuse(p.req.Force); err != nil {
		return err
	}
	content := int64(0)
	for _, x := range p.m.Extents {
		if p.wanted(x) && len(p.req.Paths) == 0 {
			content += x.ContentBytes
		}
	}
	if err := p.noteFree(path, content); err != nil {
		return err
	}
	p.add(&makeFolder{path})
	steps := len(p.plan.Steps)
	if isStream(p.m) {
		for _, d := range p.m.Dumps {
			p.add(&unpackDump{dump: d, path: path, replace: p.req.Force})
		}
	}
	for _, x := range p.m.Extents {
		switch {
		case !p.wanted(x):
		case x.State == catalog.StateFiles:
			p.add(&fillFolder{piece: piece{x, x.SizeBytes}, path: filepath.Join(path, x.Name), paths: p.req.Paths,
				replace: p.req.Force, privileges: p.req.Privileges})
			p.plan.TotalBytes += x.ContentBytes
		case x.Number != 0 || p.m.Table == nil:
			p.note("%s is not stored as files", piece{Extent: x}.label())
		}
	}
	if len(p.plan.Steps) == steps {
		return fmt.Errorf("%w: nothing of it is stored as files", ErrUsage)
	}
	return nil
}

// findPaths is the step that refuses patterns of which no filesystem has anything, before the target is touched.
type findPaths struct {
	pieces []piece
	paths  []string
}

func (p *planner) addFindPaths() {
	s := &findPaths{paths: p.req.Paths}
	for _, x := range p.m.Extents {
		if p.wanted(x) && x.State == catalog.StateFiles && x.Index != nil {
			s.pieces = append(s.pieces, piece{Extent: x})
		}
	}
	if len(s.pieces) > 0 {
		p.add(s)
	}
}

func (s *findPaths) Describe() []string {
	return []string{"look for " + strings.Join(s.paths, ", ") + " in the backup"}
}

func (s *findPaths) do(ctx context.Context, w *work) error {
	missing := s.paths
	for _, x := range s.pieces {
		if len(missing) == 0 {
			return nil
		}
		index, err := w.index(ctx, x)
		if err != nil {
			return err
		}
		if missing, err = index.Unmatched(ctx, missing); err != nil {
			return fmt.Errorf("%s: %w", x.label(), err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return say.WithHint(fmt.Errorf("%w: nothing in the backup matches %s", ErrUsage, inWords(missing)),
		fmt.Sprintf("`voltar ls %s` shows what there is", w.plan.Backup))
}

// inWords names some things: `p1`, `p1 and p5`, `p1, p5 and p6`.
func inWords(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// makeFolder makes the folder, which nobody else can enter: guests' set-uid programs are in it.
type makeFolder struct{ path string }

func (s *makeFolder) Describe() []string { return []string{"make folder " + s.path} }

func (s *makeFolder) do(_ context.Context, w *work) error {
	w.touched = true
	root, err := safedir.Open(s.path)
	if err != nil {
		return err
	}
	return root.Close()
}

// fillFolder extracts one filesystem into a folder, which keeps owner and mode. Device nodes are left out: made on this host, they
// would be this host's devices.
type fillFolder struct {
	piece      piece
	path       string
	paths      []string
	replace    bool
	privileges bool
}

func (s *fillFolder) Describe() []string {
	what := fmt.Sprintf("%s (%s)", say.Counted(s.piece.Entries, "entry"), say.Size(s.piece.ContentBytes))
	if len(s.paths) > 0 {
		what = strings.Join(s.paths, ", ")
	}
	return []string{fmt.Sprintf("%s: extract %s from %s into %s", s.piece.label(), what, s.piece.Archive, s.path)}
}

func (s *fillFolder) do(ctx context.Context, w *work) (err error) {
	root, err := safedir.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	index, err := w.index(ctx, s.piece)
	if err != nil {
		return err
	}
	opts := archive.ExtractOptions{Paths: s.paths, Index: index, Privileges: s.privileges}
	if s.replace {
		opts.Overwrite = archive.OverwriteReplace
	}
	if err := w.extract(ctx, s.piece, root, opts); err != nil {
		return fmt.Errorf("%s: %w", s.piece.label(), err)
	}
	return syncFolder(root)
}

// syncFolder writes all of the filesystem that a folder is on to disk.
func syncFolder(root *os.Root) (err error) {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return syncfs(dir)
}
