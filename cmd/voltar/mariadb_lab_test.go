//go:build slow

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// mariaDB is a server of the least size over a data directory.
type mariaDB struct{ defaults string }

func (m mariaDB) start(t *testing.T) *server {
	t.Helper()
	s := startServer(t, 0, m.defaults+".log", "/usr/sbin/mariadbd", "--defaults-file="+m.defaults)
	s.waitReady(t, m.client("--execute", "SELECT 1")...)
	return s
}

func (m mariaDB) client(more ...string) []string {
	return append([]string{"mariadb", "--defaults-file=" + m.defaults, "--batch", "--skip-column-names", "--unbuffered"}, more...)
}

func (m mariaDB) book(t *testing.T, where string) int64 {
	t.Helper()
	return lastInBook(t, where, func(sql string) string { return feed(t, sql, m.client("book")...) })
}

func newMariaDB(t *testing.T, data string) mariaDB {
	t.Helper()
	dir := t.TempDir()
	m := mariaDB{defaults: filepath.Join(dir, "my.cnf")}
	writeFile(t, m.defaults, []byte(`[mariadbd]
user = root
datadir = `+data+`
socket = `+dir+`/socket
pid-file = `+dir+`/pid
skip-networking
log-bin = binlog
innodb-buffer-pool-size = 16M
loose-innodb-buffer-pool-size-max = 16M
innodb-log-file-size = 4M
innodb-use-native-aio = 0
key-buffer-size = 1M
aria-pagecache-buffer-size = 1M
[client]
user = root
socket = `+dir+`/socket
`))
	return m
}

// A MariaDB that is written to all the while: what is restored from the snapshot under its lock has every transaction
// acknowledged until then, one more at most, and none by half; the binary log ends where the manifest says. The dump has
// come later, and is as whole.
func TestLabMariaDB(t *testing.T) {
	lab.VG(t, "vg", 400*mib)
	device := lab.LV(t, "vg", "db", 160*mib)
	makeExt(t, device)
	data := filepath.Join(lab.Mount(t, device, "defaults"), "data")
	live := newMariaDB(t, data)
	lab.Do(t, "mariadb-install-db", "--defaults-file="+live.defaults, "--auth-root-authentication-method=normal", "--skip-test-db")
	live.start(t)
	feed(t, "CREATE DATABASE book; USE book; "+makeBook, live.client()...)
	book := startBook(t, live.client("book"))

	held := filepath.Join(t.TempDir(), "held")
	s := newSite(t, book.heldConfig("mysql", `"mysql", "--defaults-file=`+live.defaults+`"`, held)+`
[[dump]]
name = "all"
volumes = ["*"]
preset = "mysql"
options = ["--defaults-file=`+live.defaults+`"]
`)
	v := s.run(t, 0).Volumes[0]
	if v.Status != report.VolumeOK || !strings.HasPrefix(v.Quiesce, "application-consistent, held ") || len(v.Warnings) > 0 {
		t.Fatalf("%s, %s: %+v", v.Status, v.Quiesce, v.Warnings)
	}

	folder, manifest := s.newest(t, "vg/db")
	atFreeze := numberIn(t, held)
	restored := filepath.Join(t.TempDir(), "restored")
	s.restore(t, 0, "vg/db", "--to-dir", restored)
	checkPosition(t, manifest, filepath.Join(restored, "data"))
	copied := newMariaDB(t, filepath.Join(restored, "data"))
	copied.start(t)
	if last := copied.book(t, "restored"); last != atFreeze && last != atFreeze+1 {
		t.Errorf("transaction %d was acknowledged when all was held, and the snapshot has %d", atFreeze, last)
	}

	dump := filepath.Join(folder, "db.all.dump.gz")
	feed(t, "DROP DATABASE book;", copied.client()...)
	lab.Do(t, "sh", "-c", "gzip -dc "+dump+" | mariadb --defaults-file="+copied.defaults)
	if last := copied.book(t, "dump"); last <= atFreeze+1 || last > book.acked.Load() {
		t.Errorf("the dump has transactions up to %d; %d was the last in the snapshot, %d is it now: were they held up?", last, atFreeze,
			book.acked.Load())
	}
}

// checkPosition holds the position that the manifest has against the length of the binary log in the backup.
func checkPosition(t *testing.T, m *catalog.Manifest, data string) {
	t.Helper()
	fields := strings.Fields(m.Quiesce.Databases["db"])
	if len(fields) < 2 {
		t.Fatalf("the position is %q", m.Quiesce.Databases)
	}
	info, err := os.Stat(filepath.Join(data, fields[0]))
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.FormatInt(info.Size(), 10); fields[1] != want {
		t.Errorf("the binary log %s ends at %s, and the manifest says %s", fields[0], want, fields[1])
	}
}
