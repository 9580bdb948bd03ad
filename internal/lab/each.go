package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// namesVariable tells a test binary in a machine which tests to run, each in a process of its own.
	namesVariable = "VOLTAR_LAB_TESTS"
	// limitVariable tells it how long each may take on a quiet machine.
	limitVariable = "VOLTAR_LAB_LIMIT"
)

// runEach runs lab tests, each in a process of its own, so that one that panics or hangs leaves the others alone, and looks
// what each left on the machine. It returns the exit status.
func runEach(names []string, out io.Writer) int {
	err := func() error {
		if err := measureSpeed(); err != nil {
			return err
		}
		limit, err := time.ParseDuration(os.Getenv(limitVariable))
		if err != nil {
			return err
		}
		before, err := traces()
		for round := 0; err == nil && round < max(1, flagNumber("test.count")); round++ {
			for _, name := range names {
				if before, err = runOne(name, Patience(limit), before, traces, out); err != nil {
					return err
				}
			}
		}
		return err
	}()
	if err != nil {
		_, _ = fmt.Fprintln(out, "lab:", err)
		return 1
	}
	return 0
}

// runOne runs a test and writes what it writes, then the mark of its end. It returns what stands on the machine afterwards, as
// look tells; what did not before fails the test.
func runOne(name string, limit time.Duration, before []string, look func() ([]string, error), out io.Writer) (after []string, err error) {
	pattern := "^" + name + "$"
	if _, sub, ok := strings.Cut(flagValue("test.run"), "/"); ok {
		pattern += "/" + sub
	}
	args := []string{"-test.v=test2json", "-test.run=" + pattern, "-test.timeout=" + limit.String()}
	for _, flag := range []string{"test.skip", "test.short"} {
		if value := flagValue(flag); value != "" {
			args = append(args, "-"+flag+"="+value)
		}
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, namesVariable+"=") })
	output, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	started := time.Now()
	if err := errors.Join(cmd.Start(), writer.Close()); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- waitWithin(cmd, limit+endGrace)
		// What the test started may hold the pipe for longer; what it wrote by now is read.
		_ = output.SetReadDeadline(time.Now().Add(outputGrace))
	}()
	result, tail, err := untilResult(name, output, out)
	if err != nil {
		return nil, err
	}
	waitErr := <-ended
	after, err = look()
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, trace := range after {
		if !slices.Contains(before, trace) {
			faults = append(faults, "the test left "+trace)
		}
	}
	if result == "" && waitErr == nil {
		waitErr = errors.New("the test did not run")
	}
	if waitErr != nil && !strings.HasPrefix(result, "FAIL") {
		faults = append(faults, fmt.Sprintf("the test's process: %v", waitErr))
	}
	if len(faults) > 0 {
		tail += marker + "=== NAME  " + name + "\n    " + strings.Join(faults, "\n    ") + "\n"
		result = fmt.Sprintf("FAIL: %s (%.2fs)", name, time.Since(started).Seconds())
	}
	_, err = fmt.Fprintf(out, "%s%s--- %s\n%s%s\n", tail, marker, result, endMark, name)
	return after, err
}

// outputGrace is how long a process that a test left behind may go on writing.
const outputGrace = time.Second

// endGrace is how long a test's process may take to end by itself once its time is up: it writes what each goroutine was doing.
const endGrace = 30 * time.Second

// killGrace is how long a process that was killed may take to end: one that waits for a filesystem that nobody thaws never does.
const killGrace = 10 * time.Second

// waitWithin waits for a process, and kills it when its time is up. One that does not end even then is left behind.
func waitWithin(cmd *exec.Cmd, limit time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-ended:
		return fmt.Errorf("it did not end within %s: %w", limit, err)
	case <-time.After(killGrace):
		return fmt.Errorf("it did not end within %s, and not when it was killed", limit)
	}
}

// untilResult copies what a test's process writes up to its result, which it returns, as "PASS: TestLabX (0.10s)", with what
// came after. The process's own last word is left out.
func untilResult(name string, from io.Reader, to io.Writer) (result, tail string, err error) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		before, word, marked := strings.Cut(line, marker+"--- ")
		switch {
		case marked && strings.Contains(word, ": "+name+" ("):
			result = strings.TrimRight(word, "\n")
			if before != "" {
				tail = before + "\n"
			}
		case marked && result != "", line == marker+"PASS\n", line == marker+"FAIL\n", line == "PASS\n", line == "FAIL\n",
			strings.HasPrefix(line, "exit status "), strings.HasPrefix(line, marker+"=== NAME  \n"):
		case result != "":
			tail += line
		default:
			if _, err := io.WriteString(to, line); err != nil {
				return "", "", err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			return result, tail, nil
		}
		if err != nil {
			return "", "", err
		}
	}
}

func flagNumber(name string) int {
	n, _ := strconv.Atoi(flagValue(name)) // the flag package has read it
	return n
}
