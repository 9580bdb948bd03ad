package s3

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/safedir"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
)

// versionsIn lists all versions in a bucket as "KEY SIZE", deletion markers included.
func versionsIn(t *testing.T, server *s3test.Server, bucket string) (list []string) {
	t.Helper()
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	for info := range client.ListObjectsIter(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		list = append(list, fmt.Sprintf("%s %d", info.Key, info.Size))
	}
	return list
}

// A deletion frees the bytes of every version, and Sweep those that somebody's plain deletion hid.
func TestDeletionsFreeVersions(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		t.Run(string(kind), func(t *testing.T) {
			server := s3test.Start(t, kind)
			server.Make(t, "bucket", s3test.Bucket{Versioned: true})
			opts := optionsFor(t, server, "bucket")
			s := openStore(t, opts)
			for _, text := range []string{"one", "two", "three"} {
				if _, err := put(s, "h/a", []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := put(s, "h/ab", []byte("other")); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), "h/a"); err != nil {
				t.Fatal(err)
			}
			if left := versionsIn(t, server, "bucket"); len(left) != 1 || !strings.HasSuffix(left[0], "/h/ab 5") {
				t.Errorf("%q is left", left)
			}
			client, err := server.Client()
			if err != nil {
				t.Fatal(err)
			}
			if err := client.RemoveObject(t.Context(), "bucket", opts.Prefix+"/h/ab", minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			if left := versionsIn(t, server, "bucket"); len(left) != 2 {
				t.Fatalf("%q: a version and its deletion marker were expected", left)
			}
			if freed, err := s.Sweep(t.Context(), "h"); err != nil || freed != 5 {
				t.Errorf("Sweep = %d, %v, want 5", freed, err)
			}
			if left := versionsIn(t, server, "bucket"); len(left) != 0 {
				t.Errorf("after the sweep there is %q", left)
			}
		})
	}
}

func TestObjectLock(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		for _, mode := range []string{"governance", "compliance"} {
			t.Run(string(kind)+"/"+mode, func(t *testing.T) {
				server := s3test.Start(t, kind)
				server.Make(t, "bucket", s3test.Bucket{Locking: true})
				opts := optionsFor(t, server, "bucket")
				opts.Lock = Lock{Mode: mode, Days: 30}
				s := openStore(t, opts)
				if s.LockFor() != 30*24*time.Hour {
					t.Errorf("LockFor = %s", s.LockFor())
				}
				keys := []string{"h/a", "h/b"}
				for _, key := range keys {
					if _, err := put(s, key, noise(100)); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.CheckDelete(t.Context(), keys); err != nil {
					t.Errorf("before they are locked: %v", err)
				}
				until := time.Now().Add(time.Hour)
				if err := s.Lock(t.Context(), keys[1:], until); err != nil {
					t.Fatal(err)
				}
				err := s.CheckDelete(t.Context(), keys)
				if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), until.UTC().Format("2006-01-02T15:04:")) {
					t.Errorf("CheckDelete = %v", err)
				}
				if err := s.Delete(t.Context(), "h/b"); !errors.Is(err, store.ErrLocked) {
					t.Errorf("Delete = %v", err)
				}
				if err := s.Lock(t.Context(), keys[1:], until.Add(-time.Minute)); err != nil {
					t.Errorf("a lock that is longer already: %v", err)
				}
				if err := s.Lock(t.Context(), keys[1:], until.Add(time.Hour)); err != nil {
					t.Errorf("extending: %v", err)
				}
				if err := s.CheckDelete(t.Context(), keys); err == nil ||
					!strings.Contains(err.Error(), until.Add(time.Hour).UTC().Format("2006-01-02T15:04:")) {
					t.Errorf("after extending: %v", err)
				}
				if err := s.Delete(t.Context(), "h/a"); err != nil {
					t.Errorf("one that is not locked: %v", err)
				}
				w, err := s.Create(t.Context(), "h/manifest", store.PutOptions{LockUntil: until})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				if held, err := s.LockedUntil(t.Context(), "h/manifest"); err != nil || !held.Equal(until.UTC().Truncate(time.Second)) {
					t.Errorf("locked until %s, %v; want %s", held, err, until)
				}
			})
		}
	}
}

func TestObjectLockWithoutALockingBucket(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	opts := optionsFor(t, server, "bucket")
	opts.Lock = Lock{Mode: "governance", Days: 1}
	s := openStore(t, opts)
	if _, err := s.Probe(t.Context()); err == nil || !strings.Contains(fmt.Sprint(say.Hints(err)), "object_lock") {
		t.Errorf("Probe = %v", err)
	}
	if err := s.Lock(t.Context(), []string{"a"}, time.Now()); err == nil || !strings.Contains(fmt.Sprint(say.Hints(err)), "object_lock") {
		t.Errorf("Lock = %v", err)
	}
}

// A bucket that holds all objects by itself is noticed.
func TestBucketDefaults(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		t.Run(string(kind), func(t *testing.T) {
			server := s3test.Start(t, kind)
			server.Make(t, "bucket", s3test.Bucket{Locking: true})
			client, err := server.Client()
			if err != nil {
				t.Fatal(err)
			}
			mode, days, unit := minio.Governance, uint(3), minio.Days
			if err := client.SetObjectLockConfig(t.Context(), "bucket", &mode, &days, &unit); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, optionsFor(t, server, "bucket"))
			notes, err := s.Probe(t.Context())
			if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "every new object for 3 days (governance)") {
				t.Errorf("Probe = %q, %v", notes, err)
			}
			if got := s.Notes(); len(got) != 1 || got[0] != notes[0] {
				t.Errorf("Notes = %q", got)
			}
		})
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{Versioned: true})
	s := openStore(t, optionsFor(t, server, "bucket"))
	if notes, err := s.Probe(t.Context()); err != nil || len(notes) != 0 {
		t.Errorf("Probe = %q, %v", notes, err)
	}
	if left := versionsIn(t, server, "bucket"); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := Options{Endpoint: "https://s3.example.org", Bucket: "bucket", Credentials: Credentials{AccessKey: "a", SecretKey: "b"}}
	if _, err := Open(good); err != nil {
		t.Fatal(err)
	}
	noPEM := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(noPEM, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open.pem")
	if err := errors.Join(os.WriteFile(open, nil, 0o600), os.Chmod(open, 0o666)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no endpoint":      {func(o *Options) { o.Endpoint = "" }, "endpoint"},
		"no URL":           {func(o *Options) { o.Endpoint = "s3.example.org" }, "https://"},
		"bad prefix":       {func(o *Options) { o.Prefix = "/a" }, "segment"},
		"bad checksum":     {func(o *Options) { o.Checksum = "sha1" }, "crc64nvme"},
		"bad encryption":   {func(o *Options) { o.Encryption = "kms:" }, "sse"},
		"bad lock mode":    {func(o *Options) { o.Lock = Lock{Mode: "forever", Days: 1} }, "object_lock.mode"},
		"lock of nothing":  {func(o *Options) { o.Lock = Lock{Mode: "governance"} }, "object_lock.days"},
		"half an account":  {func(o *Options) { o.Credentials.SecretKey = "" }, "secret_key"},
		"no account":       {func(o *Options) { o.Credentials = Credentials{} }, "AWS_ACCESS_KEY_ID"},
		"missing CA file":  {func(o *Options) { o.CAFile = "/nowhere/ca.pem" }, "ca_file"},
		"CA file of a key": {func(o *Options) { o.CAFile = noPEM }, "PEM"},
		"CA file of all":   {func(o *Options) { o.CAFile = open }, safedir.ErrUntrusted.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			opts := good
			test.change(&opts)
			if _, err := Open(opts); err == nil || !strings.Contains(fmt.Sprint(err, say.Hints(err)), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}
