package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A condition that was moved or reworded can still be disabled.
func TestConditionsStandInTheSource(t *testing.T) {
	names := map[string]bool{}
	for _, m := range conditions {
		if names[m.name] {
			t.Errorf("%q is there twice", m.name)
		}
		names[m.name] = true
		source, err := os.ReadFile(filepath.Join("../../..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: %s holds the condition %d times: %q", m.name, m.file, n, m.old)
		}
	}
}
