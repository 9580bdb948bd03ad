package progress

import (
	"log/slog"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"voltar/internal/say"
	"voltar/report"
)

// Run shows how work on volumes goes on: a bar for each that is worked on, which goes when that is done, and a line for each volume's
// end; elsewhere than on a terminal also one for its start.
type Run struct {
	log    *slog.Logger
	screen *Screen
	bars   *mpb.Progress // nil where no person watches
	doing  string        // what is done to a volume
	exact  bool          // whether the size of a volume is what will be read of it

	mu    sync.Mutex
	byVol map[string]*mpb.Bar
	first *mpb.Bar // what is done before the first volume
}

// NewRun returns the progress of work on volumes. doing is what is done to each, for the log: "backing up"; before is what is done
// first, "" for nothing to speak of. exact says that all of a volume's size will be read, so that the time left can be told.
func NewRun(screen *Screen, log *slog.Logger, doing, before string, exact bool) *Run {
	p := &Run{log: log, screen: screen, bars: screen.begin(), doing: doing, exact: exact, byVol: map[string]*mpb.Bar{}}
	switch {
	case before == "":
	case p.bars == nil:
		log.Info(before)
	default:
		p.first = p.bars.AddSpinner(0, mpb.AppendDecorators(decor.Name(" "+before), decor.Elapsed(decor.ET_STYLE_MMSS, decor.WC{W: 8})))
	}
	return p
}

// RunStarted names the run in every line that follows.
func (p *Run) RunStarted(id string) {
	p.log = p.log.With("run", id)
	p.log.Info("the run begins")
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
	p.dropFirst()
	began := time.Now()
	last := []decor.Decorator{speedSince(began)}
	if p.exact {
		last = append(last, leftSince(began, "  "))
	} else {
		last = append(last, decor.Elapsed(decor.ET_STYLE_MMSS, decor.WC{W: 8}), leftSince(began, "  at most "))
	}
	p.byVol[name] = newBar(p.bars, sizeBytes, say.Clean(name), countedBytes(), last)
}

// dropFirst ends what was done before the first volume. The caller holds mu.
func (p *Run) dropFirst() {
	if p.first != nil {
		p.first.Abort(true)
		p.first = nil
	}
}

// VolumeRead moves a bar on.
func (p *Run) VolumeRead(name string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bar := p.byVol[name]; bar != nil {
		bar.IncrInt64(bytes)
	}
}

// VolumeEnded takes the bar away and logs what became of the volume.
func (p *Run) VolumeEnded(result report.Volume) {
	p.mu.Lock()
	p.dropFirst()
	bar := p.byVol[result.Name]
	delete(p.byVol, result.Name)
	p.mu.Unlock()
	if bar != nil {
		bar.Abort(true)
	}
	switch {
	case result.Error != nil:
		p.log.Error("failed", "volume", result.Name, "err", result.Error.Message)
	default:
		p.log.Info("done", "volume", result.Name, "status", string(result.Status), "stored", say.Size(result.StoredBytes),
			"took", report.FormatDuration(result.Ended.Sub(result.Started)))
	}
}

// Close leaves the terminal as it was found.
func (p *Run) Close() {
	p.mu.Lock()
	p.dropFirst()
	for _, bar := range p.byVol {
		bar.Abort(true)
	}
	p.mu.Unlock()
	p.screen.end(p.bars)
}
