// Voltar backs up the logical volumes of a host as plain files, brings them back, and reports. docs/design.md is the
// way in; one file of this package holds each subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"voltar/internal/mount"
	"voltar/internal/quiesce"
)

// version is set when a release is built.
var version = ""

func main() {
	if status, handled := mount.RunChild(os.Args); handled {
		os.Exit(status)
	}
	if status, handled := quiesce.RunChild(os.Args); handled {
		os.Exit(status)
	}
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but the exit.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := interruptible(ctx)
	defer stop()
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	program := a.program()
	args, err := reorder(program, args)
	if err == nil {
		err = program.RunContext(ctx, args)
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintln(stderr, "voltar:", err)
	}
	return exitCode(ctx, err)
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// interruptible ends the context at the first SIGINT, SIGTERM or SIGHUP; what runs then cleans up. A second one gets no
// special treatment: what cleaning up does is bounded in time.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// app is what the subcommands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (a *app) program() *cli.App {
	return &cli.App{
		Name:                   "voltar",
		Usage:                  "back up LVM volumes as plain files, and bring them back",
		Version:                programVersion(),
		Reader:                 a.stdin,
		Writer:                 a.stdout,
		ErrWriter:              a.stderr,
		HideHelpCommand:        true,
		UseShortOptionHandling: false,
		EnableBashCompletion:   true,
		ExitErrHandler:         func(*cli.Context, error) {}, // run maps errors to exit codes, nothing else exits
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Commands:               a.commands(),
	}
}

// commands lists every subcommand, in the order of the help.
func (a *app) commands() []*cli.Command {
	list := []*cli.Command{
		a.runCommand(),
		a.volumesCommand(),
		a.listCommand(),
		a.pruneCommand(),
		a.forgetCommand(),
		a.snapshotCommand(),
		a.streamCommand(),
		a.checkCommand(),
		a.cleanupCommand(),
		a.initCommand(),
		a.completionCommand(),
		a.manCommand(),
	}
	for _, command := range list {
		command.Flags = append(command.Flags, commonFlags()...)
		for _, c := range append(command.Subcommands, command) {
			c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
			c.HideHelpCommand = true
		}
	}
	return list
}

// commonFlags are taken by every subcommand, before or after its name.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read the configuration from `FILE`", EnvVars: []string{"VOLTAR_CONFIG"}},
		&cli.StringFlag{Name: "log-level", Usage: "log at `LEVEL`: debug, info, warn or error"},
		&cli.BoolFlag{Name: "json", Usage: "print results as JSON"},
	}
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unreleased"
}
