package s3test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7/pkg/signer"
)

// Proxy stands before a server and makes trouble where it is told to.
type Proxy struct {
	Endpoint string
	CAFile   string // of StartTLSProxy

	forward http.Handler
	ended   chan struct{}

	mu     sync.Mutex
	faults []*Fault
}

// Fault is trouble with the requests that match, so many times; always when Times is 0.
type Fault struct {
	Match func(*http.Request) bool
	Times int
	Do    Trouble

	done atomic.Int32
}

// Done tells how often the fault struck.
func (f *Fault) Done() int { return int(f.done.Load()) }

// Trouble is what is done instead of, or around, forwarding a request.
type Trouble func(w http.ResponseWriter, r *http.Request, forward http.Handler, ended <-chan struct{})

// StartProxy starts a proxy before a server.
func StartProxy(t testing.TB, server *Server) *Proxy {
	t.Helper()
	p, listening := newProxy(t, server)
	listening.Start()
	p.Endpoint = listening.URL
	return p
}

// StartTLSProxy starts one that speaks TLS, with a certificate that nobody trusts who was not given CAFile.
func StartTLSProxy(t testing.TB, server *Server) *Proxy {
	t.Helper()
	p, listening := newProxy(t, server)
	listening.StartTLS()
	p.Endpoint, p.CAFile = listening.URL, filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listening.Certificate().Raw})
	if err := os.WriteFile(p.CAFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func newProxy(t testing.TB, server *Server) (*Proxy, *httptest.Server) {
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ended: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { reset(w) },
		ErrorLog:     nil,
	}
	listening := httptest.NewUnstartedServer(p)
	listening.Config.ErrorLog = quietLog()
	t.Cleanup(func() {
		close(p.ended)
		listening.CloseClientConnections()
		listening.Close()
	})
	return p, listening
}

// Fail adds a fault. The first that matches is done.
func (p *Proxy) Fail(f *Fault) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f
}

// Heal removes all faults.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := p.fault(r); f != nil {
		f.Do(w, r, p.forward, p.ended)
		return
	}
	p.forward.ServeHTTP(w, r)
}

func (p *Proxy) fault(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if (f.Times == 0 || f.Done() < f.Times) && (f.Match == nil || f.Match(r)) {
			f.done.Add(1)
			return f
		}
	}
	return nil
}

// Parts matches the sending of parts.
func Parts(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// Data matches the sending of objects and of parts.
func Data(r *http.Request) bool {
	return r.Method == http.MethodPut && (r.URL.RawQuery == "" || Parts(r))
}

// Completion matches the end of an upload in parts.
func Completion(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// Begin matches the begin of an upload in parts.
func Begin(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploads") }

// Reading matches the reading of objects.
func Reading(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Count(r.URL.Path, "/") > 1 && r.URL.RawQuery == ""
}

// Answer answers with an error of S3.
func Answer(status int, code, message string) Trouble {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler, _ <-chan struct{}) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
	}
}

// Reset breaks the connection off after so many bytes of the request's body.
func Reset(afterBytes int64) Trouble {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler, _ <-chan struct{}) {
		_, _ = io.CopyN(io.Discard, r.Body, afterBytes)
		reset(w)
	}
}

// Hang never answers.
func Hang(w http.ResponseWriter, r *http.Request, _ http.Handler, ended <-chan struct{}) {
	select {
	case <-ended:
	case <-r.Context().Done():
	}
	reset(w)
}

// LoseAnswer does what is asked and breaks off instead of answering.
func LoseAnswer(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	reset(w)
}

// Truncate ends the answer's body after so many bytes, and breaks off.
func Truncate(afterBytes int64) Trouble {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
		forward.ServeHTTP(&truncated{ResponseWriter: w, left: afterBytes}, r)
	}
}

// Ignore takes a header away and signs the request again: the server never heard of it.
func Ignore(header string) Trouble {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
		r.Header.Del(header)
		forward.ServeHTTP(w, signer.SignV4(*r, AccessKey, SecretKey, "", Region))
	}
}

// Spoil flips a bit of the request's body.
func Spoil(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
	r.Body = &spoiled{ReadCloser: r.Body}
	forward.ServeHTTP(w, r)
}

type spoiled struct {
	io.ReadCloser
	done bool
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 && !s.done {
		p[n/2] ^= 1
		s.done = true
	}
	return n, err
}

type truncated struct {
	http.ResponseWriter
	left int64
}

func (t *truncated) Write(p []byte) (int, error) {
	n, err := t.ResponseWriter.Write(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	if err == nil && t.left == 0 {
		_ = http.NewResponseController(t.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// reset closes the client's connection so that it sees a reset.
func reset(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = connection.Close()
}
