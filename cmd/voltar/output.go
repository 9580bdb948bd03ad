package main

import (
	"encoding/json"
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
