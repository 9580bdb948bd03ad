package say_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"voltar/internal/say"
)

func TestHintsOfJoinedAndWrappedErrors(t *testing.T) {
	full := say.WithHint(errors.New("no room"), "make room")
	refused := say.WithHint(errors.New("refused"), "start the server")
	err := say.WithHint(errors.Join(
		fmt.Errorf("destination a: %w", full),
		fmt.Errorf("destination b: %w", refused),
		fmt.Errorf("destination c: %w", full),
	), "run again")
	if got, want := say.Hints(err), []string{"run again", "make room", "start the server"}; !slices.Equal(got, want) {
		t.Errorf("hints are %q, want %q", got, want)
	}
	if got, want := err.Error(), "destination a: no room\ndestination b: refused\ndestination c: no room"; got != want {
		t.Errorf("the text is %q, want %q", got, want)
	}
}

func TestNoErrorHasNoHint(t *testing.T) {
	if err := say.WithHint(nil, "do something"); err != nil {
		t.Errorf("a hint on nil is %v", err)
	}
	plain := errors.New("plain")
	if err := say.WithHint(plain, ""); err != plain {
		t.Errorf("an empty hint changes %v to %v", plain, err)
	}
	if hints := say.Hints(fmt.Errorf("outer: %w", plain)); hints != nil {
		t.Errorf("a plain error has the hints %q", hints)
	}
}
