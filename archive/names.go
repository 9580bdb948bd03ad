package archive

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

const (
	nameOverheadBytes = 48        // of a name in memory, beside its bytes
	nameHeadBytes     = 3         // of a name in a temporary file: kind and length
	nameBufferBytes   = 128 << 10 // of a list that is read from there; a name is shorter
	nameStageBytes    = 256 << 10 // of one that is written
	mergeWays         = 64        // lists that are merged at once
)

// nameStack holds the names of the folders on the way down that are yet to be visited. Lists that are too much for memory
// lie sorted in a temporary file, which grows and shrinks with the stack.
type nameStack struct {
	spill  *spill
	budget int // bytes in memory
	held   int
	file   *spillFile // nil until it is needed
	end    int64      // of what the file holds

	buf   []byte // of the list that was read last
	rest  []byte // of buf
	bufOf *nameList
	stage []byte
}

// nameList is the names of one folder. It is in memory or in the file.
type nameList struct {
	names []dirent
	next  int
	cost  int

	spilled bool
	base    int64 // where what it takes in the file begins
	at, end int64 // of what is left of it in the file
}

// nameLister takes the names of a folder as they come.
type nameLister struct {
	stack *nameStack
	names []dirent
	cost  int
	base  int64
	runs  []nameRun
}

// nameRun is a sorted list in the file.
type nameRun struct{ at, end int64 }

func (s *nameStack) begin() *nameLister { return &nameLister{stack: s, base: s.end} }

// add takes names over, and writes down what is too much.
func (l *nameLister) add(names []dirent) error {
	for _, d := range names {
		l.cost += len(d.name) + nameOverheadBytes
	}
	l.names = append(l.names, names...)
	// A list may always have some memory for itself, so that what goes into the file does so in large pieces.
	if s := l.stack; l.cost > max(s.budget-s.held, s.budget/4) {
		return l.flush()
	}
	return nil
}

func sortNames(names []dirent) {
	slices.SortFunc(names, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
}

func (l *nameLister) flush() error {
	sortNames(l.names)
	run := nameRun{at: l.stack.end}
	for _, d := range l.names {
		if err := l.stack.write(d); err != nil {
			return err
		}
	}
	if err := l.stack.flush(); err != nil {
		return err
	}
	run.end = l.stack.end
	l.runs = append(l.runs, run)
	clear(l.names)
	l.names, l.cost = l.names[:0], 0
	return nil
}

// finish returns the list of all names, sorted.
func (l *nameLister) finish() (nameList, error) {
	s := l.stack
	if len(l.runs) == 0 && l.cost <= s.budget-s.held {
		sortNames(l.names)
		s.held += l.cost
		return nameList{names: l.names, cost: l.cost}, nil
	}
	if len(l.names) > 0 {
		if err := l.flush(); err != nil {
			return nameList{}, err
		}
	}
	for len(l.runs) > 1 {
		n := min(len(l.runs), mergeWays)
		merged, err := s.merge(l.runs[:n])
		if err != nil {
			return nameList{}, err
		}
		l.runs = append(l.runs[n:], merged) // at the end: all runs grow alike
	}
	return nameList{spilled: true, base: l.base, at: l.runs[0].at, end: l.runs[0].end}, nil
}

// drop forgets a list, which must be the last that was finished.
func (s *nameStack) drop(l *nameList) error {
	s.held -= l.cost
	if !l.spilled {
		return nil
	}
	s.bufOf, s.end = nil, l.base
	return s.file.truncate(l.base)
}

// pop returns the next name of a list.
func (s *nameStack) pop(l *nameList) (d dirent, ok bool, err error) {
	if !l.spilled {
		if l.next == len(l.names) {
			return dirent{}, false, nil
		}
		d = l.names[l.next]
		l.names[l.next].name = "" // for the collector: the folder may be large
		l.next++
		return d, true, nil
	}
	if l.at == l.end {
		return dirent{}, false, nil
	}
	if s.bufOf != l {
		s.rest, s.bufOf = nil, l
	}
	d, rest, ok := parseName(s.rest)
	if !ok {
		s.buf = grow(s.buf[:0], int(min(nameBufferBytes, l.end-l.at)))
		if err := s.file.readAt(s.buf, l.at); err != nil {
			return dirent{}, false, err
		}
		s.rest = s.buf
		if d, rest, ok = parseName(s.rest); !ok {
			return dirent{}, false, errors.New("cannot read a temporary file: it was changed")
		}
	}
	l.at += int64(len(s.rest) - len(rest))
	s.rest = rest
	return d, true, nil
}

// write puts a name at the end of the file, by way of the stage.
func (s *nameStack) write(d dirent) error {
	s.stage = append(s.stage, d.kind)
	s.stage = binary.LittleEndian.AppendUint16(s.stage, uint16(len(d.name))) // of a dirent of at most 64 KiB
	s.stage = append(s.stage, d.name...)
	if len(s.stage) >= nameStageBytes {
		return s.flush()
	}
	return nil
}

func (s *nameStack) flush() (err error) {
	if s.file == nil {
		if s.file, err = s.spill.create(); err != nil {
			return err
		}
	}
	err = s.file.writeAt(s.stage, s.end)
	s.end += int64(len(s.stage))
	s.stage = s.stage[:0]
	return err
}

// parseName reads the name that buf begins with.
func parseName(buf []byte) (d dirent, rest []byte, ok bool) {
	if len(buf) < nameHeadBytes {
		return d, buf, false
	}
	end := nameHeadBytes + int(binary.LittleEndian.Uint16(buf[1:]))
	if len(buf) < end {
		return d, buf, false
	}
	return dirent{name: string(buf[nameHeadBytes:end]), kind: buf[0]}, buf[end:], true
}

// merge makes one list of several, behind them in the file.
func (s *nameStack) merge(runs []nameRun) (nameRun, error) {
	merged := nameRun{at: s.end}
	heads := make([]mergeHead, 0, len(runs))
	for _, r := range runs {
		h := mergeHead{stack: nameStack{file: s.file}, list: nameList{spilled: true, at: r.at, end: r.end}}
		heads = append(heads, h)
		if err := heads[len(heads)-1].advance(); err != nil {
			return merged, err
		}
	}
	for len(heads) > 0 {
		least := 0
		for i := range heads {
			if heads[i].name.name < heads[least].name.name {
				least = i
			}
		}
		h := &heads[least]
		if err := s.write(h.name); err != nil {
			return merged, err
		}
		if err := h.advance(); err != nil {
			return merged, err
		}
		if h.ended {
			heads = slices.Delete(heads, least, least+1)
		}
	}
	err := s.flush()
	merged.end = s.end
	return merged, err
}

// mergeHead is a list that is merged with others.
type mergeHead struct {
	stack nameStack // for its buffer
	list  nameList
	name  dirent
	ended bool
}

func (h *mergeHead) advance() error {
	var ok bool
	var err error
	h.name, ok, err = h.stack.pop(&h.list)
	h.ended = !ok
	return err
}

func (s *nameStack) close() {
	if s.file != nil {
		s.file.close()
		s.file = nil
	}
}
