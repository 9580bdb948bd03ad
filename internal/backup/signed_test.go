package backup

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/sign"
	"voltar/retention"
)

// signAll has every destination's manifests signed and checked.
func (s *copySite) signAll(t *testing.T) {
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
	for i := range s.opts.Destinations {
		s.opts.Destinations[i].Store = sign.Wrap(s.opts.Destinations[i].Store, opts)
	}
}

// What is copied is signed on its new place, by the bytes of the manifest there: by hand, after a run, and encrypted on its way.
func TestCopiesAreSigned(t *testing.T) {
	s := newCopySite(t, "near", "far", "behind", "vault", "same")
	s.signAll(t)
	recipients, _ := browsetest.NewKey(t)
	s.on("vault").Recipients, s.on("same").Recipients = recipients, recipients
	s.on("far").CatchUp, s.on("vault").CatchUp, s.on("same").CatchUp, s.on("near").CatchUp = false, false, false, false
	s.on("behind").Policy = retention.Policy{Days: 7}
	browsetest.Make(t, s.on("near").Store, browsetest.Spec{Time: firstNight, Edit: func(m *catalog.Manifest) { m.Host = s.us() }})
	for _, way := range [][2]string{{"near", "far"}, {"near", "vault"}, {"vault", "same"}} {
		lines, err := s.Copy(t.Context(), CopyRequest{From: way[0], To: way[1]})
		if err != nil || len(lines) != 1 || lines[0].State != CopyDone {
			t.Fatalf("%s: %+v, %v", way, lines, err)
		}
	}
	if r := s.catchUpNow(t, nil); caughtUp(r, "behind") == "" {
		t.Errorf("nothing was made up: %+v", r.report.Warnings)
	}
	for _, d := range s.opts.Destinations {
		l, err := catalog.List(t.Context(), d.Store, copyHost, catalog.Filter{})
		if err != nil || len(l.Backups) != 1 || len(l.Unreadable) > 0 {
			t.Errorf("%s: %+v, %v", d.Name, l, err)
		}
	}
}
