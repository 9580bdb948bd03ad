package archive

import "testing"

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		dir, want     bool
	}{
		{"/var/cache/*", "var/cache/x", false, true},
		{"/var/cache/*", "var/cache", true, false},
		{"/var/cache/*", "srv/var/cache/x", false, false},
		{"/var/cache/*", "var/cache/x/y", false, false}, // its folder is left out as a whole
		{"var/cache", "var/cache", true, true},
		{"var/cache", "srv/var/cache", true, false},
		{"*.tmp", "a/b/c.tmp", false, true},
		{"*.tmp", "c.tmp", false, true},
		{"*.tmp", "c.tmp/d", false, false},
		{"/*.tmp", "a/c.tmp", false, false},
		{"/*.tmp", "c.tmp", false, true},
		{"cache/", "a/cache", true, true},
		{"cache/", "a/cache", false, false},
		{"/tmp/", "tmp", true, true},
		{"/tmp/", "a/tmp", true, false},
		{"/home/**/cache", "home/cache", true, true},
		{"/home/**/cache", "home/a/b/cache", true, true},
		{"/home/**/cache", "home/a/b/cached", true, false},
		{"**/node_modules", "node_modules", true, true},
		{"**/node_modules", "a/b/node_modules", true, true},
		{"/a/**", "a", true, false},
		{"/a/**", "a/b/c", false, true},
		{"**", "a", false, true},
		{"/a?c", "abc", false, true},
		{"/[a-c]x", "bx", false, true},
		{"/[^a-c]x", "bx", false, false},
		{`\*`, "*", false, true},
		{`\*`, "a", false, false},
		{`\!a`, "!a", false, true},
		{"*", ".", true, false},
		{"/lost+found/*", "lost+found/#12", false, true},
		{"*.\xff", "a.\xff", false, true},
	} {
		m, err := NewMatcher([]string{"/never", c.pattern})
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		pattern, got := m.Match(c.path, c.dir)
		if got != c.want || got && pattern != c.pattern {
			t.Errorf("%q on %q: %q %v, want %v", c.pattern, c.path, pattern, got, c.want)
		}
	}
	for _, pattern := range []string{"", "/", "//", "!a", "a//b", "../a", "/a/./b", "[", "/a/[b", `a\`} {
		if _, err := NewMatcher([]string{pattern}); err == nil {
			t.Errorf("%q: accepted", pattern)
		}
	}
}

func FuzzMatcher(f *testing.F) {
	f.Add("/a/**/b", "a/c/b")
	f.Add("*.tmp", "x.tmp")
	f.Fuzz(func(_ *testing.T, pattern, path string) {
		if m, err := NewMatcher([]string{pattern}); err == nil && len(pattern) < 100 && len(path) < 100 {
			m.Match(path, false)
		}
	})
}
