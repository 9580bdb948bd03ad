package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
	"voltar/internal/store/storetest"
)

// refusal is a proxy's answer to what a server does not know.
var refusal = s3test.Answer(400, "InvalidArgument", "Unsupported header received for this API call.")

// useWhole does with a store all that backups do, one upload left by a dead run included.
func useWhole(t *testing.T, s *Store) (notes []string) {
	t.Helper()
	if _, err := s.Probe(t.Context()); err != nil {
		t.Fatalf("probe: %v", err)
	}
	for key, size := range map[string]int{"h/v/small": 100, "h/v/large": large} {
		data := noise(size)
		if _, err := put(s, key, data); err != nil {
			t.Fatalf("put: %v", err)
		}
		if !bytes.Equal(get(t, s, key), data) {
			t.Error("other bytes came back")
		}
	}
	if objects, err := s.List(t.Context(), "h"); err != nil || len(objects) != 2 {
		t.Errorf("list: %v, %v", objects, err)
	}
	dead, err := s.Create(t.Context(), "h/v/dead", store.PutOptions{MaxBytes: large})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Write(noise(large)); err != nil {
		t.Fatal(err)
	}
	dead.(*writer).sending.Wait()
	if _, err := s.Sweep(t.Context(), "h"); err != nil {
		t.Errorf("sweep: %v", err)
	}
	for _, key := range []string{"h/v/small", "h/v/large"} {
		if err := s.CheckDelete(t.Context(), []string{key}); err != nil {
			t.Errorf("check delete: %v", err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	return s.Notes()
}

// What a server does without costs no backup when no backup needs it, and a line tells of it.
func TestServersThatLackSomething(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	for _, test := range []struct {
		name     string
		lack     *s3test.Fault
		checksum Checksum
		noRegion bool
		note     string // of all notes, the only one; none when empty
	}{
		{name: "no sums", lack: &s3test.Fault{Match: s3test.Sums, Do: refusal}, checksum: MD5},
		{name: "no sums and no tags", lack: &s3test.Fault{Match: s3test.Either(s3test.Sums, s3test.Tagging), Do: refusal}, checksum: MD5, note: "takes no tags"},
		{name: "tags not implemented", lack: &s3test.Fault{Match: s3test.Tagging, Do: s3test.Answer(501, "NotImplemented", "A header")}, note: "takes no tags"},
		{name: "tags denied", lack: &s3test.Fault{Match: s3test.Tagging, Do: s3test.Answer(403, "AccessDenied", "Access Denied.")}, note: "s3:PutObjectTagging"},
		{name: "region not told", lack: &s3test.Fault{Match: s3test.Asking("location"), Do: s3test.Answer(501, "NotImplemented", "")}, noRegion: true, note: "us-east-1"},
		{name: "region refused", lack: &s3test.Fault{Match: s3test.Asking("location"), Do: refusal}, noRegion: true, note: "`region`"},
		{name: "region denied", lack: &s3test.Fault{Match: s3test.Asking("location"), Do: s3test.Answer(403, "AccessDenied", "not entitled")}, noRegion: true},
		{name: "no properties", lack: &s3test.Fault{Match: s3test.Asking("versioning", "object-lock"), Do: s3test.Answer(501, "NotImplemented", "")}},
		{name: "properties refused", lack: &s3test.Fault{Match: s3test.Asking("versioning", "object-lock"), Do: refusal}},
		{name: "uploads not listed", lack: &s3test.Fault{Match: s3test.Asking("uploads"), Do: s3test.Answer(501, "NotImplemented", "")}, note: "does not list unfinished uploads"},
		{name: "uploads and parts not listed", lack: &s3test.Fault{Match: s3test.Asking("uploads", "uploadId"), Do: refusal}, note: "does not list unfinished uploads"},
		{name: "bucket not shown", lack: &s3test.Fault{Match: s3test.HeadBucket, Do: s3test.Answer(403, "AccessDenied", "")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bucket := bucketName(t)
			server.Make(t, bucket, s3test.Bucket{})
			proxy := s3test.StartProxy(t, server)
			opts := optionsFor(t, server, bucket)
			opts.Endpoint, opts.Checksum = proxy.Endpoint, test.checksum
			if test.noRegion {
				opts.Region = ""
			}
			proxy.Fail(test.lack)
			s := openStore(t, opts)
			notes := useWhole(t, s)
			if test.note == "" && len(notes) > 0 || test.note != "" && (len(notes) != 1 || !strings.Contains(notes[0], test.note)) {
				t.Errorf("the notes are %q, want %q", notes, test.note)
			}
			proxy.Heal()
			nothingLeft(t, server, bucket, openStore(t, opts))
		})
	}
}

// A server that lets everybody replace an object, or refuses to be asked not to, still has one writer of a key at most; and
// what dead writers announced goes with a sweep.
func TestOneWriterWithoutTheServersHelp(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	var count atomic.Int32
	for name, do := range map[string]s3test.Trouble{
		"ignores": s3test.Ignore("If-None-Match"),
		"refuses": s3test.Answer(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
	} {
		t.Run(name, func(t *testing.T) {
			open := func(t *testing.T) *Store {
				bucket := fmt.Sprintf("%s-%d", name, count.Add(1))
				server.Make(t, bucket, s3test.Bucket{})
				proxy := s3test.StartProxy(t, server)
				proxy.Fail(&s3test.Fault{Match: func(r *http.Request) bool { return r.Header.Get("If-None-Match") != "" }, Do: do})
				opts := optionsFor(t, server, bucket)
				opts.Endpoint = proxy.Endpoint
				return openStore(t, opts)
			}
			storetest.RunIfAbsent(t, func(t *testing.T) store.Store { return open(t) })
			s := open(t)
			if _, err := s.announce(t.Context(), "h/v/claim"); err != nil {
				t.Fatal(err)
			}
			if err := tryFirst(s, "h/v/claim"); !errors.Is(err, store.ErrExists) {
				t.Errorf("beside what another announced: %v", err)
			}
			if objects, err := s.List(t.Context(), ""); err != nil || len(objects) > 0 {
				t.Errorf("there is %v, %v", objects, err)
			}
			if _, err := s.Sweep(t.Context(), "h/v"); err != nil {
				t.Fatal(err)
			}
			if err := tryFirst(s, "h/v/claim"); err != nil {
				t.Errorf("after the sweep: %v", err)
			}
			if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "If-None-Match") {
				t.Errorf("the notes are %q", notes)
			}
		})
	}
}

func tryFirst(s *Store, key string) error {
	w, err := s.Create(context.Background(), key, store.PutOptions{MaxBytes: 1, IfAbsent: true})
	if err == nil {
		_, err = w.Commit(context.Background())
	}
	return err
}

// The note of an upload that a dead run left ends with the store that it names, and no other.
func TestUploadsOfALostStoreAreForgotten(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"s3://old/bucket", "s3://new/bucket"} {
		r, err := openRecords(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.note("h/v/a"); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := ForgetUploads(dir, "s3://old/bucket"); err != nil || !slices.Equal(keys, []string{"h/v/a"}) {
		t.Errorf("%q, %v", keys, err)
	}
	if keys, err := ForgetUploads(dir, "s3://old/bucket"); err != nil || len(keys) > 0 {
		t.Errorf("again: %q, %v", keys, err)
	}
	if keys, err := ForgetUploads(dir, "s3://new/bucket"); err != nil || len(keys) != 1 {
		t.Errorf("the other store: %q, %v", keys, err)
	}
	if keys, err := ForgetUploads(t.TempDir(), "s3://new/bucket"); err != nil || len(keys) > 0 {
		t.Errorf("where there never was a bucket: %q, %v", keys, err)
	}
}

// A server that refuses sums is told apart by a hint, whichever request meets it first.
func TestRefusedSumsHint(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	heads := func(r *http.Request) bool { return r.Method == http.MethodHead && s3test.Sums(r) }
	for name, test := range map[string]struct {
		fault *s3test.Fault
		size  int
	}{
		"all requests":  {&s3test.Fault{Match: s3test.Sums, Do: refusal}, 10},
		"large objects": {&s3test.Fault{Match: s3test.Sums, Do: refusal}, large},
		"only HEAD": {&s3test.Fault{Match: heads, Do: func(w http.ResponseWriter, _ *http.Request, _ http.Handler, _ <-chan struct{}) {
			w.WriteHeader(http.StatusBadRequest)
		}}, large},
		"not implemented": {&s3test.Fault{Match: s3test.Sums, Do: s3test.Answer(501, "NotImplemented", "A header")}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := s3test.StartProxy(t, server)
			opts := optionsFor(t, server, "bucket")
			opts.Endpoint = proxy.Endpoint
			proxy.Fail(test.fault)
			_, err := put(openStore(t, opts), "h/v/a", noise(test.size))
			if hints := say.Hints(err); !slices.ContainsFunc(hints, func(h string) bool { return strings.Contains(h, `checksum = "md5"`) }) {
				t.Errorf("%v: the hints are %q", err, hints)
			}
			opts.Checksum = MD5
			if _, err := put(openStore(t, opts), "h/v/a", noise(test.size)); err != nil {
				t.Errorf("with md5: %v", err)
			}
		})
	}
}

// An answer that has no words, as to HEAD, still says that the clocks differ.
func TestClockSkewIsNamed(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	for name, test := range map[string]struct {
		code  string
		ahead time.Duration
		want  string // nothing about clocks when empty
	}{
		"told":           {"RequestTimeTooSkewed", 0, "the clocks of this host and of the server differ too much"},
		"told and seen":  {"RequestTimeTooSkewed", 2 * time.Hour, "ahead of this host's"},
		"seen":           {"", -48 * time.Hour, "behind this host's"},
		"another reason": {"", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := s3test.StartProxy(t, server)
			proxy.Fail(&s3test.Fault{Do: func(w http.ResponseWriter, r *http.Request, forward http.Handler, ended <-chan struct{}) {
				w.Header().Set("Date", time.Now().Add(test.ahead).UTC().Format(http.TimeFormat))
				if test.code == "" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				s3test.Answer(http.StatusForbidden, test.code, "too large a difference")(w, r, forward, ended)
			}})
			opts := optionsFor(t, server, "bucket")
			opts.Endpoint = proxy.Endpoint
			s := openStore(t, opts)
			_, err := s.List(t.Context(), "")
			if test.code == "" {
				_, err = s.Stat(t.Context(), "a")
			}
			if err == nil || test.want == "" && strings.Contains(err.Error(), "clock") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Requests to an endpoint below a path are signed for the path that they go to. The real server that checks the signature
// takes the path for a bucket.
func TestEndpointBelowAPath(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "outer", s3test.Bucket{})
	opts := optionsFor(t, server, "inner")
	opts.Endpoint += "/outer/"
	s := openStore(t, opts)
	if want := strings.TrimPrefix(server.Endpoint, "http://") + "/outer/inner/"; !strings.Contains(s.String(), want) {
		t.Errorf("the store is called %s, which lacks %s", s, want)
	}
	data := noise(large)
	if _, err := put(s, "h/å b+c/~a", data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, s, "h/å b+c/~a"), data) {
		t.Error("other bytes came back")
	}
	outer := optionsFor(t, server, "outer")
	outer.Prefix = ""
	objects, err := openStore(t, outer).List(t.Context(), "")
	if err != nil || len(objects) != 1 || objects[0].Key != "inner/"+opts.Prefix+"/h/å b+c/~a" {
		t.Errorf("there is %v, %v", objects, err)
	}
	for _, endpoint := range []string{"ftp://a", "http://a/b?c", "http://a/b%2fc", "http://a//b", "a/b"} {
		opts.Endpoint = endpoint
		if _, err := Open(opts); len(say.Hints(err)) != 1 {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// A server that lies has no say in how much memory a run takes: neither by one answer nor by a listing without end.
func TestAnswersWithoutEndAreRefused(t *testing.T) {
	pages := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Has("location"):
			fmt.Fprint(w, `<LocationConstraint>us-east-1</LocationConstraint>`)
		case r.URL.Query().Get("prefix") == "pages/":
			pages++
			fmt.Fprintf(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken>`, pages)
			for i := range 1000 {
				fmt.Fprintf(w, `<Contents><Key>pages/%d-%d</Key></Contents>`, pages, i)
			}
			fmt.Fprint(w, `</ListBucketResult>`)
		default:
			for r.Context().Err() == nil {
				fmt.Fprint(w, strings.Repeat("<A>", 10_000))
			}
		}
	}))
	t.Cleanup(server.Close)
	s := openStore(t, Options{Endpoint: server.URL, Bucket: "bucket", PathStyle: true, Credentials: Credentials{AccessKey: "k", SecretKey: "s"}})
	s.maxListed = 5000
	for _, prefix := range []string{"answer", "pages"} {
		if _, err := s.List(t.Context(), prefix); !errors.Is(err, errTooMuch) || !strings.Contains(err.Error(), "has no end") {
			t.Errorf("the listing of %s ended with %v", prefix, err)
		}
	}
	if pages > s.maxListed/1000+1 {
		t.Errorf("%d pages of a thousand were asked for", pages)
	}
}

// Silence for as long as a request is made again is no reason to make it again: who waits would wait twice.
func TestAServerThatHangsIsAskedOnce(t *testing.T) {
	var asked atomic.Int64
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(ended) })
	const patience = 3 * time.Second
	s := openStore(t, Options{Endpoint: server.URL, Bucket: "bucket", PathStyle: true, Credentials: Credentials{AccessKey: "k", SecretKey: "s"},
		Timeout: patience, RetryFor: patience})
	if _, err := s.Folders(t.Context(), "h"); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("the listing ended with %v", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}
