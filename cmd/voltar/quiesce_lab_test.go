package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/backup"
	"voltar/internal/hostcmd"
	"voltar/internal/lab"
	"voltar/internal/quiesce"
)

// ledgerFile is a file of one block that is written past the page cache, so that what a snapshot's device holds is what
// was written when it was made.
type ledgerFile struct {
	file   *os.File
	offset int64 // of the block on the device
	block  []byte
}

const ledgerBlock = 4096

// newLedger makes the file on a mounted ext4 of 4 KiB blocks and finds where it lies.
func newLedger(t *testing.T, dir, device string) *ledgerFile {
	t.Helper()
	block, err := unix.Mmap(-1, 0, ledgerBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "counter"), os.O_CREATE|os.O_RDWR|unix.O_DIRECT|unix.O_SYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	l := &ledgerFile{file: file, block: block}
	if err := l.write(0); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "sync")
	text := strings.Fields(lab.Do(t, "debugfs", "-R", "blocks /counter", device))
	if len(text) == 0 {
		t.Fatal("debugfs names no block")
	}
	number, err := strconv.ParseInt(text[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	l.offset = number * ledgerBlock
	return l
}

func (l *ledgerFile) write(n uint64) error {
	binary.LittleEndian.PutUint64(l.block, n)
	_, err := l.file.WriteAt(l.block, 0)
	return err
}

// on reads the counter from a snapshot's device.
func (l *ledgerFile) on(t *testing.T, device string) int64 {
	t.Helper()
	file, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var word [8]byte
	if _, err := file.ReadAt(word[:], l.offset); err != nil {
		t.Fatal(err)
	}
	return int64(binary.LittleEndian.Uint64(word[:]))
}

// lockstep writes a counter to A and then to B, for ever.
type lockstep struct {
	a, b    *ledgerFile
	written atomic.Uint64
	end     chan struct{}
	ended   chan error
}

func startLockstep(t *testing.T, a, b *ledgerFile) *lockstep {
	l := &lockstep{a: a, b: b, end: make(chan struct{}), ended: make(chan error, 1)}
	go func() {
		for n := uint64(1); ; n++ {
			select {
			case <-l.end:
				l.ended <- nil
				return
			default:
			}
			for _, to := range []*ledgerFile{a, b} {
				if err := to.write(n); err != nil {
					l.ended <- err
					return
				}
			}
			l.written.Store(n)
			time.Sleep(2 * time.Millisecond) // the machine has one processor
		}
	}()
	t.Cleanup(func() {
		close(l.end)
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// goesOn waits until the writer has written more, which it cannot while anything is frozen.
func (l *lockstep) goesOn(t *testing.T) {
	t.Helper()
	began := l.written.Load()
	waitFor(t, "the writers to go on", func() bool { return l.written.Load() > began+1 })
}

// waitFor polls with a limit that only a hang reaches.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(lab.Patience(5 * time.Minute)); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// kept runs `voltar snapshot create` and returns what it made, by volume.
func (s site) kept(t *testing.T, args ...string) map[string]backup.Kept {
	t.Helper()
	code, out, errs := voltar(t, append([]string{"snapshot", "create", "--json", "--config", s.config, "--size", "16MiB"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, errs, out)
	}
	var list []backup.Kept
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	made := map[string]backup.Kept{}
	for _, k := range list {
		made[k.Volume] = k
	}
	return made
}

func (s site) removeKept(t *testing.T, name string) {
	t.Helper()
	if code, out, errs := voltar(t, "snapshot", "remove", "--config", s.config, name); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, errs, out)
	}
}

// rounds is how often it is looked whether snapshots are of one moment.
func rounds() int {
	if lab.Slow {
		return 50
	}
	return 6
}

// pair is two volumes in two volume groups with a mounted filesystem each and a writer on them.
type pair struct {
	a, b   *ledgerFile
	writer *lockstep
	dirs   []string
}

func newPair(t *testing.T) pair {
	t.Helper()
	var p pair
	var ledgers []*ledgerFile
	for _, vg := range []string{"vga", "vgb"} {
		lab.VG(t, vg, 200<<20)
		device := lab.LV(t, vg, "data", 48<<20)
		lab.Do(t, "mkfs.ext4", "-q", "-b", "4096", device)
		dir := lab.Mount(t, device, "defaults")
		p.dirs = append(p.dirs, dir)
		ledgers = append(ledgers, newLedger(t, dir, device))
	}
	p.a, p.b = ledgers[0], ledgers[1]
	p.writer = startLockstep(t, p.a, p.b)
	return p
}

func TestLabGroupIsOfOneMoment(t *testing.T) {
	p := newPair(t)
	quiet := newSite(t, `
[[guest]]
name = "here"
method = "local"
mountpoints = ["`+p.dirs[0]+`", "`+p.dirs[1]+`"]
on_failure = "fail"
[[group]]
name = "db"
volumes = ["*/data"]
freeze = ["here"]
`)
	made := quiet.kept(t, "--name", "q")
	if !strings.Contains(made["vga/data"].Quiesce, "frozen") {
		t.Errorf("made as %q", made["vga/data"].Quiesce)
	}
	if lead := p.a.on(t, made["vga/data"].Device) - p.b.on(t, made["vgb/data"].Device); lead != 0 && lead != 1 {
		t.Errorf("snapshots of the program: A is %d ahead of B", lead)
	}
	quiet.removeKept(t, "q")
	p.writer.goesOn(t)

	// Whole backups: what the archives have.
	for round := 0; round < 2+rounds()/10; round++ {
		quiet.run(t, 0)
		a, b := lastCounter(t, quiet.backupsOf(t, "vga/data")), lastCounter(t, quiet.backupsOf(t, "vgb/data"))
		if a < 1 || a-b != 0 && a-b != 1 {
			t.Errorf("backup %d: A has %d, and B %d", round, a, b)
		}
		p.writer.goesOn(t)
	}

	// More rounds, with the few commands that matter.
	quieter := quiesce.New(hostcmd.New(hostcmd.Options{}), quiesce.Options{})
	here := quiesce.Freeze{Name: "here", Method: quiesce.MethodSuspend, Devices: []string{"vga-data", "vgb-data"}}
	if quiesce.CanNest() {
		here = quiesce.Freeze{Name: "here", Method: quiesce.MethodLocal, Mountpoints: p.dirs}
	}
	for round := range rounds() {
		session, err := quieter.Arm(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.snapshots(t, "vga", "vgb")
		if _, err := session.Thaw(t.Context()); err != nil {
			t.Error(err)
		}
		if err := session.Close(); err != nil {
			t.Error(err)
		}
		if lead := p.lead(t); lead != 0 && lead != 1 {
			t.Errorf("round %d: A is %d ahead of B", round, lead)
		}
		p.writer.goesOn(t)
	}

	// The test must be able to fail: without quiescing, the same writer is caught between two snapshots, whichever of them
	// comes first.
	for _, order := range [][]string{{"vga", "vgb"}, {"vgb", "vga"}} {
		for round := 1; ; round++ {
			p.snapshots(t, order...)
			if lead := p.lead(t); lead != 0 && lead != 1 {
				break
			}
			if round == 10 {
				t.Fatalf("without quiescing, no round caught the volumes %q apart: this test proves nothing", order)
			}
		}
	}
}

// lastCounter reads the counter from the newest of some backups.
func lastCounter(t *testing.T, folders []string) int64 {
	t.Helper()
	if len(folders) == 0 {
		t.Fatal("there is no backup")
	}
	text := lab.Do(t, "sh", "-c", "tar -xzOf "+folders[len(folders)-1]+"/data.tar.gz counter | od -A n -t u8 -N 8")
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// snapshots makes snapshots of the volumes, one after the other.
func (p pair) snapshots(t *testing.T, order ...string) {
	t.Helper()
	for _, vg := range order {
		lab.Do(t, "lvcreate", "--yes", "--snapshot", "--ignoremonitoring", "--size", "8m", "--name", "s", vg+"/data")
	}
}

// lead is how far A is ahead of B in the snapshots, which it removes.
func (p pair) lead(t *testing.T) int64 {
	t.Helper()
	defer lab.Do(t, "lvremove", "--force", "--yes", "vga/s", "vgb/s")
	return p.a.on(t, "/dev/vga/s") - p.b.on(t, "/dev/vgb/s")
}
