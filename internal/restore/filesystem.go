package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"voltar/archive"
	"voltar/internal/btrfs"
	"voltar/internal/hostcmd"
	"voltar/internal/probe"
	"voltar/internal/say"
)

// mkfsTimeout bounds one command that makes a filesystem of a size. What it writes grows with that, to 2 % of it at most,
// which a slow disk does at 20 MB/s.
func mkfsTimeout(sizeBytes int64) time.Duration {
	return 5*time.Minute + time.Duration(sizeBytes>>30)*time.Second
}

// maxBootAreaBytes is more than any boot area has: FAT's reserved sectors are 65,535 at most.
const maxBootAreaBytes = 65535 * 4096

// restoreFilesystem makes a filesystem as it was and fills it.
type restoreFilesystem struct {
	piece  piece
	fs     *probe.Filesystem
	recipe probe.Recipe
	device string // its name, where that is known beforehand
	paths  []string
}

func (s *restoreFilesystem) Describe() []string {
	label := s.piece.label()
	lines := describeCommands(label, s.recipe.Commands, s.recipe.Env, s.device)
	if s.hasBootCode() {
		lines = append(lines, fmt.Sprintf("%s: write the boot code in %s", label, s.piece.BootArea))
	}
	what := fmt.Sprintf("%s (%s)", say.Counted(s.piece.Entries, "entry"), say.Size(s.piece.ContentBytes))
	if len(s.paths) > 0 {
		what = strings.Join(s.paths, ", ")
	}
	lines = append(lines, fmt.Sprintf("%s: mount it privately and extract %s from %s", label, what, s.piece.Archive))
	return append(lines, describeCommands(label, s.recipe.Last, s.recipe.Env, s.device)...)
}

// progress is the first line of Describe for those who watch, without what the command takes.
func (s *restoreFilesystem) progress() string {
	return fmt.Sprintf("%s: make %s and extract %s (%s)", s.piece.label(), s.piece.Filesystem.Type, say.Counted(s.piece.Entries, "entry"),
		say.Size(s.piece.ContentBytes))
}

// describeCommands writes a recipe as it would be typed. It only shows them: nothing runs through a shell.
func describeCommands(label string, commands [][]string, env []string, device string) []string {
	var lines []string
	for _, argv := range commands {
		words := slices.Clone(env)
		at := probe.DeviceIn(argv)
		for i, word := range argv {
			switch {
			case i == at:
				word = device
			case word == "" || strings.ContainsFunc(word, isSpecial):
				word = strconv.QuoteToASCII(word)
			}
			words = append(words, word)
		}
		lines = append(lines, label+": "+strings.Join(words, " "))
	}
	return lines
}

func isSpecial(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"'$\\*?`", r)
}

// onPiece does something with the device of a piece, and lets go of all that this took.
func (w *work) onPiece(ctx context.Context, p piece, do func(device string) error) (err error) {
	base := w.held.Len()
	defer func() {
		if err = errors.Join(err, w.held.ReleaseTo(ctx, base)); err != nil {
			err = fmt.Errorf("%s: %w", p.label(), err)
		}
	}()
	device, err := w.mapPiece(ctx, p)
	if err != nil {
		return err
	}
	return do(device)
}

func (s *restoreFilesystem) do(ctx context.Context, w *work) error {
	return w.onPiece(ctx, s.piece, func(device string) error {
		if err := w.makeFilesystem(ctx, device, s.piece, s.recipe); err != nil {
			return err
		}
		if err := s.writeBootCode(ctx, w, device); err != nil {
			return err
		}
		if err := s.fill(ctx, w, device); err != nil {
			return err
		}
		return w.runCommands(ctx, device, s.piece, s.recipe.Last, s.recipe.Env)
	})
}

// fill mounts a filesystem that was just made, and extracts the files.
func (s *restoreFilesystem) fill(ctx context.Context, w *work, device string) (err error) {
	mounted, err := w.Mounts.MountWritable(ctx, device, s.piece.Filesystem.Type)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	root, err := mounted.OpenRoot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	subvolumes := subvolumes(s.piece.Filesystem)
	if err := btrfs.Make(root, subvolumes); err != nil {
		return err
	}
	if err := s.extract(ctx, w, root); err != nil {
		return err
	}
	if err := btrfs.Finish(root, subvolumes); err != nil {
		return err
	}
	return mounted.Sync()
}

// makeFilesystem clears what an older filesystem may have left at both ends, and runs the commands that make the new
// one.
func (w *work) makeFilesystem(ctx context.Context, device string, p piece, recipe probe.Recipe) error {
	const signaturesBytes = 256 << 10
	if !w.zeros {
		if err := clearEnds(device, 0, p.targetBytes, signaturesBytes); err != nil {
			return err
		}
	}
	return w.runCommands(ctx, device, p, recipe.Commands, recipe.Env)
}

// runCommands runs commands of a recipe on the device of a piece.
func (w *work) runCommands(ctx context.Context, device string, p piece, commands [][]string, env []string) error {
	for _, argv := range commands {
		words := probe.On(argv, device)
		cmd := hostcmd.Cmd{Name: words[0], Args: words[1:], Env: env, Timeout: mkfsTimeout(p.targetBytes)}
		if _, err := w.Runner.Run(ctx, cmd); err != nil {
			return fmt.Errorf("make the filesystem: %w", err)
		}
	}
	return nil
}

// hasBootCode says whether there is any to write.
func (s *restoreFilesystem) hasBootCode() bool {
	return s.piece.BootArea != "" && len(s.fs.BootCodeRanges()) > 0
}

// writeBootCode writes the parts of the boot area that mkfs does not make.
func (s *restoreFilesystem) writeBootCode(ctx context.Context, w *work, device string) (err error) {
	if !s.hasBootCode() {
		return nil
	}
	code, err := w.plan.source.smallImage(ctx, s.piece.BootArea, maxBootAreaBytes)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for _, r := range s.fs.BootCodeRanges() {
		if r.OffsetBytes+r.SizeBytes > int64(len(code)) {
			return fmt.Errorf("cannot find boot code up to byte %d in %s: it holds %d", r.OffsetBytes+r.SizeBytes,
				s.piece.BootArea, len(code))
		}
		if _, err := file.WriteAt(code[r.OffsetBytes:][:r.SizeBytes], r.OffsetBytes); err != nil {
			return err
		}
	}
	return file.Sync()
}

// extract fills the filesystem.
func (s *restoreFilesystem) extract(ctx context.Context, w *work, root *os.Root) error {
	index, err := w.index(ctx, s.piece)
	if err != nil {
		return err
	}
	if err := dropLostAndFound(ctx, root, index, s.piece); err != nil {
		return err
	}
	opts := archive.ExtractOptions{Paths: s.paths, Index: index, Rebuild: true}
	if s.fs.FAT != nil {
		opts.NoOwner, opts.NoXattrs, opts.NoACLs, opts.NoFlags = true, true, true, true
	}
	return w.extract(ctx, s.piece, root, opts)
}

// index opens the index of an extent. A restore that keeps going does without one that is damaged.
func (w *work) index(ctx context.Context, p piece) (*archive.Index, error) {
	index, err := w.plan.source.index(ctx, p.Extent)
	if err != nil && w.plan.keepGoing {
		w.lose("%s: %v: sockets, chattr flags and odd attributes are not restored", p.label(), err)
		return nil, nil
	}
	return index, err
}

// dropLostAndFound removes the folder that mke2fs makes, where the original had none.
func dropLostAndFound(ctx context.Context, root *os.Root, index *archive.Index, p piece) error {
	const name = "lost+found"
	if index == nil || p.ExcludedEntries > 0 {
		return nil
	}
	if _, err := root.Stat(name); err != nil {
		return nil //nolint:nilerr // there is none
	}
	for _, err := range index.List(ctx, name, false) {
		return err // it is in the archive, or the index cannot tell
	}
	if _, _, err := index.Find(ctx, name); err == nil {
		return nil
	}
	return root.Remove(name)
}

// extract restores the files of one extent into a folder.
func (w *work) extract(ctx context.Context, p piece, root *os.Root, opts archive.ExtractOptions) error {
	r, err := w.plan.source.archive(ctx, p.Archive, archive.ReaderOptions{KeepGoing: w.plan.keepGoing})
	if err != nil {
		return err
	}
	done := int64(0)
	opts.KeepGoing = w.plan.keepGoing
	opts.OnProgress = func(stats archive.ExtractStats) {
		w.progress(stats.Bytes - done)
		done = stats.Bytes
	}
	stats, err := archive.Extract(ctx, r.Reader, root, opts)
	w.progress(stats.Bytes - done)
	w.mu.Lock()
	w.result.Bytes += stats.Bytes
	if w.plan.keepGoing {
		w.result.noteExtraction(p.label(), stats)
	} else {
		stats.Failures = nil // the first is the error
		w.result.noteExtraction(p.label(), stats)
	}
	w.mu.Unlock()
	w.filled++
	var unmatched *archive.UnmatchedError
	switch {
	case errors.As(err, &unmatched): // another partition may have them
		for _, pattern := range unmatched.Patterns {
			w.missing[pattern]++
		}
		err = nil
	case w.plan.keepGoing && errors.Is(err, archive.ErrIncomplete):
		err = nil
	}
	if err := w.tolerate(r.finish(err)); err != nil {
		return err
	}
	part := PartResult{Name: p.Name, As: "files", Entries: stats.Entries(), Bytes: stats.Bytes}
	w.result.Parts = append(w.result.Parts, part)
	return nil
}

// makeSwap makes a swap area with its UUID and label.
type makeSwap struct {
	piece  piece
	recipe probe.Recipe
	device string // its name, where that is known beforehand
}

func (s *makeSwap) Describe() []string {
	return describeCommands(s.piece.label(), s.recipe.Commands, s.recipe.Env, s.device)
}

func (s *makeSwap) progress() string { return s.piece.label() + ": make the swap area" }

func (s *makeSwap) do(ctx context.Context, w *work) error {
	return w.onPiece(ctx, s.piece, func(device string) error {
		w.result.Parts = append(w.result.Parts, PartResult{Name: s.piece.Name, As: "swap"})
		return w.makeFilesystem(ctx, device, s.piece, s.recipe)
	})
}

var versionOfXFSProgs = regexp.MustCompile(`version (\d{1,6})\.(\d{1,6})`)

// xfsprogs returns the version of mkfs.xfs; the zero value when it does not tell.
func (e *Engine) xfsprogs(ctx context.Context) [2]int {
	out, err := e.Runner.Output(ctx, "mkfs.xfs", "-V")
	m := versionOfXFSProgs.FindSubmatch(out)
	if err != nil || m == nil {
		return [2]int{}
	}
	major, _ := strconv.Atoi(string(m[1])) // digits
	minor, _ := strconv.Atoi(string(m[2]))
	return [2]int{major, minor}
}
