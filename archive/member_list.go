package archive

import (
	"fmt"
	"io"
)

// MembersFormat names the form of the list of an image's members.
const MembersFormat = "voltar-members/1"

// memberListBytes is how much of the list is one gzip member.
const memberListBytes = 1 << 20

// memberList writes the list of an image's members as docs/format.md describes it, and counts them.
type memberList struct {
	out    io.Writer // nil writes nothing
	enc    memberEncoder
	lines  []byte
	packed []byte
	total  indexTotal
}

func newMemberList(out io.Writer, level Level) *memberList {
	lines := append([]byte(nil), `{"format":"`+MembersFormat+"\"}\n"...)
	return &memberList{out: out, lines: appendEncoder(lines, level)}
}

func (l *memberList) add(m summedMember) error {
	l.total.Members++
	l.total.TarBytes += m.TarBytes
	l.total.ArchiveBytes += m.LengthBytes
	if l.out == nil {
		return nil
	}
	l.lines = appendMember(l.lines, m)
	if len(l.lines) < memberListBytes {
		return nil
	}
	return l.flush()
}

func (l *memberList) flush() (err error) {
	if l.packed, err = l.enc.encode(l.packed[:0], l.lines, indexLevel); err != nil {
		return fmt.Errorf("compress the list of members: %w", err)
	}
	l.lines = l.lines[:0]
	if err := writeAll(l.out, l.packed); err != nil {
		return fmt.Errorf("write the list of members: %w", err)
	}
	return nil
}

// finish writes what is left, with the total.
func (l *memberList) finish() error {
	if l.out == nil {
		return nil
	}
	l.lines = appendTotal(l.lines, l.total)
	return l.flush()
}
