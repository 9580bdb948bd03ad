package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/pgzip"
)

const streamBlockBytes = 1 << 20

// StreamOptions say how WriteStream works.
type StreamOptions struct {
	Level      Level          // 0 means LevelDefault
	Workers    int            // that compress; 0 or less means one for each CPU
	OnProgress func(Progress) // called after each MiB that was read
}

// StreamStats is what WriteStream did.
type StreamStats struct {
	ContentBytes int64 // read from the source
	ArchiveBytes int64
}

// WriteStream compresses src to its end into one gzip member, for data without a structure of its own, like the output
// of dump commands. What it writes depends on the data and the level, not on the workers. A Read of src that hangs is the
// caller's to interrupt when ctx ends. An error leaves out unfinished and useless.
func WriteStream(ctx context.Context, src io.Reader, out io.Writer, opts StreamOptions) (StreamStats, error) {
	var stats StreamStats
	if err := opts.Level.check(); err != nil {
		return stats, err
	}
	sink := &streamSink{out: out}
	zw, err := pgzip.NewWriterLevel(sink, int(opts.Level.orDefault()))
	if err != nil {
		return stats, fmt.Errorf("compress stream: %w", err)
	}
	zw.ModTime = time.Unix(0, 0) // the zero time.Time would be written as garbage
	workers := opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if err := zw.SetConcurrency(streamBlockBytes, workers); err != nil {
		return stats, fmt.Errorf("compress stream: %w", err)
	}
	stats.ContentBytes, err = copyStream(ctx, src, zw, sink, opts.OnProgress)
	if err != nil {
		sink.fail(err) // an end that looks good must not be written
	}
	err = errors.Join(zw.Close(), sink.failure()) // Close ends the goroutines in any case
	stats.ArchiveBytes = sink.written()
	if err != nil {
		return stats, fmt.Errorf("compress stream: %w", err)
	}
	return stats, nil
}

// copyStream feeds src to the compressor until it ends, and returns how much that was.
func copyStream(
	ctx context.Context, src io.Reader, zw io.Writer, sink *streamSink, progress func(Progress),
) (int64, error) {
	var total int64
	buf := make([]byte, streamBlockBytes)
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		n, readErr := src.Read(buf)
		total += int64(n)
		if _, err := zw.Write(buf[:n]); err != nil {
			return total, err
		}
		if err := sink.failure(); err != nil {
			return total, err
		}
		if progress != nil && n > 0 {
			progress(Progress{ContentBytes: total, ArchiveBytes: sink.written()})
		}
		if readErr == io.EOF { //nolint:errorlint // an end is io.EOF itself; what wraps it is a failure
			return total, nil
		}
		if readErr != nil {
			return total, fmt.Errorf("read: %w", readErr)
		}
	}
}

// streamSink stands between pgzip and the output. It keeps the first error to itself and then takes all and drops it:
// pgzip leaves goroutines behind when a write fails.
type streamSink struct {
	out io.Writer

	mu    sync.Mutex
	bytes int64
	err   error
}

func (s *streamSink) Write(p []byte) (int, error) {
	if s.failure() != nil {
		return len(p), nil
	}
	if err := writeAll(s.out, p); err != nil {
		s.fail(fmt.Errorf("write: %w", err))
		return len(p), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(len(p))
	return len(p), nil
}

func (s *streamSink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *streamSink) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *streamSink) written() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}
