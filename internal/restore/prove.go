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
	"voltar/partmap"
)

// checkers are the commands that look whether a filesystem is in order, and write nothing. Each ends with 0 if it is.
var checkers = map[string][]string{
	"ext2": {"e2fsck", "-f", "-n"}, "ext3": {"e2fsck", "-f", "-n"}, "ext4": {"e2fsck", "-f", "-n"},
	"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check", "--readonly"}, "vfat": {"fsck.fat", "-n"},
}

// What a restore says that it checked.
const (
	checkedSums       = "sums"
	checkedTable      = "table"      // with the boot code, and what else lies around partitions
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
		p.addImageProof(x, nil)
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

// addImageProof adds what proves an image. table is of what lies around partitions, where a table may have been written over it.
func (p *planner) addImageProof(x piece, table *writeTable) {
	if p.req.Target.Kind == ToScratch {
		p.proofs = append(p.proofs, &proveImage{x, table})
		p.plan.TotalBytes += x.SizeBytes
	}
}

// proveTable reads the partition table back and compares it with the backup's.
type proveTable struct{ table *writeTable }

func (s *proveTable) Describe() []string {
	return []string{fmt.Sprintf("compare the %s partition table with the backup's", s.table.want.Label)}
}

func (s *proveTable) checks() []string { return []string{checkedTable} }

func (s *proveTable) do(_ context.Context, w *work) error {
	if err := s.table.layout.checkTable(w.device, s.table.want); err != nil {
		return fmt.Errorf("%w: %w", ErrDiffers, err)
	}
	return nil
}

// byteRange is from one offset up to another.
type byteRange struct{ from, to int64 }

// anew are the bytes of the volume that sfdisk wrote, of which the table is compared and not the bytes: it fills in cylinders, heads
// and sectors, and the sums of a GPT.
func (s *writeTable) anew() []byteRange {
	if s == nil || !s.written {
		return nil
	}
	const signature, sectorEnd, entriesBytes = 440, 512, 128 * 128
	ranges := []byteRange{{signature, sectorEnd}}
	if s.want.Label == string(partmap.LabelGPT) {
		sector := int64(s.want.SectorBytes)
		ranges = append(ranges, byteRange{sector, 2*sector + entriesBytes},
			byteRange{s.layout.targetBytes - sector - entriesBytes, s.layout.targetBytes})
	}
	return ranges
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
type proveImage struct {
	piece piece
	table *writeTable // nil for one within a partition
}

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
		compared := &imageComparer{file: file, at: s.piece.OffsetBytes, except: s.table.anew(), zeros: s.table != nil}
		_, err = archive.ReadImage(ctx, r.Reader, compared, archive.ReadImageOptions{
			SizeBytes: s.piece.SizeBytes, SkipZeros: true,
			OnProgress: func(doneBytes int64) {
				w.progress(doneBytes - done)
				done = doneBytes
			},
		})
		return r.finish(err)
	})
}

// imageComparer compares what is written to it with what is there.
type imageComparer struct {
	file   *os.File
	have   []byte
	at     int64       // where the image begins on the volume
	except []byteRange // of the volume, which are not compared
	zeros  bool        // are compared, too
}

func (c *imageComparer) WriteAt(p []byte, offset int64) (int, error) {
	if len(c.have) < len(p) {
		c.have = make([]byte, len(p))
	}
	n, err := c.file.ReadAt(c.have[:len(p)], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	have := c.have[:n]
	for _, x := range c.except {
		from, to := max(x.from-c.at-offset, 0), min(x.to-c.at-offset, int64(n))
		if from < to {
			copy(have[from:to], p[from:to])
		}
	}
	if !bytes.Equal(have, p) {
		return 0, fmt.Errorf("%w: the image differs between bytes %d and %d", ErrDiffers, offset, offset+int64(len(p)))
	}
	return len(p), nil
}

// PunchHole wants zeros. Within a partition that is not looked at: nobody else writes there, and most of a large one may be zeros.
func (c *imageComparer) PunchHole(offset, lengthBytes int64) error {
	if !c.zeros {
		return nil
	}
	for end := offset + lengthBytes; offset < end; {
		n := min(end-offset, int64(len(zeroBlock)))
		if _, err := c.WriteAt(zeroBlock[:n], offset); err != nil {
			return err
		}
		offset += n
	}
	return nil
}

// zeroBlock is what holes are compared with.
var zeroBlock = make([]byte, 1<<20)
