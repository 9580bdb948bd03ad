package faults

import (
	"context"
	"encoding/json"
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

// settings say how much is tried. They reach the machine as a file, because its environment is its own.
type settings struct {
	Full  bool   `json:"full"`  // all that is asked for, with results kept; otherwise a sample
	Seed  uint64 `json:"seed"`  // of the order of the cases, and of the moments
	Cases int    `json:"cases"` // faults to try; 0 for all there are
	Only  string `json:"only"`  // regular expression of the names of the faults to try
	Kills int    `json:"kills"`
	Cuts  int    `json:"cuts"`
}

// sample is what `make test` tries.
var sample = settings{Seed: 1, Cases: 6, Kills: 2, Cuts: 1}

// settingsOfRun reads the variables that make test-faults sets.
func settingsOfRun() (settings, error) {
	if os.Getenv("VOLTAR_FAULTS") == "" {
		return sample, nil
	}
	s := settings{Full: true, Seed: 1, Kills: 200, Cuts: 20, Only: os.Getenv("VOLTAR_FAULTS_ONLY")}
	for _, v := range []struct {
		name string
		set  func(int)
	}{
		{"SEED", func(n int) { s.Seed = uint64(n) }}, {"CASES", func(n int) { s.Cases = n }},
		{"KILLS", func(n int) { s.Kills = n }}, {"CUTS", func(n int) { s.Cuts = n }},
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

// folder is where the results are kept, on the host.
func (s settings) folder() string {
	if s.Full {
		return filepath.Join(cache, fmt.Sprintf("seed-%d", s.Seed))
	}
	return filepath.Join(cache, "sample")
}

func TestMain(m *testing.M) {
	opts, err := prepare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
	status := lab.Main(m, opts)
	if s, err := settingsOfRun(); err == nil && s.Full && !lab.Inside() {
		if err := reportFigures(); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			status = 1
		}
	}
	os.Exit(status)
}

// prepare makes the folder that the machine and the host share, with the settings in it.
func prepare() (lab.Options, error) {
	opts := lab.Options{Modules: []string{"dm-dust", "dm-log-writes"}, Layers: layers}
	if lab.Inside() {
		return opts, nil
	}
	s, err := settingsOfRun()
	if err != nil {
		return opts, err
	}
	share, err := filepath.Abs(s.folder())
	if err != nil {
		return opts, err
	}
	opts.Share = share
	if !s.Full {
		if err := os.RemoveAll(share); err != nil { // results of an earlier sample
			return opts, err
		}
	}
	if err := os.MkdirAll(share, 0o755); err != nil {
		return opts, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return opts, err
	}
	return opts, os.WriteFile(filepath.Join(share, "settings.json"), text, 0o644)
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
	layer, err := filepath.Abs(filepath.Join(cache, "layer"))
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
	text, err := os.ReadFile(filepath.Join(shared, "settings.json"))
	var s settings
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}
