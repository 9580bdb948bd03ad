package placement

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/retention"
)

// states are the lines in short: "v1@2026-11-20T010001Z copied".
func states(lines []CopyLine) string {
	var all []string
	for _, l := range lines {
		all = append(all, strings.TrimPrefix(l.Backup, "vg/")[:len("v1@2026-11-20")]+" "+string(l.State))
	}
	return strings.Join(all, ", ")
}

var nearToFar = request{From: "near", To: "far"}

func TestCopyMakesUpWhatIsLacking(t *testing.T) {
	s := newSite(t, "near", "far")
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
	near, far := s.tree(t, "near", hostName, "vg"), s.tree(t, "far", hostName, "vg")
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
	s := newSite(t, "near", "far")
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
	s := newSite(t, "near", "far")
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
	if left := s.tree(t, "far", hostName, "vg/v1"); len(left) != 0 {
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
	s := newSite(t, "near", "far")
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
	if listing, err := catalog.List(t.Context(), broken.Store, hostName, catalog.Filter{}); err != nil || len(listing.Backups) != 0 {
		t.Errorf("%+v, %v", listing, err)
	}
	broken.fail = func(string, string) error { return nil }
	if lines, err = s.Copy(t.Context(), nearToFar); err != nil || states(lines) != "v1@2026-11-20 copied" {
		t.Errorf("%+v, %v", lines, err)
	}
	s.journals(t, 0)
}

func TestCopyStopsWhenItIsTold(t *testing.T) {
	s := newSite(t, "near", "far")
	s.make(t, "near", "v1", 0, nil)
	s.make(t, "near", "v2", 1, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	broken := &brokenStore{Store: s.on("far").Store, fail: func(op, key string) error {
		if strings.HasSuffix(key, ".checksum") {
			cancel(errAway)
		}
		return nil
	}}
	s.on("far").Store = broken
	lines, err := s.Copy(ctx, nearToFar)
	if err != nil || states(lines) != "v2@2026-11-21 failed, v1@2026-11-20 failed" {
		t.Errorf("%+v, %v", lines, err)
	}
	if left := s.tree(t, "far", hostName, "vg"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.journals(t, 0)
}
