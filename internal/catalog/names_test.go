package catalog

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	plain, secret := NamesOf(VolumeRef("vg", "v"), false), NamesOf(VolumeRef("vg", "v"), true)
	for got, want := range map[string]string{
		plain.Archive("p1"): "v.p1.tar.gz", plain.Archive(""): "v.tar.gz", plain.Index("p1"): "v.p1.index.gz",
		plain.Image("p3"): "v.p3.img.gz", plain.Members("p3"): "v.p3.members.gz", plain.Boot(): "v.boot.gz", plain.BootArea("p1"): "v.p1.boot.gz",
		plain.Table(): "v.sfdisk", plain.Dump("mysql"): "v.mysql.dump.gz", plain.Dump(""): "v.dump.gz",
		plain.Checksum(): "v.checksum", secret.Archive("p1"): "v.p1.tar.gz.age", secret.Checksum(): "v.checksum",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestChecksumIsWhatSha1sumReads(t *testing.T) {
	dir := t.TempDir()
	const empty = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	var files []File
	for _, name := range []string{"volume-00000001.p1.tar.gz", "with space", `back\slash`, `\n`, "*star", " lead", "ü",
		"$(x)'\""} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: name, SHA1: empty})
	}
	text, err := Checksum(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "v.checksum"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha1sum", "--strict", "-c", "v.checksum")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), ": OK") != len(files) {
		t.Errorf("sha1sum -c: %v\n%s", err, out)
	}
	for _, bad := range []File{{Name: "a", SHA1: "xyz"}, {Name: "../a", SHA1: empty}, {Name: "a\nb", SHA1: empty}} {
		if _, err := Checksum([]File{bad}); err == nil {
			t.Errorf("%+v was listed", bad)
		}
	}
}
