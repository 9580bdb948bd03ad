package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// node is all of one entry of a tree that a backup must bring back.
type node struct {
	mode, uid, gid uint32
	rdev           uint64
	size, mtime    int64 // bytes, nanoseconds
	link           string
	xattrs         string
	data           string // ranges that are no holes, and the sum of what they hold
	twin           string // the first name of the same inode
}

// treeOf reads a whole tree, by path.
func treeOf(t *testing.T, root string) map[string]node {
	t.Helper()
	tree, twins := map[string]node{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		n := node{mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: st.Rdev, mtime: st.Mtim.Nano()}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			n.size = st.Size
			n.data, err = dataOf(path)
		case unix.S_IFLNK:
			n.link, err = os.Readlink(path)
		}
		if err != nil {
			return err
		}
		if n.xattrs, err = xattrsOf(path); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if twins[st.Ino] == "" {
				twins[st.Ino] = name
			}
			n.twin = twins[st.Ino]
		}
		tree[name] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// dataOf describes the data of a file, without reading its holes.
func dataOf(path string) (text string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	for end := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return fmt.Sprintf("%s sum %x", text, sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		if end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			return "", err
		}
		text += fmt.Sprintf("[%d,%d) ", start, end)
		if _, err := io.Copy(sum, io.NewSectionReader(f, start, end-start)); err != nil {
			return "", err
		}
	}
}

// xattrsOf lists the extended attributes of every namespace, ACLs among them.
func xattrsOf(path string) (string, error) {
	buffer := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buffer)
	if err != nil {
		return "", err
	}
	var text []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.SGI_ACL_") { // XFS's ACLs, which are there in POSIX form too
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		text = append(text, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	return fmt.Sprint(sorted(text)), nil
}

// compareTrees reports each entry that differs.
func compareTrees(t *testing.T, what string, want, got map[string]node) {
	t.Helper()
	for name, w := range want {
		g, found := got[name]
		switch {
		case !found:
			t.Errorf("%s: %q is missing", what, name)
		case g != w:
			t.Errorf("%s: %q is\n%+v, want\n%+v", what, name, g, w)
		}
	}
	for name := range got {
		if _, found := want[name]; !found {
			t.Errorf("%s: %q is new", what, name)
		}
	}
}
