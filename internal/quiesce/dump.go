package quiesce

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"voltar/internal/hostcmd"
)

// DefaultDumpTimeout ends a dump that sets no time of its own.
const DefaultDumpTimeout = 12 * time.Hour

// Dump is a command whose output is kept.
type Dump struct {
	Name    string
	Remote  Remote
	Command []string // argv, without a shell
	Timeout time.Duration
	Preset  string // that the command is from; "" for none
	// Trailer, where set, is text that the last 512 bytes of the output must hold: a dump program that ends well has written
	// it, whatever its exit status went through.
	Trailer string
}

// Names of presets.
const (
	PresetMySQL      = "mysql"
	PresetPostgreSQL = "postgresql"
)

// PresetDump fills in the command of a dump from a preset. extra is put behind the program's name, such as an option that
// names a file with the password.
func PresetDump(preset string, extra []string) (command []string, trailer string, err error) {
	switch preset {
	case PresetMySQL:
		// MariaDB's own name for it comes first; some of its packages have no other.
		find := `program=$(command -v mariadb-dump || command -v mysqldump) || {
	echo "there is neither mariadb-dump nor mysqldump" >&2
	exit 127
}
exec "$program" "$@"`
		command = append([]string{"sh", "-c", find, "mysqldump"}, extra...)
		return append(command, "--single-transaction", "--quick", "--all-databases", "--routines", "--events", "--triggers",
			"--hex-blob"), "-- Dump completed", nil
	case PresetPostgreSQL:
		return append(append([]string{"pg_dumpall"}, extra...), "--no-password"), "-- PostgreSQL database cluster dump complete", nil
	}
	return nil, "", fmt.Errorf("there is no preset %q", preset)
}

// ErrShort says that a dump ended well but lacks its end.
var ErrShort = errors.New("the dump lacks its last line, and so its end")

// RunDump runs a dump and gives its output to consume. The reader that consume gets ends with an error unless the
// command ended with status 0: what was read is then no dump, and consume must not call it one. When consume returns
// early, the command is ended.
func (q *Quieter) RunDump(ctx context.Context, d Dump, consume func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	argv := d.Remote.argv(DefaultTimeout, d.Command...)
	reader, writer := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tail := &trailer{Writer: writer}
		_, err := q.run.Run(ctx, hostcmd.Cmd{
			Name: argv[0], Args: argv[1:], Stdout: tail, Timeout: cmp.Or(d.Timeout, DefaultDumpTimeout),
		})
		if err == nil && !tail.has(d.Trailer) {
			err = ErrShort
		}
		writer.CloseWithError(err) // nil is the end of the output
	}()
	err := consume(reader)
	if err != nil {
		cancel(err)
	}
	reader.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-ended
	if err != nil {
		return fmt.Errorf("dump %s: %w", d.Name, err)
	}
	return nil
}

// trailer passes output on and remembers its end.
type trailer struct {
	io.Writer
	tail []byte
}

const trailerBytes = 512

func (t *trailer) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.tail = append(t.tail, p[max(0, n-trailerBytes):n]...)
	t.tail = t.tail[max(0, len(t.tail)-trailerBytes):]
	return n, err
}

func (t *trailer) has(text string) bool { return text == "" || bytes.Contains(t.tail, []byte(text)) }
