package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"voltar/report"
)

// PingOptions are the URLs of a dead man's switch: a service that raises the alarm when it hears nothing. Empty ones are
// not called.
type PingOptions struct {
	Start, Success, Failure string
	CAFile                  string
	Retry                   Retry
}

// PingURLs gives the three URLs of one check as healthchecks.io has them: the check's own, and /start and /fail below it.
func PingURLs(base string) PingOptions {
	base = strings.TrimRight(base, "/")
	return PingOptions{Start: base + "/start", Success: base, Failure: base + "/fail"}
}

// Ping tells a dead man's switch that a run began and how it ended. Pings are never spooled: one of yesterday would say
// that today is well. So the error of a ping is for the log and the report, and the silence itself raises the alarm.
type Ping struct {
	opts   PingOptions
	client *http.Client
}

// NewPing checks the options.
func NewPing(opts PingOptions) (*Ping, error) {
	if opts.Start == "" && opts.Success == "" && opts.Failure == "" {
		return nil, errors.New("ping: there is no URL to call")
	}
	for _, text := range []string{opts.Start, opts.Success, opts.Failure} {
		if text == "" {
			continue
		}
		if _, err := parseURL(text); err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
	}
	client, err := newHTTPClient(opts.CAFile, 0)
	if err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	return &Ping{opts: opts, client: client}, nil
}

// Begin tells that a run has begun.
func (p *Ping) Begin(ctx context.Context) error { return p.call(ctx, p.opts.Start, "") }

// Finish tells how a run has ended, with the report's subject as the body.
func (p *Ping) Finish(ctx context.Context, run report.Run) error {
	if OnFailure.wants(run, nil) {
		return p.call(ctx, p.opts.Failure, report.Subject(run))
	}
	return p.call(ctx, p.opts.Success, report.Subject(run))
}

func (p *Ping) call(ctx context.Context, target, body string) error {
	if target == "" {
		return nil
	}
	parsed, err := url.Parse(target)
	if err != nil {
		return errors.New("ping: cannot use the URL") // checked before; it may be secret
	}
	_, err = p.opts.Retry.do(ctx, func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
		if err != nil {
			return Permanent(fmt.Errorf("cannot make a request to %s", parsed.Host))
		}
		request.Header.Set("Content-Type", "text/plain; charset=utf-8")
		request.Header.Set("User-Agent", "voltar")
		return send(p.client, request, parsed.Host, redactor(parsed, nil))
	})
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}
