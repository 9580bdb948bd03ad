package backup

import (
	"context"
	"errors"
	"testing"

	"voltar/internal/owned"
	"voltar/internal/store"
	"voltar/internal/store/patient"
	"voltar/lvm"
)

// silent is a store that cannot be reached.
type silent struct{ store.Store }

func (silent) Usage(context.Context) (store.Usage, error) { return store.Usage{}, store.ErrUnreachable }

// A destination that is given up lies on nothing: nobody looks at its folder, which may hang, and no freeze fails for it.
func TestADestinationThatIsDownKeepsNobodyFromFreezing(t *testing.T) {
	e := &Engine{Deps: Deps{Host: &owned.Host{LVM: lvm.New(nil, lvm.Options{})}}}
	s := patient.Wrap(silent{}, 0, "")
	if _, err := e.devicesUnder(t.Context(), s, "no\x00path"); err == nil {
		t.Error("a folder that cannot be told lies on nothing")
	}
	if _, err := s.Usage(t.Context()); !errors.Is(err, store.ErrDown) {
		t.Fatal(err)
	}
	if devices, err := e.devicesUnder(t.Context(), s, "no\x00path"); err != nil || len(devices) != 0 {
		t.Errorf("of one that is down: %v, %v", devices, err)
	}
}
