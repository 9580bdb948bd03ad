package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// results keeps what became of each case, a line of JSON each, in a folder of the host.
type results struct{ dir string }

func (r results) read(kind string) ([]verdict, error) {
	f, err := os.Open(filepath.Join(r.dir, kind+".jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []verdict
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v verdict
		if json.Unmarshal(lines.Bytes(), &v) == nil { // the last line of a test that was stopped may be torn
			list = append(list, v)
		}
	}
	return list, lines.Err()
}

func (r results) add(kind string, v verdict) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(r.dir, kind+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// readVerdicts reads what was tried before, inside.
func readVerdicts(t *testing.T, kind string) []verdict {
	t.Helper()
	list, err := results{shared}.read(kind)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// note says on the host what is being tried, for whoever waits.
func note(t *testing.T, what string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(shared, "now"), []byte(time.Now().Format(time.TimeOnly)+" "+what+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// addVerdict keeps a verdict, inside.
func addVerdict(t *testing.T, kind string, v verdict) {
	t.Helper()
	if err := (results{shared}).add(kind, v); err != nil {
		t.Fatal(err)
	}
}
