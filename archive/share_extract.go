package archive

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// sharer shares data again that files shared when they were archived, where the filesystem can. What the index says of it
// is a hint: all data are in the stream, and what was shared is held against them.
type sharer struct {
	x *extractor

	mu    sync.Mutex
	cache blockCache
	off   bool // the filesystem cannot
}

// sharing is a file that is written with the help of a sharer.
type sharing struct {
	*sharer
	fd         int
	own, seq   int64 // TarOffset and number of the entry
	sizeBytes  int64
	blockBytes int64
	ranges     []Shared // still to come, in their order
	cloned     bool     // the first of them was
	from       int      // descriptor of the file that the first of ranges is from, or -1
	fromEntry  int64
	buf        []byte
}

// of returns what helps to write a file with pieces of data; nil where nothing of it can be shared. The caller closes it.
func (s *sharer) of(fd int, e *tarEntry, pieces []segment) *sharing {
	s.mu.Lock()
	off := s.off
	s.mu.Unlock()
	if off || len(e.Shared) == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Bsize <= 0 {
		return nil
	}
	h := &sharing{sharer: s, fd: fd, own: e.TarOffset, seq: e.seq, sizeBytes: e.SizeBytes, blockBytes: st.Bsize, from: -1}
	h.ranges = h.aligned(e.Shared, pieces)
	if len(h.ranges) == 0 {
		return nil
	}
	return h
}

// aligned returns what the kernel can share of ranges: whole blocks, or up to the end of the file, within pieces of data.
// Ranges that are not in their order, or come from what is not yet written, are left out.
func (h *sharing) aligned(ranges []Shared, pieces []segment) []Shared {
	var list []Shared
	end := int64(0)
	for _, r := range ranges {
		if r.OffsetBytes < end || r.From > h.own || r.From == h.own && r.FromOffsetBytes+r.LengthBytes > r.OffsetBytes ||
			(r.OffsetBytes-r.FromOffsetBytes)%h.blockBytes != 0 {
			continue
		}
		end = r.OffsetBytes + r.LengthBytes
		for len(pieces) > 0 && pieces[0].offset+pieces[0].length <= r.OffsetBytes {
			pieces = pieces[1:]
		}
		for _, p := range pieces {
			if p.offset >= end {
				break
			}
			from := max(r.OffsetBytes, p.offset)
			from += (h.blockBytes - from%h.blockBytes) % h.blockBytes
			to := min(end, p.offset+p.length)
			blocks := to - to%h.blockBytes
			if from < blocks {
				list = append(list, Shared{from, blocks - from, r.From, r.FromOffsetBytes + from - r.OffsetBytes})
			}
			if from <= blocks && blocks < to && to == h.sizeBytes { // by itself: the other file may go on there
				list = append(list, Shared{blocks, to - blocks, r.From, r.FromOffsetBytes + blocks - r.OffsetBytes})
			}
		}
	}
	return list
}

func (h *sharing) close() {
	if h.from >= 0 {
		_ = unix.Close(h.from) // only read from
		h.from = -1
	}
}

// take looks at data that belong at offset at. It returns how many of them, from the first on, are alike: there says
// whether they are in the file already.
func (h *sharing) take(p []byte, at int64) (n int, there bool) {
	for len(h.ranges) > 0 && h.ranges[0].OffsetBytes+h.ranges[0].LengthBytes <= at {
		h.drop()
	}
	if len(h.ranges) == 0 {
		return len(p), false
	}
	r := h.ranges[0]
	if r.OffsetBytes > at {
		return int(min(int64(len(p)), r.OffsetBytes-at)), false
	}
	n = int(min(int64(len(p)), r.OffsetBytes+r.LengthBytes-at))
	if !h.cloned {
		if r.OffsetBytes != at || h.clone(r) != nil { // it is written, as anywhere else
			h.drop()
			return n, false
		}
		h.cloned = true
	}
	return n, h.same(p[:n], at-r.OffsetBytes+r.FromOffsetBytes)
}

// drop goes on to the next range.
func (h *sharing) drop() { h.ranges, h.cloned = h.ranges[1:], false }

// clone shares a range with the file that it is from.
func (h *sharing) clone(r Shared) error {
	if r.From == h.own {
		h.close()
		fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		h.from, h.fromEntry = fd, r.From
	} else if h.from < 0 || h.fromEntry != r.From {
		h.close()
		fd, err := h.open(r.From, h.seq)
		if err != nil {
			return err
		}
		h.from, h.fromEntry = fd, r.From
	}
	clone := h.x.opts.cloneRange
	if clone == nil {
		clone = unix.IoctlFileCloneRange
	}
	err := clone(h.fd, &unix.FileCloneRange{Src_fd: int64(h.from), Src_offset: uint64(r.FromOffsetBytes),
		Src_length: uint64(r.LengthBytes), Dest_offset: uint64(r.OffsetBytes)})
	if err == unix.EOPNOTSUPP || err == unix.ENOTTY || err == unix.EXDEV {
		h.mu.Lock()
		h.off = true
		h.mu.Unlock()
	}
	return err
}

// open opens the file that was made of the entry at a byte of the tar stream, which may still be being written. It waits for
// entries that come before the one that asks alone, so that none waits for itself.
func (s *sharer) open(tarOffset, before int64) (int, error) {
	s.mu.Lock()
	path, err := s.x.opts.Index.fileAt(s.x.ctx, tarOffset, &s.cache)
	s.mu.Unlock()
	if err == nil {
		path, err = cleanPath(path)
	}
	if err != nil {
		return -1, err
	}
	s.x.awaitBefore(path, before)
	parent, name := splitPath(path)
	dir, err := s.x.walk(parent)
	if err != nil {
		return -1, err
	}
	defer dir.release()
	fd, err := unix.Openat(dir.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errors.Join(err, unix.Close(fd), fmt.Errorf("%q is no file", path))
	}
	return fd, nil
}

// same tells whether the file that the range is from has just these data there.
func (h *sharing) same(p []byte, at int64) bool {
	if h.buf == nil {
		h.buf = make([]byte, 128<<10)
	}
	for len(p) > 0 {
		n, err := retryInt(func() (int, error) { return unix.Pread(h.from, h.buf[:min(len(p), len(h.buf))], at) })
		if err != nil || n == 0 || !bytes.Equal(h.buf[:n], p[:n]) {
			return false
		}
		p, at = p[n:], at+int64(n)
	}
	return true
}
