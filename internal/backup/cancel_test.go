package backup

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/control"
	"voltar/internal/owned"
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
