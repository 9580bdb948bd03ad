package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voltar/internal/deadunit"
	"voltar/internal/exitcode"
	"voltar/internal/journal"
	"voltar/report"
	"voltar/report/notify"
)

// Failure reports a unit of systemd that failed, unless its run has reported that itself. configErr is why there is no
// configuration, or nil. Where the ways of the configuration do not work, or there are none, root gets it by sendmail.
func (d *Delivery) Failure(ctx context.Context, unit string, configErr error) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	dead, err := deadunit.Ask(ctx, d.Runner, unit)
	if errors.Is(err, deadunit.ErrName) {
		return exitcode.UsageError(err)
	}
	if err != nil {
		return err
	}
	marker, err := deadunit.TakeMarker(dead.Invocation)
	if err != nil {
		d.Log.Warn("what the run left for this report cannot be read", "err", err)
	}
	if marker.Told {
		d.Log.Info("the run has reported this itself", "unit", dead.Name, "run", marker.Run)
		return nil
	}
	return d.tellFailure(ctx, d.failureReport(ctx, dead, marker, configErr), dead, marker)
}

// failureReport is the report of a run that could not make one, or the one that it made and could not send.
func (d *Delivery) failureReport(ctx context.Context, dead deadunit.Unit, marker deadunit.Marker, configErr error) report.Run {
	if marker.Run != "" {
		run, err := d.Past().Load(marker.Run)
		if err == nil {
			return run
		}
		d.Log.Warn("the report of the run cannot be found", "run", marker.Run, "err", err)
	}
	now := time.Now()
	started := dead.Started
	if started.IsZero() {
		started = now
	}
	run := report.Run{
		Schema: report.Schema, ID: journal.NewRunID(now), Host: d.Host, Version: d.Version, Config: d.Config.Path(),
		Command: dead.Command(), Started: started.UTC(), Ended: now.UTC(), ExitCode: exitcode.Nothing,
		Retention: d.Config.Retention.Policy().String(), Errors: []report.Problem{unitProblem(dead)},
	}
	if configErr != nil {
		run.Errors = append(run.Errors, report.Problem{
			Message: configErr.Error(), Hint: "mend the configuration; `voltar check` tries it",
		})
	}
	log, err := dead.Log(ctx, d.Runner, d.Log)
	switch {
	case err != nil:
		run.Warnings = append(run.Warnings, report.Problem{Message: "the log cannot be read: " + err.Error()})
	case log != "":
		run.Errors = append(run.Errors, report.Problem{Message: "the end of its log:\n" + log})
	}
	return run
}

// tellFailure sends a report over every route, and to root where that reaches nobody.
func (d *Delivery) tellFailure(ctx context.Context, run report.Run, dead deadunit.Unit, marker deadunit.Marker) error {
	if marker.Run == "" && d.Config.Path() != "" {
		d.pingFailure(ctx, dead, &run)
		if err := d.Past().Save(run); err != nil {
			d.Log.Warn("the report cannot be kept in the history", "err", d.stateHint(err))
		}
	}
	routes, err := d.routes(ctx)
	for i := range routes {
		routes[i].When = notify.Always // a death is told to all
	}
	message, messageErr := notify.NewMessage(run, report.Options{Location: time.Local})
	if messageErr != nil {
		return messageErr
	}
	// What the run itself could not send is in the spool by now, and goes out with the next one.
	if len(routes) > 0 && marker.Run == "" {
		err = errors.Join(err, d.notifier(routes).Deliver(ctx, message, nil))
		if err == nil {
			return nil
		}
	}
	if err != nil {
		d.Log.Warn("the failure is mailed to root", "because", err)
	}
	root, err := notify.NewSendmail(notify.Addresses{From: d.mailSender(ctx), To: []string{"root@localhost"}}, d.runSendmail)
	if err == nil {
		err = root.Send(ctx, message)
	}
	if err != nil {
		return fmt.Errorf("could not report the failure of %s to anybody: %w", dead.Name, err)
	}
	return nil
}

// pingFailure tells the dead man's switch, which hears of the nightly run alone.
func (d *Delivery) pingFailure(ctx context.Context, dead deadunit.Unit, run *report.Run) {
	if dead.Name == nightlyUnit {
		d.pingEnd(ctx, run)
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
		if d.Status == exitcode.Locked {
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
	case exitcode.Nothing:
		return "nothing succeeded"
	case exitcode.Usage:
		return "the configuration or the command line is wrong, or the program crashed"
	case exitcode.Attention:
		return "something needs a person"
	case exitcode.Locked:
		return "another run was still going"
	case exitcode.NotDelivered:
		return "the report could not be delivered"
	case exitcode.Interrupted:
		return "it was interrupted"
	}
	if d.NotStarted() {
		return "systemd could not start it as the unit says"
	}
	return "for a reason of its own"
}

// writeFailureMarker tells report-failure that a run which did not succeed has reported that itself.
func writeFailureMarker(result *report.Run, told bool) error {
	if result.ExitCode == exitcode.Done {
		return nil
	}
	return deadunit.WriteMarker(deadunit.Marker{Run: result.ID, Told: told})
}
