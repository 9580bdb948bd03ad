// Package browsetest makes small backups for tests, as a run would, without any volume.
package browsetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"voltar/archive"
	"voltar/internal/agefile"
	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

// Host is the host that the backups are of.
const Host = "volume-host"

// Night is when the first backup was made.
var Night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// Sizes of the volume's parts in bytes. The archive's extent is larger than what it holds, as extents are.
const (
	PartBytes  = 64 << 20
	ImageBytes = 6 << 20
	startBytes = 1 << 20
)

// Spec says what to make.
type Spec struct {
	VG, LV string                    // "vg" and "volume-00000001" by default
	Time   time.Time                 // Night by default
	Whole  bool                      // a volume without a partition table
	Fill   func(dir string)          // makes the tree; nil makes Tree
	Edit   func(m *catalog.Manifest) // changes the manifest before it is written
	For    *agefile.Recipients       // for whom it is encrypted; nil for everyone
}

// Open opens a store in a folder of the test.
func Open(t testing.TB, dir string) *disk.Store {
	t.Helper()
	s, err := disk.Open(disk.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Tree makes files of many kinds in a folder, among them some that fill several members of the archive.
func Tree(t testing.TB, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc", "usr/lib", "home/user", "var/data"} {
		check(os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	check(os.WriteFile(filepath.Join(dir, "usr/lib/os-release"), []byte("NAME=\"Guest\"\n"), 0o644))
	check(os.Symlink("../usr/lib/os-release", filepath.Join(dir, "etc/os-release")))
	check(os.Symlink("/usr/lib", filepath.Join(dir, "lib")))
	check(os.Symlink("loop", filepath.Join(dir, "etc/loop")))
	check(os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0\n"), 0o640))
	check(os.WriteFile(filepath.Join(dir, "home/user/new\nline \x1b[31m\xff"), []byte("odd"), 0o600))
	for i := range 3 {
		check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("var/data/big%d", i)), Noise(fmt.Sprint(i), 5<<20), 0o644))
		check(os.Link(filepath.Join(dir, fmt.Sprintf("var/data/big%d", i)), filepath.Join(dir, fmt.Sprintf("var/data/link%d", i))))
	}
	check(os.WriteFile(filepath.Join(dir, "var/sparse"), nil, 0o644))
	f, err := os.OpenFile(filepath.Join(dir, "var/sparse"), os.O_WRONLY, 0)
	check(err)
	_, err = f.WriteAt([]byte("in the middle"), 3<<20)
	check(err)
	check(f.Truncate(8 << 20))
	check(f.Close())
}

// Noise is data that is the same for the same seed and does not get smaller.
func Noise(seed string, n int) []byte {
	x := uint64(88172645463325252)
	for _, c := range []byte(seed) {
		x = x*1099511628211 + uint64(c) + 1
	}
	data := make([]byte, 0, n+8)
	for len(data) < n { // eight bytes at a time: under the race detector each step counts
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data = binary.LittleEndian.AppendUint64(data, x)
	}
	return data[:n:n]
}

// Image is what the second partition of a partitioned volume holds.
func Image() []byte { return Noise("image", ImageBytes) }

// maker makes one backup.
type maker struct {
	t     testing.TB
	draft *catalog.Draft
	m     *catalog.Manifest
	names catalog.Names

	recipients *agefile.Recipients
}

// Make makes a backup.
func Make(t testing.TB, s store.Store, spec Spec) catalog.Backup {
	t.Helper()
	if spec.VG == "" {
		spec.VG = "vg"
	}
	if spec.LV == "" {
		spec.LV = "volume-00000001"
	}
	if spec.Time.IsZero() {
		spec.Time = Night
	}
	dir := t.TempDir()
	if spec.Fill == nil {
		spec.Fill = func(dir string) { Tree(t, dir) }
	}
	spec.Fill(dir)
	ref := catalog.VolumeRef(spec.VG, spec.LV)
	k := &maker{t: t, recipients: spec.For, names: catalog.NamesOf(ref, false), m: &catalog.Manifest{
		Format: catalog.Format, Voltar: "test", Status: catalog.StatusComplete,
		Host: catalog.Host{Name: Host, MachineID: "machine"}, Run: "20261120T010001Z-3f9a0c",
		Source: catalog.Source{Kind: catalog.SourceVolume, VG: spec.VG, Name: spec.LV, VGUUID: "vg-uuid", LVUUID: spec.LV + "-uuid",
			LVKind: "linear", SizeBytes: startBytes + PartBytes + ImageBytes},
		Time: spec.Time, Started: spec.Time, Ended: spec.Time.Add(time.Minute),
	}}
	var err error
	if k.draft, err = catalog.Begin(t.Context(), s, Host, catalog.ID{Ref: ref, Time: spec.Time}, "20261120T010001Z-3f9a0c", nil); err != nil {
		t.Fatal(err)
	}
	if spec.Whole {
		k.m.Extents = []catalog.Extent{k.tree("", dir, 0, k.m.Source.SizeBytes)}
	} else {
		k.partitioned(dir)
	}
	if spec.For != nil {
		k.m = k.m.Encrypted(agefile.Format, spec.For.Keys())
	}
	sums, err := catalog.Checksum(k.m.Files)
	if err != nil {
		t.Fatal(err)
	}
	k.put(k.names.Checksum(), sums)
	k.put(catalog.RecipeName, []byte("How to bring this back\n"))
	if spec.Edit != nil {
		spec.Edit(k.m)
	}
	b, err := k.draft.Commit(t.Context(), k.m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (k *maker) partitioned(dir string) {
	k.m.Table = &catalog.Table{Label: "gpt", ID: "DISK-ID", SectorBytes: 512}
	boot := catalog.Extent{Name: "boot", SizeBytes: startBytes, State: catalog.StateImage, Archive: k.names.Boot()}
	k.image(boot.Archive, make([]byte, startBytes))
	p1 := k.tree("p1", dir, startBytes, PartBytes)
	p1.Number, p1.PartType, p1.PartUUID, p1.BootArea = 1, "TYPE-1", "PART-1", k.names.BootArea("p1")
	k.image(p1.BootArea, make([]byte, 1024))
	p2 := catalog.Extent{Name: "p2", Number: 2, OffsetBytes: startBytes + PartBytes, SizeBytes: ImageBytes, State: catalog.StateImage,
		PartType: "TYPE-2", PartUUID: "PART-2", Archive: k.names.Image("p2"), Reason: "no known filesystem"}
	k.image(p2.Archive, Image())
	k.m.Extents = []catalog.Extent{boot, p1, p2}
	k.put(k.names.Table(), fmt.Appendf(nil, `label: gpt
label-id: DISK-ID
device: /dev/vg/volume-00000001
unit: sectors
first-lba: 34
last-lba: 145374
sector-size: 512

/dev/vg/volume-00000001p1 : start=%12d, size=%12d, type=TYPE-1, uuid=PART-1, name="a, type=b"
/dev/vg/volume-00000001p2 : start=%12d, size=%12d, type=TYPE-2, uuid=PART-2
`, startBytes/512, PartBytes/512, (startBytes+PartBytes)/512, ImageBytes/512))
}

// tree archives a folder as an extent.
func (k *maker) tree(name, dir string, offset, size int64) catalog.Extent {
	k.t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		k.t.Fatal(err)
	}
	defer root.Close()
	var out, index bytes.Buffer
	stats, err := archive.WriteTree(context.Background(), root, &out, &index, archive.TreeOptions{Level: archive.LevelFast})
	if err != nil {
		k.t.Fatal(err)
	}
	k.put(k.names.Archive(name), out.Bytes())
	k.put(k.names.Index(name), index.Bytes())
	return catalog.Extent{
		Name: name, OffsetBytes: offset, SizeBytes: size, State: catalog.StateFiles, Archive: k.names.Archive(name),
		Index:   &catalog.Index{Name: k.names.Index(name), BlocksOffset: stats.IndexBlocksOffset},
		Entries: stats.Entries, ContentBytes: stats.ContentBytes, NotStored: stats.NotStored,
		Filesystem: &catalog.Filesystem{Type: "ext4", Label: "root"},
	}
}

// image stores bytes as an image.
func (k *maker) image(name string, data []byte) {
	k.t.Helper()
	var out bytes.Buffer
	opts := archive.ImageOptions{Level: archive.LevelFast}
	_, err := archive.WriteImage(context.Background(), bytes.NewReader(data), int64(len(data)), &out, opts)
	if err != nil {
		k.t.Fatal(err)
	}
	k.put(name, out.Bytes())
}

// put stores a file and enters it in the manifest.
func (k *maker) put(name string, data []byte) {
	k.t.Helper()
	file := catalog.File{Name: name}
	if k.recipients != nil && name != k.names.Checksum() && name != catalog.RecipeName {
		file.Name, file.PlainSizeBytes = name+catalog.AgeSuffix, int64(len(data))
		data = Seal(k.t, k.recipients, data)
	}
	w, err := k.draft.Create(context.Background(), file.Name, store.PutOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	sums := archive.NewSums()
	if _, err := io.MultiWriter(w, sums).Write(data); err != nil {
		k.t.Fatal(err)
	}
	if _, err := w.Commit(context.Background()); err != nil {
		k.t.Fatal(err)
	}
	d := sums.Sum()
	file.SizeBytes, file.SHA1, file.SHA256 = d.SizeBytes, d.SHA1, d.SHA256
	k.m.Files = append(k.m.Files, file)
}

// NewKey makes recipients of one new key, and the identities that open what is encrypted for them.
func NewKey(t testing.TB) (*agefile.Recipients, *agefile.Identities) {
	t.Helper()
	secret, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := agefile.ParseRecipients([]string{secret.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	identities := &agefile.Identities{}
	if err := identities.Add(strings.NewReader(secret.String()), nil); err != nil {
		t.Fatal(err)
	}
	return recipients, identities
}

// Seal encrypts data.
func Seal(t testing.TB, recipients *agefile.Recipients, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := recipients.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Gzip packs data as one plain gzip member.
func Gzip(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Spoil changes a file of a backup in a disk store.
func Spoil(t testing.TB, s *disk.Store, b catalog.Backup, name string, change func(data []byte) []byte) {
	t.Helper()
	file := filepath.Join(s.Folder(), b.Path(), name)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}
