package browse

import (
	"bytes"
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/browse/browsetest"
	"voltar/internal/store/s3"
	"voltar/internal/store/s3/s3test"
)

// One file out of an encrypted archive in a bucket costs a few requests for a few chunks of it.
func TestOneFileOfAnEncryptedArchiveIsAFewRangesOfIt(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	proxy := s3test.StartProxy(t, server)
	s, err := s3.Open(s3.Options{
		Endpoint: proxy.Endpoint, Bucket: "bucket", Region: s3test.Region, StateDir: t.TempDir(), RetryFor: 20 * time.Second,
		Credentials: s3.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey}, Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	recipients, identities := browsetest.NewKey(t)
	meta := browsetest.Make(t, s, browsetest.Spec{For: recipients})
	var requests, bytesRead atomic.Int64
	proxy.Fail(&s3test.Fault{Match: s3test.Reading, Do: func(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
		requests.Add(1)
		forward.ServeHTTP(&counting{w, &bytesRead}, r)
	}})
	b := New(s, meta, Opener(Decrypt(identities, false)))
	for _, read := range []struct {
		name            string
		want            []byte
		requests, bytes int64
	}{
		// Head, last chunk and block of the index; head, last chunk and member of the archive.
		{"etc/passwd", []byte("root:x:0:0\n"), 6, 1 << 20},
		// Likewise, and its two members.
		{"var/data/big1", browsetest.Noise("1", 5<<20), 7, 7 << 20},
	} {
		requests.Store(0)
		bytesRead.Store(0)
		got, err := catFile(t, b, read.name)
		if err != nil || !bytes.Equal(got, read.want) {
			t.Fatalf("%s: %d bytes, %v", read.name, len(got), err)
		}
		t.Logf("%s: %d requests for %d bytes", read.name, requests.Load(), bytesRead.Load())
		if requests.Load() > read.requests || bytesRead.Load() > read.bytes {
			t.Errorf("%s: %d requests for %d bytes, want at most %d for %d", read.name, requests.Load(), bytesRead.Load(), read.requests, read.bytes)
		}
	}
	if archive, _ := meta.Manifest.File(meta.Manifest.Extents[1].Archive); archive.SizeBytes < 15<<20 {
		t.Fatalf("the archive has %d bytes only: reading all of it would show nothing", archive.SizeBytes)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Tree(cancelled, meta.Manifest.Extents[1]); err == nil {
		t.Error("a cancelled context reads")
	}
}

// counting counts the bytes of an answer.
type counting struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}
