package quiesce

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voltar/internal/hostcmd"
)

func TestMain(m *testing.M) {
	if status, handled := RunChild(os.Args); handled {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// guest is a folder of commands that stand in for those of a guest. Its ssh runs the command line on this machine, its
// fsfreeze keeps a file beside each mountpoint that is frozen.
type guest struct {
	dir, point string
	quieter    *Quieter
}

const fakeSSH = `#!/bin/sh
while [ "$1" != -- ]; do echo "$1" >>"$DIR/ssh-options"; shift; done
[ "$2" != unreachable ] || { echo "ssh: connect to host unreachable: Connection refused" >&2; exit 255; }
shift 2
exec sh -c "$*"
`

const fakeFreeze = `#!/bin/sh
state=$2/.frozen
case $1 in
-f) [ ! -e "$state" ] || { echo "$2: freeze failed: Device or resource busy"; exit 1; }; touch "$state" ;;
-u) [ -e "$state" ] || { echo "$2: unfreeze failed: Invalid argument"; exit 1; }; rm "$state" ;;
esac
`

func newGuest(t *testing.T) guest {
	t.Helper()
	g := guest{dir: t.TempDir(), point: t.TempDir()}
	g.command(t, "ssh", fakeSSH)
	g.command(t, "fsfreeze", fakeFreeze)
	path := []string{g.dir, "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	g.quieter = New(hostcmd.New(hostcmd.Options{SearchPath: path, Env: []string{"DIR=" + g.dir}}), Options{RunRoot: g.dir})
	return g
}

func (g guest) command(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (g guest) frozen() bool {
	_, err := os.Stat(filepath.Join(g.point, ".frozen"))
	return err == nil
}

func (g guest) awaitThaw(t *testing.T) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); g.frozen(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it stays frozen")
		}
	}
}

func (g guest) ssh() Freeze {
	return Freeze{Name: "web1", Method: MethodSSH, Remote: Remote{Host: "web1"}, Mountpoints: []string{g.point}}
}

// pairOfCommands freezes by commands instead, in a child.
func (g guest) pairOfCommands() Freeze {
	return Freeze{
		Name: "web1", Method: MethodCommand, FreezeCommand: []string{g.dir + "/fsfreeze", "-f", g.point},
		ThawCommand: []string{g.dir + "/fsfreeze", "-u", g.point},
	}
}

func methods(g guest) map[string]Freeze {
	return map[string]Freeze{"ssh": g.ssh(), "command": g.pairOfCommands()}
}

func TestFreezeIsProven(t *testing.T) {
	g := newGuest(t)
	for name, f := range methods(g) {
		t.Run(name, func(t *testing.T) {
			s, err := g.quieter.Arm(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if g.frozen() {
				t.Error("frozen by arming")
			}
			if err := s.Hold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !g.frozen() {
				t.Error("not frozen")
			}
			took, err := s.Thaw(t.Context())
			if err != nil || took <= 0 {
				t.Errorf("thawed after %s: %v", took, err)
			}
			if g.frozen() {
				t.Error("not thawed")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFreezeThatDidNotLastIsNotProven(t *testing.T) {
	g := newGuest(t)
	for name, f := range methods(g) {
		t.Run(name, func(t *testing.T) {
			s, err := g.quieter.Arm(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Hold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(g.point, ".frozen")); err != nil { // somebody thaws it
				t.Fatal(err)
			}
			if _, err := s.Thaw(t.Context()); !errors.Is(err, ErrNotHeld) {
				t.Errorf("%v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFreezeThatFails(t *testing.T) {
	for _, test := range []struct {
		name, fsfreeze string
		timeout        time.Duration
		want           string
	}{
		{"refused", "#!/bin/sh\n[ $1 = -u ] || echo 'Operation not supported'; exit 1\n", time.Hour, "Operation not supported"},
		{"hangs", "#!/bin/sh\n[ $1 = -u ] || exec sleep 60\nexit 1\n", 500 * time.Millisecond, "no answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			g.command(t, "fsfreeze", test.fsfreeze)
			s, err := g.quieter.Arm(t.Context(), g.ssh())
			if err != nil {
				t.Fatal(err)
			}
			s.Freeze.Timeout = test.timeout
			if err := s.Hold(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			_ = s.Close() // of one that hangs it says that it is still at work
		})
	}
}

func TestSuccessWithoutFreezingIsNotProven(t *testing.T) {
	g := newGuest(t)
	g.command(t, "fsfreeze", strings.Replace(fakeFreeze, `touch "$state"`, ":", 1))
	s, err := g.quieter.Arm(t.Context(), g.ssh())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Thaw(t.Context()); !errors.Is(err, ErrNotHeld) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnreachableGuest(t *testing.T) {
	g := newGuest(t)
	f := g.ssh()
	f.Remote.Host = "unreachable"
	_, err := g.quieter.Arm(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "Connection refused") {
		t.Errorf("%v", err)
	}
}

func TestSSHNeverTrustsUnknownHosts(t *testing.T) {
	g := newGuest(t)
	s, err := g.quieter.Arm(t.Context(), g.ssh())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	options, err := os.ReadFile(filepath.Join(g.dir, "ssh-options"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(options), "HostKeyChecking") || !strings.Contains(string(options), "BatchMode=yes") {
		t.Errorf("ssh got %q", options)
	}
}

func TestClosingThaws(t *testing.T) {
	g := newGuest(t)
	for name, f := range methods(g) {
		t.Run(name, func(t *testing.T) {
			s, err := g.quieter.Arm(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Hold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil { // as the end of this process would
				t.Error(err)
			}
			g.awaitThaw(t)
		})
	}
}

// TestEndOfInputEndsASlowFreeze closes a session while its command still works: it is ended, and what it has done undone.
func TestEndOfInputEndsASlowFreeze(t *testing.T) {
	g := newGuest(t)
	f := g.pairOfCommands()
	f.FreezeCommand = []string{"sh", "-c", g.dir + "/fsfreeze -f " + g.point + "; exec sleep 600"}
	f.Timeout, f.Deadline = time.Hour, time.Hour
	s, err := g.quieter.Arm(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.say("freeze\n"); err != nil {
		t.Fatal(err)
	}
	for !g.frozen() {
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	g.awaitThaw(t)
}

// heldBriefly holds with the shortest deadline within which this machine, however busy, can freeze.
func (g guest) heldBriefly(t *testing.T, f Freeze) *Session {
	t.Helper()
	for f.Deadline = time.Second; ; f.Deadline *= 4 {
		s, err := g.quieter.Arm(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if err = s.Hold(t.Context()); err == nil {
			return s
		}
		if err = errors.Join(err, s.Close()); f.Deadline > time.Minute {
			t.Fatal(err)
		}
	}
}

func TestDeadlineThaws(t *testing.T) {
	g := newGuest(t)
	for name, f := range methods(g) {
		t.Run(name, func(t *testing.T) {
			s := g.heldBriefly(t, f)
			g.awaitThaw(t)
			if _, err := s.Thaw(t.Context()); !errors.Is(err, ErrNotHeld) {
				t.Errorf("%v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDeadlineOutlivesTheSession cuts the line and kills the far side's script: its watchdog is all that is left.
func TestDeadlineOutlivesTheSession(t *testing.T) {
	g := newGuest(t)
	g.command(t, "ssh", strings.Replace(fakeSSH, `exec sh -c "$*"`, `echo $$ >"$DIR/pid"; exec sh -c "exec $*"`, 1))
	s := g.heldBriefly(t, g.ssh())
	pid, err := os.ReadFile(filepath.Join(g.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostcmd.New(hostcmd.Options{}).Output(t.Context(), "sh", "-c", "kill -KILL "+strings.TrimSpace(string(pid))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Thaw(t.Context()); err == nil {
		t.Error("a killed session proved something")
	}
	g.awaitThaw(t)
	_ = s.Close()
}

// The kernel may hold a freeze up until the deadline is over, and its thaw with it. What comes through then does not stay.
func TestFreezeThatOutlastsItsDeadline(t *testing.T) {
	g := newGuest(t)
	g.command(t, "fsfreeze", `#!/bin/sh
state=$2/.frozen
case $1 in
-f) while [ ! -e "$DIR/was-not-frozen" ]; do sleep 0.1; done; touch "$state" ;;
-u) [ -e "$state" ] || { touch "$DIR/was-not-frozen"; exit 1; }; rm "$state" ;;
esac
`)
	f := g.ssh()
	f.Deadline, f.Timeout = time.Second, time.Hour
	s, err := g.quieter.Arm(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.awaitThaw(t)
	if _, err := s.Thaw(t.Context()); !errors.Is(err, ErrNotHeld) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	frozen := 0
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, `{"return": {"of an earlier client": true}}`)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				var request struct {
					Execute   string
					Arguments struct{ ID int }
				}
				if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
					return
				}
				answer := 0
				switch request.Execute {
				case "guest-sync":
					answer = request.Arguments.ID
				case "guest-fsfreeze-freeze":
					frozen, answer = 2, 2
				case "guest-fsfreeze-thaw":
					frozen, answer = 0, frozen
				}
				fmt.Fprintf(conn, "{\"return\": %d}\n", answer)
			}
			conn.Close()
		}
	}()
	g := newGuest(t)
	f := Freeze{Name: "web1", Method: MethodAgent, Socket: socket}
	for _, lost := range []bool{false, true} {
		s, err := g.quieter.Arm(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lost {
			if thawed, err := ThawLeftover(t.Context(), nil, f.Leftover()); err != nil || !thawed {
				t.Errorf("%t %v", thawed, err)
			}
		}
		if _, err := s.Thaw(t.Context()); errors.Is(err, ErrNotHeld) != lost || (err != nil) != lost {
			t.Errorf("lost %t: %v", lost, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestVirshCount(t *testing.T) {
	for text, want := range map[string]int{"Froze 2 filesystem(s)\n\n": 2, "Thawed 0 filesystem(s)": 0} {
		if got, err := virshCount(text); err != nil || got != want {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
	if _, err := virshCount("error: Guest agent is not responding"); err == nil {
		t.Error("an error was read as a count")
	}
}

func TestRunHook(t *testing.T) {
	g := newGuest(t)
	var log strings.Builder
	g.quieter.log = slog.New(slog.NewTextHandler(&log, nil))
	counter := filepath.Join(g.dir, "tries")
	hook := Hook{Name: "app", Phase: PhaseBefore, Retries: 1, Command: []string{"sh", "-c",
		"echo for $VOLTAR_VOLUME; echo x >>" + counter + "; [ $(wc -l <" + counter + ") = 2 ] || { echo not yet >&2; exit 3; }"}}
	if err := g.quieter.RunHook(t.Context(), hook, []string{"VOLTAR_VOLUME=vg/lv"}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "for vg/lv") || !strings.Contains(log.String(), "hook=app") {
		t.Errorf("logged %q", log.String())
	}
	hook.Retries = 0
	if err := g.quieter.RunHook(t.Context(), hook, nil); hostcmd.ExitCode(err) != 3 || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("%v", err)
	}
	hook.Command, hook.Timeout = []string{"sleep", "60"}, 100*time.Millisecond
	if err := g.quieter.RunHook(t.Context(), hook, nil); err == nil || !strings.Contains(err.Error(), "not done after") {
		t.Errorf("%v", err)
	}
}

// A hook that writes without end does not fill the journal.
func TestHooksOutputIsBounded(t *testing.T) {
	g := newGuest(t)
	var log strings.Builder
	g.quieter.log = slog.New(slog.NewTextHandler(&log, nil))
	hook := Hook{Name: "loud", Phase: PhaseBefore, Command: []string{"sh", "-c", "yes loud | head -c 2097152; head -c 2097152 /dev/zero"}}
	if err := g.quieter.RunHook(t.Context(), hook, nil); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "msg=loud"); n < 1000 || n > maxLoggedBytes/len("loud\n")+1 {
		t.Errorf("%d lines were logged", n)
	}
	if !strings.Contains(log.String(), "the rest of the hook's output is not logged: 3.8 MiB") || strings.Contains(log.String(), `\x00`) {
		t.Errorf("the log ends with %q", log.String()[max(0, log.Len()-300):])
	}
}

func TestRunDump(t *testing.T) {
	g := newGuest(t)
	read := func(into *string) func(io.Reader) error {
		return func(r io.Reader) error {
			data, err := io.ReadAll(r)
			*into = string(data)
			return err
		}
	}
	for _, test := range []struct {
		name, script, trailer string
		wantErr               bool
	}{
		{"good", "echo rows; echo -- done", "-- done", false},
		{"bad status after output", "echo rows; exit 2", "", true},
		{"killed", "echo rows; kill -KILL $$", "", true},
		{"ends early with status 0", "echo rows", "-- done", true},
	} {
		for _, host := range []string{"", "web1"} {
			t.Run(test.name+" "+host, func(t *testing.T) {
				var got string
				d := Dump{Name: "db", Remote: Remote{Host: host}, Command: []string{"sh", "-c", test.script}, Trailer: test.trailer}
				err := g.quieter.RunDump(t.Context(), d, read(&got))
				if (err != nil) != test.wantErr || !strings.HasPrefix(got, "rows\n") {
					t.Errorf("%q %v", got, err)
				}
			})
		}
	}
}

func TestRunDumpIsEndedWithItsReader(t *testing.T) {
	g := newGuest(t)
	full := errors.New("no space")
	err := g.quieter.RunDump(context.Background(), Dump{Name: "db", Command: []string{"sh", "-c", "while :; do echo rows; done"}},
		func(io.Reader) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

func TestCanNest(t *testing.T) {
	for release, want := range map[string]bool{"6.1.0-18-amd64": false, "6.8.0": true, "6.12.3": true, "7.0-rc1": true, "5.14": false, "odd": false} {
		if got := canNest(release); got != want {
			t.Errorf("%s: %t", release, got)
		}
	}
}
