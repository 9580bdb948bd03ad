package archive

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// command runs a command of the test's machine and returns its output.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// extractBytes extracts an archive into a new folder.
// A large file is progress while it is stored and while it is written, and not only in the end.
func TestLargeFilesAreProgress(t *testing.T) {
	const size = 48 << 20
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := NewPool(1)
	defer pool.Close()
	var stored, written, last int64 // the least that was told of each, and the last
	archived := writeTreeOf(t, dir, TreeOptions{Pool: pool, OnProgress: func(p Progress) {
		if stored == 0 {
			stored = p.ContentBytes
		}
		last = p.ContentBytes
	}})
	if stored <= 0 || stored >= size || last > size {
		t.Errorf("%d bytes are stored after the first member of a file of %d, %d in the end", stored, size, last)
	}
	_, stats, err := extractBytes(t, archived.archive, ExtractOptions{progressEvery: 1, OnProgress: func(s ExtractStats) {
		if written == 0 && s.Files == 0 {
			written = s.Bytes
		}
	}})
	if err != nil || written <= 0 || written >= size || stats.Bytes != size {
		t.Errorf("%d bytes are written before a file of %d is, %d in the end; %v", written, size, stats.Bytes, err)
	}
}

func extractBytes(t *testing.T, data []byte, opts ExtractOptions) (string, ExtractStats, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := NewReader(context.Background(), bytes.NewReader(data), int64(len(data)), ReaderOptions{KeepGoing: opts.KeepGoing})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stats, err := Extract(context.Background(), r, root, opts)
	return dir, stats, err
}

func TestExtractReadsOtherTars(t *testing.T) {
	src := t.TempDir()
	makeTree(t, src)
	for _, tc := range []struct {
		name string
		argv []string
	}{
		{"GNU tar pax", []string{"tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "-czf"}},
		{"GNU tar gnu", []string{"tar", "--format=gnu", "--sparse", "-czf"}},
		{"GNU tar ustar", []string{"tar", "--format=ustar", "-czf"}},
		{"GNU tar sparse 0.0", []string{"tar", "--format=pax", "--sparse", "--sparse-version=0.0", "-czf"}},
		{"GNU tar sparse 0.1", []string{"tar", "--format=pax", "--sparse", "--sparse-version=0.1", "-czf"}},
		{"bsdtar", []string{"bsdtar", "--format=pax", "-czf"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.tar.gz")
			command(t, src, tc.argv[0], append(tc.argv[1:], file, ".")...)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, stats, err := extractBytes(t, data, ExtractOptions{Rebuild: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range stats.Shortfalls {
				t.Errorf("shortfall %+v", s)
			}
			want, got := wantTree(tc.name, src, t), tree(t, dir)
			if strings.Contains(tc.name, "ustar") { // has no holes
				delete(want, "z/sparse")
				delete(got, "z/sparse")
			}
			compareTrees(t, want, got)
		})
	}
}

// wantTree describes src as a form of tar can express it.
func wantTree(form, src string, t *testing.T) map[string]string {
	want := tree(t, src)
	if !strings.Contains(form, "gnu") && !strings.Contains(form, "ustar") {
		return want
	}
	for name, line := range want { // whole seconds only
		want[name] = wholeSeconds.ReplaceAllString(line, "$1.000000000")
	}
	return want
}

var wholeSeconds = regexp.MustCompile(`(\d)\.\d{9}\b`)

// makeTree fills dir with one of each kind of thing.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"a/b/c", "empty", "z"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{
		"a/file": []byte("contents\n"), "a/b/c/none": nil, "z/large": bytes.Repeat([]byte("0123456789abcdef"), 300_000),
		"z/suid": []byte("x"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(dir, "z/sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	for i := range int64(9) {
		if _, err := sparse.WriteAt([]byte("island"), i<<20+4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := sparse.Truncate(20 << 20); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../no/where", filepath.Join(dir, "a/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a/file"), filepath.Join(dir, "z/hard")); err != nil {
		t.Fatal(err)
	}
	command(t, dir, "mkfifo", "a/fifo")
}
