package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// A backup that a run made: looked into, verified, and shown as verified in the report of the next run.
func TestLabLookIntoABackup(t *testing.T) {
	lab.VG(t, "look", 300<<20)
	device := lab.LV(t, "look", "volume-00000007", 64<<20)
	lab.Do(t, "mkfs.ext4", "-q", device)
	dir := lab.Mount(t, device, "defaults")
	noise := bytes.Repeat([]byte("several members\n"), 1<<19)
	for name, data := range map[string][]byte{"hello": []byte("world"), "large": noise} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "hello"), 1234, 4321); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "setfattr", "-n", "user.note", "-v", "kept", filepath.Join(dir, "hello"))
	lab.Do(t, "mknod", filepath.Join(dir, "null"), "c", "1", "3")
	target := lab.LV(t, "look", "target", 32<<20)
	lab.Do(t, "mkfs.ext4", "-q", target)
	to := lab.Mount(t, target, "defaults") // which, unlike a tmpfs, has attributes of users
	s := newSite(t, "[select]\nvolume_groups = [\"look\"]\nexclude = [\"target\"]\n")
	s.run(t, 0)
	for want, args := range map[string][]string{
		"hello\nlarge\n": {"ls", "volume-00000007"},
		"world":          {"cat", "volume-00000007", "/hello"},
		string(noise):    {"cat", "volume-00000007", "/large"},
	} {
		code, out, errs := voltar(t, append(args, "--config", s.config)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%q: %d %.100q %s", args, code, out, errs)
		}
	}
	if code, out, errs := voltar(t, "extract", "volume-00000007", "/hello", "/null", "--devices", "--to", to, "--config", s.config); code != 0 {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	got := lab.Do(t, "stat", "-c", "%n %u %g %a %F", filepath.Join(to, "hello"), filepath.Join(to, "null"))
	if want := to + "/hello 1234 4321 640 regular file\n" + to + "/null 0 0 644 character special file"; strings.TrimSpace(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if note := lab.Do(t, "getfattr", "--only-values", "-n", "user.note", filepath.Join(to, "hello")); note != "kept" {
		t.Errorf("attribute %q", note)
	}
	if code, out, errs := voltar(t, "verify", "--full", "--config", s.config); code != 0 {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	if result := s.run(t, 0); result.Volumes[0].LastVerified.IsZero() {
		t.Errorf("%+v", result.Volumes[0])
	}
}
