package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// goroot is a tree of some 15,000 files that every machine with the tests has.
func goroot(b *testing.B) string {
	b.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func BenchmarkWriteTree(b *testing.B) {
	dir := goroot(b)
	if other := os.Getenv("TREE"); other != "" {
		dir = other
	}
	for _, level := range []Level{LevelFast, LevelDefault} {
		b.Run(fmt.Sprint(int(level)), func(b *testing.B) {
			b.ReportAllocs()
			pool := NewPool(0)
			defer pool.Close()
			for b.Loop() {
				stats, err := writeTreeTo(b, context.Background(), dir, io.Discard, io.Discard, TreeOptions{Level: level, Pool: pool})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(stats.TarBytes)
				b.ReportMetric(100*float64(stats.ArchiveBytes)/float64(stats.TarBytes), "%left")
				b.ReportMetric(float64(stats.IndexBytes)/float64(stats.Entries), "indexB/entry")
			}
		})
	}
}

func BenchmarkEncodeMember(b *testing.B) {
	random := make([]byte, FileMemberBytes)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for name, src := range map[string][]byte{
		"zeros": make([]byte, FileMemberBytes), "random": random,
		"text": bytes.Repeat([]byte("a line of some text that repeats, as logs do\n"), FileMemberBytes/46),
	} {
		for _, level := range []Level{LevelFast, LevelDefault} {
			b.Run(fmt.Sprintf("%s/level%d", name, level), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(src)))
				var enc memberEncoder
				var dst []byte
				for b.Loop() {
					var err error
					if dst, err = enc.encode(dst[:0], src, level); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkEntryLine(b *testing.B) {
	e := sampleEntries()["file"]
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = appendEntry(dst[:0], &e)
	}
}

func BenchmarkSums(b *testing.B) {
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	s := NewSums()
	defer s.Sum()
	for b.Loop() {
		_, _ = s.Write(p)
	}
}
