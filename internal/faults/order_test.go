package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// The log of the device-mapper's log-writes target (drivers/md/dm-log-writes.c): a superblock, then for each write an
// entry of a sector, followed by the data. Numbers are little-endian.
const (
	logMagic   = 0x6a736677736872
	logFlush   = 1 << 0 // all that was written before has reached the disk
	logFUA     = 1 << 1 // and so has this
	logDiscard = 1 << 2 // without data
)

// logEntry is one write.
type logEntry struct {
	sector, sectors, flags uint64
	dataAt                 int64 // in the log, bytes
}

// readLog reads all entries of a log, and the size of its sectors.
func readLog(log io.ReaderAt) (entries []logEntry, sectorBytes int64, err error) {
	super := make([]byte, 28)
	if _, err := log.ReadAt(super, 0); err != nil {
		return nil, 0, err
	}
	if magic := binary.LittleEndian.Uint64(super); magic != logMagic {
		return nil, 0, fmt.Errorf("the log begins with %x", magic)
	}
	sectorBytes = int64(binary.LittleEndian.Uint32(super[24:]))
	at := sectorBytes
	for range binary.LittleEndian.Uint64(super[16:]) {
		head := make([]byte, 32)
		if _, err := log.ReadAt(head, at); err != nil {
			return nil, 0, err
		}
		e := logEntry{
			sector: binary.LittleEndian.Uint64(head), sectors: binary.LittleEndian.Uint64(head[8:]),
			flags: binary.LittleEndian.Uint64(head[16:]), dataAt: at + sectorBytes,
		}
		at = e.dataAt
		if e.flags&logDiscard == 0 {
			at += int64(e.sectors) * sectorBytes
		}
		entries = append(entries, e)
	}
	return entries, sectorBytes, nil
}

// replayDiskBytes is the disk with the destination and the state, all of which a replay writes anew; XFS is not made smaller.
const replayDiskBytes = 320 << 20

// TestLabWriteOrder records every write of a run to the disk with its destination and its state, together with what was
// flushed when, and plays them up to moments at which the power could have failed: up to a flush, so that nothing is there
// that the program had not waited for. Each time the filesystem is mounted, and what stands there must be whole.
func TestLabWriteOrder(t *testing.T) {
	s := readSettings(t)
	if s.Part > 0 {
		return // it is one case, which the first part tries
	}
	filesystems := []string{"xfs"} // on which the later runs share blocks with the earlier ones
	if s.Full {
		filesystems = append(filesystems, "ext4")
	}
	for _, filesystem := range filesystems {
		t.Run(filesystem, func(t *testing.T) { tryWriteOrder(t, s, filesystem) })
	}
}

func tryWriteOrder(t *testing.T, s settings, filesystem string) {
	lab.VG(t, "vg", 160<<20)
	disk, log := lab.Disk(t, replayDiskBytes), lab.Disk(t, 512<<20)
	dir := t.TempDir()
	h := newHost(t, dir)
	h.fill(t)
	lab.Do(t, "mkfs."+filesystem, "-q", disk)
	played := filepath.Join(dir, "played") // what was written before is not recorded
	lab.Do(t, "dd", "if="+disk, "of="+played, "bs=1M", "conv=sparse", "iflag=direct", "status=none")
	lab.Do(t, "dmsetup", "create", "recorded", "--table", fmt.Sprintf("0 %d log-writes %s %s", replayDiskBytes/512, disk, log))
	for _, folder := range []string{h.backups, h.state} {
		lab.Do(t, "rm", "-rf", folder)
	}
	mounted := filepath.Join(dir, "recorded")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "mount", "/dev/mapper/recorded", mounted)
	h.backups, h.state = mounted+"/backups", mounted+"/state"
	if err := os.MkdirAll(h.backups, 0o700); err != nil {
		t.Fatal(err)
	}
	h.write(t, h.config, h.configuration("keep_last = 2"))
	for range 3 { // the third prunes what the first has made, and the second shares with it
		if out := h.run(t, "", nil, h.args(stepRun)...); out.code != 0 {
			t.Fatalf("exit code %d\n%s", out.code, out.text())
		}
	}
	if shared := lab.Do(t, "sh", "-c", "filefrag -v "+h.backups+"/volume-host/vg/*/*/*.tar.gz"); strings.Contains(shared, "shared") != (filesystem == "xfs") {
		t.Errorf("what the backups share on %s: %s", filesystem, shared)
	}
	lab.Do(t, "umount", mounted)
	lab.Do(t, "dmsetup", "remove", "--retry", "recorded")

	recorded, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer recorded.Close()
	entries, sectorBytes, err := readLog(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var moments []int
	for i, e := range entries {
		if e.flags&(logFlush|logFUA) != 0 {
			moments = append(moments, i)
		}
	}
	if len(moments) < 20 {
		t.Fatalf("%d writes with %d flushes: the disk was not what the run wrote to", len(entries), len(moments))
	}
	t.Logf("%d writes, %d flushes", len(entries), len(moments))
	if !s.Full { // some of them, and the last
		random := rand.New(rand.NewPCG(s.Seed, 3))
		random.Shuffle(len(moments), func(i, j int) { moments[i], moments[j] = moments[j], moments[i] })
		moments = moments[:4]
		slices.Sort(moments)
	}
	h.replay(t, s, filesystem, played, recorded, entries, sectorBytes, moments)
}

// replay plays the writes into an image, up to each moment, and looks at what is there then.
func (h *host) replay(
	t *testing.T, s settings, filesystem, played string, log io.ReaderAt, entries []logEntry, sectorBytes int64, moments []int,
) {
	t.Helper()
	image, err := os.OpenFile(played, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	next, most := 0, 0
	for _, moment := range moments {
		for ; next <= moment; next++ {
			if err := entries[next].play(image, log, sectorBytes); err != nil {
				t.Fatal(err)
			}
		}
		v := verdict{ID: fmt.Sprintf("write/%s/%d", filesystem, moment+1), Class: "power cut in the order of writes", Step: stepRun, Struck: true, Code: -1}
		stand, err := h.checkReplayed(t, played)
		if err != nil {
			v.Wrong = append(v.Wrong, err.Error())
			t.Errorf("after write %d of %d: %v", moment+1, len(entries), err)
		}
		if stand < most-2 { // pruning takes one of each of the two volumes, once its successor stands
			t.Errorf("after write %d of %d: %d backups stand where %d stood before", moment+1, len(entries), stand, most)
		}
		most = max(most, stand)
		s.keep(t, "writes", v)
	}
	t.Logf("%d moments, at most %d backups stood at one of them", len(moments), most)
}

func (e logEntry) play(image io.WriterAt, log io.ReaderAt, sectorBytes int64) error {
	data := make([]byte, int64(e.sectors)*sectorBytes)
	if e.flags&logDiscard == 0 {
		if _, err := log.ReadAt(data, e.dataAt); err != nil {
			return err
		}
	}
	_, err := image.WriteAt(data, int64(e.sector)*sectorBytes)
	return err
}

// checkReplayed mounts a copy of a disk, and returns how many backups stand on it and what is wrong with them.
func (h *host) checkReplayed(t *testing.T, played string) (stand int, err error) {
	t.Helper()
	disk := played + ".copy"
	lab.Do(t, "cp", "--sparse=always", played, disk) // mounting writes to it
	out := lab.Do(t, "sh", "-c", "mount -o loop "+disk+" /mnt 2>&1 || echo unmountable")
	if out != "" {
		return 0, errors.New("the filesystem cannot be mounted: " + out)
	}
	defer lab.Do(t, "umount", "/mnt")
	folders, err := filepath.Glob("/mnt/backups/volume-host/vg/*/*")
	if err != nil {
		return 0, err
	}
	for _, folder := range folders {
		if _, err := os.Stat(folder + "/manifest.json"); err != nil {
			continue // unfinished, and never listed
		}
		stand++
		if err := h.verify(folder, false); err != nil {
			return stand, err
		}
	}
	return stand, nil
}
