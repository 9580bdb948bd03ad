package agefile

import (
	"bytes"
	"io"
	"testing"
)

func BenchmarkWriter(b *testing.B) {
	public, _ := newKey(b)
	recipients, err := ParseRecipients([]string{public})
	if err != nil {
		b.Fatal(err)
	}
	data := text(1 << 20)
	b.SetBytes(int64(len(data)))
	w, err := recipients.NewWriter(io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkReadAt(b *testing.B) {
	public, secret := newKey(b)
	stored := seal(b, text(16<<20), public)
	f, err := Open(bytes.NewReader(stored), int64(len(stored)), identities(b, secret), OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 4<<20)
	b.SetBytes(int64(len(p)))
	for i := 0; b.Loop(); i++ {
		if _, err := f.ReadAt(p, int64(i%3)<<20); err != nil {
			b.Fatal(err)
		}
	}
}
