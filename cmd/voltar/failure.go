package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"voltar/internal/config"
	"voltar/internal/deadunit"
	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/report"
	"voltar/report/notify"
)

func (a *app) reportFailureCommand() *cli.Command {
	return &cli.Command{
		Name: "report-failure", Usage: "report a unit of systemd that failed", ArgsUsage: "UNIT", Hidden: true,
		Description: "Reports a unit that failed, unless its run has reported that itself: the run was killed or died, or the\n" +
			"configuration cannot be read. If the configured ways do not work, or there are none, mails root with sendmail.\n" +
			"voltar-failure@.service runs it.",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError{errors.New("name one unit of systemd")}
			}
			return a.reportFailure(c.Context, setupOptions{commonOptions: readCommon(c)}, c.Args().First())
		},
	}
}

func (a *app) reportFailure(ctx context.Context, o setupOptions, unit string) error {
	s, configErr := a.setup(o)
	if configErr != nil {
		var err error
		if s, err = a.emergencySetup(o.logLevel); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	dead, err := deadunit.Ask(ctx, s.runner, unit)
	if errors.Is(err, deadunit.ErrName) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	marker, err := deadunit.TakeMarker(dead.Invocation)
	if err != nil {
		s.log.Warn("what the run left for this report cannot be read", "err", err)
	}
	if marker.Told {
		s.log.Info("the run has reported this itself", "unit", dead.Name, "run", marker.Run)
		return nil
	}
	return s.tellFailure(ctx, s.failureReport(ctx, dead, marker, configErr), dead, marker)
}

// emergencySetup is what works without a configuration: the host's name, a log, and the defaults.
func (a *app) emergencySetup(logLevel string) (*setup, error) {
	s := &setup{config: config.Default(), now: a.now}
	var err error
	if s.log, err = a.logger(cmp.Or(logLevel, s.config.Log.Level)); err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("cannot tell the name of this host: %w", err)
	}
	s.host, _, _ = strings.Cut(name, ".")
	s.runner = hostcmd.New(hostcmd.Options{Log: s.log})
	return s, nil
}

// failureReport is the report of a run that could not make one, or the one that it made and could not send.
func (s *setup) failureReport(ctx context.Context, dead deadunit.Unit, marker deadunit.Marker, configErr error) report.Run {
	if marker.Run != "" {
		run, err := s.past().Load(marker.Run)
		if err == nil {
			return run
		}
		s.log.Warn("the report of the run cannot be found", "run", marker.Run, "err", err)
	}
	now := time.Now()
	started := dead.Started
	if started.IsZero() {
		started = now
	}
	run := report.Run{
		Schema: report.Schema, ID: journal.NewRunID(now), Host: s.host, Version: programVersion(), Config: s.config.Path(),
		Command: dead.Command(), Started: started.UTC(), Ended: now.UTC(), ExitCode: exitNothing,
		Retention: s.config.Retention.Policy().String(), Errors: []report.Problem{unitProblem(dead)},
	}
	if configErr != nil {
		run.Errors = append(run.Errors, report.Problem{
			Message: configErr.Error(), Hint: "mend the configuration; `voltar check` tries it",
		})
	}
	log, err := dead.Log(ctx, s.runner, s.log)
	switch {
	case err != nil:
		run.Warnings = append(run.Warnings, report.Problem{Message: "the log cannot be read: " + err.Error()})
	case log != "":
		run.Errors = append(run.Errors, report.Problem{Message: "the end of its log:\n" + log})
	}
	return run
}

// tellFailure sends a report over every route, and to root where that reaches nobody.
func (s *setup) tellFailure(ctx context.Context, run report.Run, dead deadunit.Unit, marker deadunit.Marker) error {
	if marker.Run == "" && s.config.Path() != "" {
		s.pingFailure(ctx, dead, &run)
		if err := s.past().Save(run); err != nil {
			s.log.Warn("the report cannot be kept in the history", "err", err)
		}
	}
	routes, err := s.routes()
	for i := range routes {
		routes[i].When = notify.Always // a death is told to all
	}
	message, messageErr := notify.NewMessage(run, report.Options{Location: time.Local})
	if messageErr != nil {
		return messageErr
	}
	// What the run itself could not send is in the spool by now, and goes out with the next one.
	if len(routes) > 0 && marker.Run == "" {
		err = errors.Join(err, s.notifier(routes).Deliver(ctx, message, nil))
		if err == nil {
			return nil
		}
	}
	if err != nil {
		s.log.Warn("the failure is mailed to root", "because", err)
	}
	root, err := notify.NewSendmail(notify.Addresses{From: "root@" + s.host, To: []string{"root@localhost"}}, s.runSendmail)
	if err == nil {
		err = root.Send(ctx, message)
	}
	if err != nil {
		return fmt.Errorf("could not report the failure of %s to anybody: %w", dead.Name, err)
	}
	return nil
}

// pingFailure tells the dead man's switch, which hears of the nightly run alone.
func (s *setup) pingFailure(ctx context.Context, dead deadunit.Unit, run *report.Run) {
	if dead.Name == nightlyUnit {
		s.pingEnd(ctx, run)
	}
}

// nightlyUnit is the service that the timer starts.
const nightlyUnit = "voltar.service"

// unitProblem says in words how a unit ended, and what to do.
func unitProblem(d deadunit.Unit) report.Problem {
	hint := "voltar-cleanup.service removes what it left on the host, as `voltar cleanup` does; `systemctl start " +
		d.Name + "` begins anew"
	switch {
	case d.Result == "timeout":
		return report.Problem{Message: d.Name + " did not end in time and was killed", Hint: hint}
	case d.Result == "oom-kill":
		return report.Problem{
			Message: d.Name + " was killed because the host was out of memory",
			Hint:    "lower parallel or archive.workers in the configuration; " + hint,
		}
	case d.Killed:
		return report.Problem{Message: fmt.Sprintf("%s was killed by %s", d.Name, d.Signal()), Hint: hint}
	case d.Status != 0:
		p := report.Problem{Message: fmt.Sprintf("%s ended with status %d before it could report: %s", d.Name, d.Status, exitWords(d))}
		if d.Status == exitLocked {
			p.Hint = "`systemctl list-jobs` and `ps -C voltar` show the other one"
		}
		return p
	case d.Result != "" && d.Result != "success":
		return report.Problem{Message: fmt.Sprintf("%s failed: %s", d.Name, d.Result), Hint: "systemctl status " + d.Name}
	}
	return report.Problem{Message: d.Name + " failed", Hint: "systemctl status " + d.Name}
}

// exitWords explains how a unit ended that was not killed.
func exitWords(d deadunit.Unit) string {
	switch d.Status {
	case exitNothing:
		return "nothing succeeded"
	case exitUsage:
		return "the configuration or the command line is wrong, or the program crashed"
	case exitAttention:
		return "something needs a person"
	case exitLocked:
		return "another run was still going"
	case exitNotDelivered:
		return "the report could not be delivered"
	case exitInterrupted:
		return "it was interrupted"
	}
	if d.NotStarted() {
		return "systemd could not start it as the unit says"
	}
	return "for a reason of its own"
}

// writeFailureMarker tells report-failure that a run which did not succeed has reported that itself.
func writeFailureMarker(result *report.Run, told bool) error {
	if result.ExitCode == exitDone {
		return nil
	}
	return deadunit.WriteMarker(deadunit.Marker{Run: result.ID, Told: told})
}
