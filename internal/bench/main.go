// Command bench measures voltar's archives beside the pipelines and programs that people use for the same work: on one
// tree, on one machine, in turn, several rounds in one run. docs/performance.md explains what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "step" { // a process of its own for each measurement
		return step(ctx, args[1:], stdout)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	tree := flags.String("tree", "", "folder to archive; one of 1.5 GB in 80,000 files is made when empty")
	dir := flags.String("dir", ".cache/bench", "folder for the tree and all that is written")
	rounds := flags.Int("rounds", 5, "how often everything is measured")
	only := flags.String("only", "", "measure only what matches this regular expression, as \"extract: .*\"")
	levels := flags.Bool("levels", false, "measure every level of compression, and nothing else")
	scale := flags.String("scale", "", "make trees of up to a million small files in this folder, best in memory, and measure only those")
	origin := flags.Bool("origin", false, "measure what snapshots cost whoever writes to a volume, and nothing else")
	s3 := flags.Int64("s3", 0, "measure the upload of a stream of so many MiB to S3 servers on loopback, and nothing else")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *origin {
		return measureOrigin(ctx, stdout)
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("cannot use -only: %w", err)
	}
	if *rounds < 1 {
		return fmt.Errorf("cannot measure %d rounds", *rounds)
	}
	work, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{self: self, tree: *tree, work: work, rounds: *rounds, match: match, stdout: stdout, stderr: os.Stderr}
	if *s3 > 0 {
		return b.measureS3(ctx, *s3<<20)
	}
	if *scale != "" {
		return b.run(ctx, b.scaleTasks(*scale))
	}
	if b.tree == "" {
		b.tree = filepath.Join(work, "tree")
		if err := makeTree(ctx, b.tree, os.Stderr); err != nil {
			return fmt.Errorf("make tree %q: %w", b.tree, err)
		}
	}
	if b.tree, err = filepath.Abs(b.tree); err != nil {
		return err
	}
	if b.sample, err = someFile(b.tree); err != nil {
		return err
	}
	if *levels {
		return b.run(ctx, b.levelTasks())
	}
	return b.run(ctx, b.tasks())
}
