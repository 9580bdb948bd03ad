package backup

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/lvm"
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
func gateOutput(t *testing.T, bends ...func(store.Writer) store.Writer) *output {
	t.Helper()
	o := &output{}
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
		o.branches = append(o.branches, &branch{target: &target{Destination: Destination{Name: name, Store: s}}, draft: draft})
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
	file, err := o.write(t.Context(), "lv.tar.gz", 0, gateProduce)
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
	if _, err := o.write(t.Context(), "lv.tar.gz", 0, gateProduce); err != nil || len(o.alive()) != 1 || len(o.branches[0].files) != 0 {
		t.Errorf("%v, %d are left", err, len(o.alive()))
	}
	o = gateOutput(t, gateFull)
	if _, err := o.write(t.Context(), "lv.tar.gz", 0, gateProduce); !errors.Is(err, errGateFull) {
		t.Errorf("error %v, want that of the last destination", err)
	}
}

// What could not be produced whole is no file.
func TestGateUnfinishedFileDoesNotCount(t *testing.T) {
	failure := errors.New("the volume cannot be read")
	o := gateOutput(t, nil)
	_, err := o.write(t.Context(), "lv.tar.gz", 0, func(w io.Writer) error { return errors.Join(gateProduce(w), failure) })
	if !errors.Is(err, failure) || len(o.branches[0].files) != 0 {
		t.Errorf("%v %v", err, o.branches[0].files)
	}
	objects, err := o.branches[0].target.Store.List(t.Context(), "")
	if err != nil || len(objects) != 1 || path.Base(objects[0].Key) != catalog.ClaimName {
		t.Errorf("the store has %v %v", objects, err)
	}
}

// A backup that lacks data of any extent, or a dump, is damaged, and no last good one for retention.
func TestGateLackingDataIsDamage(t *testing.T) {
	whole := &extent{Extent: catalog.Extent{Name: "p1", State: catalog.StateFiles}}
	lossy := &extent{Extent: catalog.Extent{Name: "p2", State: catalog.StateImage}}
	lossy.noteImage(archive.ImageStats{DamagedCount: 1, Damaged: []archive.Damage{{OffsetBytes: 512, LengthBytes: 512, Reason: "bad sector"}}})
	for _, c := range []struct {
		name    string
		extents []*extent
		missing []string
		want    catalog.Status
	}{
		{"whole", []*extent{whole}, nil, catalog.StatusComplete},
		{"an extent lacks data", []*extent{whole, lossy}, nil, catalog.StatusDamaged},
		{"a dump failed", []*extent{whole}, []string{"mysqldump: exit status 2"}, catalog.StatusDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &volumeRun{run: &run{Engine: &Engine{}}, missing: c.missing, watched: &lvm.WatchResult{}}
			if m := v.manifest(&layout{extents: c.extents}); m.Status != c.want {
				t.Errorf("%s, want %s", m.Status, c.want)
			}
		})
	}
}
