package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"voltar/internal/config"
	"voltar/internal/durable"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/report"
	"voltar/report/notify"
)

// beginPingTimeout bounds the ping before a run, which is there to watch the run and must not hold it up.
const beginPingTimeout = 20 * time.Second

// metricsPerm lets node_exporter read the metrics, which runs as a user of its own.
const metricsPerm = 0o644

// routes are the ways for reports that the configuration gives. One that cannot be used is in the error, beside which the
// others are returned.
func (d *Delivery) routes(ctx context.Context) ([]notify.Route, error) {
	var routes []notify.Route
	var all []error
	if len(d.Config.Mail.To) > 0 {
		channel, err := d.mailChannel(ctx)
		if err == nil {
			routes = append(routes, notify.Route{Channel: channel, When: notify.When(d.Config.Mail.Notify)})
		}
		all = append(all, err)
	}
	for _, w := range d.Config.Webhooks {
		channel, err := webhookChannel(w)
		if err == nil {
			routes = append(routes, notify.Route{Channel: channel, When: notify.When(w.Notify)})
		}
		all = append(all, err)
	}
	return routes, errors.Join(all...)
}

func webhookChannel(w config.Webhook) (notify.Channel, error) {
	target, err := w.Target()
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w", w.Name, err)
	}
	headers, err := w.AllHeaders()
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w", w.Name, err)
	}
	body, err := w.Body()
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w", w.Name, err)
	}
	return notify.NewWebhook(notify.WebhookOptions{
		Name: w.Name, URL: target, Method: w.Method, Headers: headers, Template: body, ContentType: w.ContentType,
		CAFile: w.CAFile, Timeout: w.Timeout.Span(),
	})
}

// pinger is the dead man's switch of the configuration, or nil.
func (d *Delivery) pinger() (*notify.Ping, error) {
	p := d.Config.Ping
	if !p.Set() {
		return nil, nil
	}
	base, err := p.Base()
	if err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	var opts notify.PingOptions
	if base != "" {
		opts = notify.PingURLs(base)
	}
	opts.Start = cmp.Or(p.Start, opts.Start)
	opts.Success = cmp.Or(p.Success, opts.Success)
	opts.Failure = cmp.Or(p.Failure, opts.Failure)
	opts.CAFile = p.CAFile
	return notify.NewPing(opts)
}

// Begin tells the dead man's switch that a run begins. What goes wrong is for the log: where it lasts, the switch
// itself raises the alarm.
func (d *Delivery) Begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beginPingTimeout)
	defer cancel()
	ping, err := d.pinger()
	if err == nil && ping != nil {
		err = ping.Begin(ctx)
	}
	if err != nil {
		d.Log.Warn("could not send the ping at the start of the run", "err", err)
	}
}

// pingEnd tells it how the run ended, and the report when that did not work.
func (d *Delivery) pingEnd(ctx context.Context, result *report.Run) {
	ping, err := d.pinger()
	if err == nil && ping != nil {
		err = ping.Finish(ctx, *result)
	}
	if err != nil {
		d.Log.Warn("could not send the ping at the end of the run", "err", err)
		result.Warnings = append(result.Warnings, *report.ProblemOf(say.WithHint(err, "look at [ping] in the configuration")))
	}
}

// writeMetrics replaces the metrics file. Earlier runs, newest first, say when a volume that failed tonight last succeeded.
func (d *Delivery) writeMetrics(result report.Run, earlier []report.Run) error {
	path := d.Config.Metrics.Textfile
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("metrics: cannot write %s: what has that name is no file", path)
	}
	text := report.Metrics(result, report.MetricsOptions{LastSuccess: history.LastGood(result, earlier)})
	if err := durable.WriteFile(path, text, metricsPerm); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// notifier sends over routes, and keeps what it cannot send.
func (d *Delivery) notifier(routes []notify.Route) *notify.Notifier {
	return notify.New(routes, notify.Options{
		Spool: notify.NewDir(filepath.Join(d.Config.StateDir, "spool"), durable.Host(nil)),
		Log:   d.Log,
	})
}
