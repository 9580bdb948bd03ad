package faults

import (
	"fmt"
	"maps"
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

// summarize writes the table of a run's results, and the line that sums them up. Of a case that was tried more than once
// the last result counts.
func summarize(seed uint64, all map[string][]verdict) (table, line string) {
	rows := map[string]tally{}
	totals := map[string]tally{}
	for kind, list := range all {
		last := map[string]verdict{}
		for _, v := range list {
			last[v.ID] = v
		}
		for _, v := range last {
			for _, count := range []struct {
				in  map[string]tally
				key string
			}{{rows, v.Class + " | " + string(v.Step)}, {totals, kind}} {
				c := count.in[count.key]
				c.tried++
				if v.Struck {
					c.struck++
				}
				if len(v.Wrong) == 0 {
					c.held++
				}
				count.in[count.key] = c
			}
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Seed %d.\n\n| what goes wrong | in | cases | of these it struck in | every invariant held in |\n|---|---|---|---|---|\n", seed)
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		c := rows[key]
		fmt.Fprintf(&text, "| %s | %d | %d | %d |\n", key, c.tried, c.struck, c.held)
	}
	wrong := 0
	for _, c := range totals {
		wrong += c.tried - c.held
	}
	line = fmt.Sprintf("seed %d: %d faults tried (%d struck), %d kills, %d power cuts, %d moments in the order of writes: %d cases broke an invariant",
		seed, totals["faults"].tried, totals["faults"].struck, totals["kills"].tried, totals["cuts"].tried, totals["writes"].tried, wrong)
	text.WriteString("\n" + line + ".\n")
	return text.String(), line
}

// reportFigures puts the results of all runs with the settings' seed into the documents, and prints what they come to.
func reportFigures(s settings, dir string) error {
	all := map[string][]verdict{}
	for _, kind := range kinds {
		list, err := results{dir}.read(kind)
		if err != nil {
			return err
		}
		all[kind] = list
	}
	table, line := summarize(s.Seed, all)
	if err := ReplaceBlock(reliabilityPage, "faults", table); err != nil {
		return err
	}
	fmt.Println(line)
	return nil
}

func TestSummary(t *testing.T) {
	table, line := summarize(7, map[string][]verdict{
		"faults": {
			{ID: "a", Class: "command", Step: stepRun, Struck: true, Wrong: []string{"left on the host"}},
			{ID: "a", Class: "command", Step: stepRun, Struck: true}, // tried again, and mended
			{ID: "b", Class: "command", Step: stepRun},
			{ID: "c", Class: "clock", Step: stepRun, Struck: true, Wrong: []string{"exit code 0"}},
		},
		"kills": {{ID: "kill/1", Class: "kill", Step: stepRun, Struck: true}},
	})
	wantTable := `Seed 7.

| what goes wrong | in | cases | of these it struck in | every invariant held in |
|---|---|---|---|---|
| clock | run | 1 | 1 | 0 |
| command | run | 2 | 1 | 2 |
| kill | run | 1 | 1 | 1 |

`
	wantLine := "seed 7: 3 faults tried (2 struck), 1 kills, 0 power cuts, 0 moments in the order of writes: 1 cases broke an invariant"
	if diff := cmp.Diff(wantTable+wantLine+".\n", table); diff != "" || line != wantLine {
		t.Errorf("%s\n%s", diff, line)
	}
}
