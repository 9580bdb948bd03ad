package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
)

// cleanPath gives a path the form that it has in an index: relative, without empty and "." components. One that leads
// outside of its root is an error, and so is one that begins with a slash.
func cleanPath(p string) (string, error) {
	if strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("cannot use the absolute path %q", p)
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", fmt.Errorf("cannot use the path %q: NUL in it", p)
	}
	if isClean(p) {
		return p, nil
	}
	var clean []string
	for name := range strings.SplitSeq(p, "/") {
		switch name {
		case "", ".":
		case "..":
			return "", fmt.Errorf("cannot use the path %q: it leads outside", p)
		default:
			clean = append(clean, name)
		}
	}
	if len(clean) == 0 {
		return rootPath, nil
	}
	return strings.Join(clean, "/"), nil
}

// isClean says, for nearly all paths, that they need no cleaning.
func isClean(p string) bool {
	begin := 0
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		if name := p[begin:i]; name == "" || name == "." || name == ".." {
			return p == rootPath
		}
		begin = i + 1
	}
	return true
}

// splitPath returns the folder and the name of a clean path. The root has no name.
func splitPath(p string) (folder, name string) {
	if p == rootPath {
		return rootPath, ""
	}
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return rootPath, p
}

// selection is a set of patterns: a path that matches one, component by component, is selected with all below it.
type selection struct {
	patterns []pattern
}

type pattern struct {
	text    string
	names   []string // nil selects all
	literal string   // the path, when there is nothing to match in it
	matched bool
}

// newSelection parses patterns; none select everything.
func newSelection(texts []string) (*selection, error) {
	s := &selection{}
	for _, text := range texts {
		clean, err := cleanPath(strings.TrimPrefix(text, "/"))
		if err != nil {
			return nil, err
		}
		p := pattern{text: text}
		if clean != rootPath {
			p.names = strings.Split(clean, "/")
		}
		if !strings.ContainsAny(clean, `*?[\`) {
			p.literal = clean
		}
		for _, name := range p.names {
			if _, err := path.Match(name, ""); err != nil {
				return nil, fmt.Errorf("cannot use the pattern %q: %w", text, err)
			}
		}
		s.patterns = append(s.patterns, p)
	}
	return s, nil
}

// all says that everything is selected.
func (s *selection) all() bool { return len(s.patterns) == 0 }

// matches says whether a clean path is selected, and marks the patterns that select it.
func (s *selection) matches(p string) bool {
	if s.all() {
		return true
	}
	selected := false
	var names []string
	if p != rootPath {
		names = strings.Split(p, "/")
	}
	for i := range s.patterns {
		if s.patterns[i].matches(names) {
			s.patterns[i].matched = true
			selected = true
		}
	}
	return selected
}

func (p *pattern) matches(names []string) bool { return matchNames(p.names, names) }

// matchNames matches a pattern's names against the first names of a path. "**" stands for any number of names.
func matchNames(pattern, names []string) bool {
	for i, want := range pattern {
		if want == "**" {
			for skip := 0; skip <= len(names); skip++ {
				if matchNames(pattern[i+1:], names[skip:]) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 {
			return false
		}
		if ok, err := path.Match(want, names[0]); !ok || err != nil { // patterns were tried: there is no error
			return false
		}
		names = names[1:]
	}
	return true
}

// UnmatchedError is the failure of an extraction that is otherwise good: some of its patterns selected nothing.
type UnmatchedError struct{ Patterns []string }

func (e *UnmatchedError) Error() string {
	var quoted []string
	for _, p := range e.Patterns {
		quoted = append(quoted, fmt.Sprintf("%q", p))
	}
	return "cannot find " + strings.Join(quoted, ", ") + " in the archive"
}

// unmatched returns an error for the patterns that selected nothing.
func (s *selection) unmatched() error {
	var e UnmatchedError
	for _, p := range s.patterns {
		if !p.matched {
			e.Patterns = append(e.Patterns, p.text)
		}
	}
	if len(e.Patterns) == 0 {
		return nil
	}
	return &e
}

// Unmatched returns those of some patterns, as ExtractOptions has them in Paths, that select nothing of the index.
func (x *Index) Unmatched(ctx context.Context, patterns []string) ([]string, error) {
	s, err := newSelection(patterns)
	if err != nil {
		return nil, err
	}
	if s.all() {
		return nil, nil
	}
	for e, err := range x.entriesOf(ctx, x.blocksFor(s)) {
		if err != nil {
			return nil, err
		}
		s.matches(e.Path)
	}
	var none *UnmatchedError
	if errors.As(s.unmatched(), &none) {
		return none.Patterns, nil
	}
	return nil, nil
}

// plan is how a selection is taken out of an archive with an index: the members to read, and what the entries in them
// do not say.
type plan struct {
	members []Member
	blocks  []int      // of the index that hold selected entries, rising
	renamed *pathTable // data of a hard link that is not itself selected: its path, and the link that takes it
	entries int64
	bytes   int64
}

// renamedTo returns the link that takes the data of a path, or "". Without a plan there is none.
func (p *plan) renamedTo(path string) (link string, err error) {
	if p == nil {
		return "", nil
	}
	link, _, _, err = p.renamed.get(path)
	return link, err
}

func (p *plan) close() {
	if p != nil {
		p.renamed.close()
	}
}

// plan looks up a selection in the index. The caller closes it.
func (x *Index) plan(ctx context.Context, s *selection, limits *Limits) (_ *plan, err error) {
	p := &plan{renamed: newPathTable(limits)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	members := make(map[Member]struct{})
	used := make([]bool, len(x.blocks))
	for _, i := range x.blocksFor(s) {
		var inBlock []Member
		for l, err := range x.lines(ctx, i) {
			if err != nil {
				return nil, err
			}
			if l.Kind == lineMember {
				inBlock = append(inBlock, l.Member)
			}
			if l.Kind != lineEntry || !s.matches(l.Entry.Path) {
				continue
			}
			used[i] = true
			p.entries++
			p.bytes += l.Entry.StoredBytes
			addOverlapping(members, inBlock, l.Entry)
			if l.Entry.Type == TypeHardlink && !s.matches(l.Entry.Linkname) {
				if err := x.planLink(ctx, p, members, used, l.Entry); err != nil {
					return nil, err
				}
			}
		}
	}
	for i, isUsed := range used {
		if isUsed {
			p.blocks = append(p.blocks, i)
		}
	}
	p.members = make([]Member, 0, len(members))
	for m := range members {
		p.members = append(p.members, m)
	}
	slices.SortFunc(p.members, func(a, b Member) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	return p, nil
}

// blocksFor returns the blocks that can hold what is selected, in order.
func (x *Index) blocksFor(s *selection) []int {
	wanted := make([]bool, len(x.blocks))
	for _, p := range s.patterns {
		from, to := 0, len(x.blocks)
		if p.literal != "" {
			from = max(0, x.blockOf(p.literal))
			to = from
			for to < len(x.blocks) {
				first := x.blocks[to].FirstPath
				if ComparePaths(first, p.literal) > 0 && !isBelow(first, p.literal) {
					break
				}
				to++
			}
		}
		for i := from; i < to; i++ {
			wanted[i] = true
		}
	}
	var blocks []int
	for i, w := range wanted {
		if w || s.all() {
			blocks = append(blocks, i)
		}
	}
	return blocks
}

func addOverlapping(to map[Member]struct{}, from []Member, e Entry) {
	if e.TarOffset < 0 {
		return
	}
	for i := len(from) - 1; i >= 0; i-- {
		m := from[i]
		if m.TarOffset+m.TarBytes <= e.TarOffset {
			return
		}
		if m.TarOffset < e.TarOffset+e.TarBytes {
			to[m] = struct{}{}
		}
	}
}

// planLink adds the data of a hard link to an entry that is not selected.
func (x *Index) planLink(ctx context.Context, p *plan, members map[Member]struct{}, used []bool, link Entry) error {
	if as, err := p.renamedTo(link.Linkname); as != "" || err != nil {
		return err
	}
	i := x.blockOf(link.Linkname)
	if i < 0 {
		return fmt.Errorf("cannot find %q, which holds the data of %q", link.Linkname, link.Path)
	}
	text, err := x.block(ctx, i)
	if err != nil {
		return err
	}
	target, err := findLine(text, link.Linkname)
	if err != nil {
		return fmt.Errorf("cannot find %q, which holds the data of %q: %w", link.Linkname, link.Path, err)
	}
	of, err := membersOf(text, target)
	if err != nil {
		return err
	}
	for _, m := range of {
		members[m] = struct{}{}
	}
	used[i] = true
	p.bytes += target.StoredBytes
	return p.renamed.put(link.Linkname, link.Path, 0)
}

// entriesOf yields the entries of some blocks.
func (x *Index) entriesOf(ctx context.Context, blocks []int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, i := range blocks {
			if !x.yieldBlock(ctx, i, yield) {
				return
			}
		}
	}
}
