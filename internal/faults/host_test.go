package faults

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/lab"
)

// dataBytes is how much each volume of the host holds.
const dataBytes = 2 << 20

// programLimit ends a program that hangs, which no fault excuses. The longest limit of a command is three minutes, and
// more than one may have to run out.
const programLimit = 12 * time.Minute

// mark in the environment of the program tells the wrappers of commands that it is to be tried, and the host's state
// which processes are the program's.
const mark = "FAULT_PLAN="

// host is a machine with a classic, partitioned volume and a thin one, two backups of each, and a configuration.
type host struct {
	dir, config, backups, state string
	pristine                    string            // a copy of the backups as they were before any fault
	before                      string            // what stood on the host then
	earlier                     map[string]string // sum of each file of the backups, by its path
	data                        string            // sum of the file that each volume holds
	runCalls                    []string          // the commands that a run calls when nothing goes wrong
}

// newHost makes the host. Its disk is what makeDisk returns.
func newHost(t *testing.T, base string) *host {
	t.Helper()
	h := &host{dir: base}
	h.config, h.backups, h.state = base+"/voltar.toml", base+"/backups", base+"/state"
	h.pristine = t.TempDir()
	if err := os.MkdirAll(h.backups, 0o700); err != nil {
		t.Fatal(err)
	}
	h.write(t, h.config, h.configuration("keep_last = 50"))
	h.write(t, h.pruneConfig(), h.configuration("keep_last = 1"))
	return h
}

func (h *host) pruneConfig() string { return h.config + ".prune" }

func (h *host) configuration(retention string) string {
	return fmt.Sprintf(`host = "volume-host"
state_dir = %q
run_dir = "/run/voltar"
parallel = 1
[[destination]]
name = "disk"
type = "disk"
path = %q
require_mount = "none"
[snapshot]
min_size = "8MiB"
poll_interval = "1h" # the same commands in the same order each time
[retention]
%s
`, h.state, h.backups, retention)
}

func (h *host) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fill makes the volumes in the group vg and what is in them.
func (h *host) fill(t *testing.T) {
	t.Helper()
	data := make([]byte, dataBytes)
	_, _ = rand.Read(data)
	sum := sha256.Sum256(data)
	h.data = hex.EncodeToString(sum[:])
	h.write(t, h.dir+"/data", string(data))
	classic := lab.LV(t, "vg", "classic", 24<<20)
	lab.Do(t, "sh", "-c", "echo 'label: gpt\nsize=20M' | sfdisk -q "+classic)
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "32M", "--name", "pool", "vg")
	lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "16M", "--name", "thin", "vg/pool")
	lab.Do(t, "kpartx", "-a", "-s", classic)
	for _, device := range []string{"/dev/mapper/vg-classic1", "/dev/vg/thin"} {
		lab.Do(t, "mkfs.ext4", "-q", "-b", "4096", device)
		lab.Do(t, "mount", device, "/mnt")
		lab.Do(t, "cp", h.dir+"/data", "/mnt/data")
		lab.Do(t, "umount", "/mnt")
	}
	lab.Do(t, "kpartx", "-d", "-s", classic)
}

// remember takes the host as it is now for what it has to be after each fault.
func (h *host) remember(t *testing.T) {
	t.Helper()
	h.before = stateOf(t)
	h.earlier = sumsBelow(t, h.backups)
	lab.Do(t, "rm", "-rf", h.pristine)
	lab.Do(t, "cp", "-a", h.backups, h.pristine)
}

// reset brings the backups back to what was remembered, and removes journals that one case has left for the next.
func (h *host) reset(t *testing.T) {
	t.Helper()
	lab.Do(t, "sh", "-c", "rm -rf "+h.backups+"/* "+h.state+"/journal && cp -a "+h.pristine+"/. "+h.backups)
}

// outcome is how the program ended.
type outcome struct {
	code           int // -1 for one that a signal ended
	stdout, stderr string
	hung           bool // it had to be killed after programLimit
	took           time.Duration
}

func (o outcome) text() string { return o.stderr + o.stdout }

// start starts the program in the environment of a fault, under another one such as strace where that is given.
func (h *host) start(faultsDir string, under []string, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer, error) {
	argv := append(slices.Clone(under), program)
	argv = append(argv, args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), mark+faultsDir)
	cmd.WaitDelay = 10 * time.Second // what it started may hold its output
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr, cmd.Start()
}

// run runs the program to its end.
func (h *host) run(t *testing.T, faultsDir string, under []string, args ...string) outcome {
	t.Helper()
	began := time.Now()
	cmd, stdout, stderr, err := h.start(faultsDir, under, args...)
	if err != nil {
		t.Fatal(err)
	}
	hung := false
	timer := time.AfterFunc(programLimit, func() { hung = true; _ = cmd.Process.Kill() })
	err = cmd.Wait()
	timer.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return outcome{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), hung: hung,
		took: time.Since(began)}
}

// stateOf is what a run must leave as it was: volumes, device-mapper devices with their open counts and whether they are
// suspended, loop devices, and nothing of the program's among mounts and processes.
func stateOf(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	all.WriteString(lab.Do(t, "lvs", "--all", "--noheadings", "-o", "lv_full_name,lv_attr,lv_tags"))
	all.WriteString(lab.Do(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,open,suspended", "--sort", "name"))
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, loop := range loops {
		if file, err := os.ReadFile(loop); err == nil && !bytes.Contains(file, []byte("/disk.img")) { // not the test's own
			fmt.Fprintf(&all, "loop device over %s", file)
		}
	}
	for _, process := range processes {
		environment, _ := os.ReadFile(process + "/environ") // of one that has ended meanwhile there is none
		if bytes.Contains(environment, []byte(mark)) {
			command, _ := os.ReadFile(process + "/cmdline")
			fmt.Fprintf(&all, "process %s %q\n", filepath.Base(process), command)
		}
		mounts, _ := os.ReadFile(process + "/mountinfo")
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, "-voltar-") || strings.Contains(line, "voltar--") { // of snapshots and maps
				fmt.Fprintf(&all, "mount of process %s: %s", filepath.Base(process), line)
			}
		}
	}
	return all.String()
}

// sumsBelow returns the sum of each file in a folder, by its path.
func sumsBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		sums[strings.TrimPrefix(path, dir+"/")] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// listed is one line of voltar list.
type listed struct {
	Backup, Path, Status string
}

// list returns the backups that the program lists.
func (h *host) list(t *testing.T) ([]listed, error) {
	t.Helper()
	out := h.run(t, "", nil, "list", "--json", "--config", h.config)
	var list []listed
	err := json.Unmarshal([]byte(out.stdout), &list)
	if err != nil || out.code != 0 {
		return nil, fmt.Errorf("voltar list: exit code %d: %w\n%s", out.code, err, out.stderr)
	}
	return list, nil
}

// verify holds a backup against its checksums, and, where that is known, its archive against the data of the volume,
// without the program.
func (h *host) verify(folder string, anyData bool) error {
	lists, err := filepath.Glob(folder + "/*.checksum")
	if err != nil || len(lists) != 1 {
		return fmt.Errorf("%s has %d lists of checksums (%w)", folder, len(lists), err)
	}
	text, err := os.ReadFile(lists[0])
	if err != nil {
		return err
	}
	var archives, images [][]byte
	for line := range strings.Lines(string(text)) {
		want, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(folder, name))
		if sum := sha1.Sum(data); !ok || err != nil || hex.EncodeToString(sum[:]) != want {
			return fmt.Errorf("%s/%s is not what its checksum says (%w)", folder, name, err)
		}
		switch {
		case strings.HasSuffix(name, ".tar.gz"):
			archives = append(archives, data)
		case strings.HasSuffix(name, ".gz") && !strings.HasSuffix(name, ".index.gz"):
			images = append(images, data)
		}
	}
	if anyData && len(archives)+len(images) > 0 {
		return nil
	}
	if len(archives) == 1 {
		return h.verifyArchive(archives[0])
	}
	var errs []error // what could not be looked at when it was backed up is stored as an image
	for _, image := range images {
		err := h.verifyImage(image)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("nothing in %s holds the data of the volume: %w", folder, errors.Join(errs...))
}

// verifyImage looks into the filesystem of an image.
func (h *host) verifyImage(data []byte) (err error) {
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, plain)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	out, err := exec.Command("sh", "-c", `mkdir $1/look && mount -o loop $1/image $1/look && sha256sum $1/look/data; umount $1/look`, "sh", dir).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), h.data) {
		return fmt.Errorf("it holds no filesystem with the file data: %w: %s", err, out)
	}
	return nil
}

func (h *host) verifyArchive(data []byte) error {
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if err != nil {
			return fmt.Errorf("it has no file data: %w", err)
		}
		if strings.TrimPrefix(header.Name, "./") != "data" {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, archive); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != h.data {
			return errors.New("the file data is not that of the volume")
		}
		_, err = io.Copy(io.Discard, plain)
		return err
	}
}

// harmed names the earlier backups that are not as they were. Where some may go, whole ones that went are not among them.
func (h *host) harmed(t *testing.T, mayGo func(folder string) bool) []string {
	t.Helper()
	now := sumsBelow(t, h.backups)
	var harm []string
	for _, path := range slices.Sorted(maps.Keys(h.earlier)) {
		folder := filepath.Dir(path)
		_, stands := now[folder+"/manifest.json"]
		if now[path] != h.earlier[path] && (stands || mayGo == nil || !mayGo(folder)) {
			harm = append(harm, path)
		}
	}
	return harm
}

// unfinished names what is in the destination that belongs to no backup.
func (h *host) unfinished(t *testing.T) []string {
	t.Helper()
	now := sumsBelow(t, h.backups)
	var left []string
	for _, path := range slices.Sorted(maps.Keys(now)) {
		_, finished := now[filepath.Dir(path)+"/manifest.json"]
		if strings.HasPrefix(filepath.Base(path), ".") || !finished && filepath.Base(path) != "voltar.json" {
			left = append(left, path)
		}
	}
	return left
}

// kill ends a program outright, and returns when it is gone.
func kill(cmd *exec.Cmd) error {
	err := cmd.Process.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_ = cmd.Wait() // says that it was killed
	return err
}
