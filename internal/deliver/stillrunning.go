package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"voltar/internal/backup"
	"voltar/internal/say"
	"voltar/report"
	"voltar/report/notify"
)

// StillRunning tells people of a run that goes on and on, as its report comes only when it ends. It is the run's progress,
// which it passes on.
type StillRunning struct {
	backup.Progress
	to    *Delivery
	sleep func(ctx context.Context, d time.Duration) error

	mu      sync.Mutex
	id      string
	started time.Time
	atWork  map[string]time.Time
	done    int
}

// StillRunning returns what tells of a run that goes on and on; next is the progress that it passes on to.
func (d *Delivery) StillRunning(next backup.Progress) *StillRunning {
	return &StillRunning{Progress: next, to: d, sleep: sleep, atWork: make(map[string]time.Time)}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// RunStarted implements backup.Progress.
func (w *StillRunning) RunStarted(id string) {
	w.mu.Lock()
	w.id, w.started = id, w.to.Now()
	w.mu.Unlock()
	w.Progress.RunStarted(id)
}

// VolumeStarted implements backup.Progress.
func (w *StillRunning) VolumeStarted(name string, sizeBytes int64) {
	w.mu.Lock()
	w.atWork[name] = w.to.Now()
	w.mu.Unlock()
	w.Progress.VolumeStarted(name, sizeBytes)
}

// VolumeEnded implements backup.Progress.
func (w *StillRunning) VolumeEnded(result report.Volume) {
	w.mu.Lock()
	delete(w.atWork, result.Name)
	w.done++
	w.mu.Unlock()
	w.Progress.VolumeEnded(result)
}

// Watch tells each time that the run has gone on for one more span, until end is called.
func (w *StillRunning) Watch(ctx context.Context, span time.Duration) (end func()) {
	if span <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for times := 1; w.sleep(ctx, span) == nil; times++ {
			if err := w.tell(ctx, times, time.Duration(times)*span); err != nil {
				say.Log(w.to.Log.Error, fmt.Errorf("cannot tell that the run is still going on: %w", err))
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// tell sends what is known of the run so far over every channel.
func (w *StillRunning) tell(ctx context.Context, times int, after time.Duration) error {
	routes, routesErr := w.to.routes(ctx)
	message, err := notify.NewMessage(w.report(times, after), report.Options{Location: time.Local})
	if err != nil {
		return errors.Join(err, routesErr)
	}
	return errors.Join(w.to.notifier(routes).Deliver(ctx, message, nil), routesErr)
}

// report is that of a run that has not ended.
func (w *StillRunning) report(times int, after time.Duration) report.Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.to.Now()
	var names []string
	for name, since := range w.atWork {
		names = append(names, fmt.Sprintf("%s (since %s)", name, since.Local().Format("2006-01-02 15:04")))
	}
	slices.Sort(names)
	at := "at work on no volume now"
	if len(names) > 0 {
		at = "at work on " + strings.Join(names, ", ")
	}
	return report.Run{
		Schema: report.Schema, ID: fmt.Sprintf("%s-running%d", w.id, times), Host: w.to.Host, Version: w.to.Version,
		Config: w.to.Config.Path(), Command: "run", Started: w.started, Ended: now,
		Errors: []report.Problem{{
			Message: fmt.Sprintf("still running after %g hours: %s; volumes done: %d", after.Hours(), at, w.done),
			Hint:    "`voltar cancel VOLUME` takes one out of the run; max_duration in [limits] bounds each",
		}},
	}
}
