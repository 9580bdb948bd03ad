package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/say"
	"voltar/internal/store"
)

// Delete removes an object, in all its versions; see store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s in %s: %w", key, s, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	b, err := s.describe(ctx)
	if err != nil {
		return err
	}
	if !b.versioned {
		return s.remove(ctx, s.object(key), "")
	}
	versions, err := s.versions(ctx, s.object(key))
	if err != nil {
		return err
	}
	for _, v := range oldestFirst(versions) {
		if v.Key != s.object(key) {
			continue
		}
		if err := s.remove(ctx, v.Key, v.VersionID); err != nil {
			return err
		}
	}
	return nil
}

// oldestFirst turns the order of a listing around, so that a deletion that stops half-way leaves the newest version and
// brings no older one back to light.
func oldestFirst(versions []minio.ObjectInfo) []minio.ObjectInfo {
	list := make([]minio.ObjectInfo, 0, len(versions))
	for i := len(versions) - 1; i >= 0; i-- {
		list = append(list, versions[i])
	}
	return list
}

// remove removes one version of an object, or the only one there is. One that is not there is no error.
func (s *Store) remove(ctx context.Context, object, version string) error {
	err := s.try(ctx, quickRetryFor, func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.opts.Bucket, object, minio.RemoveObjectOptions{VersionID: version})
	})
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return err
}

// versions lists every version of the objects whose names begin so, deletion markers included.
func (s *Store) versions(ctx context.Context, begin string) ([]minio.ObjectInfo, error) {
	return s.list(ctx, "", minio.ListObjectsOptions{Prefix: begin, Recursive: true, WithVersions: true})
}

// Sweep ends uploads that were left below a prefix, and removes versions that nothing shows any more; see store.Store.
func (s *Store) Sweep(ctx context.Context, prefix string) (freedBytes int64, err error) {
	freedBytes, err = s.sweep(ctx, prefix)
	if err != nil {
		return freedBytes, fmt.Errorf("sweep %s in %s: %w", prefix, s, err)
	}
	return freedBytes, nil
}

func (s *Store) sweep(ctx context.Context, prefix string) (freedBytes int64, err error) {
	if err := store.CheckPrefix(prefix); err != nil {
		return 0, err
	}
	uploads, err := s.uploads(ctx, s.folder(prefix))
	if err != nil {
		return 0, err
	}
	records, err := s.records.below(prefix)
	if err != nil {
		return 0, err
	}
	for _, n := range records {
		more, err := s.uploads(ctx, s.object(n.Key))
		if err != nil {
			return 0, err
		}
		if n.Upload != "" {
			uploads[n.Upload] = s.object(n.Key)
		}
		for id, object := range more {
			if object == s.object(n.Key) {
				uploads[id] = object
			}
		}
	}
	for id, object := range uploads {
		freed, err := s.endUpload(ctx, object, id)
		freedBytes += freed
		if err != nil {
			return freedBytes, err
		}
	}
	for _, n := range records {
		if err := n.end(); err != nil {
			return freedBytes, err
		}
	}
	if err := s.sweepAnnounced(ctx, prefix); err != nil {
		return freedBytes, err
	}
	freed, err := s.sweepHidden(ctx, prefix)
	return freedBytes + freed, err
}

// uploads lists unfinished uploads of objects whose names begin so, by their ids; none where the server lists none.
func (s *Store) uploads(ctx context.Context, begin string) (found map[string]string, err error) {
	if s.lacks.has(lacksUploads) {
		return map[string]string{}, nil
	}
	err = s.try(ctx, quickRetryFor, func(ctx context.Context) error {
		found = map[string]string{}
		ctx, stop := context.WithCancel(ctx) // ends the listing's goroutine
		defer stop()
		for upload := range s.core.ListIncompleteUploads(ctx, s.opts.Bucket, begin, true) {
			if upload.Err != nil {
				return upload.Err
			}
			if len(found) == s.maxListed {
				return errTooMuch
			}
			if strings.HasPrefix(upload.Key, begin) {
				found[upload.UploadID] = upload.Key
			}
		}
		return ctx.Err() // as in list
	})
	if isUnsupported(err) {
		s.lacks.add(lacksUploads, "the server does not list unfinished uploads: of what a killed run leaves, only those are ended "+
			"that this host has noted; set a lifecycle rule that aborts incomplete uploads")
		return map[string]string{}, nil
	}
	return found, err
}

// endUpload ends an upload and tells what its parts took.
func (s *Store) endUpload(ctx context.Context, object, id string) (freedBytes int64, err error) {
	marker := 0
	for {
		var page minio.ListObjectPartsResult
		err := s.try(ctx, quickRetryFor, func(ctx context.Context) (err error) {
			page, err = s.core.ListObjectParts(ctx, s.opts.Bucket, object, id, marker, 1000)
			return err
		})
		switch {
		case errors.Is(err, store.ErrNotExist):
			return 0, nil
		case isUnsupported(err):
			return 0, s.abandon(ctx, object, id)
		case err != nil:
			return 0, err
		}
		for _, p := range page.ObjectParts {
			freedBytes += p.Size
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return freedBytes, s.abandon(ctx, object, id)
		}
		marker = page.NextPartNumberMarker
	}
}

// Parts that were on their way when their upload was ended may arrive afterwards and stay: it is looked whether the
// upload is gone, and ended again.
const (
	maxAborts  = 5
	abortPause = 500 * time.Millisecond
)

// abandon ends an upload, so that nothing of it is stored any more.
func (s *Store) abandon(ctx context.Context, object, id string) error {
	for range maxAborts {
		err := s.try(ctx, quickRetryFor, func(ctx context.Context) error {
			return s.core.AbortMultipartUpload(ctx, s.opts.Bucket, object, id)
		})
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return fmt.Errorf("end the upload of %s: %w", object, err)
		}
		err = s.try(ctx, quickRetryFor, func(ctx context.Context) error {
			_, err := s.core.ListObjectParts(ctx, s.opts.Bucket, object, id, 0, 1)
			return err
		})
		if errors.Is(err, store.ErrNotExist) || isUnsupported(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look whether the upload of %s has ended: %w", object, err)
		}
		select {
		case <-time.After(abortPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return say.WithHint(fmt.Errorf("cannot end the upload of %s: parts are still there", object),
		"`voltar cleanup` tries again; a lifecycle rule that aborts incomplete uploads helps where this happens often")
}

// sweepHidden removes versions below a prefix whose object is deleted: what a plain deletion only hid.
func (s *Store) sweepHidden(ctx context.Context, prefix string) (freedBytes int64, err error) {
	b, err := s.describe(ctx)
	if err != nil || !b.versioned {
		return 0, err
	}
	versions, err := s.versions(ctx, s.folder(prefix))
	if err != nil {
		return 0, err
	}
	shown := map[string]bool{}
	for _, v := range versions {
		if v.IsLatest && !v.IsDeleteMarker {
			shown[v.Key] = true
		}
	}
	for _, v := range oldestFirst(versions) {
		if shown[v.Key] {
			continue
		}
		if err := s.remove(ctx, v.Key, v.VersionID); err != nil {
			return freedBytes, err
		}
		freedBytes += v.Size
	}
	return freedBytes, nil
}
