// Package progress shows how long work goes on: bars on a terminal, lines of the log elsewhere.
package progress

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"
)

// refreshEvery is how often bars are drawn.
const refreshEvery = 200 * time.Millisecond

// Screen is where bars and messages share a terminal: while there are bars, what is written comes above them. Elsewhere it is the
// writer behind it. It is safe for concurrent use.
type Screen struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	bars *mpb.Progress // nil when there are none
}

// NewScreen returns a Screen on a writer, which may be a terminal.
func NewScreen(out io.Writer) *Screen {
	return &Screen{out: out, terminal: IsTerminal(out) && !isDumb()}
}

// Write implements io.Writer.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		n, err := s.bars.Write(p)
		if !errors.Is(err, mpb.ErrDone) { // they have ended, and took nothing
			return n, err
		}
	}
	return s.out.Write(p)
}

// begin makes bars possible; nil where no person watches.
func (s *Screen) begin() *mpb.Progress {
	if !s.terminal {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bars = mpb.New(mpb.WithOutput(s.out), mpb.WithRefreshRate(refreshEvery), mpb.WithAutoRefresh())
	return s.bars
}

// end leaves the terminal as it was found. All bars are gone by then.
func (s *Screen) end(bars *mpb.Progress) {
	if bars == nil {
		return
	}
	bars.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bars = nil
}

// IsTerminal tells whether a stream is one that a person watches.
func IsTerminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Colors tells whether a stream is a terminal on which colours are welcome (https://no-color.org).
func Colors(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && !isDumb()
}

// isDumb tells whether the terminal shows sequences that move its cursor or colour its text as they are.
func isDumb() bool { return os.Getenv("TERM") == "dumb" }
