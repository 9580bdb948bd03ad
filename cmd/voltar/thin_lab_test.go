//go:build slow

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/journal"
	"voltar/internal/lab"
	"voltar/report"
)

// The image of a thin volume reads what its pool has allocated and no more, and nothing of that stays behind.
func TestLabThinImageReadsOnlyWhatIsAllocated(t *testing.T) {
	lab.VG(t, "thin", 200<<20)
	shell(t, `lvcreate -y -q --type thin-pool -L 96M -c 64k -n pool thin
		lvcreate -y -q -V 40G -T thin/pool -n empty
		lvcreate -y -q -V 640M -T thin/pool -n random
		lvcreate -y -q -V 64M -T thin/pool -n held
		for at in 0 3 200 201 639; do dd if=/dev/urandom of=/dev/thin/random bs=1M count=1 seek=$at conv=fsync status=none; done`)
	s := newSite(t, "")
	result := s.run(t, 0, "thin/empty", "thin/random")

	if empty := volumeResult(t, result, "thin/empty"); empty.ReadBytes != 0 || empty.Ledger.ImageBytes != 40<<30 ||
		empty.StoredBytes > 50<<20 {
		t.Errorf("empty: %d bytes read, %d stored, ledger %+v", empty.ReadBytes, empty.StoredBytes, empty.Ledger)
	}
	folder, _ := s.newest(t, "thin/random")
	shell(t, "gzip -dc "+folder+"/random.img.gz | cmp - /dev/thin/random")

	pool := "thin-pool-tpool"
	if status := lab.Do(t, "dmsetup", "status", pool); strings.Fields(status)[6] != "-" {
		t.Errorf("a metadata snapshot is held: %s", status)
	}
	// Held by something else, it is neither waited for nor taken away: all is read.
	lab.Do(t, "dmsetup", "message", pool, "0", "reserve_metadata_snap")
	s.run(t, 0, "thin/held")
	if status := lab.Do(t, "dmsetup", "status", pool); strings.Fields(status)[6] == "-" {
		t.Errorf("another's metadata snapshot was released: %s", status)
	}
	// Held by a dead run, it is released.
	state := filepath.Join(s.dir, "state", "journal")
	dead, err := journal.Begin(journal.Options{Dir: state}, journal.Info{Run: journal.NewRunID(result.Started), Host: "volume-host", Command: "voltar run"})
	if err != nil {
		t.Fatal(err)
	}
	uuid := strings.TrimSpace(lab.Do(t, "dmsetup", "info", "-c", "--noheadings", "-o", "uuid", pool))
	if _, err := dead.Intend(journal.Thing{Kind: journal.KindThinMeta, DMName: pool, DMUUID: uuid}); err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 || !strings.Contains(out, "metadata snapshot of thin pool") {
		t.Errorf("cleanup: %d\n%s\n%s", code, out, errs)
	}
	if status := lab.Do(t, "dmsetup", "status", pool); strings.Fields(status)[6] != "-" {
		t.Errorf("a dead run's metadata snapshot is held: %s", status)
	}
	fmt.Fprintln(t.Output(), report.Text(result, report.Options{}))
}
