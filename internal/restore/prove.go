package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"voltar/archive"
	"voltar/internal/hostcmd"
	"voltar/internal/probe"
	"voltar/internal/say"
)

// checkers are the commands that look whether a filesystem is in order, and write nothing. Each ends with 0 if it is.
var checkers = map[string][]string{
	"ext2": {"e2fsck", "-f", "-n"}, "ext3": {"e2fsck", "-f", "-n"}, "ext4": {"e2fsck", "-f", "-n"},
	"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check", "--readonly"}, "vfat": {"fsck.fat", "-n"},
}

// What a restore says that it checked.
const (
	checkedSums       = "sums"
	checkedFilesystem = "filesystem" // by its own checker
	checkedEntries    = "entries"    // with every byte in them
	checkedImages     = "images"
)

// shownDifferences is how many differences of a filesystem are told.
const shownDifferences = 10

// addProof adds what proves a piece that was restored, to be done when all are.
func (p *planner) addProof(x piece, fs *probe.Filesystem) {
	if p.req.Target.Kind != ToScratch {
		return
	}
	if fs == nil {
		p.proofs = append(p.proofs, &proveImage{x})
		p.plan.TotalBytes += x.SizeBytes
		return
	}
	check := checkers[fs.Type]
	if check != nil {
		if _, err := p.Runner.LookPath(check[0]); err != nil {
			p.note("%s: %s is not installed, which would check the filesystem", x.label(), check[0])
			check = nil
		}
	}
	p.plan.TotalBytes += x.ContentBytes
	p.proofs = append(p.proofs, &proveFilesystem{piece: x, fs: fs, check: check})
}

// proveFilesystem checks a filesystem that was restored, and compares all that is in it with the archive.
type proveFilesystem struct {
	piece piece
	fs    *probe.Filesystem
	check []string // nil for no checker
}

func (s *proveFilesystem) Describe() []string {
	lines := []string{fmt.Sprintf("%s: mount it and compare %s (%s) with %s and %s", s.piece.label(), say.Counted(s.piece.Entries, "entry"),
		say.Size(s.piece.ContentBytes), s.piece.Archive, s.piece.indexName())}
	if s.check != nil {
		lines = append([]string{fmt.Sprintf("%s: %s", s.piece.label(), strings.Join(s.check, " "))}, lines...)
	}
	return lines
}

func (s *proveFilesystem) checks() []string {
	if s.check == nil {
		return []string{checkedEntries}
	}
	return []string{checkedFilesystem, checkedEntries}
}

// progress is what those who watch are told.
func (s *proveFilesystem) progress() string { return s.piece.label() + ": compare it with the backup" }

func (s *proveFilesystem) do(ctx context.Context, w *work) error {
	return w.onPiece(ctx, s.piece, func(device string) error {
		if s.check != nil {
			cmd := hostcmd.Cmd{Name: s.check[0], Args: append(s.check[1:], device), Timeout: mkfsTimeout(s.piece.targetBytes)}
			if _, err := w.Runner.Run(ctx, cmd); err != nil {
				return fmt.Errorf("%w: the filesystem that was restored is not in order: %w", ErrDiffers, err)
			}
		}
		return s.compare(ctx, w, device)
	})
}

func (s *proveFilesystem) compare(ctx context.Context, w *work, device string) (err error) {
	mounted, err := w.Mounts.Mount(ctx, device, s.piece.Filesystem.Type)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	root, err := mounted.OpenRoot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	index, err := w.plan.source.index(ctx, s.piece.Extent)
	if err != nil {
		return err
	}
	if index == nil {
		return say.WithHint(fmt.Errorf("%w: %s has no index", ErrSums, s.piece.Archive), "`voltar verify --repair-index` makes one")
	}
	r, err := w.plan.source.archive(ctx, s.piece.Archive, archive.ReaderOptions{})
	if err != nil {
		return err
	}
	opts := archive.CompareOptions{OnProgress: w.progress}
	if s.fs.FAT != nil {
		opts.NoOwner, opts.NoXattrs, opts.NoACLs, opts.NoFlags = true, true, true, true
	}
	compared, err := archive.Compare(ctx, r.Reader, index, root, opts)
	if err := r.finish(err); err != nil {
		return err
	}
	return differences(compared)
}

// differences is the error of a filesystem that is not what the archive holds, or nil.
func differences(c archive.Comparison) error {
	if c.Same() {
		return nil
	}
	var shown []string
	for _, d := range c.Differences[:min(len(c.Differences), shownDifferences)] {
		shown = append(shown, fmt.Sprintf("%q: %v", d.Path, d.Err))
	}
	if more := int64(len(c.Differences)-len(shown)) + c.Omitted; more > 0 {
		shown = append(shown, "and "+say.Count(more)+" more")
	}
	return fmt.Errorf("%w:\n%s", ErrDiffers, strings.Join(shown, "\n"))
}

func (p piece) indexName() string {
	if p.Index == nil {
		return "no index"
	}
	return p.Index.Name
}

// proveImage compares a part that was restored as it was with its image.
type proveImage struct{ piece piece }

func (s *proveImage) Describe() []string {
	return []string{fmt.Sprintf("%s: compare it with %s", s.piece.label(), s.piece.Archive)}
}

func (s *proveImage) checks() []string { return []string{checkedImages} }

func (s *proveImage) do(ctx context.Context, w *work) error {
	return w.onPiece(ctx, s.piece, func(device string) (err error) {
		r, err := w.plan.source.archive(ctx, s.piece.Archive, archive.ReaderOptions{MaxBytes: s.piece.SizeBytes})
		if err != nil {
			return err
		}
		file, err := os.Open(device)
		if err != nil {
			return r.finish(err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		done := int64(0)
		_, err = archive.ReadImage(ctx, r.Reader, &imageComparer{file: file}, archive.ReadImageOptions{
			SizeBytes: s.piece.SizeBytes, SkipZeros: true,
			OnProgress: func(doneBytes int64) {
				w.progress(doneBytes - done)
				done = doneBytes
			},
		})
		return r.finish(err)
	})
}

// imageComparer compares what is written to it with what is there. Zeros are not looked at: the scratch file began with nothing else.
type imageComparer struct {
	file *os.File
	have []byte
}

func (c *imageComparer) WriteAt(p []byte, offset int64) (int, error) {
	if len(c.have) < len(p) {
		c.have = make([]byte, len(p))
	}
	n, err := c.file.ReadAt(c.have[:len(p)], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.Equal(c.have[:n], p) {
		return 0, fmt.Errorf("%w: the image differs between bytes %d and %d", ErrDiffers, offset, offset+int64(len(p)))
	}
	return len(p), nil
}

func (c *imageComparer) PunchHole(int64, int64) error { return nil }
