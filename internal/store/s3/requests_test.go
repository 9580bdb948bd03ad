package s3

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
)

// counted is a store whose requests are counted by their methods.
func counted(t *testing.T, server *s3test.Server, opts Options, do ...*s3test.Fault) (s *Store, requests func() map[string]int) {
	t.Helper()
	proxy := s3test.StartProxy(t, server)
	var mu sync.Mutex
	count := map[string]int{}
	proxy.Fail(&s3test.Fault{Match: func(r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		count[r.Method]++
		return false
	}})
	for _, fault := range do {
		proxy.Fail(fault)
	}
	opts.Endpoint = proxy.Endpoint
	return openStore(t, opts), func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		made := maps.Clone(count)
		clear(count)
		return made
	}
}

// An object of one part is stored by one request, tags included, whatever sum the server checks it by, and read by one.
func TestRequestsOfASmallObject(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		server := s3test.Start(t, kind)
		server.Make(t, "bucket", s3test.Bucket{})
		client, err := server.Client()
		if err != nil {
			t.Fatal(err)
		}
		for _, sum := range []Checksum{CRC64NVME, CRC32C, MD5} {
			opts := optionsFor(t, server, "bucket")
			opts.Checksum = sum
			s, requests := counted(t, server, opts)
			want := map[string]string{"volume": "vg/lv", "sha1": "da39a3ee"}
			w, err := s.Create(t.Context(), "h/v/a", store.PutOptions{MaxBytes: 100, Tags: map[string]string{"volume": "vg/lv"}})
			if err != nil {
				t.Fatal(err)
			}
			w.(store.TagWriter).SetTag("sha1", "da39a3ee")
			if _, err := w.Write(noise(100)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := requests(); !maps.Equal(got, map[string]int{"PUT": 1}) {
				t.Errorf("%s, %s: storing took %v", kind, sum, got)
			}
			tags, err := client.GetObjectTagging(t.Context(), "bucket", opts.Prefix+"/h/v/a", minio.GetObjectTaggingOptions{})
			if err != nil || !maps.Equal(tags.ToMap(), want) {
				t.Errorf("%s, %s: the tags are %v, %v", kind, sum, tags, err)
			}
			if got := get(t, s, "h/v/a"); !slices.Equal(got, noise(100)) {
				t.Errorf("%s, %s: other bytes came back", kind, sum)
			}
			if got := requests(); !maps.Equal(got, map[string]int{"GET": 1}) {
				t.Errorf("%s, %s: reading took %v", kind, sum, got)
			}
			if _, err := s.Look(t.Context(), "h", "a"); err != nil {
				t.Fatal(err)
			}
			if got := requests(); !maps.Equal(got, map[string]int{"GET": 1}) {
				t.Errorf("%s, %s: looking took %v", kind, sum, got)
			}
		}
	}
}

// unsaid forwards a request and takes from the answer what it says of sums.
func unsaid(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
	answer := httptest.NewRecorder()
	forward.ServeHTTP(answer, r)
	for name, values := range answer.Header() {
		if name != "X-Amz-Checksum-Crc64nvme" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.Code)
	_, _ = io.Copy(w, answer.Body)
}

// A server that does not say which sum it has found is asked.
func TestAnAnswerWithoutASumIsNotBelieved(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	s, requests := counted(t, server, optionsFor(t, server, "bucket"), &s3test.Fault{Match: s3test.Data, Do: unsaid})
	if _, err := put(s, "h/v/a", noise(100)); err != nil {
		t.Fatal(err)
	}
	if got := requests(); !maps.Equal(got, map[string]int{"PUT": 1, "HEAD": 1}) {
		t.Errorf("storing took %v", got)
	}
}

// A young object has no mark, so its successor is never mistaken for it.
func TestYoungObjectsHaveNoMark(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	future := &s3test.Fault{Match: s3test.Reading, Do: func(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
		answer := httptest.NewRecorder()
		forward.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Set("Date", w.Header().Get("Last-Modified"))
		w.WriteHeader(answer.Code)
		_, _ = io.Copy(w, answer.Body)
	}}
	s, _ := counted(t, server, optionsFor(t, server, "bucket"), future)
	if _, err := put(s, "h/v/a", noise(100)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "h/v/a")
	if err != nil {
		t.Fatal(err)
	}
	if marks := r.(store.Marked).Marks(); len(marks) != 1 || marks[0] != "" {
		t.Errorf("it has the marks %q", marks)
	}
}
