package placement

import (
	"context"
	"errors"
	"io"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/store"
)

// copySharing has a copy share what the destination has of it already.
type copySharing struct {
	from, to    *Previous // the backup that is copied, and the one that is nearest to it on the destination
	sharedBytes int64     // so far
}

// bytes is what was shared so far.
func (s *copySharing) bytes() int64 {
	if s == nil {
		return 0
	}
	return s.sharedBytes
}

// commonBytes is what a copy will share, as far as the indexes of both backups are right. Where they cannot be read that is nothing.
func (s *copySharing) commonBytes(ctx context.Context) (bytes int64, err error) {
	if s == nil {
		return 0, nil
	}
	for _, x := range s.from.backup.Manifest.Extents {
		if x.Archive == "" {
			continue
		}
		from, to, err := s.open(ctx, x.Archive)
		if err == nil && from != nil && to != nil {
			bytes += archive.CommonBytes(from, to)
		}
		if err := errors.Join(err, from.Close(), to.Close()); err != nil {
			return 0, err
		}
	}
	return bytes, nil
}

// sharingWith looks for a backup on the destination with which a copy of another can share its place; nil when there is none.
func (t *Target) sharingWith(ctx context.Context, from *Target, b catalog.Backup) *copySharing {
	e := catalog.EntryOf(b)
	if _, shares := store.SharingOf(ctx, t.Store); !shares || e.Encryption != nil || t.Recipients != nil {
		return nil
	}
	var nearest *catalog.Entry
	for _, have := range t.stock.History(e.Identity) {
		if have.IsGood() && have.Encryption == nil && (nearest == nil || apart(have, e) < apart(*nearest, e)) {
			nearest = &have
		}
	}
	if nearest == nil {
		return nil
	}
	return &copySharing{
		from: &Previous{target: from, entry: e, all: true, loaded: true, backup: b},
		to:   &Previous{target: t, entry: *nearest, all: true},
	}
}

// apart is how long two backups are apart, in seconds.
func apart(a, b catalog.Entry) int64 {
	return max(a.ID.Time.Unix()-b.ID.Time.Unix(), b.ID.Time.Unix()-a.ID.Time.Unix())
}

// writer returns what a file of the backup is to be written to, so that it is shared where it can be. That only saves room:
// where it fails, the file is written as it is. What is returned beside must be called at the end.
func (s *copySharing) writer(ctx context.Context, name string, w store.Writer) (_ io.Writer, end func() error) {
	sharer, canShare := w.(store.Sharer)
	if s == nil || !canShare {
		return w, func() error { return nil }
	}
	from, to, err := s.open(ctx, name)
	end = func() error { return errors.Join(from.Close(), to.Close()) }
	if err != nil {
		t := s.to.target
		t.run.Log.Warn("a copy shares nothing with what lies there", "run", t.run.ID, "destination", t.Name, "file", name, "err", err)
	}
	if err != nil || from == nil || to == nil {
		return w, end
	}
	return archive.NewCommonWriter(&copyWriter{w, sharer, s}, from, to), end
}

// open opens an archive or image as both backups have it; nil for one that has none.
func (s *copySharing) open(ctx context.Context, name string) (from, to *archive.Previous, err error) {
	for _, x := range s.from.backup.Manifest.Extents {
		if x.Archive != name {
			continue
		}
		if from, err = s.from.open(ctx, x.Name, x.State, archive.PreviousOptions{}); err == nil && from != nil {
			to, err = s.to.open(ctx, x.Name, x.State, archive.PreviousOptions{})
		}
		return from, to, err
	}
	return nil, nil, nil
}

// copyWriter is a file of a copy.
type copyWriter struct {
	io.Writer
	sharer  store.Sharer
	sharing *copySharing // which counts
}

func (w *copyWriter) WriteCarried(p []byte, file archive.PreviousFile, offset int64) (int, error) {
	isShared, err := w.sharer.Share(p, file.(*previousFile).Reader, offset)
	if err != nil {
		return 0, err
	}
	if isShared {
		w.sharing.sharedBytes += int64(len(p))
	}
	return len(p), nil
}
