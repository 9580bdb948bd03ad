package archive

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// errFound ends a search that has found all.
var errFound = errors.New("all is found")

// FindInodes looks in a tree for the first name of each of some inodes. What cannot be read is passed over. Of the options
// it takes Limits and TempDir. With an error it returns what it has found by then.
func FindInodes(ctx context.Context, root *os.File, inodes []uint64, opts TreeOptions) (map[uint64]string, error) {
	limits := opts.Limits.withDefaults()
	temp := &spill{dir: cmp.Or(opts.TempDir, os.TempDir()), limit: limits.SpillBytes}
	wanted, paths := make(map[uint64]bool), make(map[uint64]string)
	for _, inode := range inodes {
		wanted[inode] = true
	}
	w := &walker{
		sys: hostSystem(), log: slog.New(slog.DiscardHandler), openDirs: maxOpenDirs, limits: &limits,
		names: nameStack{spill: temp, budget: limits.NameBytes},
		visit: func(path []byte, inode uint64) error {
			if wanted[inode] {
				paths[inode] = string(path)
				delete(wanted, inode)
			}
			if len(wanted) == 0 {
				return errFound
			}
			return nil
		},
	}
	conn, err := root.SyscallConn()
	if err != nil {
		return nil, err
	}
	if controlErr := conn.Control(func(fd uintptr) { err = w.search(ctx, int(fd)) }); controlErr != nil {
		return nil, controlErr
	}
	if errors.Is(err, errFound) {
		err = nil
	}
	return paths, err
}

// search visits every entry of the tree.
func (w *walker) search(ctx context.Context, rootFD int) error {
	defer w.closeAll()
	var err error
	if w.root, err = w.sys.statx(rootFD, "", unix.AT_EMPTY_PATH, rootPath); err != nil {
		return err
	}
	if err := w.visit([]byte(rootPath), w.root.Ino); err != nil {
		return err
	}
	w.path = append(w.path[:0], rootPath...)
	if err := w.enterExcluded(ctx, rootFD, ".", &w.root); err != nil {
		return err
	}
	w.stack[0].pathLen = 0
	for len(w.stack) > 0 {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}
