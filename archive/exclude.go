package archive

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Matcher decides which paths of a tree are left out. A folder that matches is left out with all that it holds. Its
// patterns are much like those of gitignore:
//
//   - A pattern with a slash anywhere but at its end is anchored at the root of the tree, with or without a leading
//     slash: "/var/cache/*" and "var/cache/*" are the same, and neither matches srv/var/cache/x.
//   - A pattern without one matches names in any folder: "*.tmp".
//   - "*" stands for any characters of one name, "?" for one, "[a-z]" and "[^a-z]" for one of a class; "\" takes away
//     the meaning of what follows.
//   - "**" as a whole component stands for any number of folders, none included: "/home/**/cache". At the end of a
//     pattern it stands for everything below.
//   - A slash at the end makes the pattern match folders only: "/tmp/".
//
// "/var/cache/*" leaves the folder itself in the archive, empty; "/var/cache" leaves it out.
// A nil Matcher leaves out nothing.
type Matcher struct {
	rules []rule
}

type rule struct {
	pattern    string
	components []string // of an anchored pattern
	name       string   // of one that is not
	dirsOnly   bool
}

// NewMatcher reads patterns; see Matcher.
func NewMatcher(patterns []string) (*Matcher, error) {
	m := &Matcher{}
	for _, pattern := range patterns {
		r, err := parseRule(pattern)
		if err != nil {
			return nil, fmt.Errorf("cannot read the exclude pattern %q: %w", pattern, err)
		}
		m.rules = append(m.rules, r)
	}
	return m, nil
}

func parseRule(pattern string) (rule, error) {
	r := rule{pattern: pattern}
	body, dirsOnly := strings.CutSuffix(pattern, "/")
	r.dirsOnly = dirsOnly
	switch {
	case strings.HasPrefix(pattern, "!"):
		return r, errors.New(`negation is not supported; write \! for a name that begins with it`)
	case strings.Trim(body, "/") == "":
		return r, errors.New("it names nothing below the root of the tree")
	}
	if !strings.Contains(body, "/") {
		r.name = body
		if body == "**" {
			r.name = "*"
		}
		return r, check(r.name)
	}
	r.components = strings.Split(strings.TrimPrefix(body, "/"), "/")
	for _, c := range r.components {
		switch c {
		case "", ".", "..":
			return r, fmt.Errorf("a component is %q; patterns are relative to the root of the tree", c)
		case "**":
			continue
		}
		if err := check(c); err != nil {
			return r, err
		}
	}
	return r, nil
}

func check(component string) error {
	_, err := path.Match(component, "")
	return err
}

// Match returns the first pattern that leaves out the path, which is relative to the root as in Entry.
func (m *Matcher) Match(name string, isDir bool) (pattern string, excluded bool) {
	if m == nil || name == rootPath {
		return "", false
	}
	for i := range m.rules {
		if r := &m.rules[i]; r.matches(name, isDir) {
			return r.pattern, true
		}
	}
	return "", false
}

func (r *rule) matches(name string, isDir bool) bool {
	if r.dirsOnly && !isDir {
		return false
	}
	if r.components == nil {
		return matchName(r.name, name[strings.LastIndexByte(name, '/')+1:])
	}
	return matchComponents(r.components, name)
}

// matchComponents compares a pattern's components with those of a path.
func matchComponents(components []string, name string) bool {
	for len(components) > 0 {
		if components[0] == "**" {
			components = components[1:]
			if len(components) == 0 {
				return name != ""
			}
			for name != "" {
				if matchComponents(components, name) {
					return true
				}
				_, name, _ = strings.Cut(name, "/")
			}
			return false
		}
		if name == "" {
			return false
		}
		first, rest, _ := strings.Cut(name, "/")
		if !matchName(components[0], first) {
			return false
		}
		components, name = components[1:], rest
	}
	return name == ""
}

func matchName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil // patterns were checked before
}
