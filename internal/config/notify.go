package config

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"voltar/internal/safedir"
)

// Webhook is one more way for the report, beside the mail.
type Webhook struct {
	Name          string            `toml:"name"`
	URL           string            `toml:"url"`
	SecretURL     Secret            `toml:"secret_url"` // instead of URL, where the URL is a password by itself
	Method        string            `toml:"method"`     // POST or PUT
	Headers       map[string]string `toml:"headers"`
	SecretHeaders map[string]Secret `toml:"secret_headers"`
	Template      string            `toml:"template"`      // json, slack, ntfy or ticket
	TemplateFile  string            `toml:"template_file"` // instead of Template
	ContentType   string            `toml:"content_type"`  // by the template when empty
	CAFile        string            `toml:"ca_file"`
	Notify        string            `toml:"notify"` // always, failure or change
	Timeout       Duration          `toml:"timeout"`
}

// Target returns the URL, from wherever it stands.
func (w Webhook) Target() (string, error) { return textOrSecret(w.URL, w.SecretURL) }

// AllHeaders returns the headers with the secret ones among them.
func (w Webhook) AllHeaders() (map[string]string, error) {
	all := make(map[string]string, len(w.Headers)+len(w.SecretHeaders))
	for name, value := range w.Headers {
		all[name] = value
	}
	for name, secret := range w.SecretHeaders {
		value, err := secret.Read()
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		all[name] = value
	}
	return all, nil
}

// Body returns the template: the name of a built-in one, or the text of the file.
func (w Webhook) Body() (string, error) {
	if w.TemplateFile == "" {
		return w.Template, nil
	}
	text, err := safedir.ReadFile(w.TemplateFile)
	return string(text), err
}

// Ping is a dead man's switch, which raises the alarm when it hears nothing.
type Ping struct {
	URL       string `toml:"url"`        // as healthchecks.io has it, with /start and /fail below
	SecretURL Secret `toml:"secret_url"` // instead of URL
	Start     string `toml:"start"`      // for services of other forms: each instead of what URL would give
	Success   string `toml:"success"`
	Failure   string `toml:"failure"`
	CAFile    string `toml:"ca_file"`
}

// Set tells whether there is one.
func (p Ping) Set() bool {
	return p.URL != "" || p.SecretURL.Set() || p.Start+p.Success+p.Failure != ""
}

// Base returns the URL, from wherever it stands; "" when there are only single ones.
func (p Ping) Base() (string, error) { return textOrSecret(p.URL, p.SecretURL) }

// Metrics says where numbers for Prometheus go.
type Metrics struct {
	Textfile string `toml:"textfile"` // in the folder of node_exporter's textfile collector
}

func textOrSecret(text string, secret Secret) (string, error) {
	if !secret.Set() {
		return text, nil
	}
	return secret.Read()
}

func (c *Config) validateNotify(p *problems) {
	seen := names{}
	for i, w := range c.Webhooks {
		key := fmt.Sprintf("webhook #%d (%s)", i+1, w.Name)
		seen.check(p, key, w.Name)
		w.validate(p, key)
	}
	c.Ping.validate(p)
	if c.Metrics.Textfile != "" {
		p.absolute("metrics.textfile", c.Metrics.Textfile)
		if !strings.HasSuffix(c.Metrics.Textfile, ".prom") {
			p.add("metrics.textfile", "%q does not end in .prom: node_exporter would not read it", c.Metrics.Textfile)
		}
	}
}

func (w Webhook) validate(p *problems, key string) {
	if (w.URL == "") == !w.SecretURL.Set() {
		p.add(key, "set one of url and secret_url")
	}
	p.url(key+": url", w.URL)
	w.SecretURL.validate(p, key+": secret_url")
	for name, secret := range w.SecretHeaders {
		secret.validate(p, key+": secret_headers."+name)
		if _, twice := w.Headers[name]; twice || !secret.Set() {
			p.add(key+": secret_headers."+name, "set it once, by one of file, env and credential")
		}
	}
	p.oneOf(key+": method", cmp.Or(w.Method, "POST"), "POST", "PUT")
	p.oneOf(key+": template", cmp.Or(w.Template, "json"), "json", "slack", "ntfy", "ticket")
	if w.TemplateFile != "" {
		p.absolute(key+": template_file", w.TemplateFile)
		if w.Template != "" {
			p.add(key, "set one of template and template_file")
		}
	}
	p.oneOf(key+": notify", cmp.Or(w.Notify, "always"), "always", "failure", "change")
}

func (ping Ping) validate(p *problems) {
	if ping.URL != "" && ping.SecretURL.Set() {
		p.add("ping", "set one of url and secret_url")
	}
	ping.SecretURL.validate(p, "ping.secret_url")
	p.url("ping.url", ping.URL)
	p.url("ping.start", ping.Start)
	p.url("ping.success", ping.Success)
	p.url("ping.failure", ping.Failure)
}

// url refuses what is no URL, without echoing it: it may be a password.
func (p *problems) url(key, text string) {
	if text == "" {
		return
	}
	target, err := url.Parse(text)
	if err != nil || target.Host == "" || target.Scheme != "https" && target.Scheme != "http" {
		p.add(key, "it must begin with https:// or http:// and name a host")
	}
}
