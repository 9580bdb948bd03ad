package faults

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"voltar/internal/durable"
)

// ReplaceBlock puts a text between the two comments in a document that begin and end the block of a name.
func ReplaceBlock(path, name, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, endOK := strings.Cut(rest, end)
	if !ok || !endOK {
		return fmt.Errorf("replace the block %s of %s: %w", name, path, errors.New("its comments are not there"))
	}
	return durable.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
