package catalog

import (
	"bytes"
	"context"
	"errors"
	"path"
	"testing"

	"voltar/internal/store"
)

func TestCommitTextKeepsEveryByte(t *testing.T) {
	from, to := newStore(t), newStore(t)
	b := add(t, from, volume("v"), night)
	key := path.Join(b.Path(), ManifestName)
	text, _, err := read(context.Background(), from, key, MaxManifestBytes)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("{"), []byte(`{ "of_tomorrow": [1, 2],`), 1)
	raw(t, from, key, string(text))
	loaded, got, err := EntryOf(b).LoadText(context.Background(), from)
	if err != nil || !bytes.Equal(got, text) || loaded.ID != b.ID {
		t.Fatalf("%s, %v", got, err)
	}

	d := mustBegin(t, to, b.ID)
	if _, err := d.CommitText(context.Background(), got); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("without its files: %v", err)
	}
	fill(t, d, b.Manifest)
	copied, err := d.CommitText(context.Background(), got)
	if err != nil {
		t.Fatal(err)
	}
	stored, size, err := read(context.Background(), to, key, MaxManifestBytes)
	if err != nil || !bytes.Equal(stored, text) || copied.SizeBytes != size+b.Manifest.FileBytes() {
		t.Errorf("%s, %v; %d bytes in all", stored, err, copied.SizeBytes)
	}
	if l := mustList(t, to, Filter{}); len(l.Backups) != 1 || l.Backups[0].ID.Compare(b.ID) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestCommitTextRefuses(t *testing.T) {
	s := newStore(t)
	b := add(t, s, volume("v"), night)
	other := add(t, s, volume("w"), night)
	_, text, err := EntryOf(other).LoadText(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	d := mustBegin(t, newStore(t), b.ID)
	if _, err := d.CommitText(context.Background(), text); err == nil {
		t.Error("the manifest of another backup was taken")
	}
	if _, err := d.CommitText(context.Background(), []byte("garbage")); !errors.Is(err, ErrDamaged) {
		t.Errorf("garbage: %v", err)
	}
	raw(t, s, path.Join(b.Path(), ManifestName), string(text)) // as if somebody had put it there since
	if _, _, err := EntryOf(b).LoadText(context.Background(), s); !errors.Is(err, ErrDamaged) {
		t.Errorf("a manifest of another backup in its place: %v", err)
	}
}
