package quiesce

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/say"
)

// Phase says when a hook runs.
type Phase string

// Phases, of a run and of each volume. The snapshot phases are of volumes only.
const (
	PhaseBefore         Phase = "before"
	PhaseSnapshotBefore Phase = "snapshot-before" // just before anything is frozen
	PhaseSnapshotAfter  Phase = "snapshot-after"  // as soon as everything goes on again
	PhaseAfter          Phase = "after"
	PhaseOnError        Phase = "on-error"
)

// DefaultHookTimeout ends a hook that sets no time of its own.
const DefaultHookTimeout = 5 * time.Minute

// Hook is a command that runs at one phase.
type Hook struct {
	Name    string // for people
	Phase   Phase
	Command []string      // argv, without a shell
	Timeout time.Duration // 0 means DefaultHookTimeout
	Retries int           // further tries when it fails
	Must    bool          // a failure fails what it is for; else it goes on, and is called crash-consistent
}

// String names it for people.
func (h Hook) String() string { return fmt.Sprintf("hook %s (%s)", h.Name, h.Phase) }

// retryPause is between two tries of a hook or a freeze.
const retryPause = time.Second

// RunHook runs a hook, and again after a failure as often as it says. env is added to its environment. What it writes
// goes to the log line by line; the error has its last line.
func (q *Quieter) RunHook(ctx context.Context, h Hook, env []string) error {
	return Retry(ctx, h.Retries, func() error {
		output := &logWriter{log: q.log.With("hook", h.Name, "phase", string(h.Phase))}
		defer output.flush()
		_, err := q.run.Run(ctx, hostcmd.Cmd{
			Name: h.Command[0], Args: h.Command[1:], Env: env, Stdout: output, Stderr: output,
			Timeout: cmp.Or(h.Timeout, DefaultHookTimeout),
		})
		if err != nil {
			return say.WithHint(fmt.Errorf("%s: %w", h, err), "the log has what it wrote (`journalctl -u voltar`)")
		}
		return nil
	})
}

// Retry does something until it succeeds, so many times more than once.
func Retry(ctx context.Context, retries int, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil || try >= retries || ctx.Err() != nil {
			if err != nil && try > 0 {
				err = fmt.Errorf("after %d tries: %w", try+1, err)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(retryPause):
		}
	}
}

// maxLoggedBytes bounds what of a hook's output goes to the log.
const maxLoggedBytes = 256 << 10

// logWriter logs each line that is written to it, up to maxLoggedBytes.
type logWriter struct {
	log   *slog.Logger
	mu    sync.Mutex
	part  []byte
	bytes int64 // of all that was written
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := max(maxLoggedBytes-w.bytes, 0)
	w.bytes += int64(len(p))
	w.part = append(w.part, p[:min(int64(len(p)), left)]...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 && len(w.part) < maxLineBytes {
			return len(p), nil
		}
		if i < 0 {
			i = len(w.part) - 1
		}
		w.line(w.part[:i+1])
		w.part = w.part[i+1:]
	}
}

func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line(w.part)
	w.part = nil
	if more := w.bytes - maxLoggedBytes; more > 0 {
		w.log.Warn("the rest of the hook's output is not logged: " + say.Size(more))
	}
}

func (w *logWriter) line(text []byte) {
	if line := strings.ToValidUTF8(strings.TrimSpace(string(text)), "\uFFFD"); line != "" {
		w.log.Info(line)
	}
}
