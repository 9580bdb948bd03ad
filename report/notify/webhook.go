package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"voltar/internal/say"
	"voltar/report"
)

// builtinTemplate gives a body by its name, for those who need no template of their own. "json" is the report as
// docs/report-json.md describes it.
func builtinTemplate(name string) (text string, ok bool) {
	switch name {
	case "json":
		return `{{.JSON}}`, true
	case "slack":
		return `{"text": {{.Subject | json}}, "blocks": [` +
			`{"type": "header", "text": {"type": "plain_text", "text": {{.Subject | shorten 150 | json}}}},` +
			`{"type": "section", "text": {"type": "plain_text", "text": {{.Text | shorten 2900 | json}}}}]}`, true
	case "ntfy":
		return `{{.Text | shorten 3800}}`, true
	case "ticket":
		return `{"short_description": {{.Subject | json}}, "description": {{.Text | shorten 30000 | json}},` +
			` "urgency": "{{if .Failed}}1{{else}}3{{end}}", "category": "backup",` +
			` "correlation_id": {{printf "voltar %s" .Host | json}}}`, true
	default:
		return "", false
	}
}

// WebhookData is what templates see. Subject, Text and Host are clean; Run holds strings as they came, to be written by
// the function json alone.
type WebhookData struct {
	Run             report.Run
	ID              string
	Host            string
	Subject         string
	Text            string
	JSON            string // the whole report
	Verdict         report.Verdict
	Failed          bool     // the run failed or was interrupted
	NotGood         []string // names of the volumes that are not good
	StoredBytes     int64    // tonight's backups
	DurationSeconds float64
}

// WebhookOptions say where and what to post. Name and URL have no default.
type WebhookOptions struct {
	Name        string
	URL         string            // often a secret by itself: it is never part of an error beyond its host
	Method      string            // "" means POST
	Headers     map[string]string // values may be secrets, and are kept out of errors
	Template    string            // json, slack, ntfy, ticket, or a text/template of one's own; "" means json
	ContentType string            // "" means application/json, or text/plain for ntfy
	CAFile      string            // PEM; certificates that are trusted instead of the system's
	Timeout     time.Duration     // of one attempt; 0 means 30 s
}

// Webhook delivers by an HTTP request.
type Webhook struct {
	opts   WebhookOptions
	body   *template.Template
	client *http.Client
	host   string
	redact *strings.Replacer
}

// NewWebhook checks the options and tries the template on an example.
func NewWebhook(opts WebhookOptions) (*Webhook, error) {
	target, err := parseURL(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w", opts.Name, err)
	}
	if opts.Template == "" {
		opts.Template = "json"
	}
	text, builtin := builtinTemplate(opts.Template)
	if !builtin {
		text = opts.Template
	}
	if opts.ContentType == "" {
		opts.ContentType = "application/json"
		if opts.Template == "ntfy" {
			opts.ContentType = "text/plain; charset=utf-8"
		}
	}
	if opts.Method == "" {
		opts.Method = http.MethodPost
	}
	body, err := template.New(opts.Name).Option("missingkey=error").Funcs(template.FuncMap{
		"json":     toJSON,
		"shorten":  shorten,
		"size":     say.Size,
		"duration": report.FormatDuration,
	}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("webhook %s: cannot read the template: %w", opts.Name, err)
	}
	client, err := newHTTPClient(opts.CAFile, opts.Timeout)
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w", opts.Name, err)
	}
	w := &Webhook{opts: opts, body: body, client: client, host: target.Host, redact: redactor(target, opts.Headers)}
	if _, err := w.render(Message{Subject: "example", Run: report.Run{Host: "example"}}); err != nil {
		return nil, err
	}
	return w, nil
}

func parseURL(text string) (*url.URL, error) {
	target, err := url.Parse(text)
	if err != nil || target.Host == "" || target.Scheme != "https" && target.Scheme != "http" {
		return nil, errors.New("cannot use the URL: it must begin with https:// or http:// and name a host") // and may be secret
	}
	return target, nil
}

// newHTTPClient follows no redirects: what a request carries is meant for one host.
func newHTTPClient(caFile string, timeout time.Duration) (*http.Client, error) {
	roots, err := readCAs(caFile)
	if err != nil {
		return nil, err
	}
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// redactor blots out what of a URL and headers may be secret: all of the URL behind the host, and every header's value.
func redactor(target *url.URL, headers map[string]string) *strings.Replacer {
	var secrets []string
	add := func(s string) {
		if len(s) >= 4 { // shorter ones would blot out every other word
			secrets = append(secrets, s)
		}
	}
	add(target.RequestURI())
	add(target.EscapedPath())
	add(target.Path)
	add(strings.Trim(target.Path, "/"))
	add(target.RawQuery)
	add(target.User.String())
	if password, ok := target.User.Password(); ok {
		add(password)
	}
	for _, values := range target.Query() {
		for _, value := range values {
			add(value)
		}
	}
	for segment := range strings.SplitSeq(target.Path, "/") {
		if len(segment) >= 8 {
			add(segment)
		}
	}
	for _, value := range headers {
		add(value)
		_, credential, _ := strings.Cut(value, " ") // of "Bearer …"
		add(credential)
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, "[secret]")
	}
	return strings.NewReplacer(pairs...)
}

// toJSON writes any value as JSON, strings with their quotes.
func toJSON(value any) (string, error) {
	data, err := json.Marshal(value)
	return string(data), err
}

// shorten cuts a text to a number of characters.
func shorten(limit int, text string) string {
	if limit < 1 || utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit-1]) + "…"
}

// Name is the name that the configuration gives, marked as a webhook's.
func (w *Webhook) Name() string { return "webhook " + w.opts.Name }

func (w *Webhook) render(msg Message) ([]byte, error) {
	document, err := report.JSON(msg.Run)
	if err != nil {
		return nil, Permanent(err)
	}
	run := msg.Run
	data := WebhookData{
		Run: run, ID: msg.ID, Host: say.Clean(run.Host), Subject: say.Clean(msg.Subject), Text: msg.Text,
		JSON: string(document), Verdict: run.Verdict(), Failed: OnFailure.wants(run, nil), NotGood: run.NotGood(),
		StoredBytes: report.PointOf(run).StoredBytes, DurationSeconds: run.Ended.Sub(run.Started).Seconds(),
	}
	var body bytes.Buffer
	if err := w.body.Execute(&body, data); err != nil {
		return nil, Permanent(fmt.Errorf("webhook %s: cannot fill in the template: %w", w.opts.Name, err))
	}
	if strings.HasPrefix(w.opts.ContentType, "application/json") && !json.Valid(body.Bytes()) {
		return nil, Permanent(fmt.Errorf("webhook %s: the template does not give JSON: write values as {{.Subject | json}}, "+
			"without quotes around them, or set another content type", w.opts.Name))
	}
	return body.Bytes(), nil
}

// Send posts once.
func (w *Webhook) Send(ctx context.Context, msg Message) error {
	body, err := w.render(msg)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, w.opts.Method, w.opts.URL, bytes.NewReader(body))
	if err != nil {
		return Permanent(fmt.Errorf("cannot make a request to %s: %s", w.host, w.redact.Replace(err.Error())))
	}
	request.Header.Set("Content-Type", w.opts.ContentType)
	request.Header.Set("User-Agent", "voltar")
	for name, value := range w.opts.Headers {
		request.Header.Set(name, value)
	}
	return send(w.client, request, w.host, w.redact)
}

const excerptBytes = 300

// send makes one request. Any 2xx answer is success. Its errors name the host alone: what else a URL, a header or an
// answer holds may be secret.
func send(client *http.Client, request *http.Request, host string, redact *strings.Replacer) error {
	response, err := client.Do(request)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err // without the URL
		}
		return classifyHTTP(err, fmt.Errorf("cannot post to %s: %s", host, redact.Replace(err.Error())))
	}
	excerpt, readErr := io.ReadAll(io.LimitReader(response.Body, excerptBytes))
	closeErr := response.Body.Close()
	if response.StatusCode/100 == 2 {
		return nil // the receiver has it; the rest of its answer is of no interest
	}
	text := say.Clean(redact.Replace(strings.TrimSpace(string(excerpt))))
	if err := errors.Join(readErr, closeErr); err != nil {
		text += " (answer cut short)"
	}
	err = fmt.Errorf("cannot post to %s: it answered %s: %s", host, response.Status, text)
	if mayPass(response.StatusCode) {
		return err
	}
	return Permanent(err)
}

// mayPass tells answers that another attempt may change.
func mayPass(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	default:
		return status >= 500
	}
}

func classifyHTTP(cause, err error) error {
	var certificate *tls.CertificateVerificationError
	if errors.As(cause, &certificate) {
		return Permanent(err)
	}
	return err
}
