package guests

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// Bounds of the files that belong to a definition.
const (
	maxAttachedBytes = 64 << 20  // of one file; a larger CD is no cloud-init
	maxAllAttached   = 256 << 20 // of those of one guest
	attachedPatience = 30 * time.Second
)

// AttachedFolder is where the archive of a definition has files of the host, below it by their paths.
const AttachedFolder = "files"

// Sum is the SHA-256 of what defines the guest, without the files that belong to it: the guest itself changes its firmware's variables.
func (g Guest) Sum() string {
	sum := sha256.New()
	for _, f := range g.Definition {
		fmt.Fprintf(sum, "%s %d\n", f.Name, len(f.Content))
		sum.Write(f.Content)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// WriteDefinition writes a tar archive of what defines the guest: its definition, and the files that belong to it and are there. lacking
// says which of these it could not read, and why.
func (g Guest) WriteDefinition(ctx context.Context, to io.Writer) (lacking []string, err error) {
	archive := tar.NewWriter(to)
	add := func(name string, content []byte) error {
		err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content)), Format: tar.FormatPAX})
		if err == nil {
			_, err = archive.Write(content)
		}
		return err
	}
	for _, f := range g.Definition {
		if err := add(f.Name, f.Content); err != nil {
			return nil, err
		}
	}
	left := int64(maxAllAttached)
	for _, name := range g.Attached {
		content, err := readAttached(ctx, path.Clean(name))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errTooLarge):
			continue
		case err == nil && int64(len(content)) > left:
			err = fmt.Errorf("the files of the definition have more than %s", say.Size(maxAllAttached))
		}
		if err != nil {
			lacking = append(lacking, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		left -= int64(len(content))
		if err := add(path.Join(AttachedFolder, path.Clean(name)), content); err != nil {
			return nil, err
		}
	}
	return lacking, archive.Close()
}

// errTooLarge says that a file is no part of a definition, such as the CD of an installer.
var errTooLarge = errors.New("it is too large")

// hostFolders have what is no guest's, whatever a definition says: passwords and keys, devices, what the kernel tells.
var hostFolders = []string{"/boot/", "/dev/", "/etc/", "/proc/", "/root/", "/sys/"}

// readAttached reads a file that a definition names. It may lie on a filesystem that does not answer, and is then left behind.
func readAttached(ctx context.Context, path string) ([]byte, error) {
	if slices.ContainsFunc(hostFolders, func(folder string) bool { return strings.HasPrefix(path, folder) }) {
		return nil, errors.New("it lies where the host has its own, and no files of guests")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attachedPatience, fmt.Errorf("no answer within %s", attachedPatience))
	defer cancel()
	type answer struct {
		content []byte
		err     error
	}
	answers := make(chan answer, 1) // so that an answer that nobody waits for any more ends the goroutine
	go func() {
		content, err := readFirm(path)
		answers <- answer{content, err}
	}()
	select {
	case a := <-answers:
		return a.content, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// readFirm reads a regular file of at most maxAttachedBytes. The folder that it lies in may be another user's, as QEMU's is, who must not
// have a link there lead this program to what only root may read.
func readFirm(name string) ([]byte, error) {
	fd, err := openFirm(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	var content bytes.Buffer
	n, err := io.Copy(&content, io.LimitReader(f, maxAttachedBytes+1))
	if err == nil && n > maxAttachedBytes {
		err = errTooLarge
	}
	return content.Bytes(), err
}

// linksFollowed bounds the symbolic links on the way to a file, as the kernel does.
const linksFollowed = 40

// openFirm opens a file by an absolute path. It follows a symbolic link only in a folder of root's, or of this user's, to which nobody
// else can write.
func openFirm(name string) (fd int, err error) {
	const toFolder = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	root := func() (int, error) { return unix.Open("/", toFolder, 0) }
	dir, err := root()
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(dir) }() // a descriptor of a path
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		if rest = rest[1:]; part == "" || part == "." {
			continue
		}
		if target, err := readFirmLink(dir, part); err != nil || target != "" {
			if links++; links > linksFollowed {
				err = unix.ELOOP
			}
			if err != nil {
				return -1, err
			}
			if strings.HasPrefix(target, "/") {
				_ = unix.Close(dir) // a descriptor of a path
				if dir, err = root(); err != nil {
					return -1, err
				}
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		if len(rest) == 0 {
			return unix.Openat(dir, part, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		}
		next, err := unix.Openat(dir, part, toFolder, 0)
		if err != nil {
			return -1, err
		}
		_ = unix.Close(dir) // a descriptor of a path
		dir = next
	}
	return -1, unix.EISDIR
}

// readFirmLink returns where a name in a folder leads to, if it is a symbolic link that nobody but root or this user can have made.
func readFirmLink(dir int, name string) (target string, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	var folder unix.Stat_t
	if err := unix.Fstat(dir, &folder); err != nil {
		return "", err
	}
	own := func(st unix.Stat_t) bool { return st.Uid == 0 || st.Uid == uint32(os.Geteuid()) }
	if !own(st) || !own(folder) || folder.Mode&0o022 != 0 {
		return "", fmt.Errorf("another user may have made the link %s on the way to it", name)
	}
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buffer)
	return string(buffer[:max(n, 0)]), err
}
