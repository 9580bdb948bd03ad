package guests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"voltar/internal/say"
)

// file is a definition as it was read.
type file struct {
	name    string // without its folder
	content []byte
}

// folder reads the files of a folder whose names end as is wanted, in the order of their names. A folder that is not there has none.
func (f *finder) folder(path, suffix string) (files []file) {
	path = f.path(path)
	names, err := namesIn(path, suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		f.trouble(readHint, "cannot look for guests: %v", err)
	}
	for _, name := range names {
		content, err := readSmall(filepath.Join(path, name), maxFileBytes)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the guest has gone meanwhile
		case err != nil:
			f.trouble(readHint, "cannot read the definition of a guest: %v", err)
		case f.take(len(content)):
			files = append(files, file{name, content})
		default:
			return files
		}
	}
	return files
}

const readHint = "its volumes are backed up without its name, and not at one moment; is voltar run as root?"

// take counts what was read. It tells whether that is still within the bound, and once that it is not.
func (f *finder) take(n int) bool {
	before := f.bytes
	f.bytes += int64(n)
	if f.bytes <= maxBytes {
		return true
	}
	if before <= maxBytes {
		f.trouble("their volumes are backed up without a name", "the definitions of guests have more than %s: the rest is not read",
			say.Size(maxBytes))
	}
	return false
}

// namesIn lists the files of a folder whose names end in suffix, at most maxGuests of them.
func namesIn(path, suffix string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for {
		some, err := dir.Readdirnames(1000)
		for _, name := range some {
			if strings.HasSuffix(name, suffix) {
				names = append(names, name)
			}
		}
		switch {
		case len(names) > maxGuests:
			return nil, fmt.Errorf("%s has more than %d files", path, maxGuests)
		case errors.Is(err, io.EOF):
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, err
		}
	}
}

// readSmall reads a regular file of at most so many bytes.
func readSmall(path string, maxFile int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && int64(len(content)) > maxFile {
		return nil, fmt.Errorf("%s has more than %s", path, say.Size(maxFile))
	}
	return content, err
}
