package placement

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"voltar/internal/agefile"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

// bounded remembers what writers were told of the size.
type bounded struct {
	store.Store
	bounds map[string]int64
}

func (s bounded) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	s.bounds[filepath.Base(key)] = opts.MaxBytes
	return s.Store.Create(ctx, key, opts)
}

// outputTo begins an output of two branches, the second of which encrypts, and returns their folders.
func outputTo(t *testing.T, recipients *agefile.Recipients) (o *Output, folders []string, bounds map[string]int64) {
	t.Helper()
	o, bounds = &Output{}, map[string]int64{}
	for _, to := range []*agefile.Recipients{nil, recipients} {
		s, err := disk.Open(disk.Options{Path: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		var on store.Store = s
		if to != nil {
			on = bounded{s, bounds}
		}
		draft, err := catalog.Begin(t.Context(), on, "host", catalog.ID{Ref: catalog.VolumeRef("vg", "v"), Time: browsetest.Night}, "20261120T010001Z-3f9a0c", nil)
		if err != nil {
			t.Fatal(err)
		}
		at := &place{target: &Target{Destination: Destination{Store: s, Recipients: to}}}
		o.places, o.branches = append(o.places, at), append(o.branches, &branch{place: at, draft: draft})
		folders = append(folders, filepath.Join(s.Folder(), draft.Path()))
	}
	return o, folders, bounds
}

func TestOneBranchIsEncrypted(t *testing.T) {
	recipients, identities := browsetest.NewKey(t)
	o, folders, bounds := outputTo(t, recipients)
	data := browsetest.Noise("x", 300_001)
	file, err := o.Write(t.Context(), "v.tar.gz", int64(len(data)), func(w io.Writer) error {
		_, err := io.Copy(w, iotestSmall{bytes.NewReader(data)})
		return err
	})
	if err != nil || file.SizeBytes != int64(len(data)) {
		t.Fatalf("%+v, %v", file, err)
	}
	plain, err := os.ReadFile(filepath.Join(folders[0], "v.tar.gz"))
	if err != nil || !bytes.Equal(plain, data) {
		t.Errorf("the first branch has %d bytes, %v", len(plain), err)
	}
	stored, err := os.ReadFile(filepath.Join(folders[1], "v.tar.gz.age"))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := agefile.Open(bytes.NewReader(stored), int64(len(stored)), identities, agefile.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(io.NewSectionReader(opened, 0, opened.SizeBytes())); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the second branch has %d bytes, %v", len(got), err)
	}
	if bounds["v.tar.gz.age"] < int64(len(stored)) {
		t.Errorf("the store was told of %d bytes, and got %d", bounds["v.tar.gz.age"], len(stored))
	}
	for i, want := range []struct {
		name  string
		bytes []byte
		plain int64
	}{{"v.tar.gz", plain, 0}, {"v.tar.gz.age", stored, int64(len(data))}} {
		f := o.branches[i].files[0]
		sum := sha1.Sum(want.bytes)
		if f.Name != want.name || f.SizeBytes != int64(len(want.bytes)) || f.SHA1 != hex.EncodeToString(sum[:]) || f.PlainSizeBytes != want.plain {
			t.Errorf("branch %d lists %+v", i, f)
		}
	}
	// What is for everyone stays open.
	open := Output{places: o.places, branches: o.branches, plaintext: true}
	if _, err := open.Write(t.Context(), "v.checksum", 3, func(w io.Writer) error { _, err := w.Write([]byte("abc")); return err }); err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if got, err := os.ReadFile(filepath.Join(folder, "v.checksum")); err != nil || string(got) != "abc" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// iotestSmall reads in pieces that are no multiple of anything.
type iotestSmall struct{ io.Reader }

func (r iotestSmall) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 7001)]) }

// A source that fails leaves nothing of the file on a branch that encrypts either, at whatever point.
func TestFailedSourcesLeaveNothingEncrypted(t *testing.T) {
	recipients, _ := browsetest.NewKey(t)
	for _, bytesBefore := range []int{0, 10, 64 << 10, 200 << 10} {
		for _, failure := range []error{errors.New("cannot read"), io.ErrUnexpectedEOF, io.EOF, context.Canceled} {
			o, folders, _ := outputTo(t, recipients)
			_, err := o.Write(t.Context(), "v.tar.gz", 0, func(w io.Writer) error {
				_, err := w.Write(make([]byte, bytesBefore))
				return errors.Join(err, failure)
			})
			if !errors.Is(err, failure) {
				t.Fatal(err)
			}
			for i, folder := range folders {
				if left, _ := filepath.Glob(filepath.Join(folder, "v.*")); len(left) > 0 || len(o.branches[i].files) > 0 {
					t.Errorf("after %d bytes and %v: %q", bytesBefore, failure, left)
				}
			}
		}
	}
}

// full is a store that takes so many bytes of each object and no more.
type full struct {
	store.Store
	room int
}

type fullWriter struct {
	store.Writer
	room int
}

func (s full) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	if filepath.Base(key) == catalog.ClaimName {
		return w, err
	}
	return &fullWriter{w, s.room}, err
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, store.ErrNoSpace
	}
	return w.Writer.Write(p)
}

// A store that fills up while it takes an encrypted file drops out with that as the cause, even when only the last chunk
// has no room any more; the other destination goes on.
func TestFullStoreOfAnEncryptedBranch(t *testing.T) {
	recipients, _ := browsetest.NewKey(t)
	for _, room := range []int{0, 100, 70_000, int(recipients.StoredBytes(100_000)) - 1} {
		o, _, _ := outputTo(t, recipients)
		b := o.branches[1]
		draft, err := catalog.Begin(t.Context(), full{b.target.Store, room}, "host", catalog.ID{Ref: catalog.VolumeRef("vg", "w"), Time: browsetest.Night}, "20261120T010001Z-3f9a0c", nil)
		if err != nil {
			t.Fatal(err)
		}
		b.draft = draft
		_, err = o.Write(t.Context(), "v.tar.gz", 0, func(w io.Writer) error { _, err := w.Write(make([]byte, 100_000)); return err })
		if err != nil || !errors.Is(b.failure(), store.ErrNoSpace) || len(o.branches[0].files) != 1 || len(b.files) != 0 {
			t.Errorf("with room for %d: %v, the branch says %v", room, err, b.failure())
		}
	}
}

// The manifest of an encrypted backup does not name a guest's files; the encrypted copy of it does.
func TestSealedManifestNamesNoFiles(t *testing.T) {
	recipients, _ := browsetest.NewKey(t)
	m := &catalog.Manifest{
		Format: catalog.Format, Status: catalog.StatusDamaged, Host: catalog.Host{Name: "host"}, Time: browsetest.Night,
		Started: browsetest.Night, Ended: browsetest.Night,
		Source:   catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: "v", VGUUID: "1", LVUUID: "2", SizeBytes: 1 << 30},
		Warnings: []string{"home/secret-plans.doc is odd"},
		Extents: []catalog.Extent{{
			Name: "p1", State: catalog.StateFiles, Archive: "v.p1.tar.gz", Index: &catalog.Index{Name: "v.p1.index.gz"}, BootArea: "v.p1.boot.gz",
			DamagedCount: 2, Damaged: []catalog.Damage{{Path: "home/secret-plans.doc", Reason: "EIO"}, {PathB64: []byte("\xff"), Reason: "EIO"}},
		}, {
			Name: "p2", State: catalog.StateLVM, Archive: "v.p2.img.gz", PV: &catalog.GuestPV{Tail: "v.p2.tail.img.gz"},
			DamagedCount: 1, Damaged: []catalog.Damage{{OffsetBytes: 512, LengthBytes: 512, Reason: "EIO"}},
		}},
	}
	public, details, err := seal(m, recipients)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v.p1.tar.gz", "v.p1.index.gz", "v.p1.boot.gz", "v.p2.img.gz", "v.p2.tail.img.gz"} {
		public.Files = append(public.Files, catalog.File{Name: name + ".age", SHA1: strings.Repeat("0", 40), SHA256: strings.Repeat("0", 64)})
	}
	text, err := public.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "secret-plans") || !strings.Contains(string(details), "secret-plans") {
		t.Errorf("public: %s\nencrypted: %s", text, details)
	}
	if public.Encryption.Details != "v.manifest.json.age" || len(public.Extents[1].Damaged) != 1 || public.Extents[0].DamagedCount != 2 {
		t.Errorf("%+v", public)
	}
	if m.Extents[0].Index.Name != "v.p1.index.gz" || len(m.Extents[0].Damaged) != 2 || m.Extents[1].PV.Tail != "v.p2.tail.img.gz" || m.Encryption != nil {
		t.Errorf("the manifest of the other destinations is changed: %+v", m)
	}
	// Nor is one taken that has a file in the open.
	public.Files = append(public.Files, catalog.File{Name: "v.sfdisk", SHA1: strings.Repeat("0", 40), SHA256: strings.Repeat("0", 64)})
	if _, err := public.Encode(); err == nil || !strings.Contains(err.Error(), "v.sfdisk") {
		t.Error(err)
	}
	m.Extents, m.Warnings = nil, nil
	if public, details, err := seal(m, recipients); err != nil || details != nil || public.Encryption.Details != "" {
		t.Errorf("nothing is withheld, but %s, %v", details, err)
	}
}

// A hybrid of several recipients has a header of some kilobytes: bounds hold for it too.
func TestBoundsHoldForLargeHeaders(t *testing.T) {
	var keys []string
	for range 5 {
		identity, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, identity.Recipient().String())
	}
	recipients, err := agefile.ParseRecipients(keys)
	if err != nil {
		t.Fatal(err)
	}
	o, folders, bounds := outputTo(t, recipients)
	for _, size := range []int{0, 1, 64 << 10, 1<<20 + 1} {
		name := time.Duration(size).String()
		if _, err := o.Write(t.Context(), name, int64(max(size, 1)), func(w io.Writer) error { _, err := w.Write(make([]byte, size)); return err }); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(folders[1], name+".age"))
		if err != nil || info.Size() > bounds[name+".age"] {
			t.Errorf("%d bytes: the store was told of %d and got %d, %v", size, bounds[name+".age"], info.Size(), err)
		}
	}
	if !slices.Equal(recipients.Keys(), keys) {
		t.Error("the keys are others")
	}
}
