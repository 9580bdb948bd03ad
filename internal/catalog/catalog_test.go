package catalog

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"voltar/internal/store"
	"voltar/internal/store/disk"
)

var night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

const testHost = "volume-host"

// newStore returns an empty store.

func newStore(t *testing.T) *disk.Store {
	t.Helper()
	return openStoreAt(t, t.TempDir())
}

func openStoreAt(t *testing.T, dir string) *disk.Store {
	t.Helper()
	return openStoreWhen(t, dir, func() time.Time { return time.Now().Add(time.Hour) }) // what was just written has stood for long
}

func openStoreWhen(t *testing.T, dir string, now func() time.Time) *disk.Store {
	t.Helper()
	s, err := disk.Open(disk.Options{Path: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// faulty is a store some of whose operations fail.

type faulty struct {
	store.Store
	fail func(op, key string) error
}

func (f faulty) Open(ctx context.Context, key string) (store.Reader, error) {
	if err := f.fail("open", key); err != nil {
		return nil, err
	}
	return f.Store.Open(ctx, key)
}

func (f faulty) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if err := f.fail("create", key); err != nil {
		return nil, err
	}
	return f.Store.Create(ctx, key, opts)
}

func (f faulty) Delete(ctx context.Context, key string) error {
	if err := f.fail("delete", key); err != nil {
		return err
	}
	return f.Store.Delete(ctx, key)
}

func (f faulty) Folders(ctx context.Context, prefix string) ([]string, error) {
	if err := f.fail("folders", prefix); err != nil {
		return nil, err
	}
	return f.Store.Folders(ctx, prefix)
}

func (f faulty) Look(ctx context.Context, prefix string, names ...string) ([]store.Folder, error) {
	if err := f.fail("look", prefix); err != nil {
		return nil, err
	}
	return f.Store.Look(ctx, prefix, names...)
}

func (f faulty) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if err := f.fail("list", prefix); err != nil {
		return nil, err
	}
	return f.Store.List(ctx, prefix)
}

func (f faulty) CheckDelete(_ context.Context, keys []string) error {
	for _, key := range keys {
		if err := f.fail("check", key); err != nil {
			return err
		}
	}
	return nil
}

func failing(op, part string, err error) func(op, key string) error {
	return func(o, key string) error {
		if o == op && strings.Contains(key, part) {
			return err
		}
		return nil
	}
}

var errBroken = errors.New("the disk is broken")

// volume is a source as a run would describe it.

func volume(name string) Source {
	return Source{Kind: SourceVolume, VG: "nova-volumes", VGUUID: "vg-uuid", Name: name, LVUUID: "uuid-of-" + name,
		LVKind: "linear", SizeBytes: 1 << 30, LogicalSector: 512, PhysicalSector: 512}
}

// manifest is a small complete one with one file.

func manifest(source Source, t time.Time) *Manifest {
	name := NamesOf(source.Ref(), false).Archive("")
	m := &Manifest{
		Format: Format, Voltar: "1.0.0", Status: StatusComplete, Host: Host{Name: testHost, MachineID: "machine-1"},
		Run: "20261120T010001Z-3f9a0c", Source: source, Time: t, Started: t, Ended: t.Add(time.Minute),
		Extents: []Extent{{SizeBytes: source.SizeBytes, State: StateFiles, Archive: name}},
		Files: []File{{Name: name, SizeBytes: 4, SHA1: "a17c9aaa61e80a1bf71d0d850af4e5baa9800bbd",
			SHA256: "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"}},
	}
	if source.Kind == SourceDump {
		m.Dumps = []Dump{{Name: source.Name, File: name}}
	}
	return m
}

// fill writes the files that a manifest lists, each of its size.

func fill(t *testing.T, d *Draft, m *Manifest) {
	t.Helper()
	for _, file := range m.Files {
		w, err := d.Create(context.Background(), file.Name, store.PutOptions{Tags: map[string]string{"sha1": file.SHA1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, file.SizeBytes)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

const testRun = "20261120T010001Z-3f9a0c"

func mustBegin(t *testing.T, s store.Store, id ID) *Draft {
	t.Helper()
	d, err := Begin(context.Background(), s, testHost, id, testRun, map[string]string{"host": testHost})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// add makes a backup.

func add(t *testing.T, s store.Store, source Source, at time.Time) Backup {
	t.Helper()
	m := manifest(source, at)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	b, err := d.Commit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustList(t *testing.T, s store.Store, filter Filter) *Listing {
	t.Helper()
	if filter.Now.IsZero() {
		filter.Now = night.AddDate(0, 1, 0)
	}
	l, err := List(context.Background(), s, testHost, filter)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func names(backups []Entry) []string {
	list := []string{}
	for _, b := range backups {
		list = append(list, b.ID.String())
	}
	return list
}

// raw puts any bytes under a key.

func raw(t *testing.T, s store.Store, key, data string) {
	t.Helper()
	if err := write(context.Background(), s, key, []byte(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, s store.Store) []string {
	t.Helper()
	objects, err := s.List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, o := range objects {
		list = append(list, o.Key)
	}
	return list
}

// sha1sum itself is the judge, of odd names too.

// full has every field set.

// edit changes the JSON of a good manifest through a generic tree, as another writer could.

// Whatever the store does not hold as the manifest says must keep the backup from appearing.

// Two machines that claim one folder in the same instant: the one that is overwritten learns of it.
