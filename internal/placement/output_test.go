package placement

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/keep"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

// gateStore is a store whose writers say or do something else than they should.
type gateStore struct {
	store.Store
	bend func(store.Writer) store.Writer
}

func (s gateStore) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	if err == nil && s.bend != nil && path.Base(key) != catalog.ClaimName {
		w = s.bend(w)
	}
	return w, err
}

// gateShortWriter stands for a store that says it holds a byte less than it was sent.
type gateShortWriter struct{ store.Writer }

func (w gateShortWriter) Commit(ctx context.Context) (store.Object, error) {
	object, err := w.Writer.Commit(ctx)
	object.SizeBytes--
	return object, err
}

// gateFullWriter stands for one that takes nothing.
type gateFullWriter struct{ store.Writer }

var errGateFull = errors.New("no space left on device")

func (gateFullWriter) Write([]byte) (int, error) { return 0, errGateFull }

// gateOutput returns the output of a volume with one branch for each bend.
func gateOutput(t *testing.T, bends ...func(store.Writer) store.Writer) *Output {
	t.Helper()
	o := &Output{}
	for i, bend := range bends {
		plain, err := disk.Open(disk.Options{Path: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		s := gateStore{plain, bend}
		id := catalog.ID{Ref: catalog.VolumeRef("vg", "lv"), Time: time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)}
		draft, err := catalog.Begin(t.Context(), s, "volume-host", id, "20261120T010001Z-3f9a0c", nil)
		if err != nil {
			t.Fatal(err)
		}
		name := string(rune('a' + i))
		at := &place{target: &Target{Destination: Destination{Name: name, Store: s}}}
		o.places, o.branches = append(o.places, at), append(o.branches, &branch{place: at, draft: draft})
	}
	return o
}

func gateShort(w store.Writer) store.Writer { return gateShortWriter{w} }
func gateFull(w store.Writer) store.Writer  { return gateFullWriter{w} }

func gateProduce(w io.Writer) error {
	_, err := io.WriteString(w, "data")
	return err
}

// A file counts on a destination only when that took as many bytes as were sent.
func TestGateStoreTookWhatWasSent(t *testing.T) {
	o := gateOutput(t, gateShort, nil)
	file, err := o.Write(t.Context(), "lv.tar.gz", 0, gateProduce)
	if err != nil || file.SizeBytes != 4 {
		t.Fatalf("%+v %v: the other destination took it", file, err)
	}
	bad, good := o.branches[0], o.branches[1]
	if err := bad.failure(); err == nil || !strings.Contains(err.Error(), "holds 3 bytes where 4 were sent") || len(bad.files) != 0 {
		t.Errorf("the short one: %v %v", err, bad.files)
	}
	if good.failure() != nil || len(good.files) != 1 {
		t.Errorf("the good one: %v %v", good.failure(), good.files)
	}
}

// A destination that fails in the middle drops out; when it was the last, writing ends there with its cause.
func TestGateFailedDestinationDropsOut(t *testing.T) {
	o := gateOutput(t, gateFull, nil)
	if _, err := o.Write(t.Context(), "lv.tar.gz", 0, gateProduce); err != nil || len(o.alive()) != 1 || len(o.branches[0].files) != 0 {
		t.Errorf("%v, %d are left", err, len(o.alive()))
	}
	o = gateOutput(t, gateFull)
	if _, err := o.Write(t.Context(), "lv.tar.gz", 0, gateProduce); !errors.Is(err, errGateFull) {
		t.Errorf("error %v, want that of the last destination", err)
	}
}

// What could not be produced whole is no file.
func TestGateUnfinishedFileDoesNotCount(t *testing.T) {
	failure := errors.New("the volume cannot be read")
	o := gateOutput(t, nil)
	_, err := o.Write(t.Context(), "lv.tar.gz", 0, func(w io.Writer) error { return errors.Join(gateProduce(w), failure) })
	if !errors.Is(err, failure) || len(o.branches[0].files) != 0 {
		t.Errorf("%v %v", err, o.branches[0].files)
	}
	objects, err := o.branches[0].target.Store.List(t.Context(), "")
	if err != nil || len(objects) != 1 || path.Base(objects[0].Key) != catalog.ClaimName {
		t.Errorf("the store has %v %v", objects, err)
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		name, want string
		err        error
	}{
		{"of a full disk", "no space left in the destination (0 B of 8.0 MiB free)", fmt.Errorf("write /backups/a.tar.gz: %w",
			&store.WholeError{Err: fmt.Errorf("%w (0 B of 8.0 MiB free)", store.ErrNoSpace)})},
		{"of a full bucket", "the store is full", fmt.Errorf("write a.tar.gz in s3://bucket: %w",
			&store.WholeError{Err: worded{"the store is full", store.ErrNoSpace}})},
		{"of a volume with such a name", "given up: it does not answer", fmt.Errorf("write a folder that was given up/a.tar.gz: %w",
			&store.WholeError{Err: fmt.Errorf("%w: it does not answer", store.ErrDown)})},
		{"of one object", "copy: write a.tar.gz: no such object", fmt.Errorf("write a.tar.gz: %w", store.ErrNotExist)},
	} {
		p := explain(&Target{Destination: Destination{Name: "disk"}}, fmt.Errorf("copy: %w", say.WithHint(test.err, "do this")))
		if p.Message != test.want || p.Hint != "do this" {
			t.Errorf("%s: %+v", test.name, p)
		}
		var whole *store.WholeError
		if want := errors.As(test.err, &whole); slices.Equal(p.Destinations, []string{"disk"}) != want {
			t.Errorf("%s: the failure of %q", test.name, p.Destinations)
		}
	}
	unclaimed := &Target{Destination: Destination{Name: "disk"}, err: errors.New("it is another machine's")}
	if p := explain(unclaimed, unclaimed.err); !slices.Equal(p.Destinations, []string{"disk"}) {
		t.Errorf("of one that could not be claimed: %+v", p)
	}
}

// worded is an error of a kind that its text does not name.
type worded struct {
	text string
	kind error
}

func (e worded) Error() string { return e.text }
func (e worded) Unwrap() error { return e.kind }

// What object lock keeps is one line of the report, however many nights and volumes it is met in.
func TestHeldBackupsAreOneLine(t *testing.T) {
	var to Target
	if note := to.heldNote(); note != "" {
		t.Errorf("of none: %q", note)
	}
	until := time.Date(2026, 12, 24, 1, 0, 0, 0, time.UTC)
	to.hold([]keep.Held{{ID: "vg/a@1"}})
	if note := to.heldNote(); note != "1 backup that the policy no longer keeps is kept by object lock" {
		t.Errorf("of one without a date: %q", note)
	}
	to.hold([]keep.Held{{ID: "vg/a@1", Until: until}, {ID: "vg/b@1", Until: until.AddDate(0, 0, -3)}})
	to.hold([]keep.Held{{ID: "vg/b@1", Until: until.AddDate(0, 0, -3)}})
	if note, want := to.heldNote(), "2 backups that the policy no longer keeps are kept by object lock, the last until 2026-12-24"; note != want {
		t.Errorf("%q, want %q", note, want)
	}
}

func TestOutputGoesOnWithoutABranch(t *testing.T) {
	failure := errors.New("gone")
	a, b := &place{target: &Target{Destination: Destination{Name: "a"}}}, &place{target: &Target{Destination: Destination{Name: "b"}}}
	o := Output{places: []*place{a, b}, branches: []*branch{{place: a}, {place: b}}}
	o.branches[0].drop(failure)
	if err := o.Failure(); err != nil || len(o.alive()) != 1 {
		t.Errorf("%v %d", err, len(o.alive()))
	}
	o.branches[1].drop(errors.New("full"))
	o.branches[1].drop(failure)
	if err := o.Failure(); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "destination b: full") || !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}
