package verify

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store/disk"
)

// sealed returns an encrypted backup and what opens it.
func sealed(t *testing.T) (catalog.Backup, *disk.Store, *agefile.Recipients, browse.DecryptFunc) {
	t.Helper()
	recipients, identities := browsetest.NewKey(t)
	b, s := made(t, browsetest.Spec{For: recipients, Fill: func(dir string) { some(t, dir, "") }})
	return b, s, recipients, browse.Decrypt(identities, true)
}

// some makes a tree of a few chunks.
func some(t *testing.T, dir, more string) {
	t.Helper()
	for name, content := range map[string][]byte{
		"a": browsetest.Noise("a", 300<<10), "b": browsetest.Noise("b", 300<<10), "c": []byte("c" + more),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEncryptedBackupsAreGoodWithAndWithoutTheKey(t *testing.T) {
	recipients, identities := browsetest.NewKey(t)
	b, s := made(t, browsetest.Spec{For: recipients})
	decrypt := browse.Decrypt(identities, true)
	for name, opts := range levels {
		r := mustVerify(t, s, b, opts)
		if !r.Good() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "not checked") {
			t.Errorf("%s without the key: %s %q", name, texts(r), r.Notes)
		}
		opts.Decrypt = decrypt
		if r := mustVerify(t, s, b, opts); !r.Good() || len(r.Notes) > 0 {
			t.Errorf("%s with the key: %s %q", name, texts(r), r.Notes)
		}
	}
	if r := mustVerify(t, s, b, Options{Level: Full, Decrypt: decrypt}); r.ReadBytes > b.Manifest.FileBytes()*13/10 {
		t.Errorf("a full check read %d bytes of %d", r.ReadBytes, b.Manifest.FileBytes())
	}
	if r := mustVerify(t, s, b, Options{Level: Quick, Decrypt: decrypt}); r.ReadBytes > b.Manifest.FileBytes()/4 {
		t.Errorf("a quick check read %d bytes of %d", r.ReadBytes, b.Manifest.FileBytes())
	}
}

func TestDamageOfEncryptedBackupsIsFound(t *testing.T) {
	flip := func(d []byte) []byte { d[len(d)/2] ^= 1; return d }
	_, others := browsetest.NewKey(t)
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, s *disk.Store, b catalog.Backup, file string)
		keyless  string // what is found without the key
		withKey  string // and with it, in full
		lost     bool
		identity *agefile.Identities // another key
	}{
		{"a flipped bit", func(t *testing.T, s *disk.Store, b catalog.Backup, file string) {
			browsetest.Spoil(t, s, b, file, flip)
		}, "sums are not those", "of what is encrypted in it are damaged", true, nil},
		{"its end is missing", func(t *testing.T, s *disk.Store, b catalog.Backup, file string) {
			browsetest.Spoil(t, s, b, file, func(d []byte) []byte { return d[:len(d)/2] })
		}, "by the manifest", "of what is encrypted in it are damaged", true, nil},
		{"a header that is damaged", func(t *testing.T, s *disk.Store, b catalog.Backup, file string) {
			browsetest.Spoil(t, s, b, file, func(d []byte) []byte { d[5] ^= 1; return d })
		}, "sums are not those", "encrypted file is damaged", false, nil},
		{"an object of another backup in its place", func(t *testing.T, s *disk.Store, b catalog.Backup, file string) {
			other := browsetest.Make(t, s, browsetest.Spec{For: parse(t, b), Time: browsetest.Night.AddDate(0, 0, 1),
				Fill: func(dir string) { some(t, dir, "c") }})
			data, err := os.ReadFile(filepath.Join(s.Folder(), other.Path(), file))
			if err != nil {
				t.Fatal(err)
			}
			browsetest.Spoil(t, s, b, file, func([]byte) []byte { return data })
		}, "", "sums are not those", false, nil},
		{"the key of somebody else", func(*testing.T, *disk.Store, catalog.Backup, string) {}, "", "none of the identities", false, others},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, s, _, decrypt := sealed(t)
			file := b.Manifest.Extents[1].Archive
			c.change(t, s, b, file)
			if r := mustVerify(t, s, b, Options{Level: Sums}); r.Good() != (c.identity != nil) || !strings.Contains(texts(r), c.keyless) {
				t.Errorf("without the key: %s", texts(r))
			}
			if c.identity != nil {
				decrypt = browse.Decrypt(c.identity, true)
			}
			r := mustVerify(t, s, b, Options{Level: Full, Decrypt: decrypt})
			if r.Good() || !strings.Contains(texts(r), c.withKey) || c.lost && len(r.Lost) == 0 {
				t.Errorf("with the key: %s\nlost: %v", texts(r), r.Lost)
			}
		})
	}
}

// parse returns those for whom a backup is encrypted.
func parse(t *testing.T, b catalog.Backup) *agefile.Recipients {
	t.Helper()
	r, err := agefile.ParseRecipients(b.Manifest.Encryption.Recipients)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRepairMakesAnEncryptedIndexAgain(t *testing.T) {
	b, s, recipients, decrypt := sealed(t)
	name := b.Manifest.Extents[1].Index.Name
	browsetest.Spoil(t, s, b, name, func([]byte) []byte { return []byte("x") })
	if r := mustVerify(t, s, b, Options{Level: Sums, Decrypt: decrypt}); r.Good() || !r.Repair {
		t.Errorf("%+v", r)
	}
	for lacking, keys := range map[string]Keys{
		"--identity": {Recipients: recipients}, "recipients of the destination": {Decrypt: decrypt},
	} {
		if written, _, err := RepairIndexes(t.Context(), s, b, keys); err == nil || !strings.Contains(say.Text(err), lacking) || len(written) > 0 {
			t.Errorf("without %s: %q, %v", lacking, written, err)
		}
	}
	written, amended, err := RepairIndexes(t.Context(), s, b, Keys{Decrypt: decrypt, Recipients: recipients})
	if err != nil || !slices.Equal(written, []string{name, "volume-00000001.checksum", catalog.ManifestName}) {
		t.Fatalf("%q, %v", written, err)
	}
	again := reread(t, s)
	if !slices.Equal(again.Manifest.Files, amended.Manifest.Files) {
		t.Errorf("amended %+v, stored %+v", amended.Manifest.Files, again.Manifest.Files)
	}
	stored, err := os.ReadFile(filepath.Join(s.Folder(), b.Path(), name))
	if err != nil || !strings.HasPrefix(string(stored), agefile.Format) {
		t.Errorf("the new index begins with %q, %v", stored[:20], err)
	}
	if r := mustVerify(t, s, again, Options{Level: Full, Decrypt: decrypt}); !r.Good() || len(r.Notes) > 0 {
		t.Errorf("afterwards: %s %q", texts(r), r.Notes)
	}
}
