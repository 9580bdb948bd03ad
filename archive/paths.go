package archive

import "strings"

// rootPath is the path of the entry that is the root of a tree.
const rootPath = "."

// ComparePaths orders paths as an archive has them: a depth-first walk, the names in a folder compared bytewise, a
// folder before what it holds. It returns a negative number, 0 or a positive number, as strings.Compare does. That is
// not the order of the paths as strings: "a/b" comes before "a.b".
func ComparePaths(a, b string) int {
	if a == rootPath {
		a = ""
	}
	if b == rootPath {
		b = ""
	}
	i, shorter := 0, min(len(a), len(b))
	for i < shorter && a[i] == b[i] {
		i++
	}
	switch {
	case i == shorter:
		return len(a) - len(b)
	case a[i] == '/':
		return -1
	case b[i] == '/':
		return 1
	}
	return strings.Compare(a[i:i+1], b[i:i+1])
}
