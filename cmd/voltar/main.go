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
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"voltar/internal/cmdline"
	"voltar/internal/mount"
	"voltar/internal/progress"
	"voltar/internal/quiesce"
	"voltar/internal/say"
)

// version is set when a release is built.
var version = ""

func main() {
	keepOutOfCoreDumps()
	if status, handled := mount.RunChild(os.Args); handled {
		os.Exit(status)
	}
	if status, handled := quiesce.RunChild(os.Args); handled {
		os.Exit(status)
	}
	boundMemory()
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// keepOutOfCoreDumps sees to it that no file holds the program's memory, and with it passwords and keys, should it crash,
// whatever limits and handlers of core dumps the host has. Root alone has them; for others the kernel would also close
// their own /proc/self to them.
func keepOutOfCoreDumps() {
	if os.Geteuid() == 0 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // fails for other values only
	}
}

// boundMemory lets the heap grow by a quarter between collections instead of to its double. Nearly all of it are buffers that are
// used again and again: a collection costs next to nothing.
func boundMemory() { growBetweenCollections(25) }

// listMany lets the heap of a listing become three times as large between collections: it is made of small things that all stay.
func listMany() { growBetweenCollections(200) }

// growBetweenCollections sets by how much the heap grows between collections, unless the environment does.
func growBetweenCollections(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// run is the whole program but the exit.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return newApp(stdin, stdout, stderr, time.Now).execute(ctx, args)
}

// execute runs the command line and returns the exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	ctx, stop := interruptible(ctx)
	defer stop()
	program := a.program()
	line, err := program.Parse(args)
	switch {
	case errors.Is(err, cmdline.ErrHelp):
		_, err = io.WriteString(a.stdout, program.Help(line.Path))
	case err == nil:
		err = program.RunContext(ctx, line.Words)
	}
	err = errors.Join(err, a.close())
	said := withoutUnread(err)
	if said != nil && !errors.Is(said, errReported) {
		a.printError(said)
	}
	if said == nil && err != nil {
		return exitUnread
	}
	return exitCode(ctx, said)
}

// printError says what went wrong, each cause with what can be done about it.
func (a *app) printError(err error) {
	_, _ = say.Painted(a.stderr, "", say.Red, "voltar:", " "+say.Text(err)+"\n")
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// interruptible ends the context at the first SIGINT, SIGTERM or SIGHUP; what runs then cleans up. A second one gets no
// special treatment: what cleaning up does is bounded in time.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Whoever read the output may be gone. Unless the signal is asked for, a line to it would end the process on the spot,
	// with its snapshots standing; so it is an error of that write alone.
	brokenPipes := make(chan os.Signal, 1)
	signal.Notify(brokenPipes, syscall.SIGPIPE)
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); signal.Stop(brokenPipes); cancel(nil) }
}

// app is what the subcommands share.
type app struct {
	stdin          io.Reader
	stdout, stderr *say.Writer // clean whatever is printed
	rawOut         output      // for what is no text: contents of files, documents
	rawErr         io.Writer
	screen         *progress.Screen
	now            func() time.Time
	tty, proc      string // the controlling terminal, and the folder of processes
	closers        []func() error
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, now func() time.Time) *app {
	screen := progress.NewScreen(stderr)
	a := &app{stdin: stdin, stdout: say.NewWriter(output{stdout}), stderr: say.NewWriter(screen),
		rawOut: output{stdout}, rawErr: stderr, screen: screen, now: now,
		tty: "/dev/tty", proc: "/proc"}
	a.stdout.UseColors(progress.Colors(stdout))
	a.stderr.UseColors(progress.Colors(stderr))
	a.atEnd(a.stdout.Close)
	return a
}

// atEnd has something done when the program ends, last in first out.
func (a *app) atEnd(do func() error) { a.closers = append(a.closers, do) }

func (a *app) close() error {
	var all []error
	for _, do := range slices.Backward(a.closers) {
		all = append(all, do())
	}
	return errors.Join(all...)
}

func (a *app) program() *cmdline.Program {
	p := &cmdline.Program{App: &cli.App{
		Name:            "voltar",
		Usage:           "back up LVM volumes as plain files, and restore them",
		Version:         programVersion(),
		Reader:          a.stdin,
		Writer:          a.stdout,
		ErrWriter:       a.stderr,
		HideHelp:        true,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // run maps errors to exit codes, nothing else exits
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError(err) },
		Action: func(*cli.Context) error { // a timer without its command must not look as if it had run
			return usageError(say.WithHint(errors.New("name a command"), "`voltar --help` lists the commands"))
		},
	}, Common: commonFlags(), Elsewhere: elsewhere()}
	p.Commands = a.commands(p)
	return p
}

// elsewhere are commands that people know from restic, Borg, vzdump and others, with those that do what they do.
func elsewhere() map[string][]string {
	return map[string][]string{
		"status": {"report", "list", "check"}, "info": {"report", "list"}, "history": {"report --list"}, "stats": {"report"},
		"backup": {"run"}, "create": {"run"}, "start": {"run"}, "stop": {"cancel"}, "abort": {"cancel"},
		"snapshots": {"list"}, "backups": {"list"}, "lvs": {"volumes"}, "test": {"check", "verify", "drill"},
		"find": {"ls"},
		"dump": {"cat"}, "show": {"report", "ls"}, "delete": {"forget", "prune"}, "remove": {"forget", "prune"}, "rm": {"forget", "prune"},
		"clean": {"cleanup", "prune"}, "sync": {"copy"}, "config": {"init", "check"}, "setup": {"init"}, "log": {"report"},
		"version": {"--version"},
	}
}

// commands lists every subcommand by groups, in the order of the help.
func (a *app) commands(p *cmdline.Program) []*cli.Command {
	groups := []cmdline.Group{
		{Name: "Set up", Commands: []*cli.Command{a.initCommand(), a.checkCommand(), a.volumesCommand()}},
		{Name: "Back up", Commands: []*cli.Command{a.runCommand(), a.cancelCommand(), a.streamCommand(), a.snapshotCommand()}},
		{Name: "Look at backups", Commands: []*cli.Command{a.listCommand(), a.lsCommand(), a.catCommand(), a.verifyCommand(), a.drillCommand(),
			a.reportCommand()}},
		{Name: "Restore", Commands: []*cli.Command{a.restoreCommand(), a.extractCommand(), a.mountCommand()}},
		{Name: "Look after backups", Commands: []*cli.Command{a.pruneCommand(), a.forgetCommand(), a.copyCommand(), a.signCommand(),
			a.cleanupCommand()}},
		{Name: "Get help", Commands: []*cli.Command{a.helpCommand(p), a.completionCommand(), a.manCommand(p), a.completeCommand(p),
			a.reportFailureCommand()}},
	}
	var list []*cli.Command
	for _, group := range groups {
		for _, command := range group.Commands {
			command.Category = group.Name
			prepare(command)
			list = append(list, command)
		}
	}
	return list
}

// prepare gives a command, and those below it, what all have in common.
func prepare(command *cli.Command) {
	command.Flags = append(command.Flags, commonFlags()...)
	command.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError(err) }
	command.HideHelp = true
	if command.ArgsUsage == "" && len(command.Subcommands) == 0 {
		command.Before = cmdline.RefuseArguments
	}
	if len(command.Subcommands) > 0 {
		command.Action = func(*cli.Context) error {
			return usageError(say.WithHint(fmt.Errorf("name a command of voltar %s", command.Name),
				fmt.Sprintf("`voltar %s --help` lists them", command.Name)))
		}
	}
	for _, sub := range command.Subcommands {
		prepare(sub)
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
