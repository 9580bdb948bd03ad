package s3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/say"
	"voltar/internal/store"
)

// bucket is what the server says of the whole bucket.
type bucket struct {
	versioned bool          // or was once, or may be
	locking   bool          // objects can be held
	holding   time.Duration // every object, by the bucket's own setting
	notes     []string
}

// describe asks what kind of bucket it is, once.
func (s *Store) describe(ctx context.Context) (bucket, error) {
	s.mu.Lock()
	known := s.bucket
	s.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	b, err := s.ask(ctx)
	if err != nil {
		return bucket{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bucket = &b
	return b, nil
}

func (s *Store) ask(ctx context.Context) (b bucket, err error) {
	var versioning minio.BucketVersioningConfiguration
	err = s.try(ctx, quickRetryFor, func(ctx context.Context) (err error) {
		versioning, err = s.core.GetBucketVersioning(ctx, s.opts.Bucket)
		return err
	})
	switch {
	case err == nil:
		b.versioned = versioning.Enabled() || versioning.Suspended()
	case isUnsupported(err), isCode(err, "VersioningNotConfigured"):
	case isDenied(err):
		b.versioned = true
		b.notes = append(b.notes, "the credentials may not ask whether the bucket keeps versions (s3:GetBucketVersioning): "+
			"it is taken to")
	default:
		return b, err
	}
	err = s.askLock(ctx, &b)
	return b, err
}

func (s *Store) askLock(ctx context.Context, b *bucket) error {
	var enabled string
	var mode *minio.RetentionMode
	var validity *uint
	var unit *minio.ValidityUnit
	err := s.try(ctx, quickRetryFor, func(ctx context.Context) (err error) {
		enabled, mode, validity, unit, err = s.core.GetObjectLockConfig(ctx, s.opts.Bucket)
		return err
	})
	switch {
	case err == nil:
		b.locking = enabled == "Enabled"
	case isUnsupported(err), isCode(err, "ObjectLockConfigurationNotFoundError", "InvalidBucketObjectLockConfiguration"),
		errors.Is(err, store.ErrNotExist):
	case isDenied(err):
		b.locking = true
		b.notes = append(b.notes, "the credentials may not ask whether the bucket locks objects "+
			"(s3:GetBucketObjectLockConfiguration): it is taken to")
	default:
		return err
	}
	if mode != nil && validity != nil && unit != nil && *mode != "" {
		b.holding = time.Duration(*validity) * lockDay
		if *unit == minio.Years {
			b.holding *= 366
		}
		b.notes = append(b.notes, fmt.Sprintf("the bucket itself holds every new object for %d %s (%s): nothing can be pruned before",
			*validity, strings.ToLower(unit.String()), strings.ToLower(mode.String())))
	}
	if s.opts.Lock.Mode != "" && !b.locking {
		return say.WithHint(errors.New("cannot lock objects: the bucket was made without object lock"),
			"make one with it, or remove object_lock")
	}
	return nil
}

func (l Lock) check() error {
	switch {
	case l == Lock{}:
		return nil
	case l.Mode != "governance" && l.Mode != "compliance":
		return say.WithHint(fmt.Errorf("cannot lock objects in mode %q", l.Mode),
			"object_lock.mode is \"governance\" or \"compliance\"")
	case l.Days < 1:
		return say.WithHint(errors.New("cannot lock objects for less than a day"), "set object_lock.days")
	}
	return nil
}

// lockDay is what object_lock.days counts.
const lockDay = 24 * time.Hour

// LockFor returns for how long objects are held from now on; 0 when they are not. See store.Locker.
func (s *Store) LockFor() time.Duration {
	return time.Duration(s.opts.Lock.Days) * lockDay
}

// Lock holds objects until a time; one that is held for longer stays so. See store.Locker.
func (s *Store) Lock(ctx context.Context, keys []string, until time.Time) error {
	if s.opts.Lock.Mode == "" {
		return nil
	}
	if _, err := s.describe(ctx); err != nil {
		return fmt.Errorf("lock objects in %s: %w", s, err)
	}
	for _, key := range keys {
		if err := s.lock(ctx, key, until); err != nil {
			return fmt.Errorf("lock %s in %s: %w", key, s, err)
		}
	}
	return nil
}

func (s *Store) lock(ctx context.Context, key string, until time.Time) error {
	info, err := s.stat(ctx, key, "")
	if err != nil {
		return err
	}
	if held := heldUntil(info); !held.Before(until) {
		return nil
	}
	return s.retain(ctx, key, info.VersionID, until)
}

// retain holds one version of an object.
func (s *Store) retain(ctx context.Context, key, version string, until time.Time) error {
	mode := minio.RetentionMode(strings.ToUpper(s.opts.Lock.Mode))
	until = until.UTC().Truncate(time.Second)
	return s.try(ctx, s.opts.RetryFor, func(ctx context.Context) error {
		return s.core.PutObjectRetention(ctx, s.opts.Bucket, s.object(key), minio.PutObjectRetentionOptions{
			Mode: &mode, RetainUntilDate: &until, VersionID: version,
		})
	})
}

// LockedUntil returns when an object's lock ends; see store.Locker.
func (s *Store) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	info, err := s.stat(ctx, key, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("look until when %s in %s is locked: %w", key, s, err)
	}
	return heldUntil(info), nil
}

// Headers that tell how an object is held.
const (
	headerRetainUntil = "X-Amz-Object-Lock-Retain-Until-Date"
	headerLegalHold   = "X-Amz-Object-Lock-Legal-Hold"
)

// heldUntil is the end of an object's retention, or the zero time.
func heldUntil(info minio.ObjectInfo) time.Time {
	t, err := time.Parse(time.RFC3339, info.Headers.Get(headerRetainUntil))
	if err != nil {
		return time.Time{}
	}
	return t
}

// CheckDelete asks whether any of the objects is held; see store.DeleteChecker.
func (s *Store) CheckDelete(ctx context.Context, keys []string) error {
	b, err := s.describe(ctx)
	if err != nil {
		return fmt.Errorf("look for locks in %s: %w", s, err)
	}
	if !b.locking {
		return nil
	}
	for _, key := range keys {
		if err := s.checkDelete(ctx, key, b.holding); err != nil {
			return fmt.Errorf("look whether %s in %s is locked: %w", key, s, err)
		}
	}
	return nil
}

// checkDelete looks at every version. Some servers do not say of an object that the bucket's own setting holds it.
func (s *Store) checkDelete(ctx context.Context, key string, holding time.Duration) error {
	versions, err := s.versions(ctx, s.object(key))
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.Key != s.object(key) || v.IsDeleteMarker {
			continue
		}
		info, err := s.stat(ctx, key, v.VersionID)
		if err != nil {
			return err
		}
		if info.Headers.Get(headerLegalHold) == "ON" {
			return fmt.Errorf("%w: a legal hold is on it", store.ErrLocked)
		}
		until := heldUntil(info)
		if byBucket := info.LastModified.Add(holding); byBucket.After(until) {
			until = byBucket
		}
		if until.After(time.Now()) {
			return &store.LockedError{Until: until}
		}
	}
	return nil
}

// Probe tries what a backup needs, with an object of its own that it removes again, and returns what people should know
// of the bucket; see store.Store.
func (s *Store) Probe(ctx context.Context) (notes []string, err error) {
	if _, err := s.describe(ctx); err != nil {
		return nil, fmt.Errorf("ask for the bucket of %s: %w", s, err)
	}
	if _, err := s.refusesToReplace(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	const key = "voltar-check"
	w, err := s.Create(ctx, key, store.PutOptions{MaxBytes: 1, Tags: map[string]string{"run": "check"}})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write([]byte{'\n'}); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	if _, err := w.Commit(ctx); err != nil {
		return nil, err
	}
	if _, err := s.Folders(ctx, ""); err != nil { // and not all objects of all hosts
		return nil, err
	}
	notes = s.Notes()
	if err := s.CheckDelete(ctx, []string{key}); errors.Is(err, store.ErrLocked) {
		return append(notes, "the object of this check stays, as the bucket holds it"), nil
	}
	return notes, s.Delete(ctx, key)
}

// Notes are what people should know of the bucket and its server, as far as it was asked yet.
func (s *Store) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket == nil {
		return s.lacks.list()
	}
	return append(slices.Clone(s.bucket.notes), s.lacks.list()...)
}
