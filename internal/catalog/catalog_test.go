package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/store"
	"voltar/internal/store/disk"
)

var update = flag.Bool("update", false, "write the golden files anew")

var night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

const testHost = "volume-host"

// newStore returns an empty store.
func newStore(t *testing.T) *disk.Store {
	t.Helper()
	s, err := disk.Open(disk.Options{Path: t.TempDir()})
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
	return &Manifest{
		Format: Format, Voltar: "1.0.0", Status: StatusComplete, Host: Host{Name: testHost, MachineID: "machine-1"},
		Run: "20261120T010001Z-3f9a0c", Source: source, Time: t, Started: t, Ended: t.Add(time.Minute),
		Extents: []Extent{{SizeBytes: source.SizeBytes, State: StateFiles, Archive: name}},
		Files: []File{{Name: name, SizeBytes: 4, SHA1: "a17c9aaa61e80a1bf71d0d850af4e5baa9800bbd",
			SHA256: "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"}},
	}
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

func mustBegin(t *testing.T, s store.Store, id ID) *Draft {
	t.Helper()
	d, err := Begin(context.Background(), s, testHost, id, map[string]string{"host": testHost})
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
	l, err := List(context.Background(), s, testHost, filter)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func names(backups []Backup) []string {
	list := []string{}
	for _, b := range backups {
		list = append(list, b.ID.String())
	}
	return list
}

// raw puts any bytes under a key.
func raw(t *testing.T, s store.Store, key, data string) {
	t.Helper()
	if err := write(context.Background(), s, key, []byte(data), nil); err != nil {
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

func TestIdentities(t *testing.T) {
	for _, c := range []struct {
		id         ID
		text, path string
	}{
		{ID{VolumeRef("nova-volumes", "volume-00000001"), night}, "nova-volumes/volume-00000001@2026-11-20T010001Z",
			"h/nova-volumes/volume-00000001/2026-11-20T010001Z"},
		{ID{Ref{Kind: SourceDump, Name: "my sql"}, night}, "@dump/my sql@2026-11-20T010001Z", "h/@dump/my sql/2026-11-20T010001Z"},
		{ID{Ref{Kind: SourceDirectory, Name: "etc"}, night.In(time.FixedZone("CET", 3600))}, "@directory/etc@2026-11-20T010001Z",
			"h/@directory/etc/2026-11-20T010001Z"},
	} {
		if c.id.String() != c.text || c.id.Path("h") != c.path {
			t.Errorf("%s and %s, want %s and %s", c.id, c.id.Path("h"), c.text, c.path)
		}
		if got, err := ParseID(c.text); err != nil || got.Compare(c.id) != 0 {
			t.Errorf("ParseID(%q) = %v, %v", c.text, got, err)
		}
		if host, got, err := ParsePath(c.path); err != nil || got.Compare(c.id) != 0 || host != "h" {
			t.Errorf("ParsePath(%q) = %v, %v, %v", c.path, host, got, err)
		}
	}
}

func TestBadIdentities(t *testing.T) {
	for _, text := range []string{"", "lv", "vg/lv", "vg/lv@", "vg/lv@2026-11-20", "vg/lv@2026-11-20T01:00:01Z", "vg//lv@2026-11-20T010001Z",
		"vg/../x@2026-11-20T010001Z", "../lv@2026-11-20T010001Z", "-vg/lv@2026-11-20T010001Z", "vg/l v@2026-11-20T010001Z",
		"@dump/a/b@2026-11-20T010001Z", "@dump/..@2026-11-20T010001Z", "@dump/-x@2026-11-20T010001Z", "@volume/x@2026-11-20T010001Z",
		"@other/x@2026-11-20T010001Z", "@dump/a\nb@2026-11-20T010001Z", "vg/lv@2026-13-20T010001Z"} {
		if id, err := ParseID(text); err == nil {
			t.Errorf("ParseID(%q) = %v", text, id)
		}
	}
	for _, folder := range []string{"", "h", "h/vg", "h/vg/lv", "h/vg/lv/x", "h/vg/lv/2026-11-20T010001Z/x", "../vg/lv/2026-11-20T010001Z",
		"@h/vg/lv/2026-11-20T010001Z", "/vg/lv/2026-11-20T010001Z", "h/vg/../2026-11-20T010001Z"} {
		if _, id, err := ParsePath(folder); err == nil {
			t.Errorf("ParsePath(%q) = %v", folder, id)
		}
	}
}

func TestNames(t *testing.T) {
	plain, secret := NamesOf(VolumeRef("vg", "v"), false), NamesOf(VolumeRef("vg", "v"), true)
	for got, want := range map[string]string{
		plain.Archive("p1"): "v.p1.tar.gz", plain.Archive(""): "v.tar.gz", plain.Index("p1"): "v.p1.index.gz",
		plain.Image("p3"): "v.p3.img.gz", plain.Boot(): "v.boot.gz", plain.BootArea("p1"): "v.p1.boot.gz",
		plain.Table(): "v.sfdisk", plain.Dump("mysql"): "v.mysql.dump.gz", plain.Dump(""): "v.dump.gz",
		plain.Checksum(): "v.checksum", secret.Archive("p1"): "v.p1.tar.gz.age", secret.Checksum(): "v.checksum",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCheckFileName(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../a", "-rf", "a\x00", "a\nb", "\xff", strings.Repeat("x", 256)} {
		if CheckFileName(name) == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, name := range []string{"volume-00000001.p1.tar.gz", ".hidden.tar.gz", "..a", "a b", `a\b`, "ü"} {
		if err := CheckFileName(name); err != nil {
			t.Error(err)
		}
	}
}

// sha1sum itself is the judge, of odd names too.
func TestChecksumIsWhatSha1sumReads(t *testing.T) {
	dir := t.TempDir()
	const empty = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	var files []File
	for _, name := range []string{"volume-00000001.p1.tar.gz", "with space", `back\slash`, `\n`, "*star", " lead", "ü", "$(x)'\""} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: name, SHA1: empty})
	}
	text, err := Checksum(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "v.checksum"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha1sum", "--strict", "-c", "v.checksum")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), ": OK") != len(files) {
		t.Errorf("sha1sum -c: %v\n%s", err, out)
	}
	for _, bad := range []File{{Name: "a", SHA1: "xyz"}, {Name: "../a", SHA1: empty}, {Name: "a\nb", SHA1: empty}} {
		if _, err := Checksum([]File{bad}); err == nil {
			t.Errorf("%+v was listed", bad)
		}
	}
}

// full has every field set.
func full() *Manifest {
	m := manifest(volume("volume-00000001"), night)
	m.Status = StatusDamaged
	m.Source.Tags, m.Source.ThinPool, m.Source.VGExtentBytes = []string{"gold"}, "pool", 4<<20
	m.Snapshot = &Snapshot{Kind: "classic", SizeBytes: 1 << 28, PeakBytes: 1 << 20, PeakPercent: 0.39, Extended: 1}
	m.Quiesce = &Quiesce{Level: "filesystem-consistent", Method: "fsfreeze", FrozenMillis: 400, Group: "db"}
	m.Table = &Table{Label: "gpt", ID: "6D3D1F2C-0000-4000-8000-000000000001", SectorBytes: 512}
	sums := m.Files[0]
	m.Files = nil
	for _, name := range []string{"v.p1.tar.gz", "v.p1.index.gz", "v.p1.boot.gz", "v.boot.gz", "v.sfdisk", "v.checksum",
		RecipeName} {
		sums.Name = name
		m.Files = append(m.Files, sums)
	}
	m.Files[0].PlainSizeBytes = 3
	m.Extents = []Extent{
		{Name: "boot", SizeBytes: 1 << 20, State: StateTable, Archive: "v.boot.gz"},
		{Name: "p1", Number: 1, OffsetBytes: 1 << 20, SizeBytes: 1 << 29, State: StateFiles, PartType: "0FC63DAF",
			PartUUID: "u", PartName: "root <&>", Archive: "v.p1.tar.gz", Index: &Index{Name: "v.p1.index.gz", BlocksOffset: 17},
			BootArea: "v.p1.boot.gz", UsedBytes: 9, Entries: 3, ContentBytes: 8, ExcludedBytes: 1, ExcludedEntries: 1,
			NotStored: map[string]int64{"socket": 1}, DamagedCount: 2,
			Damaged: []Damage{{Path: "a", OffsetBytes: 1, LengthBytes: 2, Reason: "EIO"}, {PathB64: []byte("\xff"), Reason: "EIO"}},
			Filesystem: &Filesystem{Type: "ext4", UUID: "f", Label: "l", BlockBytes: 4096, Mkfs: [][]string{{"mke2fs", "DEVICE"}},
				MkfsEnv: []string{"MKE2FS_CONFIG=/dev/null"}, Params: map[string]string{"Inode count": "16"}}},
		{Name: "p2", Number: 2, OffsetBytes: 1<<20 + 1<<29, SizeBytes: 1 << 20, State: StateExcluded, Reason: "rule"},
	}
	m.Warnings = []string{"w"}
	return m
}

func TestGoldenManifest(t *testing.T) {
	data, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "manifest.json")
	if *update {
		if err := os.WriteFile(golden, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != string(want) {
		t.Errorf("the manifest is written otherwise than in %s:\n%s", golden, data)
	}
	got, err := ParseManifest(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, full()) {
		t.Errorf("read back: %+v", got)
	}
}

// edit changes the JSON of a good manifest through a generic tree, as another writer could.
func edit(t testing.TB, change func(root map[string]any)) []byte {
	t.Helper()
	data, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	change(root)
	if data, err = json.Marshal(root); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestManifestFromElsewhere(t *testing.T) {
	file := func(root map[string]any, i int) map[string]any { return root["files"].([]any)[i].(map[string]any) }
	extent := func(root map[string]any, i int) map[string]any { return root["extents"].([]any)[i].(map[string]any) }
	source := func(root map[string]any) map[string]any { return root["source"].(map[string]any) }
	for name, change := range map[string]func(root map[string]any){
		"no format":           func(r map[string]any) { delete(r, "format") },
		"another's format":    func(r map[string]any) { r["format"] = "tarball/1" },
		"format of no number": func(r map[string]any) { r["format"] = "voltar/x" },
		"no status":           func(r map[string]any) { delete(r, "status") },
		"unknown status":      func(r map[string]any) { r["status"] = "fine" },
		"no source":           func(r map[string]any) { delete(r, "source") },
		"no time":             func(r map[string]any) { delete(r, "time") },
		"part of a second":    func(r map[string]any) { r["time"] = "2026-11-20T01:00:01.5Z" },
		"year of five digits": func(r map[string]any) { r["time"] = "12026-11-20T01:00:01Z" },
		"no host":             func(r map[string]any) { r["host"] = map[string]any{} },
		"LV climbs out":       func(r map[string]any) { source(r)["name"] = ".." },
		"VG with a slash":     func(r map[string]any) { source(r)["vg"] = "a/b" },
		"no LV UUID":          func(r map[string]any) { delete(source(r), "lv_uuid") },
		"no VG UUID":          func(r map[string]any) { delete(source(r), "vg_uuid") },
		"negative size":       func(r map[string]any) { source(r)["size"] = -1 },
		"file climbs out":     func(r map[string]any) { file(r, 0)["name"] = "../../etc/shadow" },
		"file is a path":      func(r map[string]any) { file(r, 0)["name"] = "/etc/shadow" },
		"file is an option":   func(r map[string]any) { file(r, 6)["name"] = "--to-command=x" },
		"file is listed twice": func(r map[string]any) {
			file(r, 0)["name"] = file(r, 1)["name"]
			extent(r, 1)["archive"] = file(r, 1)["name"]
		},
		"file of no name":            func(r map[string]any) { delete(file(r, 6), "name") },
		"file is the manifest":       func(r map[string]any) { file(r, 6)["name"] = ManifestName },
		"file of negative size":      func(r map[string]any) { file(r, 0)["size"] = -5 },
		"sizes that overflow":        func(r map[string]any) { file(r, 0)["size"], file(r, 1)["size"] = int64(1)<<62, int64(1)<<62 },
		"no SHA-1":                   func(r map[string]any) { delete(file(r, 0), "sha1") },
		"SHA-256 in capitals":        func(r map[string]any) { file(r, 0)["sha256"] = strings.Repeat("A", 64) },
		"extent names no file":       func(r map[string]any) { extent(r, 1)["archive"] = "other.tar.gz" },
		"boot area names no file":    func(r map[string]any) { extent(r, 1)["boot_area"] = "other" },
		"index names no file":        func(r map[string]any) { extent(r, 1)["index"] = map[string]any{"name": "../x"} },
		"index of negative offset":   func(r map[string]any) { extent(r, 1)["index"].(map[string]any)["blocks_offset"] = -1 },
		"files without an archive":   func(r map[string]any) { delete(extent(r, 1), "archive") },
		"extent without state":       func(r map[string]any) { delete(extent(r, 1), "state") },
		"extent of negative offset":  func(r map[string]any) { extent(r, 1)["offset"] = -1 },
		"extent past all bounds":     func(r map[string]any) { extent(r, 1)["offset"] = int64(math.MaxInt64) },
		"extent's name climbs out":   func(r map[string]any) { extent(r, 1)["name"] = "../p1" },
		"a list where a text was":    func(r map[string]any) { r["voltar"] = []any{} },
		"a text where a list was":    func(r map[string]any) { r["files"] = "none" },
		"a size of half a byte":      func(r map[string]any) { source(r)["size"] = 1.5 },
		"unknown kind of the source": func(r map[string]any) { source(r)["kind"] = "tape" },
	} {
		if _, err := ParseManifest(edit(t, change)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", name, err)
		}
	}
	good := edit(t, func(map[string]any) {})
	for _, data := range []string{"", "null", "{}", "[]", string(good[:len(good)/2]), string(good) + "{}", "\x00" + string(good)} {
		if _, err := ParseManifest([]byte(data)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%.20q…: error %v, want ErrDamaged", data, err)
		}
	}
}

func TestManifestOfOtherVersions(t *testing.T) {
	minor := edit(t, func(r map[string]any) { r["format"], r["new_field"] = "voltar/1.7", map[string]any{"a": 1} })
	if _, err := ParseManifest(minor); err != nil {
		t.Errorf("a field more: %v", err)
	}
	var newer *FormatError
	major := edit(t, func(r map[string]any) { r["format"], r["files"] = "voltar/2", "elsewhere" })
	if _, err := ParseManifest(major); !errors.As(err, &newer) || newer.Format != "voltar/2" || errors.Is(err, ErrDamaged) {
		t.Errorf("another major version: %v", err)
	}
}

func TestEncodeRefusesAFalseSuccess(t *testing.T) {
	for name, spoil := range map[string]func(m *Manifest){
		"failed extent": func(m *Manifest) { m.Extents[0] = Extent{State: StateFailed} },
		"damage":        func(m *Manifest) { m.Extents[0].Damaged = []Damage{{Path: "a", Reason: "EIO"}} },
		"damage count":  func(m *Manifest) { m.Extents[0].DamagedCount = 1 },
		"no sum":        func(m *Manifest) { m.Files[0].SHA1 = "" },
	} {
		m := manifest(volume("v"), night)
		spoil(m)
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: a complete manifest was written", name)
		}
		m.Status = StatusDamaged
		if _, err := m.Encode(); err != nil && name != "no sum" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBackupAppearsWithItsManifest(t *testing.T) {
	s := newStore(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	if l := mustList(t, s, Filter{}); len(l.Backups) != 0 || len(l.Unfinished) != 1 || l.Unfinished[0].Path != d.Path() {
		t.Errorf("before Commit: %+v", l)
	}
	b, err := d.Commit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	l := mustList(t, s, Filter{})
	if len(l.Backups) != 1 || len(l.Unfinished) != 0 {
		t.Fatalf("after Commit: %+v", l)
	}
	got := l.Backups[0]
	if got.ID.Compare(m.ID()) != 0 || got.SizeBytes != b.SizeBytes || got.Path() != d.Path() ||
		!reflect.DeepEqual(got.Manifest, m) {
		t.Errorf("listed %+v, committed %+v", got, b)
	}
	info, err := os.Stat(filepath.Join(s.String(), d.Path(), ManifestName))
	if err != nil || got.SizeBytes != 4+info.Size() {
		t.Errorf("%d bytes, want 4 and the manifest's %d", got.SizeBytes, info.Size())
	}
	r, err := got.OpenFile(context.Background(), s, "v.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || len(data) != 4 {
		t.Errorf("%q, %v", data, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := got.OpenFile(context.Background(), s, "../v.tar.gz"); err == nil {
		t.Error("a file that the manifest does not list was opened")
	}
	raw(t, s, d.Path()+"/v.tar.gz", "longer than it was")
	if _, err := got.OpenFile(context.Background(), s, "v.tar.gz"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of another size: %v", err)
	}
}

// Whatever the store does not hold as the manifest says must keep the backup from appearing.
func TestCommitComparesTheStore(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s store.Store, d *Draft, m *Manifest){
		"file is missing": func(t *testing.T, s store.Store, d *Draft, m *Manifest) {
			if err := s.Delete(context.Background(), d.Path()+"/"+m.Files[0].Name); err != nil {
				t.Fatal(err)
			}
		},
		"file is short": func(t *testing.T, s store.Store, d *Draft, m *Manifest) {
			raw(t, s, d.Path()+"/"+m.Files[0].Name, "x")
		},
		"file that nobody lists": func(t *testing.T, s store.Store, d *Draft, _ *Manifest) { raw(t, s, d.Path()+"/more", "x") },
		"manifest of another":    func(_ *testing.T, _ store.Store, _ *Draft, m *Manifest) { m.Source.Name = "w" },
		"manifest of no use":     func(_ *testing.T, _ store.Store, _ *Draft, m *Manifest) { m.Status = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			m := manifest(volume("v"), night)
			d := mustBegin(t, s, m.ID())
			fill(t, d, m)
			spoil(t, s, d, m)
			if _, err := d.Commit(context.Background(), m); err == nil {
				t.Error("it was committed")
			}
			if l := mustList(t, s, Filter{}); len(l.Backups) != 0 {
				t.Errorf("listed: %v", names(l.Backups))
			}
			if err := d.Abort(context.Background()); err != nil {
				t.Error(err)
			}
			if left := keys(t, s); len(left) != 0 {
				t.Errorf("after Abort there is %q", left)
			}
		})
	}
}

func TestCommitThatTheStoreRefuses(t *testing.T) {
	s := newStore(t)
	broken := faulty{s, failing("create", ManifestName, errBroken)}
	m := manifest(volume("v"), night)
	d := mustBegin(t, broken, m.ID())
	fill(t, d, m)
	if _, err := d.Commit(context.Background(), m); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if l := mustList(t, s, Filter{}); len(l.Backups) != 0 {
		t.Errorf("listed: %v", names(l.Backups))
	}
}

func TestDraftRefusesNames(t *testing.T) {
	d := mustBegin(t, newStore(t), ID{VolumeRef("vg", "v"), night})
	for _, name := range []string{ManifestName, "../x", "a/b", ""} {
		if _, err := d.Create(context.Background(), name, store.PutOptions{}); err == nil {
			t.Errorf("%q was created", name)
		}
	}
}

func TestTimesThatAreTaken(t *testing.T) {
	one, two, down := newStore(t), newStore(t), faulty{newStore(t), failing("folders", "", errBroken)}
	source := volume("v")
	add(t, one, source, night)
	raw(t, two, ID{source.Ref(), night.Add(time.Second)}.Path(testHost)+"/unfinished", "x")
	got, failed := FreeTime(context.Background(), []store.Store{one, down, two}, testHost, source.Ref(), night.Add(300*time.Millisecond))
	if !got.Equal(night.Add(2 * time.Second)) {
		t.Errorf("free time %v, want two seconds later", got)
	}
	if failed[0] != nil || !errors.Is(failed[1], errBroken) || failed[2] != nil {
		t.Errorf("failed %v", failed)
	}
	if _, err := Begin(context.Background(), one, testHost, ID{source.Ref(), night}, nil); !errors.Is(err, ErrTaken) {
		t.Errorf("Begin in a folder that is taken: %v", err)
	}
	now := time.Now()
	add(t, one, source, now.Truncate(time.Second))
	got, _ = FreeTime(context.Background(), []store.Store{one}, testHost, source.Ref(), now)
	if got.After(time.Now()) || !got.After(now) {
		t.Errorf("free time %v, asked at %v", got, now)
	}
}

func TestList(t *testing.T) {
	s := newStore(t)
	hour := func(n int) time.Time { return night.Add(time.Duration(n) * time.Hour) }
	for _, name := range []string{"v1", "v2", "v.3"} {
		for n := range 3 {
			add(t, s, volume(name), hour(n))
		}
	}
	dump := Source{Kind: SourceDump, Name: "mysql"}
	add(t, s, dump, hour(0))
	// What else may lie there.
	broken := ID{VolumeRef("nova-volumes", "v1"), hour(5)}
	raw(t, s, broken.Path(testHost)+"/manifest.json", "garbage")
	moved := ID{VolumeRef("nova-volumes", "v1"), hour(6)}
	data, err := manifest(volume("v2"), hour(6)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw(t, s, moved.Path(testHost)+"/manifest.json", string(data))
	newer := ID{VolumeRef("nova-volumes", "v2"), hour(7)}
	raw(t, s, newer.Path(testHost)+"/manifest.json", `{"format":"voltar/2"}`)
	unfinished := ID{VolumeRef("nova-volumes", "v2"), hour(8)}
	raw(t, s, unfinished.Path(testHost)+"/v2.tar.gz", "x")
	raw(t, s, testHost+"/nova-volumes/v2/copy of 2026-11-20T010001Z/manifest.json", string(data))
	raw(t, s, testHost+"/my files/letter/x/y", "x")
	raw(t, s, testHost+"/"+MarkerName, "{}")
	raw(t, s, "other-host/nova-volumes/v1/2026-11-20T010001Z/manifest.json", string(data))

	l := mustList(t, s, Filter{})
	want := []string{"@dump/mysql@2026-11-20T010001Z"}
	for _, name := range []string{"v.3", "v1", "v2"} {
		for n := range 3 {
			want = append(want, ID{VolumeRef("nova-volumes", name), hour(n)}.String())
		}
	}
	if got := names(l.Backups); !slices.Equal(got, want) {
		t.Errorf("backups %q, want %q", got, want)
	}
	var format *FormatError
	if len(l.Unreadable) != 3 || l.Unreadable[0].ID.Compare(broken) != 0 || !errors.Is(l.Unreadable[0].Err, ErrDamaged) ||
		l.Unreadable[1].ID.Compare(moved) != 0 || !errors.Is(l.Unreadable[1].Err, ErrDamaged) ||
		l.Unreadable[2].ID.Compare(newer) != 0 || !errors.As(l.Unreadable[2].Err, &format) {
		t.Errorf("unreadable %+v", l.Unreadable)
	}
	if len(l.Unfinished) != 1 || l.Unfinished[0].ID.Compare(unfinished) != 0 {
		t.Errorf("unfinished %+v", l.Unfinished)
	}
	if want := []string{testHost + "/my files/letter", testHost + "/nova-volumes/v2/copy of 2026-11-20T010001Z"}; !slices.Equal(
		l.Unknown, want) {
		t.Errorf("unknown %q, want %q", l.Unknown, want)
	}

	l = mustList(t, s, Filter{Newest: 1, Match: func(r Ref) bool { return r.Kind == SourceVolume }})
	want = want[:0]
	for _, name := range []string{"v.3", "v1", "v2"} {
		want = append(want, ID{VolumeRef("nova-volumes", name), hour(2)}.String())
	}
	if got := names(l.Backups); !slices.Equal(got, want) {
		t.Errorf("the newest: %q, want %q", got, want)
	}
	if l, err := List(context.Background(), s, "nobody", Filter{}); err != nil || len(l.Backups) != 0 {
		t.Errorf("a host without a folder: %+v, %v", l, err)
	}
	if _, err := List(context.Background(), s, "../x", Filter{}); err == nil {
		t.Error("a host that climbs out was listed")
	}
}

func TestListOfAStoreThatFails(t *testing.T) {
	s := newStore(t)
	add(t, s, volume("v1"), night)
	add(t, s, volume("v2"), night)
	one := faulty{s, failing("open", "/v1/", errBroken)}
	l := mustList(t, one, Filter{})
	if len(l.Backups) != 1 || len(l.Unreadable) != 1 || !errors.Is(l.Unreadable[0].Err, errBroken) {
		t.Errorf("one manifest that cannot be read: %+v", l)
	}
	for _, part := range []string{testHost, "nova-volumes", "/v1"} {
		if _, err := List(context.Background(), faulty{s, failing("folders", part, errBroken)}, testHost, Filter{}); !errors.Is(err,
			errBroken) {
			t.Errorf("a folder %s that cannot be listed: %v", part, err)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	mid := faulty{s, func(op, _ string) error {
		if op == "open" {
			cancel(errBroken)
			return context.Canceled
		}
		return nil
	}}
	if _, err := List(ctx, mid, testHost, Filter{}); err == nil {
		t.Error("a listing that was cancelled is not told from a whole one")
	}
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	add(t, s, volume("v1"), day(0))
	add(t, s, volume("v1"), day(1))
	add(t, s, volume("v2"), day(0))
	other := volume("v2")
	other.VG, other.VGUUID = "vg2", "vg2-uuid"
	add(t, s, other, day(0))
	add(t, s, Source{Kind: SourceDump, Name: "mysql"}, day(0))
	raw(t, s, ID{VolumeRef("nova-volumes", "v4"), day(0)}.Path(testHost)+"/manifest.json", `{"format":"voltar/2"}`)
	add(t, s, volume("v5"), day(0))
	raw(t, s, ID{VolumeRef("nova-volumes", "v5"), day(3)}.Path(testHost)+"/manifest.json", "garbage")
	l := mustList(t, s, Filter{})

	for text, want := range map[string]string{
		"nova-volumes/v1":                      "nova-volumes/v1@2026-11-21T010001Z",
		"v1":                                   "nova-volumes/v1@2026-11-21T010001Z",
		"v1@2026-11-20T010001Z":                "nova-volumes/v1@2026-11-20T010001Z",
		"nova-volumes/v1@2026-11-20":           "nova-volumes/v1@2026-11-20T010001Z",
		"vg2/v2":                               "vg2/v2@2026-11-20T010001Z",
		"@dump/mysql":                          "@dump/mysql@2026-11-20T010001Z",
		"@dump/mysql@2026-11-20T010001Z":       "@dump/mysql@2026-11-20T010001Z",
		"mysql":                                "@dump/mysql@2026-11-20T010001Z",
		"v5@2026-11-20":                        "nova-volumes/v5@2026-11-20T010001Z",
		"nova-volumes/v5@2026-11-20T010001Z":   "nova-volumes/v5@2026-11-20T010001Z",
		"nova-volumes/v2@2026-11-20T010001Z":   "nova-volumes/v2@2026-11-20T010001Z",
		"nova-volumes/v1@2026-11-21T010001Z":   "nova-volumes/v1@2026-11-21T010001Z",
		"nova-volumes/v1@2026-11-21T010001Z\n": "",
	} {
		b, err := l.Resolve(text)
		if want == "" {
			if err == nil {
				t.Errorf("Resolve(%q) = %s", text, b.ID)
			}
			continue
		}
		if err != nil || b.ID.String() != want {
			t.Errorf("Resolve(%q) = %v, %v, want %s", text, b.ID, err, want)
		}
	}
	for text, parts := range map[string][]string{
		"v2":                {"nova-volumes/v2", "vg2/v2"},
		"v9":                {"nova-volumes/v1", "@dump/mysql"},
		"v1@2026":           {"nova-volumes/v1@2026-11-20T010001Z", "nova-volumes/v1@2026-11-21T010001Z"},
		"v1@2025-01-01":     {"nova-volumes/v1@2026-11-20T010001Z"},
		"v4":                {"voltar/2"},
		"v4@2026-11-20":     {"voltar/2"},
		"v5":                {"nova-volumes/v5@2026-11-23T010001Z", "nova-volumes/v5@2026-11-20T010001Z"},
		"":                  {"nova-volumes/v1"},
		"nova-volumes":      {"nova-volumes/v1"},
		"nova-volumes/v1/x": {"nova-volumes/v1"},
	} {
		b, err := l.Resolve(text)
		if err == nil {
			t.Errorf("Resolve(%q) = %s", text, b.ID)
			continue
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("Resolve(%q): %q does not say %q", text, err, part)
			}
		}
	}
	if _, err := l.Resolve("v9"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	var newer *FormatError
	if _, err := l.Resolve("v4"); !errors.As(err, &newer) {
		t.Errorf("error %v, want a FormatError", err)
	}
}

func TestHistories(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	anew := volume("v1")
	anew.LVUUID = "another"
	renamed := volume("v2")
	renamed.Name = "v2-renamed"
	clone := volume("v1")
	clone.VG, clone.VGUUID = "cloned", "cloned-uuid"
	add(t, s, volume("v1"), day(0))
	add(t, s, anew, day(1))
	add(t, s, volume("v2"), day(0))
	add(t, s, renamed, day(1))
	add(t, s, clone, day(0))
	add(t, s, Source{Kind: SourceDump, Name: "mysql"}, day(0))

	histories := Histories(mustList(t, s, Filter{}).Backups)
	var got []string
	for _, h := range histories {
		got = append(got, fmt.Sprintf("%s %s: %v", h.Ref, h.LVUUID, names(h.Backups)))
		if h.SizeBytes() < 4*int64(len(h.Backups)) {
			t.Errorf("%s has %d bytes", h.Ref, h.SizeBytes())
		}
	}
	want := []string{
		"@dump/mysql : [@dump/mysql@2026-11-20T010001Z]",
		"cloned/v1 uuid-of-v1: [cloned/v1@2026-11-20T010001Z]",
		"nova-volumes/v1 another: [nova-volumes/v1@2026-11-21T010001Z]",
		"nova-volumes/v1 uuid-of-v1: [nova-volumes/v1@2026-11-20T010001Z]",
		"nova-volumes/v2-renamed uuid-of-v2: [nova-volumes/v2-renamed@2026-11-21T010001Z nova-volumes/v2@2026-11-20T010001Z]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("histories\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	gone := Gone(histories, map[Identity]bool{anew.Identity(): true, VolumeIdentity("vg-uuid", "uuid-of-v2"): true})
	var refs []string
	for _, h := range gone {
		refs = append(refs, h.Ref.String()+" "+h.LVUUID)
	}
	if want := []string{"cloned/v1 uuid-of-v1", "nova-volumes/v1 uuid-of-v1"}; !slices.Equal(refs, want) {
		t.Errorf("gone %q, want %q", refs, want)
	}
}

func TestDelete(t *testing.T) {
	s := newStore(t)
	// Named so that the archive comes before the manifest in every listing.
	b, kept := add(t, s, volume("a"), night), add(t, s, volume("a"), night.Add(time.Second))
	var order []string
	watched := faulty{s, func(op, key string) error {
		if op == "delete" {
			order = append(order, path.Base(key))
		}
		return nil
	}}
	freed, err := Delete(context.Background(), watched, b.Path())
	if err != nil || freed != b.SizeBytes {
		t.Errorf("Delete = %d, %v, want %d", freed, err, b.SizeBytes)
	}
	if !slices.Equal(order, []string{ManifestName, "a.tar.gz"}) {
		t.Errorf("order %q: the manifest must go first", order)
	}
	if freed, err := Delete(context.Background(), s, b.Path()); freed != 0 || err != nil {
		t.Errorf("a second Delete = %d, %v", freed, err)
	}
	if got := names(mustList(t, s, Filter{}).Backups); !slices.Equal(got, []string{kept.ID.String()}) {
		t.Errorf("left %q", got)
	}
	for _, folder := range []string{"", testHost, testHost + "/nova-volumes", testHost + "/nova-volumes/a", kept.Path() + "/x",
		testHost + "/nova-volumes/../" + testHost} {
		if _, err := Delete(context.Background(), s, folder); err == nil {
			t.Errorf("%q was deleted", folder)
		}
		if _, _, err := SweepUnfinished(context.Background(), s, folder); err == nil {
			t.Errorf("%q was swept", folder)
		}
	}
}

func TestDeleteThatIsInterrupted(t *testing.T) {
	s := newStore(t)
	b := add(t, s, volume("a"), night)
	freed, err := Delete(context.Background(), faulty{s, failing("delete", ManifestName, errBroken)}, b.Path())
	if !errors.Is(err, errBroken) || freed != 0 || len(mustList(t, s, Filter{}).Backups) != 1 || len(keys(t, s)) != 2 {
		t.Errorf("a manifest that stays must keep all: %d, %v, %q", freed, err, keys(t, s))
	}
	_, err = Delete(context.Background(), faulty{s, failing("check", "tar.gz", store.ErrLocked)}, b.Path())
	if !errors.Is(err, store.ErrLocked) || len(keys(t, s)) != 2 {
		t.Errorf("one object that is locked must keep all: %v, %q", err, keys(t, s))
	}
	_, err = Delete(context.Background(), faulty{s, failing("delete", "tar.gz", errBroken)}, b.Path())
	if l := mustList(t, s, Filter{}); !errors.Is(err, errBroken) || len(l.Backups) != 0 || len(l.Unfinished) != 1 {
		t.Errorf("a deletion that got half-way: %v, %+v", err, l)
	}
	stands, freed, err := SweepUnfinished(context.Background(), s, b.Path())
	if stands || freed != 4 || err != nil || len(keys(t, s)) != 0 {
		t.Errorf("sweep = %v, %d, %v, left %q", stands, freed, err, keys(t, s))
	}
}

func TestSweepUnfinished(t *testing.T) {
	s := newStore(t)
	standing := add(t, s, volume("v"), night)
	m := manifest(volume("v"), night.Add(time.Second))
	dead := mustBegin(t, s, m.ID())
	fill(t, dead, m)
	for _, draft := range []string{dead.Path(), standing.Path()} { // a writer that is heard of no more
		w, err := s.Create(context.Background(), draft+"/v.p2.tar.gz", store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	if stands, freed, err := SweepUnfinished(context.Background(), s, dead.Path()); stands || freed != 9 || err != nil {
		t.Errorf("sweep of what died = %v, %d, %v, want 9 bytes", stands, freed, err)
	}
	if stands, freed, err := SweepUnfinished(context.Background(), s, standing.Path()); !stands || freed != 5 || err != nil {
		t.Errorf("sweep of what stands = %v, %d, %v, want 5 bytes", stands, freed, err)
	}
	l := mustList(t, s, Filter{})
	if len(l.Backups) != 1 || len(l.Unfinished) != 0 || len(keys(t, s)) != 2 {
		t.Errorf("left %+v, %q", l, keys(t, s))
	}
}

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
			if !strings.Contains(err.Error(), part) {
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

// Two machines that claim one folder in the same instant: the one that is overwritten learns of it.
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

func FuzzParseManifest(f *testing.F) {
	data, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(edit(f, func(r map[string]any) { r["format"] = "voltar/2" }))
	f.Add([]byte(`{"format":"voltar/1","files":[{"name":"../x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		var newer *FormatError
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.As(err, &newer) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		for _, file := range m.Files {
			if strings.ContainsAny(file.Name, "/\x00\n") || file.Name == ".." || file.SizeBytes < 0 {
				t.Fatalf("file %+v was taken", file)
			}
		}
		if _, _, err := ParsePath(m.ID().Path(testHost)); err != nil || m.FileBytes() < 0 {
			t.Fatalf("identity %s: %v", m.ID(), err)
		}
	})
}
