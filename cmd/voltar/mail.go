package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/config"
	"voltar/internal/history"
	"voltar/internal/hostcmd"
	"voltar/report"
	"voltar/report/notify"
)

// historyRuns is how many past runs are kept.
const historyRuns = 400

// trendRuns is how many of them the picture in the mail shows.
const trendRuns = 30

// deliverTimeout bounds sending the report, which goes on when the run was interrupted.
const deliverTimeout = 5 * time.Minute

// flushTimeout bounds sending what is kept of earlier runs, which must leave time for tonight's.
const flushTimeout = 90 * time.Second

// deliverOptions say who hears of a run.
type deliverOptions struct {
	noMail bool
	// whole is a run over all that the configuration selects. The dead man's switch and the metrics do not hear of others,
	// which would look as if everything was backed up.
	whole bool
}

// deliver sends the report, after those that could not be sent before, keeps it in the history and writes the metrics.
// When the error says that it was not delivered, it is kept and goes out with the next run.
func (s *setup) deliver(ctx context.Context, result *report.Run, o deliverOptions) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverTimeout)
	defer cancel()
	past := s.past()
	runs, err := past.Earlier()
	if err != nil {
		s.log.Warn("the history cannot be read completely", "err", err)
	}
	history.NoteProofs(result, runs)
	runs = history.OfCommand(runs, result.Command)
	if o.whole {
		s.pingEnd(ctx, result)
	}
	var sendErr error
	told := false
	if !o.noMail {
		told, sendErr = s.send(ctx, result, runs)
		if sendErr != nil && result.ExitCode == exitDone {
			result.ExitCode = exitNotDelivered
		}
	}
	if o.whole {
		if err := s.writeMetrics(*result, runs); err != nil {
			s.log.Warn("the metrics are not up to date", "err", err)
		}
	}
	if err := past.Save(*result); err != nil {
		s.log.Warn("the report cannot be kept in the history", "err", err)
	}
	if _, err := past.Prune(historyRuns, time.Time{}); err != nil {
		s.log.Warn("the history cannot be pruned", "err", err)
	}
	if err := writeFailureMarker(result, told); err != nil {
		s.log.Warn("systemd will report this run a second time", "err", err)
	}
	return sendErr
}

// send delivers a report over all routes, after what earlier runs could not send. told is whether somebody has it, or
// wants none of this kind.
func (s *setup) send(ctx context.Context, result *report.Run, earlier []report.Run) (told bool, err error) {
	routes, routesErr := s.routes()
	if len(routes) == 0 {
		return false, routesErr
	}
	notifier := s.notifier(routes)
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
func (s *setup) mailChannel() (notify.Channel, error) {
	m := s.config.Mail
	addresses := notify.Addresses{From: m.From, To: m.To}
	if addresses.From == "" {
		addresses.From = "root@" + s.host
	}
	if m.Server == "" {
		return notify.NewSendmail(addresses, s.runSendmail)
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
		Username: m.Username, Password: password, CAFile: m.CAFile, Timeout: m.Timeout.Span(),
	})
}

func (s *setup) runSendmail(ctx context.Context, args []string, message []byte) error {
	_, err := s.runner.Run(ctx, hostcmd.Cmd{
		Name: s.config.Mail.Sendmail, Args: args, Stdin: bytes.NewReader(message), Timeout: s.config.Mail.Timeout.Span(),
	})
	return err
}

// sendTestMail sends a report of a run that did nothing.
func (s *setup) sendTestMail(ctx context.Context) error {
	channel, err := s.mailChannel()
	if err != nil {
		return err
	}
	now := time.Now()
	id := fmt.Sprint("test-", now.UnixNano()) // a mail server that drops what it has had would drop the second test
	run := report.Run{Schema: report.Schema, ID: id, Host: s.host, Version: programVersion(), Config: s.config.Path(), Command: "check",
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

// smtpPort is the port that a connection to the mail server would use.
func smtpPort(m config.Mail) int {
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
