package sign

import (
	"io"
	"log/slog"
	"path"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/store"
)

// What is known as signed is a stranger's as soon as its signature is gone or another, and for whom nobody is trusted.
func TestKnownManifestsNeedTheirSignature(t *testing.T) {
	plain, signed, key := newSite(t)
	folder := add(t, signed, "host", night)
	known := catalog.NewKnown(t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	good := func(s store.Store) int {
		t.Helper()
		l, err := catalog.List(t.Context(), s, "host", catalog.Filter{Known: known})
		if err != nil || len(l.Backups)+len(l.Unreadable) != 1 {
			t.Fatalf("%+v, %v", l, err)
		}
		return len(l.Backups)
	}
	everybodys := Wrap(plain, Options{TakeAll: true})
	for range 2 {
		if good(signed) != 1 || good(everybodys) != 1 || good(Wrap(plain, Options{Key: key, Trusted: Trusted{}})) != 0 {
			t.Error("it is not good by whom is trusted alone")
		}
	}
	if err := plain.Delete(t.Context(), path.Join(folder, catalog.SignatureName)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if good(signed) != 0 || good(everybodys) != 1 {
			t.Error("without its signature it is good for those who want one, or for nobody")
		}
	}
}
