package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"voltar/archive"
)

// Folders that second nights are of. The tree itself is only read.
const (
	changingTree = "changing"  // a copy of the tree, of which some files change each time
	oneFileTree  = "one-large" // one file, of which one place changes each time
	oneFileBytes = 1_000_000_000
)

// secondNights compares what a second backup takes with the first one of the same tree.
func (b *bench) secondNights() []*task {
	copied := shell("test -e %[1]s || { cp -a %[2]s %[1]s.part && mv %[1]s.part %[1]s; }", changingTree, quote(b.tree))
	return concat(
		b.secondNight("nothing changed", b.tree, nil),
		b.secondNight("1 % of the files changed", changingTree, [][]string{copied, b.step("change", changingTree)}),
		b.secondNight("1 GB, changed in one place", oneFileTree,
			[][]string{b.step("join", oneFileTree, b.tree), b.step("change-place", oneFileTree)}),
	)
}

func concat[T any](lists ...[]T) (all []T) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// secondNight is a tree that is backed up once more after change, which also makes it where it is missing.
func (b *bench) secondNight(what, tree string, change [][]string) []*task {
	group := "second night: " + what
	folder := quote(tree)
	first := func(argv []string) [][]string { return concat(change, [][]string{argv}, change) }
	return []*task{
		{group: group, name: "voltar, first night", base: true, before: append([][]string{fresh("n0")}, change...), result: "n0",
			argv: b.step("archive", "n0", tree, "default")},
		{group: group, name: "voltar, second night", before: append([][]string{fresh("n1")}, change...), result: "n1",
			argv: b.step("again", "n1", "n0", tree)},
		{group: group, name: "restic, second backup", needs: "restic", result: "restic2",
			before: append([][]string{shell("rm -rf restic2 && restic init -q -r restic2")},
				first(shell("R=$PWD/restic2 && cd %s && restic backup -q -r $R .", folder))...),
			argv: shell("R=$PWD/restic2 && cd %s && restic backup -q -r $R .", folder)},
		{group: group, name: "borg, lz4, second backup", needs: "borg", result: "borg2",
			before: append([][]string{shell("rm -rf borg2 && borg init -e none borg2")},
				first(shell("R=$PWD/borg2 && cd %s && borg create -C lz4 $R::a .", folder))...),
			argv: shell("R=$PWD/borg2 && cd %s && borg create -C lz4 $R::b .", folder)},
	}
}

// stepAgain archives a tree and carries over what it can of an previous archive, as a run does.
func stepAgain(ctx context.Context, dir, before, tree string) (err error) {
	index, err := os.Open(filepath.Join(before, indexName))
	if err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(before, archiveName))
	if err != nil {
		return errors.Join(err, index.Close())
	}
	defer func() { err = errors.Join(err, index.Close(), file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	previous, err := archive.ReadPrevious(ctx, index, file, info.Size(), archive.PreviousOptions{
		Today: archive.DayOf(time.Now()), FreshDays: 30, Trusted: true, Failed: func(err error) {
			select {
			case failed <- err:
			default: // one says enough
			}
		},
	})
	if err != nil {
		return err
	}
	if err := archiveTo(ctx, dir, tree, archive.TreeOptions{Previous: previous}); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// changeSome changes one file in a hundred of a tree, each in one place.
func changeSome(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || rand.N(100) != 0 {
			return err
		}
		return changePlace(path)
	})
}

// changePlace writes something else in one place of a file.
func changePlace(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	_, err = f.WriteAt(fmt.Append(nil, rand.Uint64()), rand.N(info.Size()))
	return err
}

// joinFiles makes one file of the files of a tree, unless it was made before.
func joinFiles(dir, tree string) (err error) {
	path := filepath.Join(dir, "file")
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	left := int64(oneFileBytes)
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || left == 0 {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		n, err := io.Copy(out, io.LimitReader(in, left))
		left -= n
		return errors.Join(err, in.Close())
	})
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}
