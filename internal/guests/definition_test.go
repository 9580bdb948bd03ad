package guests

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A definition has the files that belong to it: those that are files, small enough, and not behind a link that somebody else may have made.
func TestWriteDefinition(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"own", "theirs", "own/target"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(target, name string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	nvram, secret := write("own/target/VARS.fd", "variables"), write("secret", "secret")
	link(secret, "theirs/evil.fd")
	link(dir, "theirs/folder")
	large := write("own/installer.iso", "")
	if err := os.Truncate(large, maxAttachedBytes+1); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "theirs"), 0o777); err != nil {
		t.Fatal(err)
	}
	theirs := write("theirs/VARS.fd", "theirs")
	g := Guest{Definition: []File{{"domain.xml", []byte("<domain/>")}}, Attached: []string{
		nvram, link("target/../target/VARS.fd", "own/relative"), link(filepath.Join(dir, "own"), "own/absolute") + "/target/VARS.fd", theirs,
		filepath.Join(dir, "theirs/evil.fd"), filepath.Join(dir, "theirs/folder/secret"), filepath.Join(dir, "own/none"), large,
		filepath.Join(dir, "own"), "/dev/null", "/etc/../etc/passwd", "/etc/shadow", link("loop", "own/loop"), secret + "/below", "/",
	}}
	var out bytes.Buffer
	lacking, err := g.WriteDefinition(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	archive := tar.NewReader(&out)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		got[strings.TrimPrefix(strings.TrimPrefix(h.Name, AttachedFolder), dir)] = string(content)
	}
	for name, want := range map[string]string{
		"domain.xml": "<domain/>", "/own/target/VARS.fd": "variables", "/own/relative": "variables", "/own/absolute/target/VARS.fd": "variables",
		"/theirs/VARS.fd": "theirs",
	} {
		if got[name] != want {
			t.Errorf("%s holds %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("it also has %q", got)
	}
	told := strings.Join(lacking, "\n")
	for _, want := range []string{
		"theirs/evil.fd: open", "another user may have made the link evil.fd", "the link folder", "own/loop: ", "/dev/null: it lies where the host has its own", "/etc/../etc/passwd: it lies where", "/etc/shadow: it lies where", dir + "/own: it is no regular file", "secret/below: ", "/: ",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("nothing tells of %q in:\n%s", want, told)
		}
	}
	if len(lacking) != 9 {
		t.Errorf("%d files are lacking:\n%s", len(lacking), told)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readAttached(ended, "/proc/kmsg"); err == nil {
		t.Error("a file that does not answer was read")
	}
}

// What belongs to a definition does not change it.
func TestSum(t *testing.T) {
	g := Guest{Definition: []File{{"a", []byte("1")}}}
	sum := g.Sum()
	if g.Attached = []string{"/x"}; g.Sum() != sum {
		t.Error("a file that belongs to it counts")
	}
	if g.Definition[0].Content = []byte("2"); g.Sum() == sum {
		t.Error("another definition has the same sum")
	}
}
