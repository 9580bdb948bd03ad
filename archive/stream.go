package archive

import (
	"context"
	"fmt"
	"io"
	"runtime"
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
func WriteStream(ctx context.Context, src io.Reader, out io.Writer, opts StreamOptions) (stats StreamStats, err error) {
	if err := opts.Level.check(); err != nil {
		return stats, err
	}
	counted := &countingWriter{out: out}
	zw, err := pgzip.NewWriterLevel(counted, int(opts.Level.orDefault()))
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
	defer func() {
		stats.ArchiveBytes = counted.bytes
		if err != nil {
			zw.Reset(io.Discard) // else its goroutines stay
			err = fmt.Errorf("compress stream: %w", err)
		}
	}()
	buf := make([]byte, streamBlockBytes)
	for {
		if ctx.Err() != nil {
			return stats, context.Cause(ctx)
		}
		n, readErr := src.Read(buf)
		stats.ContentBytes += int64(n)
		if _, err := zw.Write(buf[:n]); err != nil {
			return stats, err
		}
		if opts.OnProgress != nil && n > 0 {
			opts.OnProgress(Progress{ContentBytes: stats.ContentBytes})
		}
		if readErr == io.EOF { //nolint:errorlint // an end is io.EOF itself; what wraps it is a failure
			return stats, zw.Close()
		}
		if readErr != nil {
			return stats, fmt.Errorf("read: %w", readErr)
		}
	}
}

type countingWriter struct {
	out   io.Writer
	bytes int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.out.Write(p)
	w.bytes += int64(n)
	return n, err
}
