package s3

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
	"voltar/internal/store/storetest"
)

// optionsFor are those of a store in a bucket of a test server.
func optionsFor(t *testing.T, server *s3test.Server, bucket string) Options {
	return Options{
		Endpoint: server.Endpoint, Bucket: bucket, Prefix: "backups/here", Region: s3test.Region,
		Credentials: Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey},
		StateDir:    t.TempDir(), RetryFor: 20 * time.Second, Timeout: time.Minute,
	}
}

func openStore(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.minPart = testPartBytes
	return s
}

// bucketKinds are the kinds of buckets that a server's conformance is tried with: one for each server where time is short, since a
// bucket that locks keeps versions, too.
func bucketKinds(kind s3test.Kind) map[string]s3test.Bucket {
	all := map[string]s3test.Bucket{"plain": {}, "versioned": {Versioned: true}, "locked": {Locking: true}}
	switch {
	case lab.Slow:
	case kind == s3test.MinIO:
		return map[string]s3test.Bucket{"locked": all["locked"]}
	default:
		return map[string]s3test.Bucket{"plain": all["plain"]}
	}
	return all
}

func TestConformance(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		t.Run(string(kind), func(t *testing.T) {
			server := s3test.Start(t, kind)
			var count atomic.Int32
			for label, bucket := range bucketKinds(kind) {
				t.Run(label, func(t *testing.T) {
					storetest.Run(t, func(t *testing.T) store.Store {
						name := fmt.Sprintf("%s-%d", label, count.Add(1))
						server.Make(t, name, bucket)
						return openStore(t, optionsFor(t, server, name))
					})
				})
			}
		})
	}
}

// One place is one place, however its endpoint is spelled.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		endpoint, prefix string
		same             bool
	}{
		{"https://s3.example.org", "here", true}, {"https://S3.example.org:443/", "here", true}, {"https://s3.example.org:9000", "here", false},
		{"http://s3.example.org", "here", true}, {"https://s3.example.org/storage", "here", false}, {"https://s3.example.org", "here2", false},
		{"https://s3.example.org", "", false},
	} {
		s := openStore(t, Options{Endpoint: c.endpoint, Bucket: "b", Prefix: c.prefix, StateDir: t.TempDir(), Credentials: Credentials{AccessKey: "a", SecretKey: "b"}})
		place, err := s.Place(t.Context())
		if err != nil || (place == "s3.example.org/b/here") != c.same {
			t.Errorf("%s with the prefix %q is %s, %v; the same: want %v", c.endpoint, c.prefix, place, err, c.same)
		}
	}
}
