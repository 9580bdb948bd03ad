package say

import (
	"fmt"
	"strings"
)

// Nearest returns the candidate that a mistyped word most likely means, or "" when none is close: a letter that is wrong, missing,
// too much, or exchanged with its neighbour counts one, and a third of the word may be wrong.
func Nearest(word string, candidates []string) string {
	best, nearest := max(1, len(word)/3)+1, ""
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < best && d < len(c) {
			best, nearest = d, c
		}
	}
	return nearest
}

// DidYouMean is what an error about a mistyped word ends in: `: did you mean "days"?`, or "" where no candidate is close.
func DidYouMean(word string, candidates []string) string {
	if nearest := Nearest(word, candidates); nearest != "" {
		return `: did you mean "` + nearest + `"?`
	}
	return ""
}

// Names are those of some things, for DidYouMean and for lists.
func Names[T any](things []T, name func(T) string) (names []string) {
	for _, thing := range things {
		names = append(names, name(thing))
	}
	return names
}

// Listed names things in a row, and counts those beyond a limit.
func Listed(names []string, limit int) string {
	shown := names[:min(limit, len(names))]
	if more := len(names) - len(shown); more > 0 {
		return fmt.Sprintf("%s and %s more", strings.Join(shown, ", "), Count(int64(more)))
	}
	return strings.Join(shown, ", ")
}

// distance is that of Damerau and Levenshtein, with each letter exchanged at most once. Words that are absurdly long are far from all.
func distance(a, b string) int {
	const longest = 200
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
