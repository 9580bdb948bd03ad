package report

import (
	"encoding/json"
	"errors"
	"fmt"

	"voltar/internal/say"
)

// document is the JSON form of a run: the model, and what is worked out from it.
type document struct {
	Run
	Verdict Verdict `json:"verdict"`
	Subject string  `json:"subject"`
}

// ErrSchema is wrapped by the error of ParseJSON for a document of another schema.
var ErrSchema = errors.New("unknown schema of a report")

// JSON renders a run as docs/report-json.md describes, indented, with a final newline. Strings are as they came, but
// characters that are not visible are written as \u escapes, so that the document can be shown on a terminal; bytes
// that are no UTF-8 become U+FFFD.
func JSON(run Run) ([]byte, error) {
	run.Schema = Schema
	if run.Volumes == nil {
		run.Volumes = []Volume{} // a list is a list, and never null
	}
	if run.Destinations == nil {
		run.Destinations = []Destination{}
	}
	data, err := say.JSON(document{run, run.Verdict(), Subject(run)}, "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode the report: %w", err)
	}
	return append(data, '\n'), nil
}

// ParseJSON reads what JSON wrote. Unknown fields are ignored.
func ParseJSON(data []byte) (Run, error) {
	var run Run
	if err := json.Unmarshal(data, &run); err != nil {
		return Run{}, fmt.Errorf("cannot read a report: %w", err)
	}
	if run.Schema != Schema {
		return Run{}, fmt.Errorf("%w: %d", ErrSchema, run.Schema)
	}
	return run, nil
}
