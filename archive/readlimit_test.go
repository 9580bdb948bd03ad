package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReadLimitSpreadsReads(t *testing.T) {
	now := time.Unix(1000, 0)
	l := &readLimit{bytesPerSecond: 1000, now: func() time.Time { return now }}
	for i, c := range []struct {
		passed time.Duration // since the read before
		bytes  int
		want   time.Duration
	}{
		{0, 500, 0},
		{0, 1000, 500 * time.Millisecond},
		{0, 1, 1500 * time.Millisecond},
		{time.Second, 0, 501 * time.Millisecond},
		{time.Hour, 2000, 0}, // what was not used is not saved up
		{time.Second, 0, time.Second},
	} {
		now = now.Add(c.passed)
		if got := l.reserve(c.bytes); got != c.want {
			t.Errorf("read %d waits %v, want %v", i, got, c.want)
		}
	}
}

func TestReadLimitHoldsForTreesAndImages(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	pool.LimitReads(1) // the second read waits until the end of time
	content := bytes.Repeat([]byte("slowly"), maxRead)
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), content[:prefetchBytes], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	enough := errors.New("enough")
	for name, write := range map[string]func(context.Context) error{
		"tree": func(ctx context.Context) error {
			_, err := writeTreeTo(t, ctx, dir, io.Discard, io.Discard, TreeOptions{Pool: pool})
			return err
		},
		"image": func(ctx context.Context) error {
			_, err := WriteImage(ctx, bytes.NewReader(content), int64(len(content)), io.Discard, ImageOptions{Pool: pool})
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
		if err := write(ctx); !errors.Is(err, enough) {
			t.Errorf("%s: %v, want it to be waiting until it is told to end", name, err)
		}
	}
}
