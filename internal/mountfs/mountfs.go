// Package mountfs shows backups as a read-only filesystem (FUSE). Names come from the indexes, attributes and data from the members
// that hold them, each when it is asked for. What cannot be read gives EIO for the file that was touched, and a line in the log; it
// never gives other data.
//
// One backup is shown by what it holds; several as VG/LV/TIME, with a link "latest" to the newest good one of each volume. A backup
// holds a folder for each extent that is stored as files (p1), a file for each image (p3.img) and each dump (NAME.dump.gz, as it is
// stored). An extent without a name is called "files", or volume.img.
package mountfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/catalog"
	"voltar/internal/say"
)

const (
	// idleOpen is how many archives and images stay open that nobody uses, beside those in use.
	idleOpen = 32
	// toldErrors is how many errors of one mount go to the log.
	toldErrors = 1000
	// extentBits is how many bits of an inode number count within one extent.
	extentBits = 40
)

// Backup is one backup to show.
type Backup struct {
	ID   catalog.ID
	Good bool // it lacks nothing that is known, and is not dated ahead: "latest" may lead to it
	// Open reads its manifest. It is called when somebody enters its folder. What it returns may be read as long as ctx lasts.
	Open func(ctx context.Context) (*browse.Backup, error)
}

// Options of New.
type Options struct {
	CacheBytes int64 // what is kept inflated, at most
	Log        *slog.Logger
}

// FS is a filesystem of backups. The caller closes it when it is not mounted any more.
type FS struct {
	ctx    context.Context
	cancel context.CancelFunc
	cache  *archive.Cache
	log    *slog.Logger
	root   fusefs.InodeEmbedder
	ino    uint64 // of the root
	number atomic.Uint64

	mu    sync.Mutex
	holds []idler         // that are open; those without users the longest come first
	told  map[string]bool // of which things an error is in the log
}

// idler is something that stays open for a while when nobody uses it.
type idler interface{ closeIfIdle() error }

// newFS makes one that is read until it is closed: reading outlasts a signal until nothing is mounted any more.
func newFS(ctx context.Context, opts Options) *FS {
	f := &FS{log: opts.Log, told: map[string]bool{}}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.cache = archive.NewCache(f.ctx, opts.CacheBytes)
	return f
}

// NewOne returns a filesystem of what one backup holds. Its manifest and its indexes must be readable, and are read before ctx ends.
func NewOne(ctx context.Context, b Backup, opts Options) (*FS, error) {
	f := newFS(ctx, opts)
	begun := context.AfterFunc(ctx, f.cancel)
	folder := f.backupFolder(b)
	items, err := folder.load()
	if err == nil {
		err = tryIndexes(items)
	}
	if !begun() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.root, f.ino = folder.make(), folder.ino
	return f, nil
}

// NewAll returns a filesystem of backups, in any order, none twice. It outlasts ctx.
func NewAll(ctx context.Context, backups []Backup, opts Options) *FS {
	f := newFS(ctx, opts)
	root := f.groupFolders(backups)
	f.root, f.ino = root.make(), root.ino
	return f
}

// Close ends what is being read, and closes all.
func (f *FS) Close() error {
	f.cancel()
	f.cache.Close()
	f.mu.Lock()
	holds := f.holds
	f.holds = nil
	f.mu.Unlock()
	var errs []error
	for _, h := range holds {
		errs = append(errs, h.closeIfIdle())
	}
	return errors.Join(errs...)
}

// nextNumber gives an inode number of a folder, or the number of an extent.
func (f *FS) nextNumber() uint64 { return f.number.Add(1) }

// failed notes in the log why something cannot be read, once, and returns what whoever asked is told. names are not trusted: the log
// cleans them.
func (f *FS) failed(what string, err error) syscall.Errno {
	f.mu.Lock()
	known := f.told[what]
	n := len(f.told)
	if !known && n <= toldErrors {
		f.told[what] = true
	}
	f.mu.Unlock()
	switch {
	case known || f.ctx.Err() != nil:
	case n < toldErrors:
		say.Log(f.log.Error, fmt.Errorf("%s: %w", what, err))
	case n == toldErrors:
		f.log.Error(fmt.Sprintf("there were %d errors: further ones are not told", toldErrors))
	}
	if errors.Is(err, browse.ErrEncrypted) || errors.Is(err, agefile.ErrNoKey) {
		return syscall.EACCES
	}
	return syscall.EIO
}

// held opens something for all who use it at a time, and keeps it open for a while after that. It is safe for concurrent use.
type held[T io.Closer] struct {
	fs   *FS
	open func() (T, error)

	mu     sync.Mutex
	value  T
	isOpen bool
	users  int
}

// acquire opens it if it is not open. The caller calls release when it is done.
func (h *held[T]) acquire() (value T, release func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isOpen {
		if h.value, err = h.open(); err != nil {
			return value, nil, err
		}
		h.isOpen = true
	}
	h.users++
	return h.value, sync.OnceFunc(h.release), nil
}

func (h *held[T]) release() {
	h.mu.Lock()
	h.users--
	isIdle := h.users == 0
	h.mu.Unlock()
	if isIdle {
		h.fs.keepOpen(h)
	}
}

func (h *held[T]) closeIfIdle() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isOpen || h.users > 0 {
		return nil
	}
	h.isOpen = false
	var none T
	value := h.value
	h.value = none
	return value.Close()
}

// keepOpen keeps something open that has no users, and closes what was without users for longest.
func (f *FS) keepOpen(h idler) {
	f.mu.Lock()
	for i, other := range f.holds {
		if other == h {
			f.holds = append(f.holds[:i], f.holds[i+1:]...)
			break
		}
	}
	f.holds = append(f.holds, h)
	var oldest idler
	if len(f.holds) > idleOpen || f.ctx.Err() != nil {
		oldest, f.holds = f.holds[0], f.holds[1:]
	}
	f.mu.Unlock()
	if oldest == nil {
		return
	}
	if err := oldest.closeIfIdle(); err != nil {
		say.Log(f.log.Warn, err)
	}
}

// forever is for how long the kernel may keep what it was told: nothing changes.
const forever = 24 * time.Hour
