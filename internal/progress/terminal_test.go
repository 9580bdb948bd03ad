package progress

import (
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal, and what was written to it.
type terminal struct {
	*os.File // the side of programs
	mu       sync.Mutex
	shown    strings.Builder
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{File: program}
	term.resize(t, columns)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 4096)
		for {
			n, err := person.Read(buffer) // an error ends it: the other side is closed
			term.mu.Lock()
			term.shown.Write(buffer[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := program.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		if err := person.Close(); err != nil {
			t.Error(err)
		}
	})
	return term
}

func (term *terminal) resize(t *testing.T, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(term.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

// lines waits until a text is shown, and returns the lines since the last call without what moves the cursor.
func (term *terminal) lines(t *testing.T, until string) []string {
	t.Helper()
	control := regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		term.mu.Lock()
		text := control.ReplaceAllString(term.shown.String(), "\n")
		if strings.Contains(text, until) {
			term.shown.Reset()
			term.mu.Unlock()
			return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
		}
		term.mu.Unlock()
	}
	t.Fatalf("%q is never shown", until)
	return nil
}

// A line of progress fits the terminal as it is now, has a bar where there is room for one, and leaves nothing behind.
func TestBarsFitTheTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	term := newTerminal(t, 80)
	screen := NewScreen(term.File)
	work := NewWork(screen, slog.New(slog.NewTextHandler(screen, nil)), "restoring", "")
	work.Started(4 << 30)
	check := func(columns int, until string, hasBar bool) {
		t.Helper()
		var bars int
		for _, line := range term.lines(t, until) {
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("%d columns: %d characters in %q", columns, n, line)
			}
			if strings.Contains(line, "[") && strings.Contains(line, until) {
				bars++
			}
		}
		if hasBar != (bars > 0) {
			t.Errorf("%d columns: %d bars", columns, bars)
		}
	}
	work.Done(1 << 30)
	check(80, "1.0 GiB / 4.0 GiB", true)
	term.resize(t, 58)
	work.Done(1 << 30)
	check(80, "2.0 GiB / 4.0 GiB", false) // the first of these lines may have been drawn before
	work.Done(1 << 29)
	check(58, "2.5 GiB / 4.0 GiB", false)
	term.resize(t, 200)
	work.Done(1 << 29)
	check(200, "3.0 GiB / 4.0 GiB", true)
	if _, err := screen.Write([]byte("a message\n")); err != nil {
		t.Fatal(err)
	}
	term.lines(t, "a message")
	work.Close()
	if _, err := screen.Write([]byte("the end\n")); err != nil {
		t.Fatal(err)
	}
	if last := term.lines(t, "the end"); strings.TrimSpace(last[len(last)-1]) != "the end" {
		t.Errorf("behind the end there is %q", last)
	}
}
