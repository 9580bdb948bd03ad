package sign

import (
	"errors"
	"path"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/patient"
	"voltar/internal/store/s3"
	"voltar/internal/store/s3/s3test"
)

// In buckets of real servers, too, a signature appears once, goes with its backup, and is held as long as the manifest: also
// where the server replaces what it is told not to, and where it keeps versions.
func TestSignaturesInBuckets(t *testing.T) {
	key, trusted, _, _ := newKey(t)
	for _, c := range []struct {
		name   string
		kind   s3test.Kind
		bucket s3test.Bucket
		lock   s3.Lock
	}{
		{"versitygw", s3test.Versitygw, s3test.Bucket{}, s3.Lock{}},
		{"minio-versioned", s3test.MinIO, s3test.Bucket{Versioned: true}, s3.Lock{}},
		{"minio-locked", s3test.MinIO, s3test.Bucket{Locking: true}, s3.Lock{Mode: "compliance", Days: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := s3test.Start(t, c.kind)
			server.Make(t, c.name, c.bucket)
			bucket, err := s3.Open(s3.Options{
				Endpoint: server.Endpoint, Bucket: c.name, Region: s3test.Region, Lock: c.lock, StateDir: t.TempDir(),
				Credentials: s3.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey},
				RetryFor:    20 * time.Second, Timeout: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			plain := patient.Wrap(bucket, time.Minute, "")
			signed := Wrap(plain, Options{Key: key, Trusted: trusted})
			folder := add(t, signed, "host", night)
			other := add(t, plain, "host", night.Add(time.Hour))
			if good, untrusted := list(t, signed, "host"); good != 1 || untrusted != 1 {
				t.Fatalf("%d good, %d untrusted", good, untrusted)
			}
			u, err := ReadUnsigned(t.Context(), signed, other)
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Sign(t.Context()); err != nil {
				t.Fatal(err)
			}
			l, err := catalog.List(t.Context(), signed, "host", catalog.Filter{})
			if err != nil || len(l.Backups) != 2 {
				t.Fatalf("%+v, %v", l, err)
			}
			for _, b := range l.Backups {
				a, err := catalog.Amend(t.Context(), signed, loaded(t, signed, b))
				if err != nil {
					t.Fatal(err)
				}
				a.Manifest.Warnings = append(a.Manifest.Warnings, "amended")
				if _, err := a.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if good, untrusted := list(t, signed, "host"); good != 2 || untrusted != 0 {
				t.Errorf("%d good, %d untrusted", good, untrusted)
			}
			_, err = catalog.Delete(t.Context(), signed, folder)
			if c.lock.Mode == "" {
				if left, listErr := plain.List(t.Context(), folder); err != nil || listErr != nil || len(left) > 0 {
					t.Errorf("left %v, %v, %v", left, err, listErr)
				}
				return
			}
			if !errors.Is(err, store.ErrLocked) {
				t.Errorf("deleted: %v", err)
			}
			for _, in := range []string{folder, other} {
				manifest, err := bucket.LockedUntil(t.Context(), path.Join(in, catalog.ManifestName))
				if err != nil {
					t.Fatal(err)
				}
				signature, err := bucket.LockedUntil(t.Context(), path.Join(in, catalog.SignatureName))
				if err != nil || manifest.IsZero() || !signature.Equal(manifest) {
					t.Errorf("%s: held until %s, its signature until %s, %v", in, manifest, signature, err)
				}
			}
		})
	}
}
