package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// What a tree is made to hold, at most.
const (
	treeBytes    = 1_500_000_000
	treeFiles    = 80_000
	treeMaxBytes = 64_000_000 // of one file
)

// source is a folder that part of the tree is copied from.
type source struct {
	dir      string
	maxBytes int64
}

// sources are folders that a machine with the tests has: source text, programs and libraries, as servers have them.
func sources() ([]source, error) {
	root, err := goEnv("GOROOT")
	if err != nil {
		return nil, err
	}
	modules, err := goEnv("GOMODCACHE")
	if err != nil {
		return nil, err
	}
	return []source{
		{root, treeBytes}, {"/usr/lib", 400_000_000}, {"/usr/bin", 100_000_000}, {modules, treeBytes}, {"/usr/share", treeBytes},
	}, nil
}

func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// makeTree copies files into dir until it has enough, unless it was made before.
func makeTree(ctx context.Context, dir string, log io.Writer) error {
	done := dir + ".made"
	if made, err := os.ReadFile(done); err == nil {
		fmt.Fprintf(log, "tree: %s, %s", dir, made)
		return nil
	}
	from, err := sources()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	var total copied
	for i, s := range from {
		c := copied{limit: min(s.maxBytes, treeBytes-total.bytes), maxFiles: treeFiles - total.files}
		to := filepath.Join(dir, fmt.Sprintf("%d%s", i, filepath.Base(s.dir)))
		if err := c.tree(ctx, s.dir, to); err != nil {
			return err
		}
		total.bytes, total.files = total.bytes+c.bytes, total.files+c.files
	}
	made := fmt.Sprintf("%d files, %d bytes\n", total.files, total.bytes)
	fmt.Fprintf(log, "tree: %s, %s", dir, made)
	return os.WriteFile(done, []byte(made), 0o644)
}

// copied counts what was copied from one source.
type copied struct {
	files    int
	bytes    int64
	limit    int64
	maxFiles int
}

// tree copies folders, files and links in their order until it has enough.
func (c *copied) tree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrPermission): // what nobody may read is left out
			return nil
		case err != nil:
			return err
		case c.bytes >= c.limit || c.files >= c.maxFiles:
			return filepath.SkipAll
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && rel == filepath.Join("cache", "download"): // module archives, which are there twice
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case d.Type().IsRegular():
			return c.file(path, target)
		}
		return nil
	})
}

func (c *copied) file(path, target string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() > treeMaxBytes {
		return err
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(target, content, info.Mode().Perm()|0o600); err != nil {
		return err
	}
	c.files++
	c.bytes += int64(len(content))
	return os.Chtimes(target, info.ModTime(), info.ModTime())
}

// someFile returns the path, in the tree, of a file in its middle: one to take out of the archives again.
func someFile(tree string) (string, error) {
	var files []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		files = append(files, rel)
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no files")
	}
	if err != nil {
		return "", fmt.Errorf("cannot use the tree %q: %w", tree, err)
	}
	return files[len(files)*2/3], nil
}

// populatedName names the file with a number of a tree that populate makes: a thousand in a folder.
func populatedName(i int) string {
	return fmt.Sprintf("folder-%06d/a-file-of-a-usual-name-%06d.txt", i/1000, i)
}

// populate makes a tree of empty files, unless it was made before.
func populate(dir, count string) error {
	files, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for i := range files {
		path := filepath.Join(dir, populatedName(i))
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
