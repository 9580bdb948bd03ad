package placement

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/agefile"
	"voltar/internal/browse"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/verify"
	"voltar/retention"
)

// What lies in the open is encrypted on its way, as a run would have stored it, and from there copied byte for byte to
// whoever encrypts for the same; nothing comes back into the open, or goes to others.
func TestCopyAcrossRecipients(t *testing.T) {
	s := newSite(t, "near", "vault", "same", "other")
	recipients, identities := browsetest.NewKey(t)
	others, _ := browsetest.NewKey(t)
	s.on("vault").Recipients, s.on("same").Recipients, s.on("other").Recipients = recipients, recipients, others
	browsetest.Make(t, s.on("near").Store, browsetest.Spec{Time: firstNight, Edit: func(m *catalog.Manifest) {
		m.Warnings = []string{"home/secret-plans.doc is odd"}
	}})
	copied := func(from, to string, want CopyState) CopyLine {
		t.Helper()
		lines, err := s.Copy(t.Context(), request{From: from, To: to})
		if err != nil || len(lines) != 1 || lines[0].State != want {
			t.Fatalf("from %s to %s: %+v, %v", from, to, lines, err)
		}
		return lines[0]
	}
	copied("near", "vault", CopyDone)
	listing, err := catalog.List(t.Context(), s.on("vault").Store, hostName, catalog.Filter{})
	if err != nil || len(listing.Backups) != 1 {
		t.Fatalf("%+v, %v", listing, err)
	}
	sealed, err := listing.Backups[0].Load(t.Context(), s.on("vault").Store)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range s.tree(t, "vault") {
		if strings.Contains(text, "secret-plans") {
			t.Errorf("%s is readable by everyone", name)
		}
	}
	result, err := verify.Backup(t.Context(), s.on("vault").Store, sealed, verify.Options{
		Level: verify.Full, Decrypt: browse.Decrypt(identities, false),
	})
	if err != nil || !result.Good() || len(result.Notes) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
	near := s.tree(t, "near", sealed.Path())
	for _, file := range sealed.Manifest.Files {
		if name, encrypted := strings.CutSuffix(file.Name, catalog.AgeSuffix); encrypted && file.Name != sealed.Manifest.Encryption.Details {
			if got := decrypted(t, filepath.Join(s.dir, "vault", sealed.Path(), file.Name), identities); got != near[name] {
				t.Errorf("%s is another one, decrypted", name)
			}
		}
	}

	copied("vault", "same", CopyDone)
	vault, same := s.tree(t, "vault", sealed.Path()), s.tree(t, "same", sealed.Path())
	for name, text := range vault {
		if same[name] != text {
			t.Errorf("%s differs", name)
		}
	}
	if len(vault) != len(same) {
		t.Errorf("%d files, and %d", len(vault), len(same))
	}
	if line := copied("vault", "other", CopyFailed); !strings.Contains(line.Reason, "other is encrypted to "+others.Keys()[0]) {
		t.Errorf("reason %q", line.Reason)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "near", hostName, "vg")); err != nil {
		t.Fatal(err)
	}
	if line := copied("vault", "near", CopyFailed); !strings.Contains(line.Reason, "near is not encrypted") {
		t.Errorf("reason %q", line.Reason)
	}
	s.journals(t, 0)
}

// A run catches up by encrypting, too; what it cannot decrypt is a note, and no warning each night.
func TestCatchUpAcrossRecipients(t *testing.T) {
	s := newSite(t, "near", "vault")
	s.on("vault").Recipients, _ = browsetest.NewKey(t)
	s.on("near").Policy, s.on("vault").Policy = retention.Policy{Days: 30}, retention.Policy{Days: 30}
	b := s.make(t, "near", "v1", 3, nil)
	r := s.catchUpNow(t, nil)
	if got, want := r.caughtUp("vault"), "v1@2026-11-23 from near"; got != want || len(r.problems) > 0 {
		t.Errorf("%s, %+v; want %s", got, r.problems, want)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "near", b.Path())); err != nil {
		t.Fatal(err)
	}
	r = s.catchUpNow(t, nil)
	notes := strings.Join(r.destinations[0].Notes, " ")
	if got := r.caughtUp("near"); got != "" || len(r.problems) > 0 || !strings.Contains(notes, "from vault: 1, which cannot be copied") {
		t.Errorf("the other way: %s, %+v, %s", got, r.problems, notes)
	}
}

// A backup that changes on its way leaves nothing behind where it is encrypted either, and one of tomorrow's program is
// not written anew with less in it.
func TestSealedCopyThatFails(t *testing.T) {
	s := newSite(t, "near", "vault")
	s.on("vault").Recipients, _ = browsetest.NewKey(t)
	b := s.make(t, "near", "v1", 1, nil)
	path := filepath.Join(s.dir, "near", b.Path(), b.Manifest.Files[0].Name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := slices.Clone(data)
	spoilt[7] ^= 1
	if err := os.WriteFile(path, spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := s.Copy(t.Context(), request{From: "near", To: "vault"})
	if err != nil || states(lines) != "v1@2026-11-21 failed" || !strings.Contains(lines[0].Reason, "sums of the manifest") {
		t.Errorf("%+v, %v", lines, err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(s.dir, "near", b.Path(), catalog.ManifestName)
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, bytes.Replace(text, []byte("{"), []byte(`{"of_tomorrow": 1,`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err = s.Copy(t.Context(), request{From: "near", To: "vault"})
	if err != nil || states(lines) != "v1@2026-11-21 failed" || !strings.Contains(lines[0].Reason, "of_tomorrow") {
		t.Errorf("%+v, %v", lines, err)
	}
	s.make(t, "near", "v2", 0, func(m *catalog.Manifest) { m.Extents[0].Filesystem = nil })
	lines, err = s.Copy(t.Context(), request{From: "near", To: "vault"})
	if err != nil || states(lines) != "v1@2026-11-21 failed, v2@2026-11-20 failed" || !strings.Contains(lines[1].Reason, "which filesystem") {
		t.Errorf("%+v, %v", lines, err)
	}
	if left := s.tree(t, "vault", hostName, "vg"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.journals(t, 0)
}

// decrypted reads an encrypted file.
func decrypted(t *testing.T, path string, identities *agefile.Identities) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := agefile.Open(bytes.NewReader(data), int64(len(data)), identities, agefile.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, file.SizeBytes()))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
