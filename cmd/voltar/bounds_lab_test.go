//go:build slow

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// Guests whose filesystems are made to cost more than their size, beside an innocent one: each costs an image of itself, in
// bounded memory and time, and the mail says of whom and why. All can be read again.
func TestLabTenantsThatCostMuch(t *testing.T) {
	lab.VG(t, "vg", 1<<30)
	innocent := lab.LV(t, "vg", "innocent", 64<<20)
	makeExt(t, innocent)
	fillInnocent(t, lab.Mount(t, innocent, "defaults"))
	paths, content, names := newCostly(t, "paths"), newCostly(t, "content"), newCostly(t, "names")
	paths.makePaths(40)
	content.makeContent(4)
	names.makeNames()
	deep := lab.LV(t, "vg", "deep", 96<<20)
	makeExt(t, deep, "-N", "13000")
	nest(t, lab.Mount(t, deep, "defaults"), 12_000)
	shared := lab.LV(t, "vg", "shared", 320<<20)
	lab.Do(t, "mkfs.xfs", "-q", "-m", "reflink=1", shared)
	share(t, lab.Mount(t, shared, "defaults"), 64<<20, 196<<30)

	mail := startMail(t)
	s := newSite(t, "[snapshot]\nsize = \"8MiB\"\nmin_size = \"4MiB\"\n")
	s.append(t, mail.config())
	alone := max(s.timeOf(t, "innocent", "innocent"), s.timeOf(t, "innocent", "innocent"))
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil { // sets the peak back
		t.Fatal(err)
	}
	result := s.runNow(t)
	peak := peakBytes(t)
	t.Logf("%d MiB of memory were needed; the innocent volume took %s alone", peak>>20, alone)
	wantStatus(t, result, "vg/innocent", report.VolumeOK)
	if x := manifest(t, s.backupsOf(t, "vg/innocent")[2]).Extents[0]; x.State != catalog.StateFiles {
		t.Errorf("innocent: %+v", x)
	}
	for name, bound := range map[string]string{
		"paths": "entries", "content": "bytes", "names": "entries", "deep": "bytes in one path", "shared": "bytes",
	} {
		v := wantStatus(t, result, "vg/"+name, report.VolumeOK)
		x := manifest(t, s.backupsOf(t, "vg/"+name)[0]).Extents[0]
		if said := regexp.MustCompile(`^more than [0-9,]+ ` + bound + `: stored as an image$`); x.State != catalog.StateImage || !said.MatchString(x.Reason) {
			t.Errorf("%s: %s, %q", name, x.State, x.Reason)
		}
		if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, x.Reason) {
			t.Errorf("%s: warnings %+v", name, v.Warnings)
		}
		if told := mail.last(); !strings.Contains(told, "vg/"+name) || !strings.Contains(told, x.Reason) {
			t.Errorf("the mail does not say that vg/%s has %s:\n%s", name, x.Reason, told)
		}
	}
	for _, v := range result.Volumes {
		t.Logf("%s took %s: %s", v.Name, v.Ended.Sub(v.Started).Round(time.Second/10), v.Extents[0].Reason)
		if took := v.Ended.Sub(v.Started); v.Name == "vg/innocent" && took > 2*alone {
			t.Errorf("the innocent volume took %s, and %s alone", took, alone)
		}
	}
	if peak > 300<<20 {
		t.Errorf("%d MiB of memory were needed", peak>>20)
	}
	if code, out, errs := voltar(t, "verify", "--all", "--full", "--config", s.config); code != 0 {
		t.Errorf("verify: %d\n%s\n%s", code, out, errs)
	}
}

// runNow is run by the machine's own clock.
func (s site) runNow(t *testing.T, args ...string) report.Run {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(strings.NewReader(""), &out, &errs, time.Now)
	code := a.execute(context.WithoutCancel(t.Context()), append([]string{"voltar", "run", "--json", "--config", s.config}, args...))
	return parseRun(t, code, 0, out.Bytes(), errs.String())
}

// timeOf is how long one volume took in a run of some.
func (s site) timeOf(t *testing.T, volume string, args ...string) time.Duration {
	t.Helper()
	v := wantStatus(t, s.runNow(t, args...), "vg/"+volume, report.VolumeOK)
	return v.Ended.Sub(v.Started)
}

// fillInnocent makes what a guest may have: some thousand files, a fifth of them large.
func fillInnocent(t *testing.T, dir string) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	for i := range 2000 {
		data := make([]byte, 4096<<(i%5))
		_, _ = random.Read(data[:len(data)/2])
		folder := filepath.Join(dir, strconv.Itoa(i/100))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(folder, strconv.Itoa(i)), data[:len(data)/2])
	}
}

// share makes copies of a file that have their data in the very same place, of so many bytes in all.
func share(t *testing.T, dir string, fileBytes, allBytes int) {
	t.Helper()
	first := filepath.Join(dir, "f")
	writeFile(t, first, bytes.Repeat([]byte("some data of a guest"), fileBytes/20))
	source, err := os.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	for i := range allBytes / fileBytes {
		file, err := os.Create(first + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.IoctlFileClone(int(file.Fd()), int(source.Fd())), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// peakBytes is the most memory that this process has had.
func peakBytes(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no peak in %s", status)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// nest makes folders with the longest names in one another.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range depth {
		if err == nil {
			err = unix.Mkdirat(at, strings.Repeat("n", 255), 0o755)
		}
		var next int
		if err == nil {
			next, err = unix.Openat(at, strings.Repeat("n", 255), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(at); err != nil {
			t.Fatal(err)
		}
		at = next
	}
	if err := unix.Close(at); err != nil {
		t.Fatal(err)
	}
}

// costly is a volume with an ext4 of 16 MiB that no kernel would write.
type costly struct {
	t      *testing.T
	device string
}

const costlyBytes, costlyBlock = 16 << 20, 4096

func newCostly(t *testing.T, name string) costly {
	t.Helper()
	c := costly{t, lab.LV(t, "vg", name, costlyBytes)}
	lab.Do(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", fmt.Sprint(costlyBlock), "-O",
		"^metadata_csum,^64bit,^has_journal,^extent,^dir_index,^flex_bg,^resize_inode,^uninit_bg", c.device)
	return c
}

// debug runs commands of debugfs.
func (c costly) debug(commands ...string) string {
	c.t.Helper()
	script := filepath.Join(c.t.TempDir(), "commands")
	writeFile(c.t, script, []byte(strings.Join(commands, "\n")+"\n"))
	return lab.Do(c.t, "debugfs", "-w", "-f", script, c.device)
}

// number finds a number in the output of a command of debugfs.
func (c costly) number(pattern, command string) int64 {
	c.t.Helper()
	out := c.debug(command)
	found := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if found == nil {
		c.t.Fatalf("%s: %s", command, out)
	}
	n, err := strconv.ParseInt(found[1], 0, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c costly) inode(path string) int64 { return c.number(`Inode: (\d+)`, "stat "+path) }

// makePaths makes folders, each with two names for the next one: 2^levels paths.
func (c costly) makePaths(levels int) {
	c.t.Helper()
	var makeAll, linkAll, path string
	for range levels {
		path += "/a"
		makeAll += "mkdir " + path + "\n"
	}
	c.debug(makeAll)
	path = ""
	for range levels {
		linkAll += fmt.Sprintf("ln <%d> %s/b\n", c.inode(path+"/a"), path)
		path += "/a"
	}
	c.debug(linkAll)
}

// makeContent makes files of 4 TiB, all of whose data are in the same few blocks.
func (c costly) makeContent(files int) {
	c.t.Helper()
	seed := filepath.Join(c.t.TempDir(), "seed")
	writeFile(c.t, seed, []byte("x"))
	for i := range files {
		c.debug(fmt.Sprintf("write %s f%d", seed, i))
	}
	data := strings.Repeat("some data of a guest", costlyBlock/20+1)[:costlyBlock]
	for i := range files {
		c.repeat(fmt.Sprintf("/f%d", i), []byte(data), 4402345721856)
	}
}

// makeNames makes a folder of 178 million names, all of them in the same block.
func (c costly) makeNames() {
	c.t.Helper()
	seed := filepath.Join(c.t.TempDir(), "seed")
	writeFile(c.t, seed, []byte("x"))
	c.debug("write "+seed+" f", "mkdir /many")
	const recordBytes = 12
	file := c.inode("/f")
	block := make([]byte, 0, costlyBlock)
	for i := range costlyBlock / recordBytes {
		length := recordBytes
		if i == costlyBlock/recordBytes-1 {
			length = costlyBlock - len(block)
		}
		name := fmt.Sprintf("%04d", i)
		block = binary.LittleEndian.AppendUint32(block, uint32(file))
		block = binary.LittleEndian.AppendUint16(block, uint16(length))
		block = append(append(block, byte(len(name)), 1), name...)
		block = append(block, make([]byte, length-recordBytes)...)
	}
	c.repeat("/many", block, 1<<31-costlyBlock)
}

// repeat lets a file consist of one block, again and again, by indirect blocks that name each other again and again.
func (c costly) repeat(path string, block []byte, sizeBytes int64) {
	c.t.Helper()
	const data = costlyBytes/costlyBlock - 8
	const single, double, triple = data + 1, data + 2, data + 3
	inode := c.inode(path)
	at := c.number(`located at block (\d+),`, fmt.Sprintf("imap <%d>", inode))*costlyBlock +
		c.number(`offset (0x[0-9a-f]+)`, fmt.Sprintf("imap <%d>", inode))
	device, err := os.OpenFile(c.device, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer device.Close()
	write := func(p []byte, offset int64) {
		if _, err := device.WriteAt(p, offset); err != nil {
			c.t.Fatal(err)
		}
	}
	pointers := func(to uint32, n int) (p []byte) {
		for range n {
			p = binary.LittleEndian.AppendUint32(p, to)
		}
		return p
	}
	write(block, data*costlyBlock)
	write(pointers(data, costlyBlock/4), single*costlyBlock)
	write(pointers(single, costlyBlock/4), double*costlyBlock)
	write(pointers(double, costlyBlock/4), triple*costlyBlock)
	raw := make([]byte, 128)
	if _, err := device.ReadAt(raw, at); err != nil {
		c.t.Fatal(err)
	}
	le := binary.LittleEndian
	le.PutUint32(raw[4:], uint32(sizeBytes))
	le.PutUint32(raw[108:], uint32(sizeBytes>>32))
	le.PutUint32(raw[28:], uint32(min(sizeBytes/512, 1<<32-1)))
	first := le.Uint32(raw[40:])
	copy(raw[40:], pointers(data, 12))
	if sizeBytes < 1<<31 { // a folder begins with itself and its parent
		le.PutUint32(raw[40:], first)
	}
	le.PutUint32(raw[88:], single)
	le.PutUint32(raw[92:], double)
	le.PutUint32(raw[96:], triple)
	write(raw, at)
}
