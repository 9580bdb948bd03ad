package catalog

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"voltar/internal/durable"
)

// usedAfter is how old the time of a file may become that is in use.
const usedAfter = 24 * time.Hour

// limits are those of a folder of this host whose files may be removed at any time.
type limits struct {
	files int
	bytes int64 // of all files; 0 where their number alone counts
}

// bounded is such a folder, while files are written to it.
type bounded struct {
	dir    string
	limits limits

	mu       sync.Mutex // over the rest
	isLooked bool       // the folder was looked at
	since    limits     // what was written since
}

// wrote counts a file that was written. The folder is looked at for the first of them, and then whenever a tenth of what it may hold has
// come: looking at all files costs more than writing one. So it never holds much more than a tenth too much.
func (b *bounded) wrote(bytes int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since.files++
	b.since.bytes += int64(bytes)
	if b.isLooked && b.since.files <= b.limits.files/10 && (b.limits.bytes == 0 || b.since.bytes <= b.limits.bytes/10) {
		return nil
	}
	b.isLooked, b.since = true, limits{}
	return b.limits.keep(b.dir)
}

// keep removes from a folder what writers left that died. Where it has too many files or bytes, those go that were not used for longest: a
// tenth more than must, so that files seldom have to be looked at.
func (l limits) keep(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	temps := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !durable.IsTemp(name) })
	left, err := infos(folder, temps)
	if err != nil {
		return err
	}
	var errs []error
	for _, info := range left {
		if time.Since(info.ModTime()) > usedAfter {
			errs = append(errs, forget(folder, info))
		}
	}
	names = slices.DeleteFunc(names, durable.IsTemp)
	if l.bytes == 0 && len(names) <= l.files {
		return errors.Join(errs...)
	}
	files, err := infos(folder, names)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, info := range l.excess(files) {
		errs = append(errs, forget(folder, info))
	}
	return errors.Join(errs...)
}

// excess are the files that are too many, the oldest.
func (l limits) excess(files []fs.FileInfo) []fs.FileInfo {
	var sum int64
	for _, info := range files {
		sum += info.Size()
	}
	if len(files) <= l.files && (l.bytes == 0 || sum <= l.bytes) {
		return nil
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	n := 0
	for ; len(files)-n > l.files*9/10 || l.bytes > 0 && sum > l.bytes/10*9; n++ {
		sum -= files[n].Size()
	}
	return files[:n]
}

// infos looks at files of a folder; those that are gone by now are left out.
func infos(folder string, names []string) (list []fs.FileInfo, err error) {
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

func forget(folder string, info fs.FileInfo) error {
	if err := os.Remove(filepath.Join(folder, info.Name())); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
