package backup

import (
	"log/slog"
	"strings"
	"testing"

	"voltar/internal/control"
	"voltar/internal/owned"
	"voltar/lvm"
)

// A person may cancel at any time: what is read then of a volume does not change while it is at work. The race detector
// judges.
func TestCancelWhileAVolumeIsLookedAt(t *testing.T) {
	r := &run{Engine: &Engine{Deps: Deps{Host: &owned.Host{Log: slog.New(slog.DiscardHandler)}}}, id: "run"}
	v := &volumeRun{run: r, volume: lvm.Volume{VG: "vg", Name: "lv"}}
	r.takeTurns(t.Context(), []unit{{members: []*volumeRun{v}}})
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		v.volume = lvm.Volume{VG: "vg", Name: "lv", Active: true} // as activating it does
	}()
	if _, err := r.answer(t.Context(), control.Request{Cancel: "vg/none"}); err == nil || !strings.Contains(err.Error(), "vg/lv") {
		t.Errorf("of another: %v", err)
	}
	if done, err := r.answer(t.Context(), control.Request{Cancel: "lv"}); err != nil || done != "vg/lv is taken out of the run before its turn" {
		t.Errorf("%q %v", done, err)
	}
	<-looked
}
