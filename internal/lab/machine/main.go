// Machine runs a shell script as root in a throw-away machine, whose output and exit status are its own. `make lab` and
// `make demo` call it.
//
// Inside, /host is the whole file system of the host, read-only, /out the folder of -share, and /dev/ubda the disk of -disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"

	"voltar/internal/lab"
)

const usage = `usage: machine [options] SCRIPT [ARGUMENT...]
Run a shell script as root in a throw-away machine with LVM. The script "-" is read from standard input.

`

// failed is the exit status when there was no machine to run the script, or it stopped on its way.
const failed = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "machine:", err)
		status = failed
	}
	stop()
	os.Exit(status)
}

// run boots the machine that the arguments ask for and returns the status of its script.
func run(ctx context.Context, args []string) (status int, err error) {
	m, diskBytes, err := parse(args)
	if err != nil {
		return 0, err
	}
	if diskBytes > 0 {
		work, err := os.MkdirTemp("", "voltar-lab-")
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
		m.Disk = filepath.Join(work, "disk.img")
		if err := lab.NewDisk(m.Disk, diskBytes); err != nil {
			return 0, err
		}
	}
	m.Stdout = os.Stdout
	return lab.Run(ctx, m)
}

// parse turns the command line into a machine and the size of its disk.
func parse(args []string) (m lab.Machine, diskBytes int64, err error) {
	flags := flag.NewFlagSet("machine", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.Func("disk", "`SIZE` of an empty disk, /dev/ubda, such as 2GiB; without it there is none", sizeInto(&diskBytes))
	flags.Func("memory", "`SIZE` of the memory (default 2GiB)", sizeInto(&m.MemoryBytes))
	modules := flags.String("modules", "", "`NAMES` of further kernel modules, such as \"dm-crypt raid1\"")
	share := flags.String("share", "", "`FOLDER` that the machine sees, writable, as /out; it is made if it is missing")
	flags.BoolVar(&m.Systemd, "systemd", false, "run systemd, journald and udevd, as a production host does")
	if err := flags.Parse(args); err != nil {
		return m, 0, err
	}
	if flags.NArg() == 0 {
		return m, 0, errors.New("which script? (-help tells more)")
	}
	m.Modules, m.Args = strings.Fields(*modules), flags.Args()[1:]
	if m.Script, err = readScript(flags.Arg(0)); err != nil {
		return m, 0, err
	}
	if m.Dir, err = os.Getwd(); err != nil || *share == "" {
		return m, diskBytes, err
	}
	if m.Share, err = filepath.Abs(*share); err != nil {
		return m, 0, err
	}
	return m, diskBytes, os.MkdirAll(m.Share, 0o755)
}

// sizeInto returns what reads an option's size.
func sizeInto(bytes *int64) func(string) error {
	return func(text string) error {
		n, err := humanize.ParseBytes(text)
		if err == nil && n > math.MaxInt64 {
			err = errors.New("too large")
		}
		*bytes = int64(n)
		return err
	}
}

func readScript(path string) (string, error) {
	if path == "-" {
		text, err := io.ReadAll(os.Stdin)
		return string(text), err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}
