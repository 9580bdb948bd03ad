package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// results keeps what became of each case, a line of JSON each, in a folder of the host. Each part of a run writes files of
// its own: machines know nothing of each other's writes.
type results struct {
	dir  string
	part int
}

// read returns the results of all parts.
func (r results) read(kind string) ([]verdict, error) {
	paths, err := filepath.Glob(filepath.Join(r.dir, kind+"-*.jsonl"))
	if err != nil {
		return nil, err
	}
	var list []verdict
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			var v verdict
			if json.Unmarshal(line, &v) == nil { // the last line of a test that was stopped may be torn
				list = append(list, v)
			}
		}
	}
	return list, nil
}

func (r results) add(kind string, v verdict) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(r.dir, fmt.Sprintf("%s-%d.jsonl", kind, r.part)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// readVerdicts reads what was tried before, inside.
func readVerdicts(t *testing.T, kind string) []verdict {
	t.Helper()
	list, err := results{dir: shared}.read(kind)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// note says on the host what is being tried, for whoever waits.
func (s settings) note(t *testing.T, what string) {
	t.Helper()
	path := filepath.Join(shared, fmt.Sprintf("now-%d", s.Part))
	if err := os.WriteFile(path, []byte(time.Now().Format(time.TimeOnly)+" "+what+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// keep keeps a verdict, inside.
func (s settings) keep(t *testing.T, kind string, v verdict) {
	t.Helper()
	if err := (results{shared, s.Part}).add(kind, v); err != nil {
		t.Fatal(err)
	}
}
