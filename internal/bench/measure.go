package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bench runs tasks in turn, several rounds, and prints what came of them.
type bench struct {
	self   string // this program
	tree   string
	sample string // a file of the tree
	work   string
	rounds int
	match  *regexp.Regexp
	stdout io.Writer
	stderr io.Writer
}

// task is one thing that is measured.
type task struct {
	group, name string
	needs       string     // a program; without it the task is left out
	argv        []string   // run in dir
	before      [][]string // run before, not measured
	result      string     // file or folder in dir whose size is told
	base        bool       // others of its group are compared with it
}

func (t *task) String() string { return t.group + ": " + t.name }

// sampleOf is what one round saw of a task.
type sampleOf struct {
	wall, cpu time.Duration
	peakBytes int64 // of the largest process
	size      int64
}

func (b *bench) run(ctx context.Context, tasks []*task) error {
	tasks = slices.DeleteFunc(tasks, func(t *task) bool { return !b.match.MatchString(t.String()) || !b.has(t) })
	seen := make(map[*task][]sampleOf)
	var second []float64
	if _, err := b.command(ctx, shell("rm -rf x-*")); err != nil {
		return err
	}
	for round := range b.rounds {
		second = append(second, secondCore())
		for _, t := range tasks {
			s, err := b.measure(ctx, t, round)
			if err != nil && ctx.Err() != nil && round > 0 {
				b.print(tasks, seen, second) // what is there is worth having
			}
			if err != nil {
				return fmt.Errorf("%s: %w", t, err)
			}
			fmt.Fprintf(b.stderr, "round %d of %d: %s: %.3f s, CPU %.3f s\n", round+1, b.rounds, t, s.wall.Seconds(), s.cpu.Seconds())
			seen[t] = append(seen[t], s)
		}
	}
	b.print(tasks, seen, second)
	_, err := b.command(ctx, shell("rm -rf x-*"))
	return err
}

func (b *bench) has(t *task) bool {
	if t.needs == "" {
		return true
	}
	_, err := exec.LookPath(t.needs)
	if err != nil {
		fmt.Fprintf(b.stderr, "left out: %s: %s is not installed\n", t, t.needs)
	}
	return err == nil
}

// measure runs a task once. Memory is that of the largest of its processes, as the kernel counts it.
func (b *bench) measure(ctx context.Context, t *task, round int) (sampleOf, error) {
	for _, argv := range t.before {
		if _, err := b.command(ctx, inRound(argv, round)); err != nil {
			return sampleOf{}, err
		}
	}
	began := time.Now()
	state, err := b.command(ctx, inRound(t.argv, round))
	s := sampleOf{wall: time.Since(began)}
	if err != nil {
		return s, err
	}
	s.cpu = state.UserTime() + state.SystemTime()
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return s, errors.New("cannot tell its memory on this system")
	}
	s.peakBytes = usage.Maxrss << 10
	if t.result != "" {
		s.size, err = sizeOf(filepath.Join(b.work, t.result))
	}
	return s, err
}

// inRound returns a command with the number of the round in its place.
func inRound(argv []string, round int) []string {
	argv = slices.Clone(argv)
	for i, arg := range argv {
		argv[i] = strings.ReplaceAll(arg, roundMark, strconv.Itoa(round))
	}
	return argv
}

// command runs a program in the folder of results; its output is of no interest.
func (b *bench) command(ctx context.Context, argv []string) (*os.ProcessState, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stderr = b.work, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR="+filepath.Join(b.work, "restic.cache"),
		"BORG_BASE_DIR="+filepath.Join(b.work, "borg.base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", "VOLTAR_BENCH_SECRET="+benchSecret)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%q: %w: %s", argv, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return cmd.ProcessState, nil
}

// sizeOf adds up the files under path.
func sizeOf(path string) (total int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// secondCore tells how much two goroutines got done in the time in which one did 1: 2 when two cores were free, 1 when
// it was one. On a machine that is shared this says what the figures beside it are worth.
func secondCore() float64 {
	if runtime.GOMAXPROCS(0) < 2 {
		return 1
	}
	one := spin(1)
	return float64(spin(2)) / float64(one)
}

// spin counts what n goroutines get done in a fixed time.
func spin(n int) int64 {
	const span = 500 * time.Millisecond
	var total, mixed int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			var count, x int64
			for began := time.Now(); time.Since(began) < span; count++ {
				for range 10_000 {
					x = x*6364136223846793005 + 1442695040888963407
				}
			}
			mu.Lock()
			total += count
			mixed ^= x
			mu.Unlock()
		})
	}
	wg.Wait()
	runtime.KeepAlive(mixed) // so that the work is not left out
	return total
}
