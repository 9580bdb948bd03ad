// Mutations shows that the tests watch over the gate: it disables one condition after the other that must hold before a
// backup is published, each in an overlay over the source, and wants the tests to fail. The outcome goes into
// docs/reliability.md, where what is said of conditions that were not tried this time stays. Usage, in the root of the
// module: mutations [-only REGEXP] [-write]
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"voltar/internal/faults"
	"voltar/internal/hostcmd"
)

const (
	page = "docs/reliability.md"
	// testTimeout ends a test that waits for what a disabled condition no longer does: it has failed, too.
	testTimeout  = 10 * time.Minute
	buildTimeout = 10 * time.Minute
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("mutations", flag.ContinueOnError)
	only := flags.String("only", ".", "disable only conditions whose name matches")
	write := flags.Bool("write", false, "write the outcome into "+page)
	if err := flags.Parse(args); err != nil {
		return 2
	}
	outcomes, missed, err := tryAll(ctx, *only)
	if *write {
		err = errors.Join(err, writeTable(outcomes))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		return 1
	}
	if missed > 0 {
		return 1
	}
	return 0
}

// tryAll disables each condition whose name matches, and returns what became of each, by its name. missed counts those
// that no test missed.
func tryAll(ctx context.Context, only string) (outcomes map[string]string, missed int, err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return nil, 0, err
	}
	outcomes = map[string]string{}
	for _, m := range conditions {
		if !wanted.MatchString(m.name) {
			continue
		}
		failed, err := m.try(ctx)
		if err != nil {
			return outcomes, missed, fmt.Errorf("%s: %w", m.name, err)
		}
		outcomes[m.name] = "NONE"
		if len(failed) > 0 {
			outcomes[m.name] = "`" + strings.Join(failed, "`, `") + "`"
		} else {
			missed++
		}
		fmt.Printf("%s: %s\n", m.name, outcomes[m.name])
	}
	fmt.Printf("%d conditions disabled one at a time, %d noticed by a test\n", len(outcomes), len(outcomes)-missed)
	return outcomes, missed, nil
}

// writeTable enters outcomes in the table of the page, in the order of the conditions.
func writeTable(outcomes map[string]string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$`).FindAllStringSubmatch(string(text), -1) {
		before[row[1]] = row[2]
	}
	table := "| condition | disabled in | test that fails then |\n|---|---|---|\n"
	for _, m := range conditions {
		outcome := cmp.Or(outcomes[m.name], before[m.name], "not tried")
		table += fmt.Sprintf("| %s | `%s` | %s |\n", m.name, m.file, outcome)
	}
	return faults.ReplaceBlock(page, "mutations", table)
}

// failedTest matches a test that failed, or that was running when the time was up.
var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\w+)|^\s+(Test\w+) \(\d`)

// try disables the condition and returns the tests that fail then. They have to pass without that.
func (m mutation) try(ctx context.Context) (failed []string, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	if strings.Count(string(source), m.old) != 1 {
		return nil, fmt.Errorf("%s does not hold the condition once: %q", m.file, m.old)
	}
	dir, err := os.MkdirTemp("", "voltar-mutation-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := m.overlay(dir, strings.Replace(string(source), m.old, m.new, 1))
	if err != nil {
		return nil, err
	}
	if out, err := goTest(ctx, m); err != nil {
		return nil, fmt.Errorf("the tests fail with the condition as it is: %w\n%s", err, out)
	}
	out, err := goTest(ctx, m, "-overlay", overlay)
	if err == nil {
		return nil, nil
	}
	for _, match := range failedTest.FindAllStringSubmatch(out, -1) {
		failed = append(failed, match[1]+match[2])
	}
	if len(failed) == 0 { // it could not be built, most likely
		return nil, fmt.Errorf("no test failed, but go test did: %w\n%s", err, out)
	}
	return failed, nil
}

// overlay writes the changed source and what tells the go command to take it instead of the file.
func (m mutation) overlay(dir, source string) (string, error) {
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	changed := filepath.Join(dir, filepath.Base(m.file))
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(os.WriteFile(changed, []byte(source), 0o644), os.WriteFile(overlay, text, 0o644))
}

// goTest runs the tests of a mutation. Those of the source as it is may come out of the go command's cache.
func goTest(ctx context.Context, m mutation, overlay ...string) (string, error) {
	runner := hostcmd.New(hostcmd.Options{SearchPath: filepath.SplitList(os.Getenv("PATH"))})
	var env []string
	if len(overlay) > 0 { // lab tests are built once more, for the machine
		env = []string{"GOFLAGS=" + os.Getenv("GOFLAGS") + " " + strings.Join(overlay, "=")}
	}
	limit := testTimeout
	if !strings.Contains(m.tests, "Lab") {
		limit /= 10
	}
	args := []string{"test", "-timeout", limit.String(), "-run", m.tests, m.pkg}
	res, err := runner.Run(ctx, hostcmd.Cmd{Name: "go", Args: args, Env: env, Timeout: limit + buildTimeout})
	return string(res.Stdout) + string(res.Stderr), err
}
