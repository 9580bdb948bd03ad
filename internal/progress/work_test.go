package progress

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"
)

func TestLinesOfWork(t *testing.T) {
	for _, c := range []struct {
		things      string
		done, total int64
		took        time.Duration
		want        string
	}{
		{"", 1 << 30, 4 << 30, 16 * time.Second, "1.0 GiB of 4.0 GiB, 64.0 MiB/s, 48 s left"},
		{"", 0, 4 << 30, 16 * time.Second, "0 B of 4.0 GiB"},
		{"", 4 << 30, 4 << 30, 64 * time.Second, "4.0 GiB of 4.0 GiB, 64.0 MiB/s"},
		{"", 5 << 20, 0, 5 * time.Second, "5.0 MiB, 1.0 MiB/s"}, // nobody knows how much there is
		{"sources", 10, 40, 20 * time.Second, "10 of 40 sources, 1 m 0 s left"},
	} {
		p := &Work{things: c.things, done: c.done, total: c.total}
		if got := p.line(c.took); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestTextsOfBars(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		took        time.Duration
		speed, left string
	}{
		{0, 600 << 20, 10 * time.Second, "0 B/s", ""},
		{100, 1000, 0, "0 B/s", "0 s left"},
		{100 << 20, 600 << 20, 10 * time.Second, "10.0 MiB/s", "50 s left"},
		{1, 1 << 50, time.Hour, "0 B/s", ""},
	} {
		if speed, left := speedText(c.done, c.took), leftText(c.done, c.total, c.took); speed != c.speed || left != c.left {
			t.Errorf("%+v: %q, %q", c, speed, left)
		}
	}
}

// Where nobody watches there are neither bars nor what moves the cursor.
func TestNoBarsElsewhereThanOnATerminal(t *testing.T) {
	var out bytes.Buffer
	screen := NewScreen(&out)
	log := slog.New(slog.NewTextHandler(screen, nil))
	run := NewRun(screen, log, "copying", "comparing", true)
	run.RunStarted("r1")
	run.VolumeStarted("vg/a", 10)
	run.VolumeRead("vg/a", 5)
	run.Close()
	work := NewWork(screen, log, "verifying", "")
	work.Started(10)
	work.Done(5)
	work.Close()
	for _, want := range []string{"comparing", "the run begins", "volume=vg/a"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not said in\n%s", want, out.String())
		}
	}
	if strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("there are escapes in %q", out.String())
	}
}

// A message that comes as the bars end is not lost.
func TestMessagesOutliveTheBars(t *testing.T) {
	var out bytes.Buffer
	screen := NewScreen(&out)
	screen.bars = mpb.New(mpb.WithOutput(io.Discard))
	screen.bars.Wait()
	if n, err := screen.Write([]byte("last words")); err != nil || n != out.Len() || out.String() != "last words" {
		t.Errorf("%d bytes, %v: %q", n, err, out.String())
	}
}

// What is done of one destination says nothing of the next: the bar goes back, and on.
func TestABarOfThingsOutlivesWhatItWasFullOf(t *testing.T) {
	p := NewWork(NewScreen(io.Discard), slog.New(slog.DiscardHandler), "pruning", "sources")
	p.bars = mpb.New(mpb.WithOutput(io.Discard))
	p.open()
	for _, reached := range [][2]int{{1, 1}, {1, 3}, {3, 3}, {0, 2}, {1, 2}} {
		p.Reached(reached[0], reached[1])
		if done := p.bar.Current(); done != int64(reached[0]) || p.bar.Completed() {
			t.Errorf("%v: the bar shows %d done, completed: %t", reached, done, p.bar.Completed())
		}
	}
	p.Close()
}

// Bars move the cursor: a terminal that cannot has none.
func TestNoBarsOnADumbTerminal(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for term, want := range map[string]bool{"dumb": false, "linux": true} {
		t.Setenv("TERM", term)
		s := NewScreen(terminal)
		bars := s.begin()
		if s.end(bars); (bars != nil) != want {
			t.Errorf("TERM=%s: bars %t", term, bars != nil)
		}
	}
}
