package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"voltar/internal/config"
	"voltar/report"
)

// listener is a server that keeps what it was asked.
type listener struct {
	*httptest.Server
	mu    sync.Mutex
	heard []string
}

func newListener(t *testing.T) *listener {
	l := &listener{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		text, _, _ := strings.Cut(string(body), "\n")
		l.heard = append(l.heard, strings.TrimSpace(r.URL.Path+" "+text))
	}))
	t.Cleanup(l.Close)
	return l
}

// testSetup is a setup with a state folder and a configuration of its own, and no host.
func testSetup(t *testing.T, more string) *setup {
	t.Helper()
	cfg, err := config.Parse([]byte("state_dir = \"" + filepath.Join(t.TempDir(), "state") + "\"\n" + more))
	if err != nil {
		t.Fatal(err)
	}
	return &setup{config: cfg, host: "host", log: slog.New(slog.DiscardHandler), now: time.Now}
}

func testContext(t *testing.T) *cli.Context {
	c := cli.NewContext(cli.NewApp(), nil, nil)
	c.Context = t.Context()
	return c
}

func finishedRun(id string, status report.VolumeStatus) *report.Run {
	ended := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	return &report.Run{
		Schema: report.Schema, ID: id, Host: "host", Command: "run", Started: ended, Ended: ended, PlannedVolumes: 1,
		Volumes: []report.Volume{{Name: "vg/a", Status: status, Started: ended, Ended: ended}},
	}
}

func TestDeliverTellsWebhookPingAndMetrics(t *testing.T) {
	l := newListener(t)
	metrics := filepath.Join(t.TempDir(), "voltar.prom")
	s := testSetup(t, "[ping]\nurl = \""+l.URL+"/ping\"\n[metrics]\ntextfile = \""+metrics+"\"\n"+
		"[[webhook]]\nname = \"all\"\nurl = \""+l.URL+"/all\"\ntemplate = \"ntfy\"\n"+
		"[[webhook]]\nname = \"bad\"\nurl = \""+l.URL+"/bad\"\ntemplate = \"ntfy\"\nnotify = \"failure\"\n")
	s.pingBegin(t.Context())
	if err := s.deliver(testContext(t), finishedRun("good", report.VolumeOK), true); err != nil {
		t.Fatal(err)
	}
	if err := s.deliver(testContext(t), finishedRun("bad", report.VolumeFailed), true); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, request := range l.heard {
		path, _, _ := strings.Cut(request, " ")
		paths = append(paths, path)
	}
	if diff := cmp.Diff([]string{"/ping/start", "/ping", "/all", "/ping/fail", "/all", "/bad"}, paths); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`voltar_volume_success{volume="vg/a"} 0`, `voltar_last_success_timestamp_seconds{volume="vg/a"} 1.7951364e+09`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the metrics lack %s:\n%s", want, text)
		}
	}
	if info, err := os.Stat(metrics); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v: node_exporter could not read the metrics", info.Mode(), err)
	}
}

// A run of named volumes must not look as if everything was backed up.
func TestDeliverKeepsPartialRunsFromPingAndMetrics(t *testing.T) {
	l := newListener(t)
	metrics := filepath.Join(t.TempDir(), "voltar.prom")
	s := testSetup(t, "[ping]\nurl = \""+l.URL+"/ping\"\n[metrics]\ntextfile = \""+metrics+"\"\n")
	if err := s.deliver(testContext(t), finishedRun("some", report.VolumeOK), false); err != nil {
		t.Fatal(err)
	}
	if len(l.heard) > 0 {
		t.Errorf("the ping heard %q", l.heard)
	}
	if _, err := os.Stat(metrics); err == nil {
		t.Error("there are metrics")
	}
}

func TestOneRouteThatCannotBeUsedLeavesTheOthers(t *testing.T) {
	l := newListener(t)
	s := testSetup(t, "[[webhook]]\nname = \"broken\"\nsecret_url = { env = \"VOLTAR_TEST_NO_SUCH\" }\n"+
		"[[webhook]]\nname = \"works\"\nurl = \""+l.URL+"/works\"\ntemplate = \"ntfy\"\n")
	run := finishedRun("good", report.VolumeOK)
	err := s.deliver(testContext(t), run, true)
	if err == nil || !strings.Contains(err.Error(), "webhook broken") {
		t.Errorf("error %v, want one that names the broken webhook", err)
	}
	if len(l.heard) != 1 || run.ExitCode != exitNotDelivered {
		t.Errorf("heard %q, exit code %d", l.heard, run.ExitCode)
	}
}

func TestLastSuccess(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 11, day, 1, 0, 0, 0, time.UTC) }
	night := func(day int, volumes ...report.Volume) report.Run {
		for i := range volumes {
			volumes[i].Ended = at(day)
		}
		return report.Run{Started: at(day), PlannedVolumes: len(volumes), Volumes: volumes}
	}
	good := func(name string) report.Volume { return report.Volume{Name: name, Status: report.VolumeOK} }
	bad := func(name string) report.Volume { return report.Volume{Name: name, Status: report.VolumeFailed} }
	earlier := []report.Run{night(19, bad("a"), good("b")), night(18, good("a"), good("b"), good("gone"))}
	for _, test := range []struct {
		name string
		run  report.Run
		want map[string]time.Time
	}{
		{"the last good one counts", night(20, bad("a"), good("b")), map[string]time.Time{"a": at(18), "b": at(19)}},
		{"a new volume has none", night(20, bad("new")), map[string]time.Time{}},
		{"a run that came to nothing keeps yesterday's volumes", night(20), map[string]time.Time{"a": at(18), "b": at(19)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, lastSuccess(test.run, earlier)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWordIsForTheRunThatLeftIt(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	t.Setenv("INVOCATION_ID", "0123abcd")
	if err := leaveWord(&report.Run{ID: "good"}, true); err != nil {
		t.Fatal(err)
	}
	if said, err := takeWord("0123abcd"); err != nil || said != (word{}) {
		t.Errorf("a good run left %+v (%v): nobody would take it", said, err)
	}
	if err := leaveWord(&report.Run{ID: "bad", ExitCode: exitAttention}, true); err != nil {
		t.Fatal(err)
	}
	if said, err := takeWord("ffff"); err != nil || said != (word{}) {
		t.Errorf("another run took %+v, %v", said, err)
	}
	if said, err := takeWord("0123abcd"); err != nil || said != (word{Run: "bad", Told: true}) {
		t.Errorf("took %+v, %v", said, err)
	}
	if said, err := takeWord("0123abcd"); err != nil || said != (word{}) {
		t.Errorf("taken twice: %+v, %v", said, err)
	}
	if path := wordPath("../../etc/passwd"); path != "" {
		t.Errorf("a path from outside: %s", path)
	}
}

func TestParseUnit(t *testing.T) {
	now := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	dead := parseUnit("voltar.service", "Result=signal\nExecMainCode=2\nExecMainStatus=9\n"+
		"ExecMainStartTimestampMonotonic=40000000\nInvocationID=0123abcd\nNew=1\n", now, 100*time.Second)
	want := deadUnit{unit: "voltar.service", invocation: "0123abcd", result: "signal", killed: true, status: 9, started: now.Add(-time.Minute)}
	if dead != want {
		t.Errorf("got %+v, want %+v", dead, want)
	}
	if got := parseUnit("a", "Result=resources\nExecMainStartTimestampMonotonic=0\n", now, time.Second); !got.started.IsZero() {
		t.Errorf("one that was never started, started at %s", got.started)
	}
}

func TestDeadUnitSaysHowItEnded(t *testing.T) {
	for _, test := range []struct {
		dead deadUnit
		want []string
	}{
		{deadUnit{unit: "u", result: "signal", killed: true, status: 9}, []string{"killed by SIGKILL"}},
		{deadUnit{unit: "u", result: "timeout", killed: true, status: 9}, []string{"did not end in time"}},
		{deadUnit{unit: "u", result: "oom-kill", killed: true, status: 9}, []string{"out of memory"}},
		{deadUnit{unit: "u", result: "exit-code", status: exitUsage}, []string{"status 2", "configuration"}},
		{deadUnit{unit: "u", result: "exit-code", status: exitLocked}, []string{"status 4", "another run"}},
		{deadUnit{unit: "u", result: "exit-code", status: 238}, []string{"status 238", "systemd could not start it"}},
		{deadUnit{unit: "u", result: "start-limit-hit"}, []string{"start-limit-hit"}},
		{deadUnit{unit: "u", result: "success"}, []string{"u failed"}},
	} {
		got := test.dead.problem().Message
		if slices.ContainsFunc(test.want, func(part string) bool { return !strings.Contains(got, part) }) {
			t.Errorf("%+v: %q lacks one of %q", test.dead, got, test.want)
		}
	}
	if got := (deadUnit{unit: "voltar-verify.service"}).command(); got != "verify" {
		t.Errorf("command %q", got)
	}
}
