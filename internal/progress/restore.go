package progress

import (
	"io"
	"log/slog"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"voltar/internal/say"
	"voltar/report"
)

// progressLineEvery is how often a restore that nobody watches on a terminal says how far it is.
const progressLineEvery = 30 * time.Second

// Restore shows how a restore goes on: a bar on a terminal, lines elsewhere.
type Restore struct {
	log  *slog.Logger
	bars *mpb.Progress // nil where no person watches
	bar  *mpb.Bar

	began, told time.Time
	done, total int64 // bytes
}

// NewRestore returns the progress of a restore on out.
func NewRestore(out io.Writer, log *slog.Logger) *Restore {
	p := &Restore{log: log}
	if IsTerminal(out) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return p
}

// Started opens the bar.
func (p *Restore) Started(totalBytes int64) {
	p.total, p.began, p.told = totalBytes, time.Now(), time.Now()
	if p.bars == nil {
		return
	}
	p.bar = p.bars.AddBar(totalBytes,
		mpb.PrependDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncWidth)),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 14}), decor.Name(" "),
			decor.AverageETA(decor.ET_STYLE_GO), decor.Name(" left")),
	)
}

// Step logs what is done next.
func (p *Restore) Step(text string) { p.log.Info(text) }

// Done moves on.
func (p *Restore) Done(bytes int64) {
	p.done += bytes
	if p.bar != nil {
		p.bar.IncrInt64(bytes)
		return
	}
	now := time.Now()
	if now.Sub(p.told) < progressLineEvery {
		return
	}
	p.told = now
	p.log.Info(progressLine(p.done, p.total, now.Sub(p.began)))
}

// progressLine says how far something is after a time: "1.2 GiB of 4.0 GiB, 120 MiB/s, 24 s left".
func progressLine(done, total int64, took time.Duration) string {
	line := say.Size(done) + " of " + say.Size(total)
	if took <= 0 || done <= 0 {
		return line
	}
	rate := float64(done) / took.Seconds()
	line += ", " + say.Size(int64(rate)) + "/s"
	if left := total - done; left > 0 {
		line += ", " + report.FormatDuration(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
	}
	return line
}

// Close leaves the terminal as it was found.
func (p *Restore) Close() {
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
