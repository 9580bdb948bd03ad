package archive

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// SalvageSuffix ends the names of files that were taken out of a damaged member.
const SalvageSuffix = ".voltar-damaged"

// salvage takes files out of what a damaged member inflates to before its fault, from where an entry may begin. No sum covers a part of a
// member: a file that looks whole may have other content than it had. So it never gets its own name, nor owner, mode and attributes,
// and is listed among what is lost.
func (x *extractor) salvage(prefix []byte) {
	if x.busy { // the folders are in use
		x.waiting = append(x.waiting, prefix)
		return
	}
	if len(prefix) < tarBlockBytes || !isHeader(prefix[:tarBlockBytes]) {
		return
	}
	t := &tarReader{r: &Reader{ctx: x.ctx, started: true, rest: prefix, err: io.EOF}, global: x.t.global}
	for {
		e, err := t.next()
		if err != nil { // here it is cut, or no longer an archive
			return
		}
		if e.Type != TypeFile || e.pieces != nil || int64(len(t.r.rest)) < e.StoredBytes {
			continue
		}
		e.Path, err = cleanPath(e.Path)
		if err != nil || !x.sel.matches(e.Path) {
			continue
		}
		reason := fmt.Errorf("%w; what can be read is in %q: nothing proves that it is what the file held", errLost, e.Path+SalvageSuffix)
		if err := x.salvageFile(e, t.r.rest[:e.StoredBytes]); err != nil {
			reason = fmt.Errorf("%w; what can be read of it: %w", errLost, err)
		}
		if x.t.cursor != nil && len(x.salvaged) < failuresKept {
			if x.salvaged == nil {
				x.salvaged = map[string]bool{}
			}
			x.salvaged[e.Path] = true
		}
		if x.fail(e.Path, reason) != nil {
			return // the run ends by itself
		}
	}
}

// salvageWaiting takes files out of what came up during an entry.
func (x *extractor) salvageWaiting() {
	waiting := x.waiting
	x.waiting = nil
	for _, prefix := range waiting {
		x.salvage(prefix)
	}
}

// salvageFile writes what there is of a file beside its name, for its owner alone.
func (x *extractor) salvageFile(e *tarEntry, data []byte) error {
	parent, name := splitPath(e.Path)
	if name == "" {
		return errors.New("cannot make a file of the root")
	}
	f, err := x.enter(parent)
	if err != nil {
		return err
	}
	name += SalvageSuffix
	var fd int
	kept, err := x.place(f.fd.fd, name, e.Path+SalvageSuffix, func() (err error) {
		fd, err = retryInt(func() (int, error) {
			return unix.Openat(f.fd.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		return err
	})
	if err != nil || kept {
		return err
	}
	if f.inherits {
		err = dropACLs(fd)
	}
	if err == nil {
		w := &pieceWriter{fd: fd, pieces: []segment{{0, e.StoredBytes}}}
		err = w.write(data)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return errors.Join(err, unix.Unlinkat(f.fd.fd, name, 0))
	}
	return nil
}
