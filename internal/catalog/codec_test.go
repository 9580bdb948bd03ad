package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func full() *Manifest {
	m := manifest(volume("volume-00000001"), night)
	m.Status = StatusDamaged
	m.Source.Tags, m.Source.ThinPool, m.Source.VGExtentBytes = []string{"gold"}, "pool", 4<<20
	m.Snapshot = &Snapshot{Kind: "classic", SizeBytes: 1 << 28, PeakBytes: 1 << 20, PeakPercent: 0.39, Extended: 1}
	m.Quiesce = &Quiesce{Level: "filesystem-consistent", Method: "fsfreeze", FrozenMillis: 400, Group: "db"}
	m.Table = &Table{Label: "gpt", ID: "6D3D1F2C-0000-4000-8000-000000000001", SectorBytes: 512}
	sums := m.Files[0]
	m.Files = nil
	for _, name := range []string{"v.p1.tar.gz", "v.p1.index.gz", "v.p1.boot.gz", "v.boot.gz", "v.p3.img.gz", "v.p3.members.gz", "v.sfdisk", "v.checksum",
		RecipeName, "v.guest.tar.gz"} {
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
			Damaged: []Damage{
				{Path: "a", OffsetBytes: 1, LengthBytes: 2, Reason: "EIO"}, {PathB64: []byte("\xff"), Reason: "EIO"},
			},
			Filesystem: &Filesystem{Type: "ext4", UUID: "f", Label: "l", BlockBytes: 4096, Mkfs: [][]string{{"mke2fs", "DEVICE"}},
				MkfsEnv: []string{"MKE2FS_CONFIG=/dev/null"}, Params: map[string]string{"Inode count": "16"}}},
		{Name: "p2", Number: 2, OffsetBytes: 1<<20 + 1<<29, SizeBytes: 1 << 20, State: StateExcluded, Reason: "rule"},
		{Name: "p3", Number: 3, OffsetBytes: 1 << 30, SizeBytes: 1 << 20, State: StateImage, Archive: "v.p3.img.gz", Members: "v.p3.members.gz",
			Carried: &Carried{From: "vg/v@2026-11-19T010001Z", Members: 3, Bytes: 30, NewMembers: 1, NewBytes: 10}},
	}
	m.Warnings = []string{"w"}
	m.Source.Guest, m.Definition = &Guest{ID: "dcf47dbd-46d1-4d5b-b442-262a806a333a", Name: "web1", Kind: "libvirt", Disk: "vda"}, "v.guest.tar.gz"
	return m
}

// Every file that a manifest names has the name of an encrypted one where the backup is encrypted.
func TestEncryptedManifestNamesEncryptedFiles(t *testing.T) {
	m := full()
	m.Files = nil
	text, err := json.Marshal(m.Encrypted("age-encryption.org/v1", []string{"age1one"}))
	if err != nil || bytes.Contains(text, []byte(`.gz"`)) || !bytes.Contains(text, []byte(`"v.p3.members.gz.age"`)) {
		t.Errorf("%s, %v", text, err)
	}
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
		"file of no name":       func(r map[string]any) { delete(file(r, 6), "name") },
		"file is the manifest":  func(r map[string]any) { file(r, 6)["name"] = ManifestName },
		"file of negative size": func(r map[string]any) { file(r, 0)["size"] = -5 },
		"sizes that overflow": func(r map[string]any) {
			file(r, 0)["size"], file(r, 1)["size"] = int64(1)<<62, int64(1)<<62
		},
		"no SHA-1":                   func(r map[string]any) { delete(file(r, 0), "sha1") },
		"SHA-256 in capitals":        func(r map[string]any) { file(r, 0)["sha256"] = strings.Repeat("A", 64) },
		"extent names no file":       func(r map[string]any) { extent(r, 1)["archive"] = "other.tar.gz" },
		"boot area names no file":    func(r map[string]any) { extent(r, 1)["boot_area"] = "other" },
		"index names no file":        func(r map[string]any) { extent(r, 1)["index"] = map[string]any{"name": "../x"} },
		"dump names no file":         func(r map[string]any) { r["dumps"] = []any{map[string]any{"name": "db", "file": "../x"}} },
		"definition names no file":   func(r map[string]any) { r["definition"] = "../x" },
		"dump has a path":            func(r map[string]any) { r["dumps"] = []any{map[string]any{"name": "../db", "file": "v.boot.gz"}} },
		"index of negative offset":   func(r map[string]any) { extent(r, 1)["index"].(map[string]any)["blocks_offset"] = -1 },
		"files without an archive":   func(r map[string]any) { delete(extent(r, 1), "archive") },
		"extent without state":       func(r map[string]any) { delete(extent(r, 1), "state") },
		"extent of negative offset":  func(r map[string]any) { extent(r, 1)["offset"] = -1 },
		"extent past all bounds":     func(r map[string]any) { extent(r, 1)["offset"] = int64(math.MaxInt64) },
		"extent's name climbs out":   func(r map[string]any) { extent(r, 1)["name"] = "../p1" },
		"a list where a text was":    func(r map[string]any) { r["voltar"] = []any{} },
		"a text where a list was":    func(r map[string]any) { r["files"] = "none" },
		"a size of half a byte":      func(r map[string]any) { source(r)["size"] = 1.5 },
		"no extents":                 func(r map[string]any) { r["extents"] = []any{} },
		"a dump without one":         func(r map[string]any) { r["source"] = map[string]any{"kind": "dump", "name": "db"} },
		"negative count":             func(r map[string]any) { extent(r, 1)["used"] = -3 },
		"content past all bounds":    func(r map[string]any) { extent(r, 1)["content"] = int64(math.MaxInt64) },
		"contents that overflow":     func(r map[string]any) { extent(r, 1)["content"], extent(r, 3)["content"] = maxCount, 1 },
		"end before the beginning":   func(r map[string]any) { r["ended"] = "2026-11-20T00:00:00Z" },
		"begun in the year 1":        func(r map[string]any) { r["started"] = "0001-01-01T00:00:00Z" },
		"ended in the year 9999":     func(r map[string]any) { r["ended"] = "9999-01-01T00:00:00Z" },
		"unknown kind of the source": func(r map[string]any) { source(r)["kind"] = "tape" },
	} {
		if _, err := ParseManifest(edit(t, change)); !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, want ErrDamaged in one line", name, err)
		}
	}
	good := edit(t, func(map[string]any) {})
	half, twice, zero := string(good[:len(good)/2]), string(good)+"{}", "\x00"+string(good)
	for _, data := range []string{"", "null", "{}", "[]", half, twice, zero} {
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
	_, err := ParseManifest(major)
	if !errors.As(err, &newer) || newer.Format != "voltar/2" || errors.Is(err, ErrDamaged) {
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

// Names of damaged files are a guest's to choose. However long they are, the manifest is one that readers take.
func TestManifestOfLongDamageIsReadable(t *testing.T) {
	m := full()
	x := &m.Extents[1]
	x.DamagedCount, x.Damaged = 5000, nil
	for range 1000 {
		x.Damaged = append(x.Damaged, Damage{Path: strings.Repeat("\x01", 100<<10), Reason: "EIO"})
	}
	data, err := m.Encode()
	if err != nil || len(data) > MaxManifestBytes {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	got, err := ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Extents[1].Damaged); n == 0 || n > 30 || got.Extents[1].DamagedCount != 5000 {
		t.Errorf("%d listed of %d, want some of 5000", n, got.Extents[1].DamagedCount)
	}
	if len(x.Damaged) != 1000 {
		t.Error("Encode changed the manifest that it was to write")
	}
	x.DamagedCount = 0 // by whoever fills in the list alone
	if data, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err = ParseManifest(data); err != nil || got.Extents[1].DamagedCount != 1000 {
		t.Errorf("%d damaged, want 1000; %v", got.Extents[1].DamagedCount, err)
	}
	m.Warnings = []string{strings.Repeat("w", MaxManifestBytes)}
	if _, err := m.Encode(); err == nil {
		t.Error("a manifest is written that no reader takes")
	}
}
