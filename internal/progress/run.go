// Package progress shows how long work goes on: bars on a terminal, lines of the log elsewhere.
package progress

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"voltar/internal/say"
	"voltar/report"
)

// Run shows how a run goes on: bars on a terminal, a line for each volume's start and end elsewhere.
type Run struct {
	log   *slog.Logger
	bars  *mpb.Progress // nil where no person watches
	doing string        // what is done to a volume

	mu    sync.Mutex
	byVol map[string]*mpb.Bar
}

// NewRun returns the progress of a run on out. doing is what is done to each volume, for the log: "backing up".
func NewRun(out io.Writer, log *slog.Logger, doing string) *Run {
	p := &Run{log: log, doing: doing, byVol: map[string]*mpb.Bar{}}
	if IsTerminal(out) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return p
}

// RunStarted names the run in every line that follows.
func (p *Run) RunStarted(id string) {
	p.log = p.log.With("run", id)
	if p.bars == nil {
		p.log.Info("the run begins")
	}
}

// RunEnded logs what the run came to, where no report on the terminal says so.
func (p *Run) RunEnded(result *report.Run) {
	if p.bars == nil {
		p.log.Info(report.Subject(*result))
	}
}

// VolumeStarted opens a bar. The length is the volume's size: what of it is in use is known later, and a bar that jumps
// to its end is better than one that goes past it.
func (p *Run) VolumeStarted(name string, sizeBytes int64) {
	if p.bars == nil {
		about := []any{"volume", name}
		if sizeBytes > 0 { // what is no volume has no size of its own
			about = append(about, "size", say.Size(sizeBytes))
		}
		p.log.Info(p.doing, about...)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byVol[name] = p.bars.AddBar(sizeBytes,
		mpb.PrependDecorators(decor.Name(say.Clean(name), decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncWidth)),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Elapsed(decor.ET_STYLE_MMSS, decor.WC{W: 8})),
	)
}

// VolumeRead moves a bar on.
func (p *Run) VolumeRead(name string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bar := p.byVol[name]; bar != nil {
		bar.IncrInt64(bytes)
	}
}

// VolumeEnded closes a bar and logs what became of the volume.
func (p *Run) VolumeEnded(result report.Volume) {
	p.mu.Lock()
	bar := p.byVol[result.Name]
	delete(p.byVol, result.Name)
	p.mu.Unlock()
	if bar != nil {
		bar.Abort(false)
	}
	switch {
	case result.Error != nil:
		p.log.Error("volume failed", "volume", result.Name, "err", result.Error.Message)
	default:
		p.log.Info("volume done", "volume", result.Name, "status", string(result.Status), "stored", say.Size(result.StoredBytes),
			"took", report.FormatDuration(result.Ended.Sub(result.Started)))
	}
}

// Close leaves the terminal as it was found.
func (p *Run) Close() {
	if p.bars != nil {
		p.bars.Wait()
	}
}

// IsTerminal tells whether a stream is one that a person watches.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
