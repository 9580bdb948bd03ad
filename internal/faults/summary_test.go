package faults

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reliabilityPage quotes the figures.
const reliabilityPage = "../../docs/reliability.md"

// kinds of results, each in a file of its own.
var kinds = []string{"faults", "kills", "cuts", "writes"}

// tally counts the cases of one class.
type tally struct{ tried, struck, held int }

// summarize writes the table of the results of runs, and the line that sums them up. What held with one seed is not tried
// again, so that of several results of a case the one that held is the last.
func summarize(seeds []string, runs []map[string][]verdict) (table, line string) {
	rows, totals := map[string]tally{}, map[string]tally{}
	for _, run := range runs {
		for kind, list := range run {
			last := map[string]verdict{}
			for _, v := range list {
				if earlier, ok := last[v.ID]; !ok || len(earlier.Wrong) > 0 {
					last[v.ID] = v
				}
			}
			for _, v := range last {
				rows[v.Class+" | "+string(v.Step)] = rows[v.Class+" | "+string(v.Step)].with(v)
				totals[kind] = totals[kind].with(v)
			}
		}
	}
	var text strings.Builder
	text.WriteString("| what goes wrong | in | cases | of these it struck in | every invariant held in |\n|---|---|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		c := rows[key]
		fmt.Fprintf(&text, "| %s | %d | %d | %d |\n", key, c.tried, c.struck, c.held)
	}
	wrong := 0
	for _, c := range totals {
		wrong += c.tried - c.held
	}
	line = fmt.Sprintf("seeds %s: %d faults tried (%d struck), %d kills, %d power cuts, %d moments in the order of writes: "+
		"%d cases broke an invariant", strings.Join(seeds, ", "), totals["faults"].tried, totals["faults"].struck,
		totals["kills"].tried, totals["cuts"].tried, totals["writes"].tried, wrong)
	text.WriteString("\n" + line + ".\n")
	return text.String(), line
}

func (c tally) with(v verdict) tally {
	c.tried++
	if v.Struck {
		c.struck++
	}
	if len(v.Wrong) == 0 {
		c.held++
	}
	return c
}

// reportFigures puts the results of all seeds that were tried into the documents, and prints what they come to.
func reportFigures() error {
	dirs, err := filepath.Glob(filepath.Join(cache, "seed-*"))
	if err != nil {
		return err
	}
	var seeds []string
	var runs []map[string][]verdict
	for _, dir := range dirs {
		run := map[string][]verdict{}
		for _, kind := range kinds {
			if run[kind], err = (results{dir: dir}).read(kind); err != nil {
				return err
			}
		}
		seeds = append(seeds, strings.TrimPrefix(filepath.Base(dir), "seed-"))
		runs = append(runs, run)
	}
	table, line := summarize(seeds, runs)
	if err := ReplaceBlock(reliabilityPage, "faults", table); err != nil {
		return err
	}
	fmt.Println(line)
	return nil
}

func TestSummary(t *testing.T) {
	table, line := summarize([]string{"7", "8"}, []map[string][]verdict{{
		"faults": {
			{ID: "a", Class: "command", Step: stepRun, Struck: true, Wrong: []string{"left on the host"}},
			{ID: "a", Class: "command", Step: stepRun, Struck: true}, // tried again, and mended
			{ID: "b", Class: "command", Step: stepRun},
			{ID: "b", Class: "command", Step: stepRun, Struck: true, Wrong: []string{"in the file of another machine, and earlier"}},
			{ID: "c", Class: "clock", Step: stepRun, Struck: true, Wrong: []string{"exit code 0"}},
		},
		"kills": {{ID: "kill/1", Class: "kill", Step: stepRun, Struck: true}},
	}, {
		"kills": {{ID: "kill/1", Class: "kill", Step: stepRun}},
	}})
	wantTable := `| what goes wrong | in | cases | of these it struck in | every invariant held in |
|---|---|---|---|---|
| clock | run | 1 | 1 | 0 |
| command | run | 2 | 1 | 2 |
| kill | run | 2 | 1 | 2 |

`
	wantLine := "seeds 7, 8: 3 faults tried (2 struck), 2 kills, 0 power cuts, 0 moments in the order of writes: 1 cases broke an invariant"
	if diff := cmp.Diff(wantTable+wantLine+".\n", table); diff != "" || line != wantLine {
		t.Errorf("%s\n%s", diff, line)
	}
}
