package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"voltar/archive"
)

// Files that the steps of voltar write and read, in a folder of their own.
const (
	archiveName = "volume.tar.gz"
	indexName   = "volume.index.gz"
	blocksName  = "volume.blocks" // where the index's list of blocks lies, which a manifest would say
)

// step does one of voltar's works, as the measured process.
func step(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: bench step archive|again|two|extract|verify|list|one FOLDER [ARG...]")
	}
	if file := os.Getenv("CPUPROFILE"); file != "" {
		profile, err := os.Create(file)
		if err != nil {
			return err
		}
		defer profile.Close()
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25) // as the program has it
	}
	name, dir, rest := args[0], args[1], append(args[2:], "", "")
	switch name {
	case "archive":
		return stepArchive(ctx, dir, rest[0], rest[1])
	case "again":
		return stepAgain(ctx, dir, rest[0], rest[1])
	case "change":
		return changeSome(dir)
	case "change-place":
		return changePlace(filepath.Join(dir, "file"))
	case "join":
		return joinFiles(dir, rest[0])
	case "extract":
		return stepExtract(ctx, dir, rest[0])
	case "verify":
		return stepVerify(ctx, dir)
	case "list":
		return stepList(ctx, dir, stdout)
	case "one":
		return stepOne(ctx, dir, rest[0], stdout)
	case "populate":
		return populate(dir, rest[0])
	case "two":
		return stepTwo(ctx, dir, rest[0])
	case "s3-put":
		return stepPut(ctx, dir, rest[0], rest[1])
	case "s3-clear":
		return stepClear(ctx, dir, rest[0])
	case "flow":
		return stepFlow(rest[0], stdout)
	}
	return fmt.Errorf("cannot do %q", name)
}

// stepArchive archives a tree as a run does, sums and index included.
func stepArchive(ctx context.Context, dir, tree, levelName string) error {
	level, err := archive.ParseLevel(levelName)
	if err != nil {
		return err
	}
	return archiveTo(ctx, dir, tree, archive.TreeOptions{Level: level})
}

func archiveTo(ctx context.Context, dir, tree string, opts archive.TreeOptions) error {
	root, err := os.Open(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	out, err := newSummed(filepath.Join(dir, archiveName))
	if err != nil {
		return err
	}
	index, err := newSummed(filepath.Join(dir, indexName))
	if err != nil {
		return errors.Join(err, out.close())
	}
	opts.Made = archive.DayOf(time.Now())
	stats, err := archive.WriteTree(ctx, root, out, index, opts)
	if err := errors.Join(err, out.close(), index.close()); err != nil {
		return err
	}
	if stats.DamagedCount > 0 {
		return fmt.Errorf("cannot read all of the tree: %v", stats.Damaged[0])
	}
	return os.WriteFile(filepath.Join(dir, blocksName), strconv.AppendInt(nil, stats.IndexBlocksOffset, 10), 0o644)
}

// summed is a file that is summed up as it is written.
type summed struct {
	file *os.File
	sums *archive.Sums
}

func newSummed(path string) (*summed, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &summed{file: file, sums: archive.NewSums()}, nil
}

func (s *summed) Write(p []byte) (int, error) {
	if _, err := s.sums.Write(p); err != nil {
		return 0, err
	}
	return s.file.Write(p)
}

// close ends the file and writes its sums beside it.
func (s *summed) close() error {
	digest := s.sums.Sum()
	line := fmt.Sprintf("%s  %s\n", digest.SHA1, filepath.Base(s.file.Name()))
	return errors.Join(s.file.Close(), os.WriteFile(s.file.Name()+".sha1", []byte(line), 0o644))
}

// stepTwo archives a tree twice at a time, with shared workers, as a run of two volumes does.
func stepTwo(ctx context.Context, dir, tree string) error {
	pool := archive.NewPool(0)
	defer pool.Close()
	failed := make(chan error, 2)
	for _, name := range []string{"first", "second"} {
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		go func() { failed <- archiveTo(ctx, to, tree, archive.TreeOptions{Pool: pool}) }()
	}
	return errors.Join(<-failed, <-failed)
}

// opened is an archive with its index.
type opened struct {
	file, indexFile *os.File
	size            int64
	index           *archive.Index
}

func open(ctx context.Context, dir string) (*opened, error) {
	file, err := os.Open(filepath.Join(dir, archiveName))
	if err != nil {
		return nil, err
	}
	indexFile, err := os.Open(filepath.Join(dir, indexName))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	indexInfo, err := indexFile.Stat()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, blocksName))
	if err != nil {
		return nil, err
	}
	blocks, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, err
	}
	index, err := archive.OpenIndex(ctx, indexFile, indexInfo.Size(), blocks)
	return &opened{file: file, indexFile: indexFile, size: info.Size(), index: index}, err
}

func stepExtract(ctx context.Context, dir, to string) error {
	o, err := open(ctx, dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	r, err := archive.NewReader(ctx, o.file, o.size, archive.ReaderOptions{})
	if err != nil {
		return err
	}
	_, err = archive.Extract(ctx, r, root, archive.ExtractOptions{Index: o.index, Rebuild: true})
	return errors.Join(err, r.Close())
}

// stepVerify checks everything in an archive and, as it goes by, the sums of the stored file.
func stepVerify(ctx context.Context, dir string) error {
	o, err := open(ctx, dir)
	if err != nil {
		return err
	}
	file := &summedReads{file: o.file, sums: archive.NewSums()}
	result, err := archive.Verify(ctx, file, o.size, o.index, archive.VerifyOptions{Level: archive.VerifyFull})
	digest := file.sums.Sum()
	if err == nil && !result.Good() {
		err = fmt.Errorf("verify: %v", result.Findings)
	}
	if err != nil {
		return err
	}
	said, err := os.ReadFile(filepath.Join(dir, archiveName+".sha1"))
	if err == nil && !strings.HasPrefix(string(said), digest.SHA1+" ") {
		err = errors.New("the sum is wrong")
	}
	return err
}

// summedReads sums up what is read for the first time, as `voltar verify` does.
type summedReads struct {
	file *os.File
	sums *archive.Sums
	mu   sync.Mutex
	next int64
}

func (s *summedReads) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.file.ReadAt(p, offset)
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset <= s.next && s.next < offset+int64(n) {
		_, _ = s.sums.Write(p[s.next-offset : n]) // never fails
		s.next = offset + int64(n)
	}
	return n, err
}

func stepList(ctx context.Context, dir string, stdout io.Writer) error {
	o, err := open(ctx, dir)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(stdout)
	for e, err := range o.index.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintln(w, e.Path)
	}
	return w.Flush()
}

func stepOne(ctx context.Context, dir, path string, stdout io.Writer) error {
	o, err := open(ctx, dir)
	if err != nil {
		return err
	}
	entry, members, err := o.index.Find(ctx, path)
	if err != nil {
		return err
	}
	f, err := archive.OpenFile(ctx, o.file, entry, members)
	if err != nil {
		return err
	}
	_, err = io.Copy(stdout, f)
	return errors.Join(err, f.Close())
}
