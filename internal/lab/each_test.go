package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// endVariable tells TestThatEnds how to end.
const endVariable = "VOLTAR_TEST_END"

// TestThatEnds is what TestRunOne runs, as a process of its own.
func TestThatEnds(t *testing.T) {
	t.Log("hello")
	switch os.Getenv(endVariable) {
	case "fail":
		t.Error("so it was")
	case "panic":
		panic("so it was")
	case "exit":
		os.Exit(7)
	case "hang":
		select {}
	}
}

// A test's process that does not end by itself does not hold up the others.
func TestWaitWithin(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := waitWithin(cmd, time.Millisecond); err == nil || err.Error() != "it did not end within 1ms: signal: killed" {
		t.Errorf("got %v", err)
	}
}

// However a test's process ends, the test has a result, and what it wrote is there, on a machine that is as before.
func TestRunOne(t *testing.T) {
	for _, c := range []struct {
		end, left, result string
		wants             []string
	}{
		{"pass", "", "PASS", []string{"hello"}},
		{"pass", "a snapshot", "FAIL", []string{"hello", "the test left a snapshot"}},
		{"fail", "", "FAIL", []string{"hello", "so it was"}},
		{"panic", "", "FAIL", []string{"hello", "panic: so it was"}},
		{"exit", "", "FAIL", []string{"hello", "the test's process: exit status 7"}},
		{"hang", "", "FAIL", []string{"hello", "test timed out", "the test's process: exit status 2"}},
	} {
		t.Run(c.end+c.left, func(t *testing.T) {
			t.Setenv(endVariable, c.end)
			look := func() ([]string, error) {
				all := []string{"a volume"}
				if c.left != "" {
					all = append(all, c.left)
				}
				return all, nil
			}
			limit := time.Hour
			if c.end == "hang" {
				limit = 3 * time.Second
			}
			var machine, out strings.Builder
			after, err := runOne("TestThatEnds", limit, []string{"a volume"}, look, &machine)
			if err != nil {
				t.Fatal(err)
			}
			r := &reporter{out: &out, verbose: "true"}
			missing, rest, err := r.relay(strings.NewReader(machine.String()), []string{"TestThatEnds"})
			if err != nil || len(missing) > 0 || rest != "" {
				t.Errorf("missing %q, rest %q, error %v", missing, rest, err)
			}
			if c.left != "" && len(after) != 2 {
				t.Errorf("what stands afterwards: %q", after)
			}
			for _, want := range append(c.wants, "--- "+c.result+": TestThatEnds (") {
				if strings.Count(out.String(), want) != 1 {
					t.Errorf("not one %q in\n%s", want, out.String())
				}
			}
			if failed := r.status() == 1; failed != (c.result == "FAIL") {
				t.Errorf("failed: %t", failed)
			}
		})
	}
}
