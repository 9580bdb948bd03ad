// Package deliver brings reports to people and programs as the configuration says: by mail, webhook, ping and metrics, and to the
// history. What cannot be sent is kept, and goes out with a later run.
package deliver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"voltar/internal/config"
	"voltar/internal/durable"
	"voltar/internal/exitcode"
	"voltar/internal/history"
	"voltar/internal/hostcmd"
	"voltar/internal/say"
	"voltar/report"
	"voltar/report/notify"
)

// What is kept of past runs. Whoever answers for backups is asked about a year.
const (
	historyRuns = 400
	proofRuns   = 1000 // drills and restores
	proofDays   = 400
)

// trendRuns is how many of them the picture in the mail shows.
const trendRuns = 30

// deliverTimeout bounds sending the report, which goes on when the run was interrupted.
const deliverTimeout = 5 * time.Minute

// flushTimeout bounds sending what is kept of earlier runs, which must leave time for tonight's.
const flushTimeout = 90 * time.Second

// Delivery is what knows the ways of reports.
type Delivery struct {
	Config  *config.Config
	Host    string // this one
	Version string // of the program
	Runner  *hostcmd.Runner
	Log     *slog.Logger
	Now     func() time.Time

	nameLookup
}

// Past is the history of this host's runs.
func (d *Delivery) Past() *history.Store {
	return history.New(filepath.Join(d.Config.StateDir, "history"), durable.Host(nil), d.Now)
}

// Options say who hears of a run.
type Options struct {
	NoMail bool
	// Whole is a run over all that the configuration selects. The dead man's switch and the metrics do not hear of others,
	// which would look as if everything was backed up.
	Whole bool
}

// Run sends the report, after those that could not be sent before, keeps it in the history and writes the metrics.
// When the error says that it was not delivered, it is kept and goes out with the next run.
func (d *Delivery) Run(ctx context.Context, result *report.Run, o Options) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverTimeout)
	defer cancel()
	past := d.Past()
	runs, err := past.Earlier()
	if err != nil {
		d.Log.Warn("the history cannot be read completely", "err", err)
	}
	history.NoteProofs(result, runs)
	runs = history.OfCommand(runs, result.Command)
	if o.Whole {
		d.pingEnd(ctx, result)
	}
	var sendErr error
	told := false
	if !o.NoMail {
		told, sendErr = d.send(ctx, result, runs)
		if sendErr != nil {
			result.Warnings = append(result.Warnings, undelivered(sendErr)...)
			if result.ExitCode == exitcode.Done {
				result.ExitCode = exitcode.NotDelivered
			}
		}
	}
	if o.Whole {
		if err := d.writeMetrics(*result, runs); err != nil {
			d.Log.Warn("the metrics are not up to date", "err", err)
		}
	}
	d.Keep(*result)
	if err := writeFailureMarker(result, told); err != nil {
		d.Log.Warn("systemd will report this run a second time", "err", err)
	}
	return sendErr
}

// Keep keeps a run in the history, and bounds that.
func (d *Delivery) Keep(run report.Run) {
	past := d.Past()
	if err := past.Save(run); err != nil {
		d.Log.Warn("the report cannot be kept in the history", "err", d.stateHint(err))
	}
	if _, err := past.Prune(history.Kept{Runs: historyRuns},
		history.Kept{Runs: proofRuns, Before: d.Now().AddDate(0, 0, -proofDays)}); err != nil {
		d.Log.Warn("the history cannot be pruned", "err", err)
	}
}

// Rendering is what the text of a run that was delivered needs to know of those before it.
func (d *Delivery) Rendering(result *report.Run) report.Options {
	runs, err := d.Past().Earlier()
	if err != nil {
		d.Log.Warn("the history cannot be read completely", "err", err)
	}
	runs = slices.DeleteFunc(history.OfCommand(runs, result.Command), func(r report.Run) bool { return r.ID == result.ID })
	return report.Options{Location: time.Local, History: history.Points(runs)}
}

// undelivered says in the history why a report did not reach everybody.
func undelivered(err error) []report.Problem {
	return report.ProblemsOf(say.WithHint(err, "`voltar check` tries the mail server, `voltar check --send-test-mail` the recipients"))
}

// stateHint says what to do when the filesystem of the history is full.
func (d *Delivery) stateHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return say.WithHint(err, fmt.Sprintf("make space on the filesystem of %s (state_dir)", d.Config.StateDir))
	}
	return err
}

// send delivers a report over all routes, after what earlier runs could not send. told is whether somebody has it, or
// wants none of this kind.
func (d *Delivery) send(ctx context.Context, result *report.Run, earlier []report.Run) (told bool, err error) {
	routes, routesErr := d.routes(ctx)
	if len(routes) == 0 {
		return false, routesErr
	}
	notifier := d.notifier(routes)
	result.Warnings = append(result.Warnings, sendKept(ctx, notifier)...)
	message, err := notify.NewMessage(*result, report.Options{
		Location: time.Local, History: history.Points(earlier[:min(len(earlier), trendRuns)]),
	})
	if err != nil {
		return false, errors.Join(err, routesErr)
	}
	var previous *report.Run
	if len(earlier) > 0 {
		previous = &earlier[0]
	}
	err = errors.Join(notifier.Deliver(ctx, message, previous), routesErr)
	return err == nil, err
}

// sendKept sends what earlier runs could not.
func sendKept(ctx context.Context, notifier *notify.Notifier) []report.Problem {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return notifier.Flush(ctx)
}

// mailChannel is the mail server of the configuration, or the host's sendmail.
func (d *Delivery) mailChannel(ctx context.Context) (notify.Channel, error) {
	m := d.Config.Mail
	addresses := notify.Addresses{From: d.mailSender(ctx), To: m.To}
	if m.Server == "" {
		return notify.NewSendmail(addresses, d.runSendmail)
	}
	password := ""
	if m.Password.Set() {
		var err error
		if password, err = m.Password.Read(); err != nil {
			return nil, err
		}
	}
	return notify.NewSMTP(notify.SMTPOptions{
		Addresses: addresses, Host: m.Server, Port: m.Port, Encryption: notify.Encryption(m.TLS),
		Username: m.Username, Password: password, CAFile: m.CAFile, Helo: d.mailHelo(ctx), Timeout: m.Timeout.Span(),
	})
}

// nameTimeout bounds how long the full name of this host is looked for.
const nameTimeout = 5 * time.Second

// nameLookup looks up the full name of this host once: without DNS that takes all of nameTimeout.
type nameLookup struct {
	once   sync.Once
	name   string
	lookUp func(ctx context.Context) string // nil: hostName
}

// fullName is this host's name with its domain, or "". The first caller's ctx bounds the lookup.
func (l *nameLookup) fullName(ctx context.Context) string {
	l.once.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, nameTimeout)
		defer cancel()
		if l.lookUp == nil {
			l.lookUp = hostName
		}
		l.name = l.lookUp(ctx)
	})
	return l.name
}

// hostName asks /etc/hosts and DNS for this host's name with its domain, or returns "".
func hostName(ctx context.Context) string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return notify.FullName(ctx, net.DefaultResolver, name)
}

// mailSender is the address of which mails come, and to which mail servers send what they cannot deliver.
func (d *Delivery) mailSender(ctx context.Context) string {
	if d.Config.Mail.From != "" {
		return d.Config.Mail.From
	}
	return "root@" + cmp.Or(d.fullName(ctx), d.Host)
}

// mailHelo is how the mail server is greeted: many refuse a name without a domain.
func (d *Delivery) mailHelo(ctx context.Context) string {
	if d.Config.Mail.Helo != "" {
		return d.Config.Mail.Helo
	}
	if name := d.fullName(ctx); name != "" {
		return name
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		d.Log.Warn("this host has no full name, and its addresses cannot be told: set mail.helo", "err", err)
	}
	return notify.Literal(addresses)
}

func (d *Delivery) runSendmail(ctx context.Context, args []string, message []byte) error {
	_, err := d.Runner.Run(ctx, hostcmd.Cmd{
		Name: d.Config.Mail.Sendmail, Args: args, Stdin: bytes.NewReader(message), Timeout: d.Config.Mail.Timeout.Span(),
	})
	return err
}

// CheckMail logs in to the mail server, with encryption and password, and sends nothing.
func (d *Delivery) CheckMail(ctx context.Context) error {
	channel, err := d.mailChannel(ctx)
	if err != nil {
		return err
	}
	if server, ok := channel.(interface {
		Check(ctx context.Context) error
	}); ok {
		return server.Check(ctx)
	}
	return nil
}

// TestMail sends a report of a run that did nothing.
func (d *Delivery) TestMail(ctx context.Context) error {
	channel, err := d.mailChannel(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	id := fmt.Sprint("test-", now.UnixNano()) // a mail server that drops what it has had would drop the second test
	run := report.Run{Schema: report.Schema, ID: id, Host: d.Host, Version: d.Version, Config: d.Config.Path(), Command: "check",
		Started: now, Ended: now, Warnings: []report.Problem{{Message: "This is a test: no volume was backed up."}}}
	message, err := notify.NewMessage(run, report.Options{Location: time.Local})
	if err != nil {
		return err
	}
	if err := channel.Send(ctx, message); err != nil {
		return fmt.Errorf("the test mail was not sent: %w", err)
	}
	return nil
}

// SMTPPort is the port that a connection to the mail server would use.
func SMTPPort(m config.Mail) int {
	switch {
	case m.Port != 0:
		return m.Port
	case m.TLS == "tls":
		return 465
	case m.TLS == "none":
		return 25
	}
	return 587
}

// Verification mails the report of a verification, where that is asked for, and keeps it in the history.
func (d *Delivery) Verification(ctx context.Context, run *report.Run, mail bool) {
	past := d.Past()
	told := false
	if mail {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverTimeout)
		defer cancel()
		runs, err := past.Earlier()
		if err != nil {
			d.Log.Warn("the history cannot be read completely", "err", err)
		}
		if told, err = d.send(ctx, run, history.OfCommand(runs, run.Command)); err != nil {
			d.Log.Error("the report was not delivered", "err", err)
			run.Warnings = append(run.Warnings, undelivered(err)...)
			if run.ExitCode == exitcode.Done {
				run.ExitCode = exitcode.NotDelivered
			}
		}
	}
	if run.Host == d.Host { // the history is of this host's volumes
		d.Keep(*run)
	}
	if err := writeFailureMarker(run, told); err != nil {
		d.Log.Warn("systemd will report this a second time", "err", err)
	}
}

// Again mails a run of the history, whatever the configuration says of when to mail.
func (d *Delivery) Again(ctx context.Context, run report.Run, opts report.Options) error {
	if len(d.Config.Mail.To) == 0 {
		return exitcode.UsageError(errors.New("there are no recipients of mail: add [mail] to the configuration"))
	}
	channel, err := d.mailChannel(ctx)
	if err != nil {
		return err
	}
	message, err := notify.NewMessage(run, opts)
	if err != nil {
		return err
	}
	if err := channel.Send(ctx, message); err != nil {
		return fmt.Errorf("the report was not sent: %w", err)
	}
	return nil
}
