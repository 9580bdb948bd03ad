package lab

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// parts deals the lab tests out among so many machines and returns the parts, as partVariable has them, that hold any of
// the tests that the pattern of go test -run selects.
func parts(tests []testing.InternalTest, machines int, pattern string) []string {
	name, _, _ := strings.Cut(pattern, "/") // what follows selects subtests
	selected, err := regexp.Compile(name)
	if err != nil {
		selected = regexp.MustCompile("") // a slash within brackets; the test binaries read the pattern for themselves
	}
	var with []string
	for i := range machines {
		part := fmt.Sprintf("%d/%d", i, machines)
		for _, test := range dealt(tests, part) {
			if selected.MatchString(test.Name) {
				with = append(with, part)
				break
			}
		}
	}
	return with
}

// dealt returns those lab tests that belong to a part.
func dealt(tests []testing.InternalTest, part string) []testing.InternalTest {
	number, of := 0, 1
	if _, err := fmt.Sscanf(part, "%d/%d", &number, &of); err != nil {
		number, of = 0, 1 // not dealt out
	}
	var kept []testing.InternalTest
	at := 0
	for _, test := range tests {
		if !strings.HasPrefix(test.Name, prefix) {
			continue
		}
		if at%of == number {
			kept = append(kept, test)
		}
		at++
	}
	return kept
}
