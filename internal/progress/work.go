package progress

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"voltar/internal/say"
)

// lineEvery is how often work that nobody watches on a terminal says how far it is.
const lineEvery = 30 * time.Second

// Work shows the progress of one task: one bar on a terminal, lines elsewhere. It is safe for concurrent use.
type Work struct {
	log    *slog.Logger
	screen *Screen
	doing  string // "verifying"; may be ""
	things string // what is counted; "" for bytes

	mu          sync.Mutex
	bars        *mpb.Progress // nil before Started, and where no person watches
	bar         *mpb.Bar
	began, told time.Time
	done, total int64
}

// NewWork returns the progress of work that is measured in bytes, or in things: "sources".
func NewWork(screen *Screen, log *slog.Logger, doing, things string) *Work {
	return &Work{log: log, screen: screen, doing: doing, things: things}
}

// Started opens the bar.
func (p *Work) Started(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.began, p.told = total, time.Now(), time.Now()
	if p.bars = p.screen.begin(); p.bars != nil {
		p.open()
	}
}

// open adds the bar. The caller holds mu.
func (p *Work) open() {
	counters, speed := countedBytes(), speedSince(p.began)
	if p.things != "" {
		counters = decor.CountersNoUnit("%d / %d "+p.things, decor.WCSyncWidth)
		speed = decor.AverageSpeed(0, "%.1f/s", decor.WC{W: 10})
	}
	last := []decor.Decorator{speed, leftSince(p.began, "  ")}
	if p.things == "" {
		p.bar = newBar(p.bars, p.total, p.doing, counters, last)
		return
	}
	// A bar that begins with nothing never ends by itself: how much there is may grow.
	label := decor.Name(p.doing, decor.WCSyncSpaceR)
	p.bar = p.bars.AddBar(0, mpb.PrependDecorators(label, counters), mpb.AppendDecorators(last...), wideEnough())
	p.bar.SetTotal(p.total, false)
}

// Step logs what is done next.
func (p *Work) Step(text string) { p.log.Info(text) }

// Done moves on, by what was done since it was last called.
func (p *Work) Done(more int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += more
	if p.bar != nil {
		p.bar.IncrInt64(more)
		return
	}
	p.tell()
}

// tell says in a line how far the work is, now and then. The caller holds mu.
func (p *Work) tell() {
	now := time.Now()
	if p.began.IsZero() || now.Sub(p.told) < lineEvery {
		return
	}
	p.told = now
	p.log.Info(p.line(now.Sub(p.began)))
}

// line says how far the work is after a time: "1.2 GiB of 4.0 GiB, 120 MiB/s, 24 s left".
func (p *Work) line(took time.Duration) string {
	amount := say.Size
	if p.things != "" {
		amount = func(n int64) string { return fmt.Sprint(n) }
	}
	line := amount(p.done)
	if p.total > 0 {
		line += " of " + amount(p.total)
	}
	if p.things != "" {
		line += " " + p.things
	}
	if took <= 0 || p.done <= 0 {
		return line
	}
	rate := float64(p.done) / took.Seconds()
	if p.things == "" {
		line += ", " + say.Size(int64(rate)) + "/s"
	}
	if left := leftText(p.done, p.total, took); left != "" && p.done < p.total {
		line += ", " + left
	}
	return line
}

// Reached sets how many things are done, and of how many, which may change.
func (p *Work) Reached(done, of int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = int64(done), int64(of)
	if p.bar != nil {
		p.bar.SetTotal(p.total, false)
		p.bar.SetCurrent(p.done)
		return
	}
	p.tell()
}

// Close leaves the terminal as it was found.
func (p *Work) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Abort(true)
	}
	p.screen.end(p.bars)
	p.bars, p.bar = nil, nil
}
