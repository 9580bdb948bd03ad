package lab

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"strings"
	"sync"
)

// result is one test or subtest as the machine reported it.
type result struct {
	name   string // below its parent
	top    bool   // no subtest
	output strings.Builder
	status string // PASS, FAIL, SKIP; "" when it did not end
	took   string // as the testing package wrote it
	subs   []*result
}

// results collects the top-level tests of a machine as they end. It is safe for concurrent use.
type results struct {
	mu     sync.Mutex
	change *sync.Cond
	ready  map[string][]*result // by name, in order: more than one under -count and -cpu
	ended  bool
}

func newResults() *results {
	r := &results{ready: make(map[string][]*result)}
	r.change = sync.NewCond(&r.mu)
	return r
}

func (r *results) add(test *result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready[test.name] = append(r.ready[test.name], test)
	r.change.Broadcast()
}

// end says that no more will come.
func (r *results) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.change.Broadcast()
}

// wait returns when no more results will come.
func (r *results) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.ended {
		r.change.Wait()
	}
}

// take waits for a test's next result and removes it. It returns nil when none came before the end.
func (r *results) take(name string) *result {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ready[name]) == 0 {
		if r.ended {
			return nil
		}
		r.change.Wait()
	}
	test := r.ready[name][0]
	r.ready[name] = r.ready[name][1:]
	return test
}

// In the form -test.v=test2json each line that the testing package itself writes follows a marker, wherever it starts,
// and control characters that mark errors may stand in the text.
const marker = "\x16"

var (
	markedLine  = regexp.MustCompile(`^(?:=== (RUN|NAME|CONT|PAUSE) +(\S*)|--- (PASS|FAIL|SKIP): (\S+) \((.*)\))$`)
	errorMarks  = strings.NewReplacer("\x0e", "", "\x0f", "")
	lineIndents = regexp.MustCompile(`(?m)^ {4}`)
)

// readResults reads the output of a test binary under -test.v=test2json, and adds each top-level test once it has ended
// or the output has. It returns what belonged to no test.
func readResults(output io.Reader, into *results) (rest string, err error) {
	var (
		unowned result
		open    = make(map[string]*result)
		owner   = &unowned // of what is read next
	)
	lines := bufio.NewReader(output)
	for err == nil {
		var line string
		line, err = lines.ReadString('\n')
		text, marked, isMarked := strings.Cut(errorMarks.Replace(line), marker)
		fields := markedLine.FindStringSubmatch(strings.TrimRight(marked, "\n"))
		if !isMarked || fields == nil {
			owner.output.WriteString(text + marked)
			continue
		}
		if text != "" {
			owner.output.WriteString(text + "\n")
		}
		event, name := fields[1]+fields[3], fields[2]+fields[4]
		// A test that panics writes so after its result and before the next marker.
		deliver(open, owner, into)
		if event == "RUN" {
			begin(open, name)
		}
		if owner = open[name]; owner == nil {
			owner = &unowned
		} else if fields[3] != "" {
			owner.status, owner.took = event, fields[5]
		}
	}
	for _, test := range open {
		if test.top {
			into.add(test)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return unowned.output.String(), err
}

// deliver adds a top-level test that has ended to the results, and closes it.
func deliver(open map[string]*result, test *result, into *results) {
	if test.top && test.status != "" {
		delete(open, test.name)
		into.add(test)
	}
}

// begin opens a test below the nearest test that is open: the name of a subtest may hold slashes of its own.
func begin(open map[string]*result, name string) {
	test := &result{name: name, top: !strings.Contains(name, "/")}
	for at := strings.LastIndexByte(name, '/'); at > 0; at = strings.LastIndexByte(name[:at], '/') {
		if parent := open[name[:at]]; parent != nil {
			test.name = name[at+1:]
			parent.subs = append(parent.subs, test)
			break
		}
	}
	open[name] = test
}

// text is the test's output without the indent that the testing package gave it, for it will get another.
func (r *result) text() string { return lineIndents.ReplaceAllString(r.output.String(), "") }
