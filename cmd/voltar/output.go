package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// printJSON writes a result for programs.
func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// shortTime is a time for people, in the clock of this host.
func shortTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// counted is a number of things in words: "1 host", "2 hosts".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// countedEntries is a number of files, folders and the like.
func countedEntries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
