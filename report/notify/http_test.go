package notify

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/report"
)

// receiver is a web server that remembers what it was sent and answers as told, in turn.
type receiver struct {
	url string

	mu       sync.Mutex
	answers  []int
	requests []request
}

type request struct {
	method, path, query, kind, token, body string
}

func startReceiver(t *testing.T, answers ...int) *receiver {
	t.Helper()
	r := &receiver{answers: answers}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, request{req.Method, req.URL.Path, req.URL.RawQuery, req.Header.Get("Content-Type"),
		req.Header.Get("X-Token"), string(body)})
	status := http.StatusOK
	if n := len(r.requests); n <= len(r.answers) {
		status = r.answers[n-1]
	}
	if status == http.StatusTemporaryRedirect {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	// A server that repeats secrets in its answer.
	_, _ = io.WriteString(w, "you asked "+req.URL.String()+" with "+req.Header.Get("X-Token")+"\x1b[31m")
}

func (r *receiver) got() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.requests...)
}

func newWebhook(t *testing.T, opts WebhookOptions) *Webhook {
	t.Helper()
	opts.Name = "tickets"
	w, err := NewWebhook(opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWebhook(t *testing.T) {
	hostile := failedRun()
	hostile.Host = "h\"},{\"\n"
	hostile.Volumes[1].Error.Message = "quote \" and \\ and \u202e"
	tests := []struct {
		name     string
		template string
		kind     string
		check    func(t *testing.T, body string)
	}{
		{"json by default", "", "application/json", func(t *testing.T, body string) {
			run, err := report.ParseJSON([]byte(body))
			if err != nil || run.Volumes[1].Error.Message != hostile.Volumes[1].Error.Message {
				t.Errorf("%+v, %v", run, err)
			}
		}},
		{"slack", "slack", "application/json", func(t *testing.T, body string) {
			var got struct {
				Text   string
				Blocks []struct{ Text struct{ Text string } }
			}
			decode(t, body, &got)
			if !strings.Contains(got.Text, "FAILED 1 of 2") || len(got.Blocks) != 2 {
				t.Errorf("%+v", got)
			}
		}},
		{"ticket", "ticket", "application/json", func(t *testing.T, body string) {
			var got map[string]string
			decode(t, body, &got)
			if got["urgency"] != "1" || got["correlation_id"] != `voltar h"},{"\n` {
				t.Errorf("%v", got)
			}
		}},
		{"ntfy", "ntfy", "text/plain; charset=utf-8", func(t *testing.T, body string) {
			if !strings.HasPrefix(body, "FAILED: 1 of 2 volumes") {
				t.Errorf("%q", body)
			}
		}},
		{"one's own", `{"v": {{.Verdict | json}}, "n": {{.NotGood | json}}, "size": {{size .StoredBytes | json}}}`, "application/json",
			func(t *testing.T, body string) {
				if body != `{"v": "failed", "n": ["vg/volume-00000002"], "size": "2.0 GiB"}` {
					t.Errorf("%q", body)
				}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startReceiver(t)
			w := newWebhook(t, WebhookOptions{URL: server.url + "/hook?key=abcd", Template: tt.template,
				Headers: map[string]string{"X-Token": "s3cret"}})
			if err := w.Send(t.Context(), testMessage(t, hostile)); err != nil {
				t.Fatal(err)
			}
			got := server.got()[0]
			tt.check(t, got.body)
			got.body = ""
			if diff := cmp.Diff(request{"POST", "/hook", "key=abcd", tt.kind, "s3cret", ""}, got, cmp.AllowUnexported(request{})); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, body string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
}

func TestWebhookErrors(t *testing.T) {
	tests := []struct {
		name      string
		answer    int
		permanent bool
	}{
		{"server error", 503, false},
		{"too many requests", 429, false},
		{"bad request", 400, true},
		{"forbidden", 403, true},
		{"redirect is not followed", 307, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startReceiver(t, tt.answer)
			w := newWebhook(t, WebhookOptions{URL: server.url + "/services/T0PSECRET?key=h1dden", Headers: map[string]string{"X-Token": "Bearer s3cret"}})
			err := w.Send(t.Context(), testMessage(t, testRun()))
			checkSecretless(t, err)
			if isPermanent(err) != tt.permanent {
				t.Errorf("permanent is %v: %v", isPermanent(err), err)
			}
			if n := len(server.got()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		server := startReceiver(t)
		w := newWebhook(t, WebhookOptions{URL: strings.Replace(server.url, "http://", "http://user:p4ssword@", 1) + "/services/T0PSECRET?key=h1dden"})
		w.client.Timeout = time.Nanosecond
		err := w.Send(t.Context(), testMessage(t, testRun()))
		checkSecretless(t, err)
		if isPermanent(err) {
			t.Errorf("permanent: %v", err)
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = nil
		server.StartTLS()
		defer server.Close()
		err := newWebhook(t, WebhookOptions{URL: server.URL}).Send(t.Context(), testMessage(t, testRun()))
		if !isPermanent(err) {
			t.Errorf("error %v", err)
		}
	})
}

func checkSecretless(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, secret := range []string{"T0PSECRET", "h1dden", "s3cret", "p4ssword", "\x1b"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells %q: %v", secret, err)
		}
	}
	if !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the error does not name the host: %v", err)
	}
}

func TestWebhookOptionErrors(t *testing.T) {
	tests := []struct {
		name string
		opts WebhookOptions
		want string
	}{
		{"no URL", WebhookOptions{}, "https://"},
		{"scheme", WebhookOptions{URL: "file:///T0PSECRET"}, "https://"},
		{"not a URL", WebhookOptions{URL: "https://h/T0PSECRET\x7f"}, "https://"},
		{"template", WebhookOptions{URL: "https://h/", Template: "{{.Nothing"}, "cannot read the template"},
		{"field", WebhookOptions{URL: "https://h/", Template: "{{.Nothing}}"}, "cannot fill in the template"},
		{"quotes around a value", WebhookOptions{URL: "https://h/", Template: `{"x": "{{.Subject | json}}"}`}, "does not give JSON"},
		{"CA file", WebhookOptions{URL: "https://h/", CAFile: "/nowhere"}, "CA file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewWebhook(tt.opts)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "T0PSECRET") {
				t.Errorf("error %v does not say %q", err, tt.want)
			}
		})
	}
}

func TestPing(t *testing.T) {
	server := startReceiver(t, 500)
	opts := PingURLs(server.url + "/ping/0b3f/")
	opts.Retry = Retry{Wait: time.Nanosecond}
	ping, err := NewPing(opts)
	if err != nil {
		t.Fatal(err)
	}
	warned := testRun()
	warned.Warnings = []report.Problem{{Message: "look"}}
	stopped := testRun()
	stopped.ExitCode = 130
	if err := ping.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, run := range []report.Run{testRun(), warned, failedRun(), stopped} {
		if err := ping.Finish(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for _, r := range server.got() {
		paths = append(paths, r.path)
	}
	want := []string{"/ping/0b3f/start", "/ping/0b3f/start", "/ping/0b3f", "/ping/0b3f", "/ping/0b3f/fail", "/ping/0b3f/fail"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("calls, the first of them answered 500 (-want +got):\n%s", diff)
	}
	if body := server.got()[4].body; !strings.HasPrefix(body, "[voltar] volume-host: FAILED 1 of 2") {
		t.Errorf("body %q", body)
	}
}

func TestPingErrors(t *testing.T) {
	server := startReceiver(t, 404)
	ping, err := NewPing(PingOptions{Success: server.url + "/T0PSECRET"})
	if err != nil {
		t.Fatal(err)
	}
	if err := ping.Begin(t.Context()); err != nil {
		t.Errorf("no URL for the start: %v", err)
	}
	checkSecretless(t, ping.Finish(t.Context(), testRun()))
	for _, opts := range []PingOptions{{}, {Start: "nonsense"}, {Start: server.url, CAFile: "/nowhere"}} {
		if _, err := NewPing(opts); err == nil {
			t.Errorf("%+v: no error", opts)
		}
	}
}
