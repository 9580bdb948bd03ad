// Package disk is a store in a folder: an object is a file of its key's path, folders have mode 0700 and files 0600.
// What is being written has the name ".NAME.voltar-tmp-RUN-RANDOM" in the folder of the object. Nothing leads out of
// the store's folder, no symbolic link either.
package disk

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"voltar/internal/durable"
	"voltar/internal/fiemap"
	"voltar/internal/say"
	"voltar/internal/store"
)

const (
	dirPerm  = 0o700
	filePerm = 0o600
)

var (
	// ErrNotMounted is wrapped by the error of a destination whose disk is not mounted: writing there would fill the disk below.
	ErrNotMounted = errors.New("not mounted")
	// ErrMoved is wrapped by the error of a destination whose path no longer leads to the folder that it led to.
	ErrMoved = errors.New("was moved or unmounted meanwhile")
)

// Options of a folder store.
type Options struct {
	Path string // absolute; where it is missing, the first object makes it, once RequireMount is mounted
	// RequireMount is the mountpoint that Path must lie at or below, absolute; "" asks for none. It is looked at when the
	// folder is first used and before each object, so that nothing goes below a disk that was unmounted in between.
	RequireMount string
	Run          string        // becomes part of temporary names; may be ""
	Fault        durable.Fault // of tests; nil in production
	// Now is the clock of the host, by which files are young; nil is time.Now. Tests set it ahead where they need marks of files
	// that they have just written.
	Now func() time.Time
}

// Store is a folder, which the first object that is written to it makes: one that is missing holds nothing. It implements store.Store.
type Store struct {
	path         string
	requireMount string
	run          string
	fault        durable.Fault
	host         host
	now          func() time.Time

	mu       sync.Mutex // never held while the disk is touched, which may hang
	opened   *folder    // nil until the folder was there
	isClosed bool
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Placed  = (*Store)(nil)
	_ store.Pending = (*Store)(nil)
	_ store.Sharing = (*Store)(nil)
)

// Open returns the store of a folder, which may be missing. Nothing of the disk is touched, which may hang: its first use says why it
// cannot be used. The caller must close the store.
func Open(opts Options) (*Store, error) {
	return open(opts, host{"/", mountinfo.Mounted})
}

// host is what says what is mounted, and what is to be.
type host struct {
	root    string // above etc/fstab
	mounted func(path string) (bool, error)
}

func open(opts Options, on host) (*Store, error) {
	if !filepath.IsAbs(opts.Path) {
		return nil, fmt.Errorf("open destination %q: its path must be absolute", opts.Path)
	}
	s := &Store{
		path: filepath.Clean(opts.Path), requireMount: opts.RequireMount, run: opts.Run, fault: opts.Fault, host: on, now: opts.Now,
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s, nil
}

// Close ends the use of the folder. Objects that are open stay so.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isClosed = true
	if s.opened == nil {
		return nil
	}
	return s.opened.root.Close()
}

// String is the path.
func (s *Store) String() string { return s.path }

// Folder is where on this host the objects are.
func (s *Store) Folder() string { return s.path }

// maxCreateTries bounds the race of a folder being made for an object while another's deletion removes it, empty.
const maxCreateTries = 100

// Create begins an object; see store.Store.
func (s *Store) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if !opts.LockUntil.IsZero() {
		return nil, s.wrap("create", key, store.ErrNoLock)
	}
	if err := s.check(ctx, key); err != nil {
		return nil, s.wrap("create", key, err)
	}
	f, err := s.toWrite()
	if err != nil {
		return nil, s.wrap("create", key, err)
	}
	for try := 1; ; try++ {
		file, err := s.create(f, key, opts.IfAbsent)
		if err == nil {
			return &writer{store: s, ctx: ctx, key: key, file: file}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || try == maxCreateTries {
			return nil, s.wrap("create", key, err)
		}
	}
}

func (s *Store) create(f *folder, key string, ifAbsent bool) (*durable.File, error) {
	if err := f.files.MkdirAll(path.Dir(key), dirPerm); err != nil {
		return nil, err
	}
	if info, err := f.root.Lstat(key); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot write %s: what has that name is no file", key)
	}
	return f.files.Create(key, filePerm, durable.CreateOptions{Tag: s.run, Stream: true, Exclusive: ifAbsent})
}

// settled is for how long a file must have stood before it is known again by its times: the clocks of filesystems move in ticks of up
// to 10 ms, and what is written into it within one tick leaves its times as they are.
const settled = 2 * time.Second

// Open opens an object for reading; see store.Store.
func (s *Store) Open(ctx context.Context, key string) (store.Reader, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, s.wrap("open", key, err)
	}
	file, err := s.open(key)
	if err != nil {
		return nil, s.wrap("open", key, err)
	}
	now := s.now()
	info, err := file.Stat()
	if err != nil {
		return nil, s.wrap("open", key, errors.Join(err, file.Close()))
	}
	return &reader{ctx: ctx, file: file, size: info.Size(), mark: settledMark(info, now)}, nil
}

// open opens a file in its folder, which is looked up once.
func (s *Store) open(key string) (_ *os.File, err error) {
	folder, err := s.openFolder(path.Dir(key))
	if err != nil {
		_, why := s.lstat(key) // which tells a file in the place of a folder
		return nil, cmp.Or(why, err)
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	info, err := folder.Lstat(path.Base(key))
	if err == nil && !info.Mode().IsRegular() { // a FIFO would block in open(2)
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return folder.Open(path.Base(key))
}

// Stat describes an object; see store.Store.
func (s *Store) Stat(ctx context.Context, key string) (store.Object, error) {
	if err := s.check(ctx, key); err != nil {
		return store.Object{}, s.wrap("stat", key, err)
	}
	info, err := s.lstat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return store.Object{}, s.wrap("stat", key, err)
	}
	return object(key, info), nil
}

// List yields every object below a prefix; see store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	var objects []store.Object
	err := s.walk(ctx, prefix, func(key string, info fs.FileInfo) error {
		if !durable.IsTemp(path.Base(key)) {
			objects = append(objects, object(key, info))
		}
		return nil
	})
	if err != nil {
		return nil, s.wrap("list", prefix, err)
	}
	// Not the order of the walk: "a.b" comes before "a/b".
	slices.SortFunc(objects, func(a, b store.Object) int { return cmp.Compare(a.Key, b.Key) })
	return objects, nil
}

// Folders yields the names of the folders directly below a prefix; see store.Store.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	if err := s.checkPrefix(ctx, prefix); err != nil {
		return nil, s.wrap("list folders of", prefix, err)
	}
	entries, err := s.readDir(cmp.Or(prefix, "."))
	if err != nil {
		return nil, s.wrap("list folders of", prefix, err)
	}
	var names []string
	for _, entry := range entries {
		// Others may have made folders whose names are no keys: nothing of the store is in them.
		if entry.IsDir() && store.CheckKey(path.Join(prefix, entry.Name())) == nil {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Look yields the folders directly below a prefix, with some of their objects; see store.Store.
func (s *Store) Look(ctx context.Context, prefix string, names ...string) ([]store.Folder, error) {
	folders, err := s.look(ctx, prefix, names)
	if err != nil {
		return nil, s.wrap("look into the folders of", prefix, err)
	}
	return folders, nil
}

func (s *Store) look(ctx context.Context, prefix string, names []string) (folders []store.Folder, err error) {
	if err := s.checkPrefix(ctx, prefix); err != nil {
		return nil, err
	}
	if info, err := s.lstat(cmp.Or(prefix, ".")); err != nil || !info.IsDir() {
		return nil, ignoreNotExist(err)
	}
	above, err := s.openFolder(cmp.Or(prefix, ".")) // its folders are reached without looking up the whole path for each
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, above.Close()) }()
	entries, err := readDir(above, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		store.Progress(ctx)
		key := path.Join(prefix, entry.Name())
		if !entry.IsDir() || store.CheckKey(key) != nil {
			continue
		}
		folders = append(folders, s.lookInto(above, key, names))
	}
	slices.SortFunc(folders, func(a, b store.Folder) int { return cmp.Compare(a.Name, b.Name) })
	return folders, nil
}

// lookInto looks at some objects of the folder of a key.
func (s *Store) lookInto(above *os.Root, key string, names []string) store.Folder {
	folder := store.Folder{Name: path.Base(key)}
	if len(names) == 0 {
		entries, err := readDir(above, folder.Name)
		if err != nil {
			folder.Err = s.wrap("look into", key, err)
		}
		for _, entry := range entries {
			if name := entry.Name(); store.CheckKey(name) == nil && !durable.IsTemp(name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		info, err := above.Lstat(path.Join(folder.Name, name))
		switch {
		case isNotExist(err) || err == nil && !info.Mode().IsRegular():
		case err != nil: // of a bad sector, say: the other folders are as good as ever
			folder.Err = errors.Join(folder.Err, s.wrap("look at", path.Join(key, name), err))
		default:
			folder.Objects = append(folder.Objects, object(path.Join(key, name), info))
		}
	}
	return folder
}

// Delete removes an object; see store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key); err != nil {
		return s.wrap("delete", key, err)
	}
	info, err := s.lstat(key)
	if err == nil && info.Mode().IsRegular() {
		err = s.remove(key)
	}
	if err != nil && !isNotExist(err) {
		return s.wrap("delete", key, err)
	}
	// Even when the object was not there: an earlier deletion may have got no further.
	if err := s.removeEmpty(path.Dir(key)); err != nil {
		return s.wrap("delete", key, err)
	}
	return nil
}

// Sweep removes what unfinished writers left, and folders that are empty; see store.Store.
func (s *Store) Sweep(ctx context.Context, prefix string) (freedBytes int64, err error) {
	if err := s.checkPrefix(ctx, prefix); err != nil {
		return 0, s.wrap("sweep", prefix, err)
	}
	folders := map[string]bool{cmp.Or(prefix, "."): true}
	err = s.walk(ctx, prefix, func(key string, info fs.FileInfo) error {
		if !durable.IsTemp(path.Base(key)) {
			return nil
		}
		folders[path.Dir(key)] = true
		if err := s.remove(key); err != nil {
			return ignoreNotExist(err)
		}
		freedBytes += info.Size()
		return nil
	})
	for folder := range folders {
		store.Progress(ctx)
		err = errors.Join(err, s.removeEmpty(folder))
	}
	if err != nil {
		return freedBytes, s.wrap("sweep", prefix, err)
	}
	return freedBytes, nil
}

// Probe tries out what backups need; see store.Store.
func (s *Store) Probe(ctx context.Context) (notes []string, err error) {
	if note := s.Pending(ctx); note != "" {
		if err := s.checkCanMake(); err != nil {
			return nil, s.wrap("probe", "", err)
		}
		return []string{note}, nil
	}
	key := "voltar-check-" + strings.ToLower(rand.Text())
	if err := s.probe(ctx, key); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Delete(ctx, key)) }()
	if err := s.probe(ctx, key); !errors.Is(err, store.ErrExists) {
		return nil, errors.Join(s.wrap("probe", "", errors.New("two were told that they are the first to make one file")), err)
	}
	for other, what := range map[string]string{
		strings.ToUpper(key): "capitals from small letters", key + ".": "names with a dot at the end from those without",
	} {
		store.Progress(ctx)
		if _, err := s.Stat(ctx, other); err == nil {
			notes = append(notes, "the filesystem does not tell "+what+": of two volumes whose names differ only in that, the second is refused")
		}
	}
	slices.Sort(notes)
	return notes, nil
}

// probe makes an object where there is none.
func (s *Store) probe(ctx context.Context, key string) error {
	w, err := s.Create(ctx, key, store.PutOptions{MaxBytes: 1, IfAbsent: true})
	if err != nil {
		return err
	}
	store.Progress(ctx)
	if _, err := w.Write([]byte{'\n'}); err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Commit(ctx)
	store.Progress(ctx)
	return err
}

// Usage tells the room of the file system, for users other than root.
func (s *Store) Usage(ctx context.Context) (store.Usage, error) {
	if ctx.Err() != nil {
		return store.Usage{}, context.Cause(ctx)
	}
	usage, err := s.usage()
	if err != nil {
		return store.Usage{}, s.wrap("tell the space of", "", err)
	}
	return usage, nil
}

func (s *Store) usage() (store.Usage, error) {
	stat, err := s.statfs()
	if err != nil {
		return store.Usage{}, err
	}
	unit := cmp.Or(stat.Frsize, stat.Bsize)
	return store.Usage{TotalBytes: int64(stat.Blocks) * unit, FreeBytes: int64(stat.Bavail) * unit,
		Inodes: int64(stat.Files), FreeInodes: int64(stat.Ffree)}, nil
}

// Shares tells whether files in the folder can share their blocks; see store.Sharing.
func (s *Store) Shares(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	stat, err := s.statfs()
	return err == nil && durable.Shares(stat.Type)
}

// maxPieces bounds the pieces of one object: 100 MB of memory.
const maxPieces = 4 << 20

// Pieces tells where an object lies; see store.Sharing. On btrfs an extent stays whole while anything of it is in use, so that the
// place of a part of it says nothing.
func (s *Store) Pieces(ctx context.Context, key string) ([]store.Piece, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, s.wrap("look where it lies", key, err)
	}
	list, err := s.pieces(ctx, key)
	if err != nil {
		return nil, s.wrap("look where it lies", key, err)
	}
	return list, nil
}

func (s *Store) pieces(ctx context.Context, key string) (list []store.Piece, err error) {
	file, err := s.open(key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var filesystem unix.Statfs_t
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.Fstatfs(int(fd), &filesystem); failed == nil {
			list, failed = piecesOf(ctx, int(fd), info.Size(), filesystem.Type != unix.BTRFS_SUPER_MAGIC)
		}
	})
	return list, errors.Join(err, failed)
}

// piecesOf lists the pieces of an open file, those that go on as one.
func piecesOf(ctx context.Context, fd int, sizeBytes int64, placed bool) (list []store.Piece, err error) {
	err = fiemap.Each(fd, sizeBytes, func(e fiemap.Extent) bool {
		p := store.Piece{AtBytes: e.AtBytes, LengthBytes: e.LengthBytes, IsShared: e.IsShared()}
		if !placed || e.IsPacked() {
			p.AtBytes = -1
		}
		if n := len(list); n > 0 && list[n-1].IsShared == p.IsShared &&
			(list[n-1].AtBytes+list[n-1].LengthBytes == p.AtBytes || list[n-1].AtBytes < 0 && p.AtBytes < 0) {
			list[n-1].LengthBytes += p.LengthBytes
		} else {
			list = append(list, p)
		}
		return len(list) <= maxPieces && ctx.Err() == nil
	})
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(list) > maxPieces:
		return nil, fmt.Errorf("it lies in more than %d pieces", maxPieces)
	}
	return list, nil
}

// check refuses keys that are not valid or that a temporary file could have.
func (s *Store) check(ctx context.Context, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := store.CheckKey(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		if durable.IsTemp(segment) {
			return fmt.Errorf("%w: %q is the name of a temporary file", store.ErrBadKey, segment)
		}
	}
	return nil
}

func (s *Store) checkPrefix(ctx context.Context, prefix string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return store.CheckPrefix(prefix)
}

// walk calls visit for each regular file below a prefix. What vanishes meanwhile is passed over.
func (s *Store) walk(ctx context.Context, prefix string, visit func(key string, info fs.FileInfo) error) error {
	if err := s.checkPrefix(ctx, prefix); err != nil {
		return err
	}
	f, err := s.folder()
	if err != nil {
		return ignoreNotExist(err)
	}
	if prefix == "" {
		return s.walkIn(ctx, f.root, "", visit)
	}
	info, err := f.root.Lstat(prefix)
	if err != nil || !info.IsDir() {
		return ignoreNotExist(err)
	}
	return s.walkBelow(ctx, f.root, prefix, prefix, visit)
}

// walkBelow walks a folder of another. Each folder is opened once, so what is in it is reached without looking up the whole
// path for every file.
func (s *Store) walkBelow(ctx context.Context, above *os.Root, name, prefix string, visit func(string, fs.FileInfo) error) error {
	folder, err := above.OpenRoot(name)
	if err != nil {
		return ignoreNotExist(err)
	}
	return errors.Join(s.walkIn(ctx, folder, prefix, visit), folder.Close())
}

func (s *Store) walkIn(ctx context.Context, folder *os.Root, prefix string, visit func(string, fs.FileInfo) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	entries, err := readDir(folder, ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		store.Progress(ctx)
		key := path.Join(prefix, entry.Name())
		switch {
		case store.CheckKey(key) != nil: // not made by any writer, and cannot be asked for
		case entry.IsDir():
			err = s.walkBelow(ctx, folder, entry.Name(), key, visit)
		case entry.Type().IsRegular():
			var info fs.FileInfo
			if info, err = folder.Lstat(entry.Name()); err == nil {
				err = visit(key, info)
			}
			err = ignoreNotExist(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDir returns nothing for a folder that is not there.
func (s *Store) readDir(folder string) ([]fs.DirEntry, error) {
	f, err := s.folder()
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	info, err := f.root.Lstat(folder)
	if err != nil || !info.IsDir() {
		return nil, ignoreNotExist(err)
	}
	return readDir(f.root, folder)
}

func readDir(root *os.Root, folder string) ([]fs.DirEntry, error) {
	dir, err := root.Open(folder)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	entries, err := dir.ReadDir(-1)
	return entries, errors.Join(ignoreNotExist(err), dir.Close())
}

// removeEmpty removes a folder if it is empty, and those above it that are so then; never the store's own.
func (s *Store) removeEmpty(folder string) error {
	for ; folder != "."; folder = path.Dir(folder) {
		info, err := s.lstat(folder)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return nil
		}
		err = s.remove(folder)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil
		}
		if err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

func object(key string, info fs.FileInfo) store.Object {
	return store.Object{Key: key, SizeBytes: info.Size(), Modified: info.ModTime().UTC(), Mark: markOf(info)}
}

// markOf tells a file from what else may have its path: by its inode, its size, the time of its content, and the time of its last
// change of any kind, which nobody can set.
func markOf(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	mark := strconv.AppendUint(make([]byte, 0, 64), stat.Ino, 36)
	mark = strconv.AppendInt(append(mark, '-'), stat.Size, 36)
	for _, t := range []syscall.Timespec{stat.Mtim, stat.Ctim} {
		mark = strconv.AppendInt(append(mark, '-'), t.Nano(), 36)
	}
	return string(mark)
}

// settledMark is the mark of a file by which it is known again, or "" of one that was changed just now, or in the future.
func settledMark(info fs.FileInfo, now time.Time) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || now.Sub(time.Unix(stat.Ctim.Unix())) < settled {
		return ""
	}
	return markOf(info)
}

// isNotExist takes a file in the place of a folder for the same thing: what is below it is not there.
func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

func ignoreNotExist(err error) error {
	if isNotExist(err) {
		return nil
	}
	return err
}

// wrap says what was done to what, and translates the errors that callers decide on.
func (s *Store) wrap(op, key string, err error) error {
	where := path.Join(s.path, key)
	var whole *store.WholeError
	switch {
	case errors.As(err, &whole):
		return whole
	case isNotExist(err):
		return fmt.Errorf("%s %s: %w", op, where, store.ErrNotExist)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %s: %w", op, where, store.ErrExists)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		var temporary *fs.PathError // whose name tells nobody anything
		if errors.As(err, &temporary) {
			err = temporary.Err
		}
		return say.WithHint(fmt.Errorf("%s %s: %w", op, where, &store.WholeError{Err: fmt.Errorf("%w%s: %w", store.ErrNoSpace, s.room(), err)}),
			"make space there, or keep fewer backups; `voltar prune` removes what the policy no longer keeps")
	default:
		return fmt.Errorf("%s %s: %w", op, where, s.withNextStep(err))
	}
}

// plentyBytes is more room than a filesystem can be short of when it says that it has none.
const plentyBytes = 16 << 20

// room is a parenthesis for people, or nothing when even that cannot be had. A filesystem that says it is full and has
// room is out of inodes; or it cannot read its own tables, which ext4 calls full as well.
func (s *Store) room() string {
	stat, err := s.statfs()
	if err != nil {
		return ""
	}
	unit := uint64(cmp.Or(stat.Frsize, stat.Bsize))
	free, total := stat.Bavail*unit, stat.Blocks*unit
	text := fmt.Sprintf("%s of %s free", say.Size(int64(free)), say.Size(int64(total)))
	switch {
	case stat.Files > 0 && stat.Ffree == 0:
		text += ", but not one of its " + say.Count(int64(stat.Files)) + " inodes"
	case free >= plentyBytes:
		text += "; a quota may be in the way, or the disk is failing, which the kernel's log would say"
	}
	return " (" + text + ")"
}
