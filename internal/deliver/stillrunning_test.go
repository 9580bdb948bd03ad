package deliver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"voltar/report"
)

// unwatched is progress that nobody watches.
type unwatched struct{}

func (unwatched) RunStarted(string)           {}
func (unwatched) VolumeStarted(string, int64) {}
func (unwatched) VolumeRead(string, int64)    {}
func (unwatched) VolumeEnded(report.Volume)   {}

func TestRunThatGoesOnIsToldOverEveryChannel(t *testing.T) {
	l := newListener(t)
	s := testDelivery(t, "[[webhook]]\nname = \"all\"\nurl = \""+l.URL+"/all\"\ntemplate = \"ntfy\"\n"+
		"[[webhook]]\nname = \"bad\"\nurl = \""+l.URL+"/bad\"\ntemplate = \"ntfy\"\nnotify = \"failure\"\n"+
		"[[webhook]]\nname = \"new\"\nurl = \""+l.URL+"/new\"\ntemplate = \"ntfy\"\nnotify = \"change\"\n")
	w := s.StillRunning(unwatched{})
	w.RunStarted("20261120T010001Z-3f9a0c")
	w.VolumeStarted("vg/quick", 1)
	w.VolumeStarted("vg/slow", 1)
	w.VolumeEnded(report.Volume{Name: "vg/quick"})
	spans := 0
	told := make(chan struct{})
	w.sleep = func(_ context.Context, d time.Duration) error {
		if d != 12*time.Hour {
			t.Errorf("waits for %s", d)
		}
		if spans++; spans > 2 {
			close(told)
			return errors.New("the run is over")
		}
		return nil
	}
	end := w.Watch(t.Context(), s.Config.Limits.TellAfter.Span())
	<-told
	end()
	for _, channel := range []string{"/all", "/bad", "/new"} {
		if n := strings.Count(strings.Join(l.heard, "\n"), channel); n != 2 {
			t.Errorf("%s heard %d times of it, want 2: %q", channel, n, l.heard)
		}
	}
	run := w.report(2, 24*time.Hour)
	if subject := report.Subject(run); !strings.Contains(subject, "still running after 24 hours") {
		t.Errorf("the subject is %q", subject)
	}
	text := report.Text(run, report.Options{})
	if !strings.Contains(text, "vg/slow (since ") || !strings.Contains(text, "volumes done: 1") || strings.Contains(text, "vg/quick") {
		t.Errorf("the report is\n%s", text)
	}
}

func TestRunThatEndsInTimeIsNotTold(t *testing.T) {
	w := testDelivery(t, "").StillRunning(unwatched{})
	w.Watch(t.Context(), time.Hour)()
	w.Watch(t.Context(), 0)()
}
