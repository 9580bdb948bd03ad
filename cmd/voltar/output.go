package main

import (
	"bufio"
	"errors"
	"io"
	"reflect"
	"syscall"
	"text/tabwriter"
	"time"

	"voltar/internal/say"
)

// errUnread is the error of writing to a pipe that nobody reads any more, as after `voltar list | head`.
var errUnread = errors.New("nobody reads the output")

// output is the standard output. A pipe that nobody reads any more is errUnread to who writes.
type output struct{ to io.Writer }

func (o output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		err = errUnread
	}
	return n, err
}

// withoutUnread is what else an error says than that nobody reads the output; nil for nothing.
func withoutUnread(err error) error {
	joined := say.Joined(err)
	switch {
	case !errors.Is(err, errUnread):
		return err
	case joined == nil:
		return nil
	}
	var rest []error
	for _, e := range joined {
		rest = append(rest, withoutUnread(e))
	}
	return errors.Join(rest...)
}

// printJSON writes a result for programs. A list without entries is [], and never null.
func (a *app) printJSON(value any) error {
	if v := reflect.ValueOf(value); v.Kind() == reflect.Slice && v.IsNil() {
		value = reflect.MakeSlice(v.Type(), 0, 0).Interface()
	}
	data, err := say.JSON(value, "  ")
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(data, '\n'))
	return err
}

// table is text in columns. It is printed by Flush, many lines at a time.
type table struct {
	*tabwriter.Writer
	lines *bufio.Writer
}

func (a *app) newTable() table {
	lines := bufio.NewWriterSize(a.stdout, 64<<10)
	return table{tabwriter.NewWriter(lines, 0, 0, 2, ' ', 0), lines}
}

// Flush ends the table.
func (t table) Flush() error {
	if err := t.Writer.Flush(); err != nil {
		return err
	}
	return t.lines.Flush()
}

// shortTime is a time for people, in the clock of this host.
func shortTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
