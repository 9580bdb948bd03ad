package archive

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// dirHandle is an open folder, in which several goroutines look things up. The last to release it closes it.
type dirHandle struct {
	fd   int
	refs atomic.Int32
}

func newDirHandle(fd int) *dirHandle {
	d := &dirHandle{fd: fd}
	d.refs.Store(1)
	return d
}

func (d *dirHandle) hold() *dirHandle {
	d.refs.Add(1)
	return d
}

func (d *dirHandle) release() {
	if d.refs.Add(-1) == 0 {
		_ = unix.Close(d.fd) // of a folder: nothing is lost
	}
}
