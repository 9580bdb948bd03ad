package notify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/durable"
	"voltar/report"
)

// fake is a channel that fails as it is told and remembers what it delivered.
type fake struct {
	name  string
	err   error
	fail  map[string]error // by message
	calls int
	sent  []string
}

func (f *fake) Name() string { return f.name }

func (f *fake) Send(_ context.Context, msg Message) error {
	f.calls++
	if err := f.fail[msg.ID]; err != nil {
		return err
	}
	if f.err == nil {
		f.sent = append(f.sent, msg.ID)
	}
	return f.err
}

func newSpool(t *testing.T) *Dir {
	return NewDir(filepath.Join(t.TempDir(), "state", "spool"), durable.Host(nil))
}

func newNotifier(spool Spool, now time.Time, channels ...Channel) *Notifier {
	var routes []Route
	for _, c := range channels {
		routes = append(routes, Route{Channel: c})
	}
	return New(routes, Options{Spool: spool, Retry: Retry{Wait: time.Nanosecond}, Now: func() time.Time { return now }})
}

// messageAt is the message of a run that ended at the given time.
func messageAt(id string, ended time.Time) Message {
	run := testRun()
	run.ID, run.Ended = id, ended
	return Message{ID: id, Created: ended, Subject: "subject of " + id, Text: "text", Run: run}
}

func spooled(t *testing.T, spool Spool) []string {
	t.Helper()
	entries, err := spool.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Channel+" "+e.Message.ID)
	}
	return ids
}

func equal(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestUnsentReportsGoOutLaterInOrder(t *testing.T) {
	spool := newSpool(t)
	mail, hook := &fake{name: "mail", err: errors.New("no route to host")}, &fake{name: "hook"}
	for i, id := range []string{"one", "two", "three"} {
		n := newNotifier(spool, night, mail, hook)
		err := n.Deliver(t.Context(), messageAt(id, night.AddDate(0, 0, i)), nil)
		if err == nil || !strings.Contains(err.Error(), "no route to host") || !strings.Contains(err.Error(), "goes out with the next run") {
			t.Errorf("%s: error %v", id, err)
		}
	}
	if mail.calls != 9 {
		t.Errorf("%d attempts, want three for each message", mail.calls)
	}
	equal(t, "the other channel's", []string{"one", "two", "three"}, hook.sent)
	equal(t, "spool", []string{"mail one", "mail two", "mail three"}, spooled(t, spool))

	// Still down: one attempt for the oldest, and the rest wait in order.
	mail.calls = 0
	if problems := newNotifier(spool, night, mail, hook).Flush(t.Context()); problems != nil {
		t.Errorf("problems %v", problems)
	}
	if mail.calls != 1 {
		t.Errorf("%d attempts while the server is down", mail.calls)
	}

	mail.err = nil
	if problems := newNotifier(spool, night, mail, hook).Flush(t.Context()); problems != nil {
		t.Errorf("problems %v", problems)
	}
	equal(t, "delivered", []string{"one", "two", "three"}, mail.sent)
	equal(t, "spool", nil, spooled(t, spool))
	equal(t, "the other channel's", []string{"one", "two", "three"}, hook.sent)
}

// A message that the server will not have does not hold up those behind it.
func TestPoisonedMessage(t *testing.T) {
	spool := newSpool(t)
	mail := &fake{name: "mail", err: Permanent(errors.New("552 too large"))}
	for i, id := range []string{"one", "two"} {
		if err := newNotifier(spool, night, mail).Deliver(t.Context(), messageAt(id, night.AddDate(0, 0, i)), nil); err == nil {
			t.Error("no error")
		}
	}
	if mail.calls != 2 {
		t.Errorf("%d attempts, want one for each: no use in trying again", mail.calls)
	}
	mail.fail, mail.err = map[string]error{"one": mail.err}, nil
	newNotifier(spool, night, mail).Flush(t.Context())
	equal(t, "delivered", []string{"two"}, mail.sent)
	equal(t, "spool", []string{"mail one"}, spooled(t, spool))
}

func TestGivenUpAloud(t *testing.T) {
	down := errors.New("no route to host")
	t.Run("too old", func(t *testing.T) {
		spool := newSpool(t)
		mail := &fake{name: "mail", err: down}
		for i, id := range []string{"old", "new"} {
			_ = newNotifier(spool, night, mail).Deliver(t.Context(), messageAt(id, night.AddDate(0, 0, i)), nil)
		}
		problems := newNotifier(spool, night.AddDate(0, 0, 14).Add(time.Second), mail).Flush(t.Context())
		if len(problems) != 1 || !strings.Contains(problems[0].Message, `"subject of old" of 2026-11-20`) ||
			!strings.Contains(problems[0].Message, "no route to host") {
			t.Errorf("problems %v", problems)
		}
		equal(t, "spool", []string{"mail new"}, spooled(t, spool))
	})
	t.Run("too old, but the server is back", func(t *testing.T) {
		spool := newSpool(t)
		mail := &fake{name: "mail", err: down}
		_ = newNotifier(spool, night, mail).Deliver(t.Context(), messageAt("old", night), nil)
		mail.err = nil
		if problems := newNotifier(spool, night.AddDate(1, 0, 0), mail).Flush(t.Context()); problems != nil {
			t.Errorf("problems %v", problems)
		}
		equal(t, "delivered", []string{"old"}, mail.sent)
	})
	t.Run("too many", func(t *testing.T) {
		spool := newSpool(t)
		mail := &fake{name: "mail", err: down}
		for i, id := range []string{"a", "b", "c"} {
			_ = newNotifier(spool, night, mail).Deliver(t.Context(), messageAt(id, night.AddDate(0, 0, i)), nil)
		}
		n := New([]Route{{Channel: mail}}, Options{Spool: spool, MaxCount: 1, Now: func() time.Time { return night }})
		if problems := n.Flush(t.Context()); len(problems) != 2 {
			t.Errorf("problems %v", problems)
		}
		equal(t, "spool", []string{"mail c"}, spooled(t, spool))
	})
	t.Run("channel gone", func(t *testing.T) {
		spool := newSpool(t)
		mail := &fake{name: "mail", err: down}
		_ = newNotifier(spool, night, mail).Deliver(t.Context(), messageAt("old", night), nil)
		if problems := newNotifier(spool, night).Flush(t.Context()); problems != nil {
			t.Errorf("given up at once: %v", problems)
		}
		problems := newNotifier(spool, night.AddDate(0, 1, 0)).Flush(t.Context())
		if len(problems) != 1 || !strings.Contains(problems[0].Message, "no longer configured") {
			t.Errorf("problems %v", problems)
		}
	})
}

func TestPartialDelivery(t *testing.T) {
	spool := newSpool(t)
	mail := &fake{name: "mail", err: Partial(errors.New("550 gone@example.org"))}
	err := newNotifier(spool, night, mail).Deliver(t.Context(), messageAt("one", night), nil)
	if err == nil || !strings.Contains(err.Error(), "gone@example.org") || mail.calls != 1 {
		t.Errorf("error %v after %d attempts", err, mail.calls)
	}
	equal(t, "spool", nil, spooled(t, spool))
}

func TestWhen(t *testing.T) {
	ok, failed := testRun(), failedRun()
	other := failedRun()
	other.Volumes[0].Status = report.VolumeFailed
	stopped := testRun()
	stopped.ExitCode = 130
	warned := testRun()
	warned.Warnings = []report.Problem{{Message: "look"}}
	tests := []struct {
		name     string
		when     When
		run      report.Run
		previous *report.Run
		want     bool
	}{
		{"always", Always, ok, &ok, true},
		{"no value", "", ok, &ok, true},
		{"failure, ok", OnFailure, ok, &failed, false},
		{"failure, warning", OnFailure, warned, &ok, false},
		{"failure, failed", OnFailure, failed, &failed, true},
		{"failure, interrupted", OnFailure, stopped, &ok, true},
		{"change, first", OnChange, ok, nil, true},
		{"change, same", OnChange, ok, &ok, false},
		{"change, failed now", OnChange, failed, &ok, true},
		{"change, still failed", OnChange, failed, &failed, false},
		{"change, another volume too", OnChange, other, &failed, true},
		{"change, well again", OnChange, ok, &failed, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mail := &fake{name: "mail"}
			n := New([]Route{{Channel: mail, When: tt.when}}, Options{Spool: newSpool(t)})
			if err := n.Deliver(t.Context(), Message{ID: "x", Run: tt.run}, tt.previous); err != nil {
				t.Fatal(err)
			}
			if got := len(mail.sent) == 1; got != tt.want {
				t.Errorf("sent: %v", got)
			}
		})
	}
}

func TestSpoolFiles(t *testing.T) {
	spool := newSpool(t)
	entry := Entry{Channel: "../../mail", Message: messageAt("../one", night), Attempts: 1, LastError: "x"}
	if err := spool.Put(entry); err != nil {
		t.Fatal(err)
	}
	entry.Attempts = 2
	if err := spool.Put(entry); err != nil {
		t.Fatal(err)
	}
	entries, err := spool.Entries()
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if diff := cmp.Diff(entry, entries[0]); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	files, err := os.ReadDir(spool.path)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	info, err := files[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for range 2 {
		if err := spool.Remove(entry); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	equal(t, "spool", nil, spooled(t, spool))
}

// What a power cut left is no entry; what is damaged is named once, set aside, and holds nobody up.
func TestSpoolAfterAccidents(t *testing.T) {
	spool := newSpool(t)
	if err := spool.Put(Entry{Channel: "mail", Message: messageAt("good", night)}); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		".20261119T010000.000000000Z-00.json.voltar-tmp-1": `{"channel":"mail"`,
		"20261118T010000.000000000Z-00.json":               `{"channel":"mail","mess`,
		"20261117T010000.000000000Z-00.json":               `{}`,
		"readme.txt":                                       "mine",
	} {
		if err := os.WriteFile(filepath.Join(spool.path, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mail := &fake{name: "mail"}
	problems := newNotifier(spool, night, mail).Flush(t.Context())
	if len(problems) != 1 || strings.Count(problems[0].Message, "set aside") != 2 {
		t.Errorf("problems %v", problems)
	}
	equal(t, "delivered", []string{"good"}, mail.sent)
	if problems := newNotifier(spool, night, mail).Flush(t.Context()); problems != nil {
		t.Errorf("the damaged ones are told a second time: %v", problems)
	}
}

func TestSpoolFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	full := NewDir(path, durable.Host(func(op durable.Op, _ string) error {
		if op == durable.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	mail := &fake{name: "mail", err: errors.New("no route to host")}
	err := newNotifier(full, night, mail).Deliver(t.Context(), messageAt("one", night), nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "lost") || !strings.Contains(err.Error(), "no route") {
		t.Errorf("error %v", err)
	}
	equal(t, "spool", nil, spooled(t, full))

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if problems := newNotifier(NewDir(file, durable.Host(nil)), night, mail).Flush(t.Context()); len(problems) != 1 {
		t.Errorf("a spool that is a file: %v", problems)
	}
}

// Two processes never send the same kept report at once.
func TestFlushIsExclusive(t *testing.T) {
	spool := newSpool(t)
	if err := spool.Put(Entry{Channel: "mail", Message: messageAt("one", night)}); err != nil {
		t.Fatal(err)
	}
	release, ok, err := spool.Lock()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	mail := &fake{name: "mail"}
	if problems := newNotifier(spool, night, mail).Flush(t.Context()); problems != nil || mail.calls != 0 {
		t.Errorf("flushed beside another: %v, %d calls", problems, mail.calls)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	newNotifier(spool, night, mail).Flush(t.Context())
	equal(t, "delivered", []string{"one"}, mail.sent)
}

// waiter is a channel that hangs until all of a kind are being sent over at once.
type waiter struct {
	name string
	all  *sync.WaitGroup
}

func (w waiter) Name() string { return w.name }

func (w waiter) Send(ctx context.Context, _ Message) error {
	w.all.Done()
	met := make(chan struct{})
	go func() {
		w.all.Wait()
		close(met)
	}()
	select {
	case <-met:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A channel that hangs takes none of the time of the others: neither for tonight's report nor for what is kept.
func TestAHangingChannelHoldsUpNoOther(t *testing.T) {
	spool := newSpool(t)
	for _, name := range []string{"mail", "hook"} {
		if err := spool.Put(Entry{Channel: name, Message: messageAt("kept", night)}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	n := newNotifier(spool, night, waiter{"mail", &all}, waiter{"hook", &all})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	all.Add(2)
	if problems := n.Flush(ctx); problems != nil {
		t.Errorf("kept reports: %v", problems)
	}
	equal(t, "spool", nil, spooled(t, spool))
	all.Add(2)
	if err := n.Deliver(ctx, messageAt("tonight", night), nil); err != nil {
		t.Errorf("tonight's report: %v", err)
	}
}

func TestRetry(t *testing.T) {
	calls := 0
	attempts, err := Retry{Attempts: 5, Wait: time.Nanosecond}.do(t.Context(), func() error {
		calls++
		if calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if attempts != 3 || err != nil {
		t.Errorf("%d attempts, %v", attempts, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	attempts, err = Retry{Wait: time.Hour, MaxWait: time.Hour}.do(ctx, func() error { cancel(); return errors.New("down") })
	if attempts != 1 || err == nil {
		t.Errorf("waits on although the context has ended: %d attempts, %v", attempts, err)
	}
}
