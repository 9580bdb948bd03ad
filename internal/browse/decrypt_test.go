package browse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/agefile"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

// sealed returns an encrypted backup, opened with the identities that fit, and those.
func sealed(t *testing.T, lenient bool) (*Backup, catalog.Backup, *disk.Store, *agefile.Identities) {
	t.Helper()
	recipients, identities := browsetest.NewKey(t)
	s := browsetest.Open(t, t.TempDir())
	meta := browsetest.Make(t, s, browsetest.Spec{For: recipients})
	return New(s, meta, Opener(Decrypt(identities, lenient))), meta, s, identities
}

// catFile reads one file of a backup.
func catFile(t *testing.T, b *Backup, name string) ([]byte, error) {
	t.Helper()
	tree, err := b.Tree(t.Context(), mustParse(t, b, "p1").Extent)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	r, _, err := tree.Open(t.Context(), name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestEncryptedBackupsAreReadWithTheKey(t *testing.T) {
	b, meta, s, _ := sealed(t, false)
	for _, file := range meta.Manifest.Files {
		content, err := os.ReadFile(filepath.Join(s.Folder(), meta.Path(), file.Name))
		if err != nil {
			t.Fatal(err)
		}
		open := file.Name == "volume-00000001.checksum" || file.Name == catalog.RecipeName
		if Encrypted(file.Name) == open || bytes.HasPrefix(content, []byte(agefile.Format)) == open {
			t.Errorf("%s begins with %q", file.Name, content[:20])
		}
	}
	for name, want := range map[string][]byte{"etc/passwd": []byte("root:x:0:0\n"), "var/data/big1": browsetest.Noise("1", 5<<20)} {
		if got, err := catFile(t, b, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	dir, _, err := extracted(t, b, nil, ExtractOptions{NoOwner: os.Geteuid() != 0})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "p1/var/data/link2")); err != nil || !bytes.Equal(got, browsetest.Noise("2", 5<<20)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	image, err := b.Image(t.Context(), mustParse(t, b, "p2").Extent)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if got, err := io.ReadAll(image); err != nil || !bytes.Equal(got, browsetest.Image()) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestEncryptedBackupsWithoutTheKey(t *testing.T) {
	_, meta, s, ours := sealed(t, false)
	_, others := browsetest.NewKey(t)
	for _, test := range []struct {
		name  string
		open  OpenFunc
		kind  error
		words []string
	}{
		{"no key", Opener(Decrypt(&agefile.Identities{}, true)), ErrEncrypted, []string{ours.String(), "--identity"}},
		{"no key, strictly", keyless, ErrEncrypted, []string{ours.String(), "--identity"}},
		{"the key of others", Opener(Decrypt(others, true)), agefile.ErrNoKey, []string{ours.String(), others.String()}},
	} {
		b := New(s, meta, test.open)
		_, err := catFile(t, b, "etc/passwd")
		if !errors.Is(err, test.kind) || errors.Is(err, ErrNoIndex) {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, word := range test.words {
			if err == nil || !strings.Contains(say.Text(err), word) {
				t.Errorf("%s: %v lacks %q", test.name, err, word)
			}
		}
		if _, _, err := extracted(t, b, nil, ExtractOptions{KeepGoing: true}); !errors.Is(err, test.kind) {
			t.Errorf("extract with %s: %v", test.name, err)
		}
	}
}

// Around a damaged chunk everything else comes out, and what was in it is named.
func TestExtractKeepsGoingAroundDamagedChunks(t *testing.T) {
	b, meta, s, identities := sealed(t, true)
	archive := meta.Manifest.Extents[1].Archive
	browsetest.Spoil(t, s, meta, archive, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
	strict := New(s, meta, Opener(Decrypt(identities, false)))
	if _, _, err := extracted(t, strict, nil, ExtractOptions{NoOwner: true}); !errors.Is(err, agefile.ErrDamaged) {
		t.Errorf("without keeping on: %v", err)
	}
	dir, done, err := extracted(t, b, nil, ExtractOptions{KeepGoing: true, NoOwner: true})
	if err == nil || len(done) != 1 || done[0].Good() || len(done[0].Stats.Failures) == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	good := 0
	for i, name := range []string{"big0", "big1", "big2"} {
		got, err := os.ReadFile(filepath.Join(dir, "p1/var/data", name))
		if err == nil && bytes.Equal(got, browsetest.Noise(string(rune('0'+i)), 5<<20)) {
			good++
		}
	}
	if good != 2 {
		t.Errorf("%d of 3 files came out, want all but the damaged one", good)
	}
}

// swapping is a store in which somebody has put another object in the place of one.
type swapping struct {
	store.Store
	from, to string
}

func (s swapping) Open(ctx context.Context, key string) (store.Reader, error) {
	return s.Store.Open(ctx, strings.Replace(key, s.from, s.to, 1))
}

// A file of another backup opens with the same key. Its size, at least, is not the one that the manifest says.
func TestFilesOfOtherBackupsAreRefused(t *testing.T) {
	recipients, identities := browsetest.NewKey(t)
	s := browsetest.Open(t, t.TempDir())
	meta := browsetest.Make(t, s, browsetest.Spec{For: recipients})
	other := browsetest.Make(t, s, browsetest.Spec{For: recipients, LV: "volume-00000002", Fill: func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}})
	from, to := meta.Path()+"/"+meta.Manifest.Extents[1].Index.Name, other.Path()+"/"+other.Manifest.Extents[1].Index.Name
	b := New(swapping{s, from, to}, meta, Opener(Decrypt(identities, false)))
	if _, err := catFile(t, b, "etc/passwd"); !errors.Is(err, catalog.ErrDamaged) {
		t.Error(err)
	}
}
