package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
)

func noise(sizeBytes int) []byte {
	data := make([]byte, sizeBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// put stores an object, announced with its size.
func put(s *Store, key string, data []byte) (store.Object, error) {
	w, err := s.Create(context.Background(), key, store.PutOptions{MaxBytes: int64(len(data)), Tags: map[string]string{"run": "r"}})
	if err != nil {
		return store.Object{}, err
	}
	if _, err := w.Write(data); err != nil {
		return store.Object{}, errors.Join(err, w.Abort())
	}
	return w.Commit(context.Background())
}

func get(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// nothingLeft looks behind the store's back whether a bucket holds objects or unfinished uploads.
func nothingLeft(t *testing.T, server *s3test.Server, bucket string, s *Store) {
	t.Helper()
	objects, err := s.List(t.Context(), "")
	if err != nil || len(objects) > 0 {
		t.Errorf("there is %v, %v", objects, err)
	}
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	for upload := range client.ListIncompleteUploads(t.Context(), bucket, "", true) {
		t.Errorf("an unfinished upload is left: %+v", upload)
	}
}

// testPartBytes is the least that servers take as a part.
const testPartBytes = 5 << 20

// large is three parts.
const large = 2*testPartBytes + 4567

// What passes by itself must not cost a backup, and what is stored is what was sent.
func TestFaultsThatPass(t *testing.T) {
	servers := map[bool]*s3test.Server{false: s3test.Start(t, s3test.Versitygw), true: s3test.Start(t, s3test.MinIO)}
	for _, test := range []struct {
		name  string
		size  int
		fault *s3test.Fault
	}{
		{"small object: reset", 1000, &s3test.Fault{Match: s3test.Data, Times: 2, Do: s3test.Reset(0)}},
		{"small object: lost answer", 1000, &s3test.Fault{Match: s3test.Data, Times: 1, Do: s3test.LoseAnswer}},
		{"small object: spoiled", 1000, &s3test.Fault{Match: s3test.Data, Times: 1, Do: s3test.Spoil}},
		{"small object: its folder goes", 1000, &s3test.Fault{Match: s3test.Data, Times: 2, Do: s3test.Answer(403, "AccessDenied", "Access Denied.")}},
		{"part: reset in its middle", large, &s3test.Fault{Match: s3test.Parts, Times: 3, Do: s3test.Reset(1 << 20)}},
		{"part: overloaded", large, &s3test.Fault{Match: s3test.Parts, Times: 3, Do: s3test.Answer(503, "SlowDown", "Please reduce your request rate.")}},
		{"part: spoiled", large, &s3test.Fault{Match: s3test.Parts, Times: 2, Do: s3test.Spoil}},
		{"part: hanging", large, &s3test.Fault{Match: s3test.Parts, Times: 1, Do: s3test.Hang}},
		{"begin: internal error", large, &s3test.Fault{Match: s3test.Begin, Times: 1, Do: s3test.Answer(500, "InternalError", "We")}},
		{"begin: lost answer", large, &s3test.Fault{Match: s3test.Begin, Times: 1, Do: s3test.LoseAnswer}},
		{"completion: lost answer", large, &s3test.Fault{Match: s3test.Completion, Times: 1, Do: s3test.LoseAnswer}},
		{"completion: overloaded", large, &s3test.Fault{Match: s3test.Completion, Times: 1, Do: s3test.Answer(503, "SlowDown", "")}},
		{"completion: its folder goes", large, &s3test.Fault{Match: s3test.Completion, Times: 2, Do: s3test.Answer(403, "AccessDenied", "Access Denied.")}},
		{"reading: truncated", large, &s3test.Fault{Match: s3test.Reading, Times: 2, Do: s3test.Truncate(3 << 20)}},
		{"reading: reset", large, &s3test.Fault{Match: s3test.Reading, Times: 2, Do: s3test.Reset(0)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// Only MinIO refuses to complete an upload that it has completed already.
			server := servers[strings.HasPrefix(test.name, "completion")]
			bucket := bucketName(t)
			server.Make(t, bucket, s3test.Bucket{})
			proxy := s3test.StartProxy(t, server)
			opts := optionsFor(t, server, bucket)
			opts.Endpoint, opts.RetryFor = proxy.Endpoint, 5*time.Minute
			if strings.HasSuffix(test.name, "hanging") {
				opts.Timeout = 5 * time.Second
			}
			s := openStore(t, opts)
			fault := proxy.Fail(test.fault)
			data := noise(test.size)
			if object, err := put(s, "h/v/a", data); err != nil || object.SizeBytes != int64(len(data)) {
				t.Fatalf("%+v, %v", object, err)
			}
			if !bytes.Equal(get(t, s, "h/v/a"), data) {
				t.Error("other bytes came back")
			}
			if fault.Done() != test.fault.Times {
				t.Errorf("the fault struck %d times, want %d", fault.Done(), test.fault.Times)
			}
			if err := s.Delete(t.Context(), "h/v/a"); err != nil {
				t.Error(err)
			}
			if _, err := s.Sweep(t.Context(), "h/v"); err != nil {
				t.Error(err)
			}
			nothingLeft(t, server, bucket, s)
		})
	}
}

// bucketName makes one of a test's name.
func bucketName(t *testing.T) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return strings.Trim(name[max(0, len(name)-40):], "-")
}

// What does not pass ends in an error that names the cause and the setting, and leaves nothing.
func TestFaultsThatStay(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	tooLong := strings.Repeat("n", 64) // for the name of a host, so that no network is asked for it
	for _, test := range []struct {
		name   string
		size   int
		fault  *s3test.Fault
		change func(*Options)
		want   []string
		is     error
	}{
		{name: "overloaded", size: large, fault: &s3test.Fault{Match: s3test.Parts, Do: s3test.Answer(503, "SlowDown", "Please reduce")},
			want: []string{"overloaded", "SlowDown", "tried for", "upload_limit"}},
		{name: "resetting", size: large, fault: &s3test.Fault{Match: s3test.Parts, Do: s3test.Reset(100)}, want: []string{"broke off", "network"}},
		{name: "hanging", size: 10, fault: &s3test.Fault{Match: s3test.Data, Do: s3test.Hang}, change: func(o *Options) { o.Timeout = 2 * time.Second },
			want: []string{"no sign of life for 2s"}},
		{name: "full", size: large, fault: &s3test.Fault{Match: s3test.Parts, Do: s3test.Answer(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.")},
			want: []string{"the store is full", "make space"}, is: store.ErrNoSpace},
		{name: "full for one request", size: 10, fault: &s3test.Fault{Match: s3test.Data, Do: s3test.Answer(400, "QuotaExceeded", "Quota")}, is: store.ErrNoSpace},
		{name: "full at the end", size: large, fault: &s3test.Fault{Match: s3test.Completion, Do: s3test.Answer(507, "XMinioStorageFull", "")}, is: store.ErrNoSpace},
		{name: "skewed", size: 10, fault: &s3test.Fault{Do: s3test.Answer(403, "RequestTimeTooSkewed", "The difference between the request time and the server's time is too large.")},
			want: []string{"clocks", "timedatectl"}},
		{name: "always spoiled", size: 10, fault: &s3test.Fault{Match: s3test.Data, Do: s3test.Spoil}, want: []string{"spoiled on its way"}},
		{name: "wrong access key", size: 10, change: func(o *Options) { o.Credentials.AccessKey = "nobody" }, want: []string{"does not know the access key", "`access_key`"}},
		{name: "wrong secret key", size: 10, change: func(o *Options) { o.Credentials.SecretKey = "another-secret" }, want: []string{"secret key is wrong", "`secret_key`"}},
		{name: "denied", size: 10, fault: &s3test.Fault{Match: s3test.Data, Do: s3test.Answer(403, "AccessDenied", "Access Denied.")}, want: []string{"access denied", "`access_key`"}},
		{name: "no bucket", size: 10, change: func(o *Options) { o.Bucket = "missing-bucket" }, want: []string{`no bucket "missing-bucket"`, "`bucket`"}},
		{name: "wrong region", size: 10, fault: &s3test.Fault{Match: s3test.Data, Do: s3test.Answer(400, "AuthorizationHeaderMalformed", "the region 'a' is wrong; expecting 'b'")},
			want: []string{"region is wrong", "`region`", "expecting"}},
		{name: "nobody listens", size: 10, change: func(o *Options) { o.Endpoint = "http://127.0.0.1:1" }, want: []string{"nothing listens", "`endpoint`"}},
		{name: "no such host", size: 10, change: func(o *Options) { o.Endpoint = "http://" + tooLong + ".invalid" }, want: []string{"cannot be resolved", "`endpoint`"}},
		{name: "TLS to a plain server", size: 10, change: func(o *Options) { o.Endpoint = strings.Replace(o.Endpoint, "http:", "https:", 1) }, want: []string{"does not speak TLS", "http://"}},
		{name: "wrong storage class", size: 10, change: func(o *Options) { o.StorageClass = "ICE" }, want: []string{"`storage_class`"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bucket := bucketName(t)
			server.Make(t, bucket, s3test.Bucket{})
			proxy := s3test.StartProxy(t, server)
			opts := optionsFor(t, server, bucket)
			opts.Endpoint, opts.RetryFor = proxy.Endpoint, 2*time.Second
			if test.change != nil {
				test.change(&opts)
			}
			s := openStore(t, opts)
			if test.fault != nil {
				proxy.Fail(test.fault)
			}
			_, err := put(s, "h/v/a", noise(test.size))
			if err == nil {
				t.Fatal("it was stored")
			}
			for _, want := range append(test.want, s.String(), "h/v/a") {
				if !strings.Contains(say.Text(err), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "X-Amz-Signature") || strings.Contains(err.Error(), opts.Credentials.SecretKey) {
				t.Errorf("error %q tells secrets", err)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %q is not %q", err, test.is)
			}
			var whole *store.WholeError
			if errors.As(err, &whole) != errors.Is(err, store.ErrNoSpace) {
				t.Errorf("of the destination as a whole error %q says %v", err, whole)
			}
			proxy.Heal()
			direct := optionsFor(t, server, bucket)
			nothingLeft(t, server, bucket, openStore(t, direct))
		})
	}
}

// A server that cannot be reached is no longer asked after the time that is allowed.
func TestRetryIsBounded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	s := openStore(t, Options{
		Endpoint: "http://" + listener.Addr().String(), Bucket: "bucket", Region: "r", Credentials: Credentials{AccessKey: "a", SecretKey: "b"},
		RetryFor: 3 * time.Second,
	})
	if _, err := s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "overloaded") {
		t.Errorf("%v", err)
	}
	if n := asked.Load(); n < 2 || n > 10 {
		t.Errorf("it was asked %d times in 3 s", n)
	}
}

func TestPrivateCertificate(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	proxy := s3test.StartTLSProxy(t, server)
	opts := optionsFor(t, server, "bucket")
	opts.Endpoint = proxy.Endpoint
	if _, err := put(openStore(t, opts), "a", noise(10)); err == nil || !strings.Contains(err.Error(), "does not trust") ||
		!strings.Contains(say.Text(err), "`ca_file`") {
		t.Errorf("without the certificate: %v", err)
	}
	opts.CAFile = proxy.CAFile
	s := openStore(t, opts)
	data := noise(large)
	if _, err := put(s, "a", data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, s, "a"), data) {
		t.Error("other bytes came back")
	}
	spoiling := proxy.Fail(&s3test.Fault{Match: s3test.Parts, Times: 1, Do: s3test.Spoil})
	if _, err := put(s, "b", data); err != nil || spoiling.Done() != 1 {
		t.Errorf("spoiled on its way and sent again: %v, %d times", err, spoiling.Done())
	}
	if !bytes.Equal(get(t, s, "b"), data) {
		t.Error("other bytes came back")
	}
}

// A reader gives the object that was opened, or an error, however little of it came as it was opened.
func TestReaderOfAReplacedObject(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	s := openStore(t, optionsFor(t, server, "bucket"))
	if _, err := put(s, "a", noise(headBytes+1)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := put(s, "a", make([]byte, headBytes+1)); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err == nil {
		t.Errorf("it gave %d bytes", len(data))
	}
}
