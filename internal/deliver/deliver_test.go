package deliver

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"voltar/internal/config"
	"voltar/internal/deadunit"
	"voltar/internal/exitcode"
	"voltar/internal/say"
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

// testDelivery is a delivery with a state folder and a configuration of its own, and no host.
func testDelivery(t *testing.T, more string) *Delivery {
	t.Helper()
	cfg, err := config.Parse([]byte("state_dir = \"" + filepath.Join(t.TempDir(), "state") + "\"\n" + more))
	if err != nil {
		t.Fatal(err)
	}
	return &Delivery{Config: cfg, Host: "host", Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

func finishedRun(id string, status report.VolumeStatus) *report.Run {
	ended := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	return &report.Run{
		Schema: report.Schema, ID: id, Host: "host", Command: "run", Started: ended, Ended: ended, PlannedVolumes: 1,
		Volumes: []report.Volume{{Name: "vg/a", Status: status, Started: ended, Ended: ended}},
	}
}

// A host whose DNS is dead waits for its name once, and no longer than the delivery may take.
func TestNameIsLookedUpOnceWithinTheDelivery(t *testing.T) {
	d := testDelivery(t, "[mail]\nto = [\"a@example.org\"]\nserver = \"mail.example.org\"\n")
	var within []error
	d.lookUp = func(ctx context.Context) string {
		within = append(within, ctx.Err())
		return ""
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		if _, err := d.routes(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if len(within) != 1 || !errors.Is(within[0], context.Canceled) {
		t.Errorf("it was looked up with contexts that say %v", within)
	}
}

func TestDeliverTellsWebhookPingAndMetrics(t *testing.T) {
	l := newListener(t)
	metrics := filepath.Join(t.TempDir(), "voltar.prom")
	s := testDelivery(t, "[ping]\nurl = \""+l.URL+"/ping\"\n[metrics]\ntextfile = \""+metrics+"\"\n"+
		"[[webhook]]\nname = \"all\"\nurl = \""+l.URL+"/all\"\ntemplate = \"ntfy\"\n"+
		"[[webhook]]\nname = \"bad\"\nurl = \""+l.URL+"/bad\"\ntemplate = \"ntfy\"\nnotify = \"failure\"\n")
	s.Begin(t.Context())
	if err := s.Run(t.Context(), finishedRun("good", report.VolumeOK), Options{Whole: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), finishedRun("bad", report.VolumeFailed), Options{Whole: true}); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, request := range l.heard {
		path, _, _ := strings.Cut(request, " ")
		paths = append(paths, path)
	}
	slices.Sort(paths[min(4, len(paths)):]) // the routes of one run are told side by side
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
	s := testDelivery(t, "[ping]\nurl = \""+l.URL+"/ping\"\n[metrics]\ntextfile = \""+metrics+"\"\n")
	if err := s.Run(t.Context(), finishedRun("some", report.VolumeOK), Options{}); err != nil {
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
	s := testDelivery(t, "[[webhook]]\nname = \"broken\"\nsecret_url = { env = \"VOLTAR_TEST_NO_SUCH\" }\n"+
		"[[webhook]]\nname = \"works\"\nurl = \""+l.URL+"/works\"\ntemplate = \"ntfy\"\n")
	run := finishedRun("good", report.VolumeOK)
	err := s.Run(t.Context(), run, Options{Whole: true})
	if err == nil || !strings.Contains(err.Error(), "webhook broken") {
		t.Errorf("error %v, want one that names the broken webhook", err)
	}
	if len(run.Warnings) != 1 || !strings.Contains(run.Warnings[0].Message, "webhook broken") {
		t.Errorf("what was not delivered is not told: %+v", run.Warnings)
	}
	if len(l.heard) != 1 || run.ExitCode != exitcode.NotDelivered {
		t.Errorf("heard %q, exit code %d", l.heard, run.ExitCode)
	}
}

func TestDeadUnitSaysHowItEnded(t *testing.T) {
	for _, test := range []struct {
		dead deadunit.Unit
		want []string
	}{
		{deadunit.Unit{Name: "u", Result: "signal", Killed: true, Status: 9}, []string{"killed by SIGKILL"}},
		{deadunit.Unit{Name: "u", Result: "timeout", Killed: true, Status: 9}, []string{"did not end in time"}},
		{deadunit.Unit{Name: "u", Result: "oom-kill", Killed: true, Status: 9}, []string{"out of memory"}},
		{deadunit.Unit{Name: "u", Result: "exit-code", Status: exitcode.Usage}, []string{"status 2", "configuration"}},
		{deadunit.Unit{Name: "u", Result: "exit-code", Status: exitcode.Locked}, []string{"status 4", "another run"}},
		{deadunit.Unit{Name: "u", Result: "exit-code", Status: 238}, []string{"status 238", "systemd could not start it"}},
		{deadunit.Unit{Name: "u", Result: "start-limit-hit"}, []string{"start-limit-hit"}},
		{deadunit.Unit{Name: "u", Result: "success"}, []string{"u failed"}},
	} {
		got := unitProblem(test.dead).Message
		if slices.ContainsFunc(test.want, func(part string) bool { return !strings.Contains(got, part) }) {
			t.Errorf("%+v: %q lacks one of %q", test.dead, got, test.want)
		}
	}
	if got := (deadunit.Unit{Name: "voltar-verify.service"}).Command(); got != "verify" {
		t.Errorf("command %q", got)
	}
}

// A run that succeeded leaves no marker: nobody would take it.
func TestGoodRunsLeaveNoFailureMarker(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	t.Setenv("INVOCATION_ID", "0123abcd")
	if err := writeFailureMarker(&report.Run{ID: "good"}, true); err != nil {
		t.Fatal(err)
	}
	if marker, err := deadunit.TakeMarker("0123abcd"); err != nil || marker != (deadunit.Marker{}) {
		t.Errorf("a good run left %+v (%v)", marker, err)
	}
	if err := writeFailureMarker(&report.Run{ID: "bad", ExitCode: exitcode.Attention}, true); err != nil {
		t.Fatal(err)
	}
	if marker, err := deadunit.TakeMarker("0123abcd"); err != nil || marker != (deadunit.Marker{Run: "bad", Told: true}) {
		t.Errorf("took %+v, %v", marker, err)
	}
}

func TestFullStateFolderIsToldWithWhatToDo(t *testing.T) {
	d := testDelivery(t, "")
	if got := say.Text(d.stateHint(&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})); !strings.Contains(got, d.Config.StateDir+" (state_dir)") {
		t.Errorf("a full disk is told as %q", got)
	}
	if got := say.Text(d.stateHint(fs.ErrPermission)); strings.Contains(got, "state_dir") {
		t.Errorf("another error is told as %q", got)
	}
}

// Metrics do not take the place of a pipe or a device.
func TestMetricsReplaceFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.prom")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := testDelivery(t, "[metrics]\ntextfile = \""+path+"\"\n")
	if err := s.writeMetrics(*finishedRun("good", report.VolumeOK), nil); err == nil {
		t.Error("a pipe was replaced")
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("%v, %v", info, err)
	}
}
