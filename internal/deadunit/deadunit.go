// Package deadunit knows how a unit of systemd ended that failed (systemctl(1), systemd.exec(5)), the end of its log, and
// whether the run that it started has reported that itself.
package deadunit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/durable"
	"voltar/internal/hostcmd"
)

// LogLines is how much of the log Log returns.
const LogLines = 40

// ErrName is wrapped by the error for a name that no unit can have.
var ErrName = errors.New("no name of a unit")

// Unit is what systemd knows of a unit that failed.
type Unit struct {
	Name, Invocation string
	Result           string // systemd.exec(5), SERVICE_RESULT
	Killed           bool   // by a signal, which is the status then
	Status           int
	Started          time.Time // zero when it did not get that far
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,255}$`)

// Ask asks systemd for the last start of a unit.
func Ask(ctx context.Context, runner *hostcmd.Runner, name string) (Unit, error) {
	if !nameForm.MatchString(name) || strings.HasPrefix(name, "-") {
		return Unit{}, fmt.Errorf("%q is %w", name, ErrName)
	}
	out, err := runner.Output(ctx, "systemctl", "show", "--property",
		"Result,ExecMainCode,ExecMainStatus,ExecMainStartTimestampMonotonic,InvocationID", name)
	if err != nil {
		return Unit{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return Unit{}, fmt.Errorf("cannot read the clock: %w", err)
	}
	return parse(name, string(out), time.Now(), time.Duration(now.Nano())), nil
}

// The codes of waitid(2) for a process that a signal ended.
const (
	cldKilled = 2
	cldDumped = 3
)

// parse reads the lines KEY=VALUE of systemctl show. What is missing stays empty. sinceBoot is the monotonic time now.
func parse(name, properties string, now time.Time, sinceBoot time.Duration) Unit {
	u := Unit{Name: name}
	for line := range strings.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		number, err := strconv.ParseInt(value, 10, 64)
		switch {
		case key == "Result":
			u.Result = value
		case key == "InvocationID":
			u.Invocation = value
		case err != nil:
		case key == "ExecMainCode":
			u.Killed = number == cldKilled || number == cldDumped
		case key == "ExecMainStatus":
			u.Status = int(number)
		case key == "ExecMainStartTimestampMonotonic" && number > 0:
			u.Started = now.Add(time.Duration(number)*time.Microsecond - sinceBoot)
		}
	}
	return u
}

// Command is the subcommand of voltar that the unit runs.
func (u Unit) Command() string {
	name := strings.TrimSuffix(u.Name, ".service")
	if name == "voltar" {
		return "run"
	}
	return strings.TrimPrefix(name, "voltar-")
}

// Signal names the signal that killed the unit.
func (u Unit) Signal() string {
	if name := unix.SignalName(syscall.Signal(u.Status)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", u.Status)
}

// NotStarted reports whether systemd ended the unit by itself, for it could not start it as the unit says (systemd.exec(5)).
func (u Unit) NotStarted() bool { return u.Status >= 200 && u.Status <= 245 }

// Log is the end of the log of the unit's last start, with systemd's own messages.
func (u Unit) Log(ctx context.Context, runner *hostcmd.Runner, log *slog.Logger) (string, error) {
	if u.Invocation == "" {
		return "", nil
	}
	// journald may not have stored the last lines yet, which tell most. Without this there are fewer.
	if _, err := runner.Output(ctx, "journalctl", "--sync"); err != nil {
		log.Debug("journald does not store its last lines", "error", err)
	}
	out, err := runner.Output(ctx, "journalctl", "--quiet", "--no-pager", "--output=short", fmt.Sprintf("--lines=%d", LogLines),
		"_SYSTEMD_INVOCATION_ID="+u.Invocation, "+", "INVOCATION_ID="+u.Invocation)
	return strings.TrimSpace(string(out)), err
}

// Marker is what a run that systemd started, and that did not succeed, leaves for the report of its unit's failure.
type Marker struct {
	Run  string `json:"run"`  // its report is in the history
	Told bool   `json:"told"` // and somebody has it, or wants none of this kind
}

// markerPath is where that is left; "" when systemd did not start this process.
func markerPath(invocation string) string {
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" || invocation == "" || strings.ContainsAny(invocation, "/.") {
		return ""
	}
	return filepath.Join(dir, "reported-"+invocation)
}

// WriteMarker leaves a marker for the unit that started this process, lest the failure be reported twice. Of a process that
// no unit started there is nobody to tell.
func WriteMarker(m Marker) error {
	path := markerPath(os.Getenv("INVOCATION_ID"))
	if path == "" {
		return nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}

// TakeMarker reads what the run that a unit started has left, and removes it. A run that died left nothing.
func TakeMarker(invocation string) (Marker, error) {
	path := markerPath(invocation)
	if path == "" {
		return Marker{}, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Marker{}, nil
	}
	var m Marker
	if err == nil {
		err = errors.Join(json.Unmarshal(text, &m), os.Remove(path))
	}
	return m, err
}
