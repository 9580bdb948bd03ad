package backup

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/internal/owned"
	"voltar/internal/store"
	"voltar/internal/store/disk"
	"voltar/lvm"
	"voltar/retention"
)

const copyHost = "volume-host"

// firstNight is when the first backup of these tests was made; the clock stands nights later.
var firstNight = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// copySite is a host with destinations in folders of the test.
type copySite struct {
	*Engine
	dir string
}

func newCopySite(t *testing.T, destinations ...string) *copySite {
	t.Helper()
	s := &copySite{dir: t.TempDir()}
	opts := Options{
		Host: copyHost, MachineID: "machine-1", Version: "1.0.0", ConfigPath: "/etc/voltar/voltar.toml", Parallel: 1,
		RunDir: filepath.Join(s.dir, "run"),
	}
	for _, name := range destinations {
		opened, err := disk.Open(disk.Options{Path: filepath.Join(s.dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		opts.Destinations = append(opts.Destinations, Destination{Name: name, Store: opened, CatchUp: true})
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	host := &owned.Host{LVM: lvm.New(hostcmd.New(hostcmd.Options{}), lvm.Options{}), Log: log, StateDir: filepath.Join(s.dir, "state")}
	for _, d := range opts.Destinations {
		host.Stores = append(host.Stores, d.Store)
	}
	s.Engine = New(Deps{
		Host: host,
		Now:  func() time.Time { return firstNight.AddDate(0, 0, 5) },
	}, opts)
	return s
}

func (s *copySite) on(name string) *Destination {
	i := slices.IndexFunc(s.opts.Destinations, func(d Destination) bool { return d.Name == name })
	return &s.opts.Destinations[i]
}

// make makes a backup of a volume on a destination, in a night counted from the first.
func (s *copySite) make(t *testing.T, on, volume string, night int, edit func(*catalog.Manifest)) catalog.Backup {
	t.Helper()
	m := &catalog.Manifest{
		Format: catalog.Format, Voltar: "1.0.0", Status: catalog.StatusComplete, Host: s.us(), Run: "earlier",
		Source: catalog.Source{Kind: catalog.SourceVolume, VG: "vg", VGUUID: "vg-uuid", Name: volume, LVUUID: "uuid-" + volume, SizeBytes: 1 << 20},
		Time:   firstNight.AddDate(0, 0, night),
	}
	m.Started, m.Ended = m.Time, m.Time.Add(time.Minute)
	name := catalog.NamesOf(m.Source.Ref(), false).Archive("")
	m.Extents = []catalog.Extent{{
		SizeBytes: m.Source.SizeBytes, State: catalog.StateFiles, Archive: name, Filesystem: &catalog.Filesystem{Type: "ext4"},
	}}
	for _, file := range []struct{ name, text string }{{name, strings.Repeat(volume, 1000)}, {volume + ".checksum", "sums"}} {
		m.Files = append(m.Files, fileOf(file.name, file.text))
	}
	if edit != nil {
		edit(m)
	}
	draft, err := catalog.Begin(t.Context(), s.on(on).Store, copyHost, m.ID(), "20261120T010001Z-3f9a0c", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []struct{ name, text string }{{m.Files[0].Name, strings.Repeat(volume, 1000)}, {m.Files[1].Name, "sums"}} {
		w, err := draft.Create(t.Context(), text.name, store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text.text)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := draft.Commit(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fileOf(name, text string) catalog.File {
	sums := archive.NewSums()
	_, _ = sums.Write([]byte(text)) // never fails
	d := sums.Sum()
	return catalog.File{Name: name, SizeBytes: d.SizeBytes, SHA1: d.SHA1, SHA256: d.SHA256}
}

// tree returns what lies below a folder of a destination.
func (s *copySite) tree(t *testing.T, parts ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := filepath.Join(append([]string{s.dir}, parts...)...)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, root+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// journals wants no run to have left anything to do, or something.
func (s *copySite) journals(t *testing.T, want int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*.jsonl"))
	if err != nil || len(found) != want {
		t.Errorf("journals %q, %v, want %d", found, err, want)
	}
}

// states are the lines in short: "v1@2026-11-20T010001Z copied".
func states(lines []CopyLine) string {
	var all []string
	for _, l := range lines {
		all = append(all, strings.TrimPrefix(l.Backup, "vg/")[:len("v1@2026-11-20")]+" "+string(l.State))
	}
	return strings.Join(all, ", ")
}

var nearToFar = CopyRequest{From: "near", To: "far"}

func TestCopyMakesUpWhatIsLacking(t *testing.T) {
	s := newCopySite(t, "near", "far")
	first := s.make(t, "near", "v1", 0, nil)
	s.make(t, "far", "v1", 0, nil)
	s.make(t, "near", "v1", 1, func(m *catalog.Manifest) { m.Status = catalog.StatusDamaged })
	s.make(t, "near", "v2", 2, nil)
	// A newer version of the program may have written more than this one knows.
	manifest := filepath.Join(s.dir, "near", first.Path(), "..", "2026-11-21T010001Z", catalog.ManifestName)
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("{"), []byte(`{"of_tomorrow": 1,`), 1)
	if err := os.WriteFile(manifest, text, 0o600); err != nil {
		t.Fatal(err)
	}

	dry := nearToFar
	dry.DryRun = true
	lines, err := s.Copy(t.Context(), dry)
	if want := "v2@2026-11-22 missing, v1@2026-11-21 missing, v1@2026-11-20 there"; err != nil || states(lines) != want {
		t.Errorf("dry run: %s, %v; want %s", states(lines), err, want)
	}
	if got := s.tree(t, "far"); len(got) != 3 {
		t.Errorf("after a dry run: %v", got)
	}
	lines, err = s.Copy(t.Context(), nearToFar)
	if want := "v2@2026-11-22 copied, v1@2026-11-21 copied, v1@2026-11-20 there"; err != nil || states(lines) != want {
		t.Errorf("%s, %v; want %s", states(lines), err, want)
	}
	near, far := s.tree(t, "near", copyHost, "vg"), s.tree(t, "far", copyHost, "vg")
	for name, text := range near {
		if far[name] != text {
			t.Errorf("%s differs", name)
		}
	}
	if len(near) != len(far) || len(near) != 9 {
		t.Errorf("%d files here, %d there", len(near), len(far))
	}
	s.journals(t, 0)
	lines, err = s.Copy(t.Context(), nearToFar)
	if want := "v2@2026-11-22 there, v1@2026-11-21 there, v1@2026-11-20 there"; err != nil || states(lines) != want {
		t.Errorf("once more: %s, %v; want %s", states(lines), err, want)
	}
}

func TestCopyLeavesWhatRetentionWouldRemove(t *testing.T) {
	s := newCopySite(t, "near", "far")
	for night := range 4 {
		s.make(t, "near", "v1", night, nil)
	}
	s.make(t, "far", "v1", 4, nil)
	s.on("far").Policy = retention.Policy{KeepLast: 3}
	lines, err := s.Copy(t.Context(), nearToFar)
	want := "v1@2026-11-23 copied, v1@2026-11-22 copied, v1@2026-11-21 left, v1@2026-11-20 left"
	if err != nil || states(lines) != want {
		t.Errorf("%s, %v; want %s", states(lines), err, want)
	}
	if lines[3].Reason != "not among last 3" {
		t.Errorf("reason %q", lines[3].Reason)
	}
}

func TestCopyRefusesWhatIsDamaged(t *testing.T) {
	s := newCopySite(t, "near", "far")
	bad := s.make(t, "near", "v1", 1, nil)
	s.make(t, "near", "v2", 0, nil)
	path := filepath.Join(s.dir, "near", bad.Path(), bad.Manifest.Files[0].Name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[500] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := s.Copy(t.Context(), nearToFar)
	if want := "v1@2026-11-21 failed, v2@2026-11-20 copied"; err != nil || states(lines) != want {
		t.Fatalf("%s, %v; want %s", states(lines), err, want)
	}
	if !strings.Contains(lines[0].Reason, "sums of the manifest") {
		t.Errorf("reason %q", lines[0].Reason)
	}
	if left := s.tree(t, "far", copyHost, "vg/v1"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.journals(t, 0)
}

// brokenStore fails where a test says so.
type brokenStore struct {
	store.Store
	fail func(op, key string) error
}

func (b *brokenStore) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if err := b.fail("create", key); err != nil {
		return nil, err
	}
	return b.Store.Create(ctx, key, opts)
}

func (b *brokenStore) Delete(ctx context.Context, key string) error {
	if err := b.fail("delete", key); err != nil {
		return err
	}
	return b.Store.Delete(ctx, key)
}

var errAway = errors.New("the store went away")

// A destination that goes away before the manifest, and so cannot even be cleaned, is cleaned by the next copy, which
// then does what the first did not.
func TestCopyGoesOnAfterADestinationWasAway(t *testing.T) {
	s := newCopySite(t, "near", "far")
	s.make(t, "near", "v1", 0, nil)
	broken := &brokenStore{Store: s.on("far").Store, fail: func(op, key string) error {
		if op == "delete" || strings.HasSuffix(key, catalog.ManifestName) {
			return errAway
		}
		return nil
	}}
	s.on("far").Store = broken
	lines, err := s.Copy(t.Context(), nearToFar)
	if err != nil || states(lines) != "v1@2026-11-20 failed" || !strings.Contains(lines[0].Reason, errAway.Error()) {
		t.Fatalf("%+v, %v", lines, err)
	}
	s.journals(t, 1)
	if listing, err := catalog.List(t.Context(), broken.Store, copyHost, catalog.Filter{}); err != nil || len(listing.Backups) != 0 {
		t.Errorf("%+v, %v", listing, err)
	}
	broken.fail = func(string, string) error { return nil }
	if lines, err = s.Copy(t.Context(), nearToFar); err != nil || states(lines) != "v1@2026-11-20 copied" {
		t.Errorf("%+v, %v", lines, err)
	}
	s.journals(t, 0)
}

func TestCopyWhereItMustNot(t *testing.T) {
	s := newCopySite(t, "near", "far", "same")
	s.on("same").Store = s.on("near").Store
	b := s.make(t, "near", "v1", 0, nil)
	for _, q := range []CopyRequest{{From: "near", To: "nowhere"}, {From: "nowhere", To: "far"}, {From: "near", To: "same"}} {
		if _, err := s.Copy(t.Context(), q); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", q, err)
		}
	}

	locks, err := journal.NewLocks(s.opts.RunDir, journal.Holder{PID: os.Getpid(), Command: "voltar run"})
	if err != nil {
		t.Fatal(err)
	}
	var held *journal.HeldError
	other, err := locks.TryLock(journal.ScopeConfig, copyLock(*s.on("far")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Copy(t.Context(), nearToFar); !errors.As(err, &held) {
		t.Errorf("beside another copy: %v", err)
	}
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	volume, err := locks.TryLock(journal.ScopeVolume, b.ID.Ref.String())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := s.Copy(t.Context(), nearToFar)
	if err != nil || states(lines) != "v1@2026-11-20 failed" || !strings.Contains(lines[0].Reason, "voltar run") {
		t.Errorf("beside a run that is at the volume: %+v, %v", lines, err)
	}
	if err := volume.Unlock(); err != nil {
		t.Fatal(err)
	}

	foreign := catalog.Host{Name: copyHost, MachineID: "machine-2"}
	if err := os.RemoveAll(filepath.Join(s.dir, "far", copyHost)); err != nil {
		t.Fatal(err)
	}
	if err := catalog.Claim(t.Context(), s.on("far").Store, foreign, firstNight); err != nil {
		t.Fatal(err)
	}
	var foreignErr *catalog.ForeignError
	for _, dryRun := range []bool{true, false} {
		q := nearToFar
		q.DryRun = dryRun
		if _, err := s.Copy(t.Context(), q); !errors.As(err, &foreignErr) {
			t.Errorf("to a folder of another machine: %v", err)
		}
	}
}

func TestCopyStopsWhenItIsTold(t *testing.T) {
	s := newCopySite(t, "near", "far")
	s.make(t, "near", "v1", 0, nil)
	s.make(t, "near", "v2", 1, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	broken := &brokenStore{Store: s.on("far").Store, fail: func(op, key string) error {
		if strings.HasSuffix(key, ".checksum") {
			cancel(errStop)
		}
		return nil
	}}
	s.on("far").Store = broken
	lines, err := s.Copy(ctx, nearToFar)
	if err != nil || states(lines) != "v2@2026-11-21 failed, v1@2026-11-20 failed" {
		t.Errorf("%+v, %v", lines, err)
	}
	if left := s.tree(t, "far", copyHost, "vg"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.journals(t, 0)
}
