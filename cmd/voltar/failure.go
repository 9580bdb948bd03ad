package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"voltar/internal/config"
	"voltar/internal/durable"
	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/report"
	"voltar/report/notify"
)

// failureLogLines is how much of a dead run's log its report shows.
const failureLogLines = 40

func (a *app) reportFailureCommand() *cli.Command {
	return &cli.Command{
		Name: "report-failure", Usage: "report a unit of systemd that failed", ArgsUsage: "UNIT", Hidden: true,
		Description: "Sends what is known of a unit that failed, unless it has reported that itself: the run was killed or died, or\n" +
			"the configuration cannot be read. Where the configured ways do not work, or there are none, sendmail takes a mail\n" +
			"to root. voltar-failure@.service runs it.",
		Action: a.reportFailure,
	}
}

func (a *app) reportFailure(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageError{errors.New("name one unit of systemd")}
	}
	s, configErr := a.setup(c)
	if configErr != nil {
		var err error
		if s, err = a.emergencySetup(c); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(c.Context, deliverTimeout)
	defer cancel()
	dead, err := s.askSystemd(ctx, c.Args().First())
	if err != nil {
		return err
	}
	said, err := takeWord(dead.invocation)
	if err != nil {
		s.log.Warn("what the run left for this report cannot be read", "err", err)
	}
	if said.Told {
		s.log.Info("the run has reported this itself", "unit", dead.unit, "run", said.Run)
		return nil
	}
	return s.tellFailure(ctx, s.failureReport(ctx, dead, said, configErr), dead, said)
}

// emergencySetup is what works without a configuration: the host's name, a log, and the defaults.
func (a *app) emergencySetup(c *cli.Context) (*setup, error) {
	s := &setup{config: config.Default(), now: a.now}
	var err error
	if s.log, err = a.logger(c, s.config); err != nil {
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
func (s *setup) failureReport(ctx context.Context, dead deadUnit, said word, configErr error) report.Run {
	if said.Run != "" {
		run, err := s.past().Load(said.Run)
		if err == nil {
			return run
		}
		s.log.Warn("the report of the run cannot be found", "run", said.Run, "err", err)
	}
	now := time.Now()
	started := dead.started
	if started.IsZero() {
		started = now
	}
	run := report.Run{
		Schema: report.Schema, ID: journal.NewRunID(now), Host: s.host, Version: programVersion(), Config: s.config.Path(),
		Command: dead.command(), Started: started.UTC(), Ended: now.UTC(), ExitCode: exitNothing,
		Retention: s.config.Retention.Policy().String(), Errors: []report.Problem{dead.problem()},
	}
	if configErr != nil {
		run.Errors = append(run.Errors, report.Problem{
			Message: configErr.Error(), Hint: "mend the configuration; `voltar check` tries it",
		})
	}
	log, err := s.logOf(ctx, dead)
	switch {
	case err != nil:
		run.Warnings = append(run.Warnings, report.Problem{Message: "the log cannot be read: " + err.Error()})
	case log != "":
		run.Errors = append(run.Errors, report.Problem{Message: "the end of its log:\n" + log})
	}
	return run
}

// tellFailure sends a report over every route, and to root where that reaches nobody.
func (s *setup) tellFailure(ctx context.Context, run report.Run, dead deadUnit, said word) error {
	if said.Run == "" && s.config.Path() != "" {
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
	if len(routes) > 0 && said.Run == "" {
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
		return fmt.Errorf("the failure of %s could not be told to anybody: %w", dead.unit, err)
	}
	return nil
}

// pingFailure tells the dead man's switch, which hears of the nightly run alone.
func (s *setup) pingFailure(ctx context.Context, dead deadUnit, run *report.Run) {
	if dead.unit == nightlyUnit {
		s.pingEnd(ctx, run)
	}
}

// nightlyUnit is the service that the timer starts.
const nightlyUnit = "voltar.service"

// deadUnit is what systemd knows of a unit that failed.
type deadUnit struct {
	unit, invocation string
	result           string // systemd.exec(5), SERVICE_RESULT
	killed           bool   // by a signal, which is the status then
	status           int
	started          time.Time // zero when it did not get that far
}

var unitForm = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,255}$`)

// askSystemd asks for the last start of a unit.
func (s *setup) askSystemd(ctx context.Context, unit string) (deadUnit, error) {
	if !unitForm.MatchString(unit) || strings.HasPrefix(unit, "-") {
		return deadUnit{}, usageError{fmt.Errorf("%q is no name of a unit", unit)}
	}
	out, err := s.runner.Output(ctx, "systemctl", "show", "--property",
		"Result,ExecMainCode,ExecMainStatus,ExecMainStartTimestampMonotonic,InvocationID", unit)
	if err != nil {
		return deadUnit{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return deadUnit{}, fmt.Errorf("cannot read the clock: %w", err)
	}
	return parseUnit(unit, string(out), time.Now(), time.Duration(now.Nano())), nil
}

// parseUnit reads the lines KEY=VALUE of systemctl show. What is missing stays empty. sinceBoot is the monotonic time now.
func parseUnit(unit, properties string, now time.Time, sinceBoot time.Duration) deadUnit {
	dead := deadUnit{unit: unit}
	for line := range strings.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		number, err := strconv.ParseInt(value, 10, 64)
		switch {
		case key == "Result":
			dead.result = value
		case key == "InvocationID":
			dead.invocation = value
		case err != nil:
		case key == "ExecMainCode":
			dead.killed = number == cldKilled || number == cldDumped
		case key == "ExecMainStatus":
			dead.status = int(number)
		case key == "ExecMainStartTimestampMonotonic" && number > 0:
			dead.started = now.Add(time.Duration(number)*time.Microsecond - sinceBoot)
		}
	}
	return dead
}

// The codes of waitid(2) for a process that a signal ended.
const (
	cldKilled = 2
	cldDumped = 3
)

// command is the subcommand of the program that the unit runs.
func (d deadUnit) command() string {
	name := strings.TrimSuffix(d.unit, ".service")
	if name == "voltar" {
		return "run"
	}
	return strings.TrimPrefix(name, "voltar-")
}

// problem says in words how the unit ended, and what to do.
func (d deadUnit) problem() report.Problem {
	hint := "voltar-cleanup.service removes what it left on the host, as `voltar cleanup` does; `systemctl start " +
		d.unit + "` begins anew"
	switch {
	case d.result == "timeout":
		return report.Problem{Message: d.unit + " did not end in time and was killed", Hint: hint}
	case d.result == "oom-kill":
		return report.Problem{
			Message: d.unit + " was killed because the host was out of memory",
			Hint:    "lower parallel or archive.workers in the configuration; " + hint,
		}
	case d.killed:
		return report.Problem{Message: fmt.Sprintf("%s was killed by %s", d.unit, signalName(d.status)), Hint: hint}
	case d.status != 0:
		p := report.Problem{Message: fmt.Sprintf("%s ended with status %d before it could report: %s", d.unit, d.status, exitWords(d.status))}
		if d.status == exitLocked {
			p.Hint = "`systemctl list-jobs` and `ps -C voltar` show the other one"
		}
		return p
	case d.result != "" && d.result != "success":
		return report.Problem{Message: fmt.Sprintf("%s failed: %s", d.unit, d.result), Hint: "systemctl status " + d.unit}
	}
	return report.Problem{Message: d.unit + " failed", Hint: "systemctl status " + d.unit}
}

func signalName(number int) string {
	if name := unix.SignalName(syscall.Signal(number)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", number)
}

// exitWords explains the program's exit codes, and systemd's own (systemd.exec(5)).
func exitWords(status int) string {
	switch status {
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
	if status >= 200 && status <= 245 {
		return "systemd could not start it as the unit says"
	}
	return "for a reason of its own"
}

// logOf is the end of the log of a unit's last start, systemd's own words on it included.
func (s *setup) logOf(ctx context.Context, dead deadUnit) (string, error) {
	if dead.invocation == "" {
		return "", nil
	}
	// journald may not have taken the last lines in yet, which tell most. Without this there are fewer.
	if _, err := s.runner.Output(ctx, "journalctl", "--sync"); err != nil {
		s.log.Debug("journald does not take in what is left", "error", err)
	}
	out, err := s.runner.Output(ctx, "journalctl", "--quiet", "--no-pager", "--output=short", fmt.Sprintf("--lines=%d", failureLogLines),
		"_SYSTEMD_INVOCATION_ID="+dead.invocation, "+", "INVOCATION_ID="+dead.invocation)
	return strings.TrimSpace(string(out)), err
}

// word is what a run that systemd started, and that ended in anything but success, leaves for report-failure.
type word struct {
	Run  string `json:"run"`  // its report is in the history
	Told bool   `json:"told"` // and somebody has it, or wants none of this kind
}

// wordPath is where that is left; "" when systemd did not start this process.
func wordPath(invocation string) string {
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" || invocation == "" || strings.ContainsAny(invocation, "/.") {
		return ""
	}
	return filepath.Join(dir, "reported-"+invocation)
}

// leaveWord tells report-failure that this run has reported, lest it be reported twice.
func leaveWord(result *report.Run, told bool) error {
	path := wordPath(os.Getenv("INVOCATION_ID"))
	if path == "" || result.ExitCode == exitDone {
		return nil
	}
	text, err := json.Marshal(word{Run: result.ID, Told: told})
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}

// takeWord reads what a run has left, and removes it. A run that died left nothing.
func takeWord(invocation string) (word, error) {
	path := wordPath(invocation)
	if path == "" {
		return word{}, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return word{}, nil
	}
	var said word
	if err == nil {
		err = errors.Join(json.Unmarshal(text, &said), os.Remove(path))
	}
	return said, err
}
