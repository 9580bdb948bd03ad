package archive

import (
	"bytes"
	"cmp"
	"io"
	"slices"
)

// common is a member that two archives have alike.
type common struct {
	offset int64 // in the one
	other  int64 // in the other
	length uint32
}

// CommonWriter passes an archive on as it is written to it, with the members that another one has as well by WriteCarried. What
// that one holds is compared before.
type CommonWriter struct {
	out interface {
		io.Writer
		CarriedWriter
	}
	other   *Previous
	members []common // yet to come, in order
	pos     int64    // of what was passed on
	held    []byte   // of the member at pos
	compare []byte
}

// NewCommonWriter passes on to out the archive whose members are given.
func NewCommonWriter(out interface {
	io.Writer
	CarriedWriter
}, archive, other *Previous) *CommonWriter {
	w := &CommonWriter{out: out, other: other, members: commonOf(archive, other)}
	slices.SortFunc(w.members, func(a, b common) int { return cmp.Compare(a.offset, b.offset) })
	return w
}

// commonOf lists the members that two archives have alike by their sums.
func commonOf(archive, other *Previous) (members []common) {
	for _, m := range archive.members {
		if o, ok := other.find(m.plain); ok && o.stored == m.stored && o.length == m.length {
			members = append(members, common{m.offset, o.offset, m.length})
		}
	}
	return members
}

// CommonBytes is what two archives have alike by the sums of their members, as it is stored.
func CommonBytes(archive, other *Previous) (bytes int64) {
	for _, m := range commonOf(archive, other) {
		bytes += int64(m.length)
	}
	return bytes
}

func (w *CommonWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		for len(w.members) > 0 && w.members[0].offset < w.pos { // of an index that lies
			w.members = w.members[1:]
		}
		rest := p[n:]
		if len(w.members) > 0 && w.members[0].offset == w.pos {
			took := min(len(rest), int(w.members[0].length)-len(w.held))
			w.held = append(w.held, rest[:took]...)
			if err := w.passMember(); err != nil {
				return n, err
			}
			n += took
			continue
		}
		if len(w.members) > 0 {
			rest = rest[:min(int64(len(rest)), w.members[0].offset-w.pos)]
		}
		if err := writeAll(w.out, rest); err != nil {
			return n, err
		}
		n += len(rest)
		w.pos += int64(len(rest))
	}
	return n, nil
}

// passMember passes on the member that is held, once it is whole.
func (w *CommonWriter) passMember() error {
	m := w.members[0]
	if len(w.held) < int(m.length) {
		return nil
	}
	w.compare = grow(w.compare[:0], len(w.held))
	n, _ := w.other.src.ReadAt(w.compare, m.other) // what cannot be read is not the same
	var err error
	if bytes.Equal(w.compare[:n], w.held) {
		n, err = w.out.WriteCarried(w.held, w.other.src, m.other)
	} else {
		n, err = w.out.Write(w.held)
	}
	if err == nil && n < len(w.held) {
		err = io.ErrShortWrite
	}
	w.pos += int64(m.length)
	w.members, w.held = w.members[1:], w.held[:0]
	return err
}
