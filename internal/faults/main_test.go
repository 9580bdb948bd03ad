package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/lab"
)

const (
	// cache is where the binary under test and the results are, seen from this folder.
	cache = "../../.cache/faults"
	// shared is where a machine sees the results' folder.
	shared = "/out"
	// program is the binary under test, inside.
	program = "/usr/sbin/voltar"
	// buildTimeLimit is for a machine with much else to do.
	buildTimeLimit = 10 * time.Minute
)

// settings say how much is tried.
type settings struct {
	Full  bool   // all that is asked for, with results kept; otherwise a sample
	Seed  uint64 // of the order of the cases, and of the moments
	Cases int    // faults to try; 0 for all there are
	Only  string // regular expression of the names of the faults to try
	Kills int
	Cuts  int
	// Part of Parts that share all of this among them, from 0 on. Each has a machine of its own.
	Part, Parts int
}

// sample is what `make test` tries.
var sample = settings{Seed: 1, Cases: 4, Kills: 1, Cuts: 1, Parts: 1}

// variables are those that make test-faults sets, here and in the machine.
var variables = []string{
	"VOLTAR_FAULTS", "VOLTAR_FAULTS_SEED", "VOLTAR_FAULTS_CASES", "VOLTAR_FAULTS_ONLY", "VOLTAR_FAULTS_KILLS",
	"VOLTAR_FAULTS_CUTS", "VOLTAR_FAULTS_PART", "VOLTAR_FAULTS_PARTS",
}

// settingsOfRun reads the variables.
func settingsOfRun() (settings, error) {
	if os.Getenv("VOLTAR_FAULTS") == "" {
		return sample, nil
	}
	s := settings{Full: true, Seed: 1, Kills: 200, Cuts: 20, Only: os.Getenv("VOLTAR_FAULTS_ONLY"), Parts: 1}
	for _, v := range []struct {
		name string
		set  func(int)
	}{
		{"SEED", func(n int) { s.Seed = uint64(n) }}, {"CASES", func(n int) { s.Cases = n }},
		{"KILLS", func(n int) { s.Kills = n }}, {"CUTS", func(n int) { s.Cuts = n }},
		{"PART", func(n int) { s.Part = n }}, {"PARTS", func(n int) { s.Parts = max(n, 1) }},
	} {
		text := os.Getenv("VOLTAR_FAULTS_" + v.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return s, fmt.Errorf("VOLTAR_FAULTS_%s: %q is no number", v.name, text)
		}
		v.set(n)
	}
	return s, nil
}

// mine tells whether the case of a number belongs to this part.
func (s settings) mine(number int) bool { return number%s.Parts == s.Part }

// folder is where the results are kept, on the host.
func (s settings) folder() string {
	if s.Full {
		return filepath.Join(cache, fmt.Sprintf("seed-%d", s.Seed))
	}
	return filepath.Join(cache, "sample")
}

// TestMain runs the tests. With VOLTAR_FAULTS=figures it only writes down what became of earlier runs.
func TestMain(m *testing.M) {
	status := 0
	if os.Getenv("VOLTAR_FAULTS") != "figures" {
		opts, err := prepare()
		if err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			os.Exit(1)
		}
		status = lab.Main(m, opts)
	} else if err := reportFigures(); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		status = 1
	}
	os.Exit(status)
}

// prepare makes the folder that the machine and the host share.
func prepare() (lab.Options, error) {
	opts := lab.Options{Modules: []string{"dm-dust", "dm-log-writes"}, Layers: layers, Env: variables}
	s, err := settingsOfRun()
	if s.Full {
		opts.TestLimit = 24 * time.Hour
	}
	if err != nil || lab.Inside() {
		return opts, err
	}
	if opts.Share, err = filepath.Abs(s.folder()); err != nil {
		return opts, err
	}
	if !s.Full {
		if err := os.RemoveAll(opts.Share); err != nil { // results of an earlier sample
			return opts, err
		}
	}
	return opts, os.MkdirAll(opts.Share, 0o755)
}

// layers lays the binary under test over the machine's root, built as it is shipped, and strace.
func layers(ctx context.Context) ([]string, error) {
	layer, err := buildLayer(ctx)
	if err != nil {
		return nil, err
	}
	debs, err := lab.Debs(ctx, "strace")
	return append([]string{layer}, debs...), err
}

func buildLayer(ctx context.Context) (string, error) {
	s, err := settingsOfRun()
	if err != nil {
		return "", err
	}
	layer, err := filepath.Abs(filepath.Join(cache, fmt.Sprintf("layer-%d", s.Part))) // no other part writes to it
	if err != nil {
		return "", err
	}
	_, err = hostcmd.New(hostcmd.Options{SearchPath: filepath.SplitList(os.Getenv("PATH"))}).Run(ctx, hostcmd.Cmd{
		Name:    "make",
		Args:    []string{"--no-print-directory", "--silent", "-C", "../..", "build", "PROGRAM=" + filepath.Join(layer, program)},
		Timeout: buildTimeLimit,
	})
	if err != nil {
		return "", fmt.Errorf("build the program: %w", err)
	}
	return layer, nil
}

// readSettings returns the settings, inside.
func readSettings(t *testing.T) settings {
	t.Helper()
	s, err := settingsOfRun()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
