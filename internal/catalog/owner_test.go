package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"voltar/internal/say"
	"voltar/internal/store"
)

func TestOwner(t *testing.T) {
	ctx, s := context.Background(), newStore(t)
	us, them := Host{testHost, "machine-1"}, Host{testHost, "machine-2"}
	if err := CheckOwner(ctx, s, us); err != nil {
		t.Errorf("a folder that nobody has: %v", err)
	}
	if _, err := ReadOwner(ctx, s, testHost); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
	for range 2 {
		if err := Claim(ctx, s, us, night); err != nil {
			t.Fatal(err)
		}
	}
	owner, err := ReadOwner(ctx, s, testHost)
	if want := (Owner{Format, testHost, "machine-1", night}); err != nil || owner != want {
		t.Errorf("owner %+v, %v, want %+v", owner, err, want)
	}
	for _, err := range []error{Claim(ctx, s, them, night), CheckOwner(ctx, s, them)} {
		var foreign *ForeignError
		if !errors.As(err, &foreign) || foreign.Theirs != owner || foreign.Ours != them {
			t.Fatalf("error %v, want a ForeignError", err)
		}
		for _, part := range []string{"machine-1", "machine-2", testHost, s.String(), "hint:"} {
			if !strings.Contains(say.Text(err), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	raw(t, s, "spoilt/"+MarkerName, `{"format":"voltar/1","host":"spoilt"}`)
	if err := Claim(ctx, s, Host{"spoilt", "machine-1"}, night); !errors.Is(err, ErrDamaged) {
		t.Errorf("a marker without a machine: %v", err)
	}
	raw(t, s, "newer/"+MarkerName, `{"format":"voltar/2"}`)
	var newer *FormatError
	if err := Claim(ctx, s, Host{"newer", "machine-1"}, night); !errors.As(err, &newer) {
		t.Errorf("a marker of a newer version: %v", err)
	}
	for _, bad := range []Host{{"", "m"}, {"a/b", "m"}, {"..", "m"}, {"@dump", "m"}, {"fine", ""}} {
		if err := Claim(ctx, s, bad, night); err == nil {
			t.Errorf("%+v was claimed", bad)
		}
	}
	raw(t, s, "lost+found/x", "x")
	if hosts, err := Hosts(ctx, s); err != nil || !slices.Equal(hosts, []string{"newer", "spoilt", testHost}) {
		t.Errorf("hosts %q, %v", hosts, err)
	}
}

func TestClaimThatIsOverwritten(t *testing.T) {
	s := newStore(t)
	first := true
	racing := faulty{s, func(op, key string) error {
		if op == "open" && first {
			first = false
			return nil
		}
		if op == "open" {
			raw(t, s, key, `{"format":"voltar/1","host":"volume-host","machine_id":"machine-2"}`)
		}
		return nil
	}}
	var foreign *ForeignError
	if err := Claim(context.Background(), racing, Host{testHost, "machine-1"}, night); !errors.As(err, &foreign) {
		t.Errorf("error %v, want a ForeignError", err)
	}
}
