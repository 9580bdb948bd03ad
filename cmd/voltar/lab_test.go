package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/browse/browsetest"
	"voltar/internal/lab"
	"voltar/internal/mount"
	"voltar/internal/quiesce"
	"voltar/report"
)

func TestMain(m *testing.M) {
	unix.Umask(0o022) // a configuration that a group may write to is refused
	if status, handled := mount.RunChild(os.Args); handled {
		os.Exit(status)
	}
	if status, handled := quiesce.RunChild(os.Args); handled {
		os.Exit(status)
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(lab.Main(m, lab.Options{
		MemoryBytes: 3 << 30,
		Machines:    2,
		Modules:     []string{"fuse"},
		Layers: func(ctx context.Context) ([]string, error) {
			packages := []string{"openssh-server", "age", "mariadb-client", "postgresql", "rsync"}
			if lab.Slow {
				packages = append(packages, "mariadb-server-core", "mdadm", "7zip", "python3", "qemu-guest-agent")
				packages = append(packages, lab.LibvirtDebs...)
			}
			return lab.Debs(ctx, packages...)
		},
	}))
}

// voltar runs the program in this process and returns its exit code and output. Backups that tests made of set times are
// of the past, whatever this machine's clock shows.
func voltar(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	now := time.Now()
	if latest := browsetest.Night.AddDate(0, 0, 10); now.Before(latest) {
		now = latest
	}
	return voltarAt(t, now, args...)
}

// site is a host with a configuration, state and a backup folder of its own.
type site struct{ dir, config, backups string }

func newSite(t *testing.T, more string) site {
	t.Helper()
	s := site{dir: t.TempDir()}
	s.config, s.backups = filepath.Join(s.dir, "voltar.toml"), filepath.Join(s.dir, "backups")
	text := `host = "volume-host"
state_dir = "` + filepath.Join(s.dir, "state") + `"
run_dir = "` + filepath.Join(s.dir, "run") + `"
[[destination]]
name = "disk"
type = "disk"
path = "` + s.backups + `"
require_mount = "none"
` + more
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// run backs up and returns the report, which must end with the code given.
func (s site) run(t *testing.T, wantCode int, args ...string) report.Run {
	t.Helper()
	code, out, errs := voltar(t, append([]string{"run", "--json", "--config", s.config}, args...)...)
	if code != wantCode {
		t.Fatalf("exit code %d, want %d\n%s\n%s", code, wantCode, errs, out)
	}
	var result report.Run
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("%v in %q\n%s", err, out, errs)
	}
	return result
}

func TestLabOneVolumeOnItsWay(t *testing.T) {
	lab.VG(t, "vg", 400<<20)
	device := lab.LV(t, "vg", "volume-00000001", 128<<20)
	lab.Do(t, "mkfs.ext4", "-q", device)
	dir := lab.Mount(t, device, "defaults")
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("world"), 0o640); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "")
	result := s.run(t, 0)
	if len(result.Volumes) != 1 || result.Volumes[0].Status != report.VolumeOK {
		t.Fatalf("%+v", result)
	}
	found, err := filepath.Glob(s.backups + "/volume-host/vg/volume-00000001/*/*")
	if err != nil || len(found) < 5 {
		t.Fatalf("%v %v", found, err)
	}
	folder := filepath.Dir(found[0])
	t.Log(strings.Join(found, "\n"))
	t.Log(lab.Do(t, "sh", "-c", "cd "+folder+" && sha1sum -c *.checksum && tar -tvzf *.tar.gz && cat RESTORE.txt manifest.json"))
	t.Log(report.Text(result, report.Options{}))
}
