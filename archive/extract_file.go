package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"golang.org/x/sys/unix"
)

// fileJob is one small file to be written beside others.
type fileJob struct {
	entry  *tarEntry
	seq    int64
	folder *folder
	fd     *dirHandle // of the folder
	data   []byte
}

// file restores a regular file, in the background when it is small.
func (x *extractor) file(e *tarEntry) error {
	parent, name := splitPath(e.Path)
	if name == "" {
		return errors.New("cannot make a file of the root")
	}
	f, err := x.enter(parent)
	if err != nil {
		return err
	}
	x.await(e.Path)
	if e.StoredBytes > jobFileBytes {
		return x.largeFile(f, name, e)
	}
	data, err := x.smallData(e)
	if err != nil {
		return err
	}
	return x.submit(f, e, data)
}

// smallData reads all data of an entry. It lies in the memory of an inflated member, if it can, and is not copied.
func (x *extractor) smallData(e *tarEntry) ([]byte, error) {
	if e.StoredBytes == 0 {
		return nil, nil
	}
	first, err := x.t.data(e.StoredBytes)
	if err == nil && int64(len(first)) == e.StoredBytes {
		return first, nil
	}
	data := append(make([]byte, 0, e.StoredBytes), first...)
	for err == nil {
		var p []byte
		p, err = x.t.data(e.StoredBytes)
		data = append(data, p...)
	}
	if err != io.EOF {
		return nil, err
	}
	return data, nil
}

// submit queues a file for the workers.
func (x *extractor) submit(f *folder, e *tarEntry, data []byte) error {
	cost := max(int64(len(data)), 1)
	if err := x.room.Acquire(x.ctx, cost); err != nil {
		return err
	}
	j := &fileJob{entry: e, seq: x.seq, folder: f, fd: f.fd.hold(), data: data}
	x.mu.Lock()
	f.pending++
	x.inFlight[e.Path] = j
	x.mu.Unlock()
	x.queue <- j // the workers take jobs until it is closed
	return nil
}

// work writes one file.
func (x *extractor) work(j *fileJob) {
	_, name := splitPath(j.entry.Path)
	err := x.ctx.Err()
	if err == nil {
		err = x.writeFile(j.fd.fd, name, j.folder.inherits, j.entry, func(w *pieceWriter) error { return w.write(j.data) })
	}
	if err != nil {
		_ = x.failAt(j.seq, j.entry.Path, err) // stopped() ends the run
	}
	j.fd.release()
	x.room.Release(max(int64(len(j.data)), 1))
	x.mu.Lock()
	delete(x.inFlight, j.entry.Path)
	j.folder.pending--
	last := j.folder.left && j.folder.pending == 0
	x.done.Broadcast()
	x.mu.Unlock()
	if last {
		x.finish(j.folder)
		x.mu.Lock()
		x.leaving--
		x.done.Broadcast()
		x.mu.Unlock()
	}
}

// await waits until nothing is being written at path.
func (x *extractor) await(path string) { x.awaitBefore(path, math.MaxInt64) }

// awaitBefore waits until no entry with a lower number is being written at path.
func (x *extractor) awaitBefore(path string, seq int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for j := x.inFlight[path]; j != nil && j.seq < seq; j = x.inFlight[path] {
		x.done.Wait()
	}
}

// largeFile writes a file as it is inflated.
func (x *extractor) largeFile(f *folder, name string, e *tarEntry) error {
	defer func() { x.writing = 0 }() // it is counted among the files then, or lost
	return x.writeFile(f.fd.fd, name, f.inherits, e, func(w *pieceWriter) error {
		for {
			p, err := x.t.data(readPieceBytes)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := w.write(p); err != nil {
				return err
			}
			x.writing += int64(len(p))
			x.progress()
		}
	})
}

// pieceWriter puts data in the places that a sparse map gives it.
type pieceWriter struct {
	fd     int
	pieces []segment
	done   int64    // of the first piece
	shared *sharing // nil where nothing is shared again
	reused int64    // bytes that were
}

func (w *pieceWriter) write(p []byte) error {
	for len(p) > 0 {
		at, n, err := w.place(int64(len(p)))
		if err != nil {
			return err
		}
		for part := p[:n]; len(part) > 0; {
			alike, there := len(part), false
			if w.shared != nil {
				alike, there = w.shared.take(part, at)
			}
			if there {
				w.reused += int64(alike)
			} else if err := w.writeAt(part[:alike], at); err != nil {
				return err
			}
			part, at = part[alike:], at+int64(alike)
		}
		p = p[n:]
	}
	return nil
}

func (w *pieceWriter) writeAt(p []byte, at int64) error {
	for len(p) > 0 {
		n, err := retryInt(func() (int, error) { return unix.Pwrite(w.fd, p, at) })
		if err != nil {
			return fmt.Errorf("cannot write at byte %d: %w", at, err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// place returns where the next up to limit bytes belong, and how many of them, and counts them as there.
func (w *pieceWriter) place(limit int64) (at, n int64, err error) {
	for len(w.pieces) > 0 && w.done == w.pieces[0].length {
		w.pieces, w.done = w.pieces[1:], 0
	}
	if len(w.pieces) == 0 {
		return 0, 0, errors.New("cannot place data that is in no piece of the file")
	}
	p := w.pieces[0]
	at, n = p.offset+w.done, min(limit, p.length-w.done)
	w.done += n
	return at, n, nil
}

// writeFile makes a file, lets fill write its data and gives it all that the entry has. A file that fails is removed.
func (x *extractor) writeFile(dir int, name string, inherits bool, e *tarEntry, fill func(*pieceWriter) error) error {
	var fd int
	access := unix.O_WRONLY
	if len(e.Shared) > 0 {
		access = unix.O_RDWR // it may share with itself
	}
	kept, err := x.place(dir, name, e.Path, func() error {
		var err error
		fd, err = retryInt(func() (int, error) {
			return unix.Openat(dir, name, access|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		return err
	})
	if err != nil || kept {
		return err
	}
	if err := x.fillFile(dir, name, fd, inherits, e, fill); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	x.count(&x.stats.Files, e.StoredBytes)
	return nil
}

func (x *extractor) fillFile(dir int, name string, fd int, inherits bool, e *tarEntry, fill func(*pieceWriter) error) (err error) {
	defer func() {
		if cerr := unix.Close(fd); err == nil && cerr != nil {
			err = fmt.Errorf("cannot close: %w", cerr)
		}
	}()
	if inherits {
		if err := dropACLs(fd); err != nil {
			return err
		}
	}
	if e.Flags&^lateFlags != 0 { // before there is data: copy-on-write can be turned off only then
		x.setFlags(fd, e, e.Flags&^lateFlags)
	}
	x.setAccounting(fd, e)
	pieces := e.pieces
	w := &pieceWriter{fd: fd, pieces: pieces}
	if pieces == nil {
		w.pieces = []segment{{0, e.SizeBytes}}
	}
	if w.shared = x.sharer.of(fd, e, w.pieces); w.shared != nil {
		defer w.shared.close()
	}
	if pieces != nil || w.shared != nil {
		if err := unix.Ftruncate(fd, e.SizeBytes); err != nil {
			return fmt.Errorf("cannot make a file of %d bytes: %w", e.SizeBytes, err)
		}
	}
	if err := fill(w); err != nil {
		return err
	}
	x.mu.Lock()
	x.stats.SharedBytes += w.reused
	x.mu.Unlock()
	var st unix.Stat_t
	if e.StoredBytes > jobFileBytes { // lost data at the end may have left it short
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Size != e.SizeBytes {
			if err := unix.Ftruncate(fd, e.SizeBytes); err != nil {
				return err
			}
		}
	}
	if err := x.finishOpen(fd, e); err != nil {
		return err
	}
	return x.setTimes(dir, name, e)
}

// place makes something new by make, and does as the options say with what is in its way.
func (x *extractor) place(dir int, name, path string, make func() error) (kept bool, err error) {
	err = make()
	if err != unix.EEXIST {
		return false, err
	}
	switch x.opts.Overwrite {
	case OverwriteKeep:
		x.shortfall("existing", path, nil)
		return true, nil
	case OverwriteNever:
		return false, fs.ErrExist
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	flags := 0
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(dir, name, flags); err != nil {
		return false, fmt.Errorf("cannot replace: %w", err)
	}
	return false, make()
}

// parentOf enters the folder that an entry belongs in.
func (x *extractor) parentOf(e *tarEntry) (*folder, string, error) {
	parent, name := splitPath(e.Path)
	if name == "" {
		return nil, "", fmt.Errorf("cannot make the root an entry of type %q", e.Type)
	}
	f, err := x.enter(parent)
	if err == nil {
		x.await(e.Path)
	}
	return f, name, err
}

// symlink restores a symbolic link, wherever it points.
func (x *extractor) symlink(e *tarEntry) error {
	f, name, err := x.parentOf(e)
	if err != nil {
		return err
	}
	kept, err := x.place(f.fd.fd, name, e.Path, func() error { return unix.Symlinkat(e.Linkname, f.fd.fd, name) })
	if err != nil || kept {
		return err
	}
	if _, err := x.setOwner(f.fd.fd, name, e); err != nil {
		return err
	}
	x.withhold(e)
	if err := x.setXattrs(procPath(f.fd.fd)+"/"+name, e); err != nil {
		return err
	}
	x.count(&x.stats.Symlinks, 0)
	return x.setTimes(f.fd.fd, name, e)
}

// hardlink restores a further name of an entry that was restored before.
func (x *extractor) hardlink(e *tarEntry) error {
	f, name, err := x.parentOf(e)
	if err != nil {
		return err
	}
	if e.Linkname == e.Path {
		return errors.New("cannot link to itself")
	}
	x.await(e.Linkname)
	folder, target := splitPath(e.Linkname)
	if target == "" {
		return errors.New("cannot link to the root")
	}
	if !x.sel.matches(e.Linkname) {
		return fmt.Errorf("cannot link to %q, which holds the data and was not selected: select it too", e.Linkname)
	}
	from, err := x.openPath(folder)
	if err != nil {
		return fmt.Errorf("cannot link to %q: %w", e.Linkname, err)
	}
	defer from.release()
	kept, err := x.place(f.fd.fd, name, e.Path, func() error { return unix.Linkat(from.fd, target, f.fd.fd, name, 0) })
	if err != nil {
		return fmt.Errorf("cannot link to %q: %w", e.Linkname, err)
	}
	if !kept {
		x.count(&x.stats.Hardlinks, 0)
	}
	return nil
}

// special restores devices, FIFOs and sockets.
func (x *extractor) special(e *tarEntry) error {
	var kind uint32
	switch e.Type {
	case TypeChar:
		kind = unix.S_IFCHR
	case TypeBlock:
		kind = unix.S_IFBLK
	case TypeFIFO:
		kind = unix.S_IFIFO
	case TypeSocket:
		kind = unix.S_IFSOCK
	default:
		return fmt.Errorf("cannot make an entry of type %q", e.Type)
	}
	device := e.Type == TypeChar || e.Type == TypeBlock
	if device && !x.opts.Devices {
		x.shortfall("device", e.Path, nil)
		return nil
	}
	f, name, err := x.parentOf(e)
	if err != nil {
		return err
	}
	kept, err := x.place(f.fd.fd, name, e.Path, func() error {
		return unix.Mknodat(f.fd.fd, name, kind|0o600, int(unix.Mkdev(e.DevMajor, e.DevMinor)))
	})
	if device && err == unix.EPERM {
		x.shortfall("device", e.Path, err)
		return nil
	}
	if err != nil || kept {
		return err
	}
	if err := x.finishNode(f, name, e); err != nil {
		return err
	}
	x.count(&x.stats.Others, 0)
	return x.setTimes(f.fd.fd, name, e)
}
