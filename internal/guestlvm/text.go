package guestlvm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The metadata text is in the format of LVM2's own configuration files (lvm.conf(5)): sections in braces, assignments of
// a number, a string or a list of such, and comments from "#" to the end of the line.

const (
	maxDepth   = 8 // LVM2 uses five
	maxEntries = 1 << 20
)

var errText = errors.New("the metadata text makes no sense")

// value is a string, a number, or a list of them.
type value struct {
	text   string
	number int64
	list   []value
	kind   valueKind
}

type valueKind int

const (
	kindString valueKind = iota
	kindNumber
	kindList
)

// section is what stands in one pair of braces.
type section struct {
	values   map[string]value
	sections map[string]*section
	order    []string // of the sections
}

func newSection() *section {
	return &section{values: map[string]value{}, sections: map[string]*section{}}
}

// number returns a number within bounds.
func (s *section) number(name string, least, most int64) (int64, error) {
	v, ok := s.values[name]
	if !ok || v.kind != kindNumber {
		return 0, fmt.Errorf("%w: there is no number %s", errText, name)
	}
	if v.number < least || v.number > most {
		return 0, fmt.Errorf("%w: %s is %d", errText, name, v.number)
	}
	return v.number, nil
}

// text returns a string, "" where there is none.
func (s *section) text(name string) string {
	if v := s.values[name]; v.kind == kindString {
		return v.text
	}
	return ""
}

// strings returns the strings of a list.
func (s *section) strings(name string) []string {
	var list []string
	for _, v := range s.values[name].list {
		if v.kind == kindString {
			list = append(list, v.text)
		}
	}
	return list
}

// words returns every string in the section's own values but its type, within lists too.
func (s *section) words() []string {
	var words []string
	for name, v := range s.values {
		if name == "type" {
			continue
		}
		for _, inner := range append([]value{v}, v.list...) {
			if inner.kind == kindString {
				words = append(words, inner.text)
			}
		}
	}
	return words
}

// parser reads a text.
type parser struct {
	rest    string
	entries int
}

// parseText reads a whole text.
func parseText(text string) (*section, error) {
	p := &parser{rest: text}
	top := newSection()
	if err := p.entriesOf(top, 0); err != nil {
		return nil, err
	}
	return top, nil
}

// skip passes over white space and comments.
func (p *parser) skip() {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\r\n\x00") // LVM2 ends its text with a NUL
		if !strings.HasPrefix(p.rest, "#") {
			return
		}
		_, p.rest, _ = strings.Cut(p.rest, "\n")
	}
}

// accept passes over a sign if it comes next.
func (p *parser) accept(sign string) bool {
	p.skip()
	rest, found := strings.CutPrefix(p.rest, sign)
	p.rest = rest
	return found
}

func (p *parser) fail(what string) error {
	return fmt.Errorf("%w: %s expected at %.40q", errText, what, p.rest)
}

// entriesOf reads what stands in a section, with its closing brace but at the top.
func (p *parser) entriesOf(s *section, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: sections within sections", errText)
	}
	for {
		if p.skip(); p.rest == "" {
			if depth > 0 {
				return p.fail("a closing brace")
			}
			return nil
		}
		if depth > 0 && p.accept("}") {
			return nil
		}
		if p.entries++; p.entries > maxEntries {
			return fmt.Errorf("%w: more than %d entries", errText, maxEntries)
		}
		if err := p.entry(s, depth); err != nil {
			return err
		}
	}
}

func (p *parser) entry(s *section, depth int) error {
	name := p.name()
	if name == "" {
		return p.fail("a name")
	}
	_, isValue := s.values[name]
	if isValue || s.sections[name] != nil {
		return fmt.Errorf("%w: %s comes twice", errText, name)
	}
	switch {
	case p.accept("{"):
		inner := newSection()
		s.sections[name] = inner
		s.order = append(s.order, name)
		return p.entriesOf(inner, depth+1)
	case p.accept("="):
		v, err := p.value(true)
		s.values[name] = v
		return err
	}
	return p.fail("a value or a section")
}

// name reads the name of a section or a value: what LVM2 allows in names of volumes.
func (p *parser) name() string {
	p.skip()
	n := strings.IndexFunc(p.rest, func(r rune) bool { return !inName(r) })
	if n < 0 {
		n = len(p.rest)
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

// inName tells the characters that names of groups and volumes are made of (lvm(8)).
func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+_.-", r)
}

func (p *parser) value(lists bool) (value, error) {
	p.skip()
	switch {
	case strings.HasPrefix(p.rest, `"`):
		return p.quoted()
	case lists && p.accept("["):
		return p.listed()
	}
	n := strings.IndexFunc(p.rest, func(r rune) bool { return (r < '0' || r > '9') && r != '-' && r != '.' })
	if n < 0 {
		n = len(p.rest)
	}
	digits := p.rest[:n]
	p.rest = p.rest[n:]
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		if _, isFloat := strconv.ParseFloat(digits, 64); isFloat != nil || !strings.Contains(digits, ".") {
			return value{}, fmt.Errorf("%w: %.40q is no number", errText, digits)
		}
		return value{kind: kindString, text: digits}, nil // nothing that is needed has a point in it
	}
	return value{kind: kindNumber, number: number}, nil
}

// quoted reads a string; a backslash makes the next byte an ordinary one.
func (p *parser) quoted() (value, error) {
	var text strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return value{kind: kindString, text: text.String()}, nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			text.WriteByte(p.rest[i])
		default:
			text.WriteByte(c)
		}
	}
	return value{}, p.fail("the end of a string")
}

func (p *parser) listed() (value, error) {
	list := value{kind: kindList}
	for !p.accept("]") {
		if len(list.list) > 0 && !p.accept(",") {
			return list, p.fail("a comma")
		}
		if len(list.list) > 0 && p.accept("]") {
			return list, nil
		}
		if p.entries++; p.entries > maxEntries {
			return list, fmt.Errorf("%w: more than %d entries", errText, maxEntries)
		}
		v, err := p.value(false)
		if err != nil {
			return list, err
		}
		list.list = append(list.list, v)
	}
	return list, nil
}
