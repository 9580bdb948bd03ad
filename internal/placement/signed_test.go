package placement

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/placement/placementtest"
	"voltar/internal/sign"
	"voltar/internal/store"
	"voltar/retention"
)

// signAll has every destination's manifests signed and checked.
func (s *site) signAll(t *testing.T) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, signers := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "signers")
	if err := errors.Join(os.WriteFile(key, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(signers, append([]byte("us "), ssh.MarshalAuthorizedKey(line)...), 0o600)); err != nil {
		t.Fatal(err)
	}
	var opts sign.Options
	if opts.Key, err = sign.ReadKey(key); err != nil {
		t.Fatal(err)
	}
	if opts.Trusted, err = sign.ReadTrusted(signers); err != nil {
		t.Fatal(err)
	}
	for i := range s.destinations {
		s.destinations[i].Store = sign.Wrap(s.destinations[i].Store, opts)
	}
}

// What is copied is signed on its new place, by the bytes of the manifest there: by hand, after a run, and encrypted on its way.
func TestCopiesAreSigned(t *testing.T) {
	s := newSite(t, "near", "far", "behind", "vault", "same")
	s.signAll(t)
	recipients, _ := browsetest.NewKey(t)
	s.on("vault").Recipients, s.on("same").Recipients = recipients, recipients
	s.on("far").CatchUp, s.on("vault").CatchUp, s.on("same").CatchUp, s.on("near").CatchUp = false, false, false, false
	s.on("behind").Policy = retention.Policy{Days: 7}
	browsetest.Make(t, s.on("near").Store, browsetest.Spec{Time: firstNight, Edit: func(m *catalog.Manifest) { m.Host = placementtest.Host }})
	for _, way := range [][2]string{{"near", "far"}, {"near", "vault"}, {"vault", "same"}} {
		lines, err := s.Copy(t.Context(), request{From: way[0], To: way[1]})
		if err != nil || len(lines) != 1 || lines[0].State != CopyDone {
			t.Fatalf("%s: %+v, %v", way, lines, err)
		}
	}
	if tonight := s.catchUpNow(t, nil); tonight.caughtUp("behind") == "" {
		t.Errorf("nothing was made up: %+v", tonight.problems)
	}
	for _, d := range s.destinations {
		l, err := catalog.List(t.Context(), d.Store, hostName, catalog.Filter{})
		if err != nil || len(l.Backups) != 1 || len(l.Unreadable) > 0 {
			t.Errorf("%s: %+v, %v", d.Name, l, err)
		}
	}
}

// What a stranger put in the place of a backup is not taken for its copy.
func TestAStrangersBackupIsNoCopy(t *testing.T) {
	s := newSite(t, "near", "far")
	plain := s.on("far").Store
	s.signAll(t)
	for _, in := range []store.Store{s.on("near").Store, plain} {
		placementtest.Make(t, in, "v1", 0, nil)
	}
	for _, dryRun := range []bool{true, false} {
		lines, err := s.Copy(t.Context(), request{From: "near", To: "far", DryRun: dryRun})
		if err != nil || len(lines) != 1 || lines[0].State != CopyFailed || !strings.Contains(lines[0].Reason, "no trusted key has signed it") {
			t.Errorf("%+v, %v", lines, err)
		}
	}
}
