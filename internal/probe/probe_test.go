package probe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"voltar/internal/hostcmd"
)

func prober() *Prober { return New(hostcmd.New(hostcmd.Options{})) }

// shim returns a Prober whose blkid is a shell script.
func shim(t *testing.T, script string) *Prober { return shimOf(t, "blkid", script) }

func shimOf(t *testing.T, name, script string) *Prober {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return New(hostcmd.New(hostcmd.Options{SearchPath: []string{dir, "/usr/bin", "/bin"}}))
}

// patch writes bytes into a file.
func patch(t *testing.T, path string, at int64, b ...byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func newExt(t *testing.T, args ...string) string {
	t.Helper()
	path := blankFile(t, "ext", 8<<20)
	run(t, nil, path, append(append([]string{"mke2fs", "-q", "-F"}, args...), Device))
	return path
}

// Whatever a guest writes into a label comes back byte for byte and cannot forge another value.
func TestProbeHostileLabels(t *testing.T) {
	const uuid = "01234567-89ab-4def-8123-456789abcdef"
	for _, label := range []string{
		"plain", "", "a\nb\nTYPE=swap", "ID_FS_TYPE=swap", "\nID_FS_TYPE=zz\n.", `quote"s 'n'`, `back\slash\x41`, "a=b",
		"\xff\xfe latin \xe9", "caf\xc3\xa9", "$(reboot)`id`", "\x01\x1b[31m", "\\", "\\x", "16 bytes exactly",
	} {
		t.Run(label, func(t *testing.T) {
			path := newExt(t, "-t", "ext4", "-U", uuid)
			raw := make([]byte, 16)
			copy(raw, label)
			patch(t, path, extSuperOffset+0x78, raw...)
			run(t, nil, path, []string{"debugfs", "-w", "-R", "set_super_value mtime now", Device}) // renews the checksum
			got, err := prober().Probe(context.Background(), path, 0, 8<<20)
			if err != nil {
				t.Fatal(err)
			}
			want := Result{Type: "ext4", Version: "1.0", Usage: "filesystem", UUID: uuid, Label: label}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if fs := read(t, path, "ext4"); fs.Label != label {
				t.Errorf("superblock has label %q, want %q", fs.Label, label)
			}
		})
	}
}

func TestProbeLooksAtTheExtentAlone(t *testing.T) {
	inner := newExt(t, "-t", "ext3", "-L", "inside")
	content, err := os.ReadFile(inner)
	if err != nil {
		t.Fatal(err)
	}
	disk := blankFile(t, "disk", 24<<20)
	patch(t, disk, 3<<20, content...)
	for _, c := range []struct {
		name         string
		offset, size int64
		want         string
	}{{"whole disk", 0, 24 << 20, ""}, {"before", 0, 3 << 20, ""}, {"extent", 3 << 20, 8 << 20, "ext3"},
		{"one sector on", 3<<20 + 512, 8 << 20, ""}, {"behind", 11 << 20, 13 << 20, ""}, {"tiny", 0, 512, ""}} {
		t.Run(c.name, func(t *testing.T) {
			got, err := prober().Probe(context.Background(), disk, c.offset, c.size)
			if err != nil || got.Type != c.want || got.Found() != (c.want != "") {
				t.Errorf("%+v, %v; want type %q", got, err, c.want)
			}
		})
	}
}

func TestProbeKnowsWhatIsNoFilesystem(t *testing.T) {
	path := blankFile(t, "disk", 16<<20)
	run(t, nil, path, []string{"mkswap", "-q", "-L", "tmp", Device})
	got, err := prober().Probe(context.Background(), path, 0, 16<<20)
	if err != nil || got.Type != "swap" || got.Usage != "other" || got.Label != "tmp" {
		t.Errorf("swap: %+v, %v", got, err)
	}
	patch(t, path, 510, 0x55, 0xaa)
	patch(t, path, 446+4, 0x83, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0)
	patch(t, path, 4086, make([]byte, 10)...)
	if got, err = prober().Probe(context.Background(), path, 0, 16<<20); err != nil || got.PTType != "dos" || got.Found() {
		t.Errorf("partition table: %+v, %v", got, err)
	}
}

func TestProbeTellsAmbivalence(t *testing.T) {
	path := blankFile(t, "disk", 64<<20)
	run(t, xfsTinyEnv, path, []string{"mkfs.xfs", "-q", "-f", "-d", "agcount=1", Device})
	ext, err := os.ReadFile(newExt(t, "-t", "ext2"))
	if err != nil {
		t.Fatal(err)
	}
	patch(t, path, 1024, ext[1024:2048]...)
	got, err := prober().Probe(context.Background(), path, 0, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Ambivalent || got.Type != "" || !got.Found() || len(got.Candidates) != 2 ||
		!strings.Contains(strings.Join(got.Candidates, " "), "filesystem:xfs") {
		t.Errorf("%+v, want xfs and ext2 as candidates", got)
	}
}

// "Nothing found" and "cannot be read" end in the same status of blkid.
func TestProbeFailures(t *testing.T) {
	file := blankFile(t, "disk", 1<<20)
	for _, c := range []struct {
		name, script, device string
		offset, size         int64
		want                 string
	}{
		{"no such device", "", filepath.Join(t.TempDir(), "missing"), 0, 4096, "no such file"},
		{"says why", `echo "error: broken" >&2; exit 2`, file, 0, 4096, "error: broken"},
		{"silent, but the extent is beyond the end", "exit 2", file, 1<<20 - 512, 4096, "ends before"},
		{"usage", "exit 4", file, 0, 4096, "exit status 4"},
		{"negative offset", "exit 2", file, -1, 4096, "cannot probe"},
		{"empty", "exit 2", file, 0, 0, "cannot probe"},
		{"value twice", "echo ID_FS_TYPE=ext4; echo ID_FS_TYPE=xfs", file, 0, 4096, "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := prober()
			if c.script != "" {
				p = shim(t, c.script)
			}
			got, err := p.Probe(context.Background(), c.device, c.offset, c.size)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.want) {
				t.Errorf("%+v, error %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestXFSProgs(t *testing.T) {
	for text, want := range map[string][2]int{"mkfs.xfs version 6.1.0": {6, 1}, "mkfs.xfs version 5.10.0-rc1": {5, 10}, "no": {}} {
		p := shimOf(t, "mkfs.xfs", "echo '"+text+"'")
		if got, err := p.XFSProgs(context.Background()); got != want || (err == nil) != (want != [2]int{}) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}

func FuzzParseUdev(f *testing.F) {
	f.Add("ID_FS_LABEL_ENC=a\\x0a\\x5c\\x\nID_FS_TYPE=ext4\n")
	f.Add("ID_FS_AMBIVALENT=filesystem:ext4:1.0 other:swap:1\n=\n\\x4\n")
	f.Fuzz(func(t *testing.T, text string) {
		res, err := parseUdev(strings.NewReader(text))
		if err == nil && res.Ambivalent && res.Type != "" {
			t.Errorf("ambivalent and of type %q", res.Type)
		}
	})
}
