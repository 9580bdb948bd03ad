package lab

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// In the form -test.v=test2json each line that the testing package itself writes follows a marker, wherever it starts,
// and control characters that mark errors may stand in the text.
const marker = "\x16"

// endMark begins the line that a machine writes when a test's process has ended. The name of the test follows.
const endMark = marker + "=== END "

var (
	errorMarks = strings.NewReplacer("\x0e", "", "\x0f", "")
	// plain lines are those that go test shows of a failed test without -v.
	eventLine = regexp.MustCompile(`(?m)^` + marker + `=== .*\n`)
	// midLine is a marker that follows text which did not end its line.
	midLine = regexp.MustCompile(`([^\n])` + marker)
)

// reporter writes what became of lab tests as the testing package would have, so that they are reported as any others:
// each test in one piece, for several machines may report at a time.
type reporter struct {
	out     io.Writer
	verbose string // as -test.v: "test2json", "true" or "false"

	mu     sync.Mutex
	failed bool
}

// relay reads what a machine writes until its end and reports its tests. It returns those of the names that did not end,
// and what was written after the last that did.
func (r *reporter) relay(output io.Reader, names []string) (missing []string, rest string, err error) {
	missing = slices.Clone(names)
	var text strings.Builder
	lines := bufio.NewReader(output)
	for err == nil {
		var line string
		line, err = lines.ReadString('\n')
		name, ended := strings.CutPrefix(strings.TrimSuffix(line, "\n"), endMark)
		if !ended {
			text.WriteString(line)
			continue
		}
		r.write(text.String())
		text.Reset()
		if at := slices.Index(missing, name); at >= 0 {
			missing = slices.Delete(missing, at, at+1)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return missing, text.String(), err
}

// write reports one test, of whose text the lines that begin at the left are the testing package's own.
func (r *reporter) write(text string) {
	failed := strings.Contains(text, marker+"--- FAIL: ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	switch r.verbose {
	case "test2json":
	case "true":
		text = strings.ReplaceAll(midLine.ReplaceAllString(text, "$1\n"), marker, "")
		text = errorMarks.Replace(text)
	default:
		if !failed {
			return
		}
		text = eventLine.ReplaceAllString(midLine.ReplaceAllString(text, "$1\n"+marker), "")
		text = errorMarks.Replace(strings.ReplaceAll(text, marker, ""))
	}
	_, _ = io.WriteString(r.out, text) // go test reads it, or nobody does
}

// status is the exit status of a run of tests.
func (r *reporter) status() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed {
		return 1
	}
	return 0
}

// made is the report of a test that did not run.
func made(name, status, reason string) string {
	return marker + "=== RUN   " + name + "\n    " + strings.ReplaceAll(reason, "\n", "\n    ") + "\n" +
		marker + "--- " + status + ": " + name + " (0.00s)\n"
}
