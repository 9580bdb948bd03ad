package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store/s3/s3test"
	"voltar/report"
)

// A flipped bit that a verification finds in a bucket, or a restore on a disk, is repaired from the other of the two by the next run, which tells
// of it: in the open, under object lock, and encrypted.
func TestRunRepairsFromTheOtherDestination(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	for _, c := range []struct {
		name   string
		server s3test.Kind
		locked bool
		more   string
	}{
		{"a bucket", s3test.Versitygw, false, ""},
		{"a bucket with object lock", s3test.MinIO, true, "object_lock = { mode = \"compliance\", days = 30 }\n"},
		{"an encrypted bucket", s3test.Versitygw, false, "recipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := s3test.Start(t, c.server)
			server.Make(t, "bucket", s3test.Bucket{Locking: c.locked})
			s := newSite(t, bucketDestination("far", server.Endpoint, "bucket")+c.more+directories(t, 1))
			s.run(t, exitDone)
			client, err := server.Client()
			if err != nil {
				t.Fatal(err)
			}
			key := spoilObject(t, client)
			if code, out, _ := voltar(t, "verify", "--from", "far", "--config", s.config); code != exitAttention {
				t.Fatalf("verify: %d\n%s", code, out)
			}
			s.repairs(t, "far", "disk")
			if code, out, errs := voltar(t, "verify", "--all", "--full", "--config", s.config); code != exitDone {
				t.Errorf("verify: %d\n%s\n%s", code, out, errs)
			}
			if c.locked {
				_, until, err := client.GetObjectRetention(t.Context(), "bucket", key, "")
				if err != nil || until == nil || time.Until(*until) < 29*24*time.Hour {
					t.Errorf("%s is locked until %v, %v", key, until, err)
				}
			}
			if strings.Contains(c.more, "recipients") {
				return // nothing comes back from there into the open
			}
			archives, err := filepath.Glob(filepath.Join(s.backups, "*", "@directory", "d0", "*", "*.tar.gz"))
			if err != nil || len(archives) != 2 {
				t.Fatal(archives, err)
			}
			data, err := os.ReadFile(archives[1]) // the newest
			if err != nil {
				t.Fatal(err)
			}
			flipped := bytes.Clone(data)
			flipped[len(data)/2] ^= 1
			if err := os.WriteFile(archives[1], flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			if code, _, _ := voltar(t, "restore", "d0", "--from", "disk", "--to-dir", t.TempDir()+"/x", "--config", s.config); code == exitDone {
				t.Fatal("it was restored")
			}
			s.repairs(t, "disk", "far")
			if got, err := os.ReadFile(archives[1]); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s is not what it was: %v", archives[1], err)
			}
		})
	}
}

// spoilObject flips a bit of the archive in a bucket.
func spoilObject(t *testing.T, client *minio.Client) (key string) {
	t.Helper()
	for o := range client.ListObjects(t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		if strings.Contains(o.Key, ".tar.gz") {
			key = o.Key
		}
	}
	object, err := client.GetObject(t.Context(), "bucket", key, minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(object)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if _, err := client.PutObject(t.Context(), "bucket", key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	return key
}

// repairs runs a night that repairs a backup.
func (s site) repairs(t *testing.T, on, from string) {
	t.Helper()
	result := s.run(t, exitDone)
	for _, d := range result.Destinations {
		if repaired := len(d.CaughtUp) == 1 && len(d.CaughtUp[0].Repaired) == 1 && d.CaughtUp[0].From == from; repaired != (d.Name == on) {
			t.Errorf("%s: %+v", d.Name, d)
		}
	}
	if text := report.Text(result, report.Options{}); !strings.Contains(text, "Repaired from other destinations: 1 backup,") {
		t.Errorf("the mail does not tell it\n%s", text)
	}
	if code, out, errs := voltar(t, "verify", "--all", "--from", on, "--config", s.config); code != exitDone {
		t.Errorf("%s is still damaged: %d\n%s\n%s", on, code, out, errs)
	}
}
