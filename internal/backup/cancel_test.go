package backup

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/control"
	"voltar/internal/owned"
	"voltar/internal/say"
)

// newTestRun is a run that has no destination, on no host.
func newTestRun(opts Options) *run {
	e := &Engine{Deps: Deps{Host: &owned.Host{Log: slog.New(slog.DiscardHandler)}}, opts: opts}
	return &run{Engine: e, record: &record{log: e.Log}, id: "run", placing: e.placing()}
}

func volumeSource(lv string) catalog.Source {
	return catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: lv}
}

// A person may cancel at any time: what is read then of a volume does not change while it is at work. The race detector
// judges.
func TestCancelWhileAVolumeIsLookedAt(t *testing.T) {
	r := newTestRun(Options{})
	a := r.newAccount(t.Context(), volumeSource("lv"))
	r.newAccount(t.Context(), catalog.Source{Kind: catalog.SourceDirectory, Name: "lv"})
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		a.fail(context.Canceled) // as whatever the cancelling ended
		a.warn("a warning", "")
	}()
	if _, err := r.answer(t.Context(), control.Request{Cancel: "vg/none"}); err == nil || !strings.Contains(err.Error(), "vg/lv") {
		t.Errorf("of another: %v", err)
	}
	if done, err := r.answer(t.Context(), control.Request{Cancel: "lv"}); err != nil || done != "vg/lv is taken out of the run before its turn" {
		t.Errorf("%q %v", done, err)
	}
	<-looked
	if done, err := r.answer(t.Context(), control.Request{Cancel: "@directory/lv"}); err != nil || !strings.HasPrefix(done, "@directory/lv is taken out") {
		t.Errorf("%q %v", done, err)
	}
}

// A guest's name stands for its disks that are not done, and a volume's name wins.
func TestCancelAGuest(t *testing.T) {
	r := newTestRun(Options{})
	of := func(lv, id, name, disk string) *account {
		source := volumeSource(lv)
		source.Guest = &catalog.Guest{ID: id, Name: name, Disk: disk}
		return r.newAccount(t.Context(), source)
	}
	root, data := of("root", "1", "web", "vda"), of("data", "1", "web", "vdb")
	of("db", "2", "db2", "vda")
	wins := of("db2", "3", "x", "vda")
	of("t1", "4", "twin", "vda")
	of("t2", "5", "twin", "vda")
	for word, want := range map[string]string{"db2": "vg/db2 is taken out of the run before its turn", "@guest/db2": "vg/db is taken out of the run before its turn"} {
		if done, err := r.answer(t.Context(), control.Request{Cancel: word}); err != nil || done != want {
			t.Errorf("%s: %q %v", word, done, err)
		}
	}
	if wins.scope.ctx.Err() == nil {
		t.Error("db2 goes on")
	}
	if _, err := r.answer(t.Context(), control.Request{Cancel: "twin"}); err == nil || !strings.Contains(say.Text(err), "4, 5") {
		t.Errorf("two guests of one name: %v", err)
	}
	root.scope.end()
	if done, err := r.answer(t.Context(), control.Request{Cancel: "web"}); err != nil || done != "vg/data is taken out of the run before its turn" {
		t.Errorf("%q %v", done, err)
	}
	data.scope.end()
	if _, err := r.answer(t.Context(), control.Request{Cancel: "1:vdb"}); err == nil || !strings.Contains(err.Error(), "done with 1:vdb already") {
		t.Errorf("of what is done: %v", err)
	}
}
