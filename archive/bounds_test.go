package archive

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is remembered of paths is the same in memory and in temporary files, and these have a bound.
func TestPathTable(t *testing.T) {
	limits := Limits{LinkBytes: 1000}.withDefaults()
	table := newPathTable(&limits)
	defer table.close()
	const paths = 5000
	for i := range int64(paths) {
		if err := table.put(fmt.Sprint("path ", i), fmt.Sprint("other ", i), i); err != nil {
			t.Fatal(err)
		}
	}
	if table.links.held > limits.LinkBytes {
		t.Errorf("%d bytes are in memory", table.links.held)
	}
	for range 2 { // nothing is forgotten
		for i := range int64(paths) {
			other, offset, ok, err := table.get(fmt.Sprint("path ", i))
			if err != nil || !ok || other != fmt.Sprint("other ", i) || offset != i {
				t.Fatalf("path %d: %q, %d, %v, %v", i, other, offset, ok, err)
			}
		}
	}
	if _, _, ok, err := table.get("another"); ok || err != nil {
		t.Errorf("of another: %v, %v", ok, err)
	}
	limits.SpillBytes = 1000
	full := newPathTable(&limits)
	defer full.close()
	var err error
	for i := 0; i < paths && err == nil; i++ {
		err = full.put(fmt.Sprint(i), "", 0)
	}
	if limit := new(LimitError); !errors.As(err, &limit) || limit.What != LimitSpillBytes {
		t.Errorf("error %v", err)
	}
}

// An index that is made again, and a selection, are the same however little memory hard links may take.
func TestHardLinksInLittleMemory(t *testing.T) {
	m := makeManyLinks(t)
	rebuild := func(limits Limits) string {
		t.Helper()
		r, err := NewReader(t.Context(), bytes.NewReader(m.archive), int64(len(m.archive)), ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		limits = limits.withDefaults()
		var out bytes.Buffer
		if _, err := rebuildIndex(r, &out, &limits); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if rebuild(Limits{}) != rebuild(Limits{LinkBytes: 1}) {
		t.Error("the indexes differ")
	}
	index := m.openIndex(t)
	selected, err := newSelection([]string{"links"})
	if err != nil {
		t.Fatal(err)
	}
	for _, memory := range []int{16 << 20, 1} {
		limits := Limits{LinkBytes: memory}.withDefaults()
		p, err := index.plan(t.Context(), selected, &limits)
		if err != nil {
			t.Fatal(err)
		}
		if memory == 1 && p.renamed.links.held > 0 {
			t.Errorf("%d bytes are in memory", p.renamed.links.held)
		}
		for i := range manyLinks {
			if link, err := p.renamedTo(fmt.Sprintf("files/%04d", i)); err != nil || link != fmt.Sprintf("links/%04d", i) {
				t.Fatalf("file %d is renamed to %q, %v", i, link, err)
			}
		}
		p.close()
	}
}

// What is wrong is listed up to a bound in entries and in bytes, and counted beyond it.
func TestListsOfFailuresAreBounded(t *testing.T) {
	var v VerifyResult
	long := strings.Repeat("x", 1<<20)
	for range 100 {
		v.lose(long, errLost)
		v.find("%s", long)
	}
	if len(v.Lost) >= 16 || v.LostOmitted != int64(100-len(v.Lost)) || len(v.Findings) > 16 {
		t.Errorf("%d are listed, %d omitted; %d findings", len(v.Lost), v.LostOmitted, len(v.Findings))
	}
	x := &extractor{opts: ExtractOptions{KeepGoing: true}}
	for range failuresKept + 10 {
		if err := x.fail("p", errLost); err != nil {
			t.Fatal(err)
		}
		x.damaged(&MemberError{})
	}
	if len(x.stats.Failures) != failuresKept || x.stats.FailuresOmitted != 10 || len(x.stats.Damage) != failuresKept {
		t.Errorf("%d are listed, %d omitted; %d damaged members", len(x.stats.Failures), x.stats.FailuresOmitted, len(x.stats.Damage))
	}
}

// Entries that are in the index alone come one by one, when the one before them is done with: there may be millions.
func TestCursorHoldsOneEntry(t *testing.T) {
	const sockets = 1000
	given, passed := 0, 0
	entries := func(yield func(Entry, error) bool) {
		for i := range sockets + 2 {
			e := Entry{Path: fmt.Sprint(i), TarOffset: -1, Type: TypeSocket}
			if i == 0 || i == sockets+1 {
				e = Entry{Path: fmt.Sprint(i), TarOffset: int64(i), TarBytes: 1}
			}
			given++
			if !yield(e, nil) {
				return
			}
		}
	}
	c := newCursor(entries, func(e Entry) error {
		if passed++; passed != given-1 {
			t.Fatalf("%d were read, %d passed over", given, passed)
		}
		return nil
	}, func(err error) error { return err })
	defer c.stop()
	if _, ok, err := c.take(0); !ok || err != nil || passed > 0 {
		t.Fatalf("the first: %v, %v; %d passed over", ok, err, passed)
	}
	if _, ok, err := c.take(sockets + 1); !ok || err != nil || passed != sockets {
		t.Errorf("the last: %v, %v; %d passed over", ok, err, passed)
	}
	if _, ok, err := c.seek(math.MaxInt64); ok || err != nil {
		t.Errorf("the end: %v, %v", ok, err)
	}
}

const manyLinks = 500

// makeManyLinks archives a folder of files, and one of hard links to them.
func makeManyLinks(t *testing.T) made {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"files", "links"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	for i := range manyLinks {
		file, link := filepath.Join(dir, fmt.Sprintf("files/%04d", i)), filepath.Join(dir, fmt.Sprintf("links/%04d", i))
		must(t, errors.Join(os.WriteFile(file, []byte(file), 0o644), os.Link(file, link)))
	}
	return writeTreeOf(t, dir, TreeOptions{})
}
