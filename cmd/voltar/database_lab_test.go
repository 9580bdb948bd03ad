package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"voltar/internal/lab"
	"voltar/report"
)

// bookkeeper commits numbered transactions of two rows each through a client of a database, one after the other.
type bookkeeper struct {
	input  io.WriteCloser
	acked  atomic.Int64 // the number acknowledged last
	notes  *os.File     // holds it too, for commands to copy
	end    chan struct{}
	ended  chan error
	client *exec.Cmd
}

// makeBook is the table, for any database.
const makeBook = "CREATE TABLE book (number INT, half INT);\n"

// startBook starts writing, with a client that reads SQL and prints what it selects, and stops when the test ends.
func startBook(t *testing.T, client []string) *bookkeeper {
	t.Helper()
	notes, err := os.Create(filepath.Join(t.TempDir(), "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bookkeeper{notes: notes, end: make(chan struct{}), ended: make(chan error, 1), client: exec.Command(client[0], client[1:]...)}
	b.client.Stderr = os.Stderr
	if b.input, err = b.client.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := b.client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.ended <- b.write(bufio.NewScanner(output)) }()
	t.Cleanup(func() {
		close(b.end)
		if err := <-b.ended; err != nil {
			t.Error(err)
		}
		_ = b.input.Close()
		if err := b.client.Wait(); err != nil {
			t.Error(err)
		}
		_ = notes.Close()
	})
	waitFor(t, "the first transactions", func() bool { return b.acked.Load() > 5 })
	return b
}

func (b *bookkeeper) write(answers *bufio.Scanner) error {
	for n := int64(1); ; n++ {
		select {
		case <-b.end:
			return nil
		case <-time.After(2 * time.Millisecond): // the machine has one processor
		}
		if _, err := fmt.Fprintf(b.input, "BEGIN; INSERT INTO book VALUES (%[1]d, 1); INSERT INTO book VALUES (%[1]d, 2); COMMIT; SELECT %[1]d;\n", n); err != nil {
			return err
		}
		if !answers.Scan() || answers.Text() != strconv.FormatInt(n, 10) {
			return fmt.Errorf("transaction %d is answered by %q, %w", n, answers.Text(), answers.Err())
		}
		if _, err := b.notes.WriteAt(fmt.Appendf(nil, "%019d\n", n), 0); err != nil {
			return err
		}
		b.acked.Store(n)
	}
}

// heldConfig is a guest whose database is held, and then the number of the last transaction copied to a file.
func (b *bookkeeper) heldConfig(database, client, held string) string {
	return `
[[volume]]
match = "*"
freeze = ["db"]
[[guest]]
name = "db"
database = "` + database + `"
client = [` + client + `]
method = "command"
freeze = ["cp", "` + b.notes.Name() + `", "` + held + `"]
thaw = ["true"]
on_failure = "fail"
`
}

// numberIn reads what the bookkeeper has noted.
func numberIn(t *testing.T, file string) int64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lastInBook returns the highest number in a database's book, once all below it are there and none is half there.
func lastInBook(t *testing.T, where string, query func(sql string) string) int64 {
	t.Helper()
	text := query("SELECT MAX(number), COUNT(*), (SELECT COUNT(*) FROM (SELECT number FROM book GROUP BY number" +
		" HAVING COUNT(*) <> 2 OR COUNT(DISTINCT half) <> 2) AS odd) FROM book;\n")
	var last, rows, odd int64
	if _, err := fmt.Sscan(strings.ReplaceAll(text, "|", " "), &last, &rows, &odd); err != nil {
		t.Fatalf("%s: %v in %q", where, err, text)
	}
	if rows != 2*last || odd != 0 {
		t.Errorf("%s: the last transaction is %d, but there are %d rows, and %d are not whole", where, last, rows, odd)
	}
	return last
}

// server runs a program until the test, or stop, ends it.
type server struct {
	cmd   *exec.Cmd
	ended chan error
}

// serverPatience is how long a server may take to end, on a machine under emulation that shares its processor.
const serverPatience = 2 * time.Minute

func startServer(t *testing.T, uid uint32, log string, argv ...string) *server {
	t.Helper()
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = output, output, "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	err = s.cmd.Start()
	_ = output.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case err := <-s.ended:
			if err != nil {
				t.Errorf("%s: %v", argv[0], err)
			}
		case <-time.After(serverPatience):
			t.Errorf("%s does not end %v after SIGTERM, and is killed: %v", argv[0], serverPatience, s.cmd.Process.Kill())
		}
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("log of %s:\n%s", argv[0], text)
		}
	})
	return s
}

// waitReady waits until a server answers, or has ended.
func (s *server) waitReady(t *testing.T, ask ...string) {
	t.Helper()
	waitFor(t, s.cmd.Path, func() bool {
		select {
		case err := <-s.ended:
			s.ended <- err
			t.Fatalf("%s ended: %v", s.cmd.Path, err)
		default:
		}
		return exec.Command(ask[0], ask[1:]...).Run() == nil
	})
}

// feed runs a client over some SQL.
func feed(t *testing.T, sql string, client ...string) string {
	t.Helper()
	cmd := exec.Command(client[0], client[1:]...)
	cmd.Stdin = strings.NewReader(sql)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%.100s: %v\n%s", sql, err, &problems)
	}
	return string(out)
}

// nobody is who PostgreSQL runs as: it refuses to be root.
const nobody = 65534

// postgres is a server of the least size over a data directory.
type postgres struct{ data, programs, socket string }

func newPostgres(t *testing.T, data string) postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("%v %v", found, err)
	}
	p := postgres{data: data, programs: found[len(found)-1], socket: letNobodyIn(t, t.TempDir())}
	if err := os.Chown(p.socket, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return p
}

// letNobodyIn makes a test's folder one that others can look up names in.
func letNobodyIn(t *testing.T, dir string) string {
	t.Helper()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (p postgres) start(t *testing.T, more ...string) *server {
	t.Helper()
	settings := append([]string{"shared_buffers=16MB", "max_connections=10", "listen_addresses=", "min_wal_size=4MB", "max_wal_size=16MB",
		"unix_socket_directories=" + p.socket}, more...)
	argv := []string{p.programs + "/postgres", "-D", p.data}
	for _, setting := range settings {
		argv = append(argv, "-c", setting)
	}
	s := startServer(t, nobody, filepath.Join(t.TempDir(), "log"), argv...)
	// In recovery it answers, too, with what it has come to by then.
	s.waitReady(t, p.client("-c", "SELECT 1 / (NOT pg_is_in_recovery())::int")...)
	return s
}

func (p postgres) login() []string { return []string{"-h", p.socket, "-U", "postgres"} }

func (p postgres) client(more ...string) []string {
	return append(append([]string{p.programs + "/psql", "-X", "-A", "-t", "-q"}, p.login()...), more...)
}

func (p postgres) book(t *testing.T, where string) int64 {
	t.Helper()
	return lastInBook(t, where, func(sql string) string { return feed(t, sql, p.client("-v", "ON_ERROR_STOP=1")...) })
}

// A PostgreSQL that is written to all the while: what is restored from its snapshot starts by itself, and with the label
// and the log of the server that goes on it comes to what that had later.
func TestLabPostgreSQL(t *testing.T) {
	lab.VG(t, "vg", 400*mib)
	device := lab.LV(t, "vg", "db", 160*mib)
	makeExt(t, device)
	dir := letNobodyIn(t, lab.Mount(t, device, "defaults"))
	live := newPostgres(t, filepath.Join(dir, "data"))
	if err := os.Mkdir(live.data, 0o700); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "chown", "nobody:", live.data)
	lab.Do(t, "setpriv", fmt.Sprint("--reuid=", nobody), fmt.Sprint("--regid=", nobody), "--clear-groups", live.programs+"/initdb",
		"--pgdata="+live.data, "--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--wal-segsize=1", "--no-sync")
	live.start(t, "wal_keep_size=64MB")
	feed(t, makeBook, live.client()...)
	book := startBook(t, live.client())

	held := filepath.Join(t.TempDir(), "held")
	quoted := func(words []string) string { return `"` + strings.Join(words, `", "`) + `"` }
	s := newSite(t, book.heldConfig("postgresql", quoted(append([]string{"psql"}, live.login()...)), held)+`
[[dump]]
name = "all"
volumes = ["*"]
preset = "postgresql"
options = [`+quoted(live.login())+`]
`)
	v := s.run(t, 0).Volumes[0]
	if v.Status != report.VolumeOK || !strings.HasPrefix(v.Quiesce, "application-consistent, held ") || len(v.Warnings) > 0 {
		t.Fatalf("%s, %s: %+v", v.Status, v.Quiesce, v.Warnings)
	}
	folder, manifest := s.newest(t, "vg/db")
	atFreeze := numberIn(t, held)

	again := func() postgres {
		restored := filepath.Join(letNobodyIn(t, t.TempDir()), "restored")
		s.restore(t, 0, "vg/db", "--to-dir", restored)
		lab.Do(t, "chmod", "755", restored)
		data := filepath.Join(restored, "data")
		if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil { // the server that it names runs
			t.Fatal(err)
		}
		return newPostgres(t, data)
	}
	copied := again()
	running := copied.start(t)
	last := copied.book(t, "restored")
	if last < atFreeze || last > book.acked.Load() {
		t.Errorf("transaction %d was acknowledged before the snapshot, and it has %d", atFreeze, last)
	}
	feed(t, "DROP TABLE book;", copied.client()...)
	lab.Do(t, "sh", "-c", "gzip -dc "+filepath.Join(folder, "db.all.dump.gz")+" | "+strings.Join(copied.client(), " "))
	if dumped := copied.book(t, "dump"); dumped <= last || dumped > book.acked.Load() {
		t.Errorf("the dump has transactions up to %d, the snapshot to %d", dumped, last)
	}
	_ = running.cmd.Process.Signal(syscall.SIGTERM)

	later := book.acked.Load()
	feed(t, "SELECT pg_switch_wal();", live.client()...)
	labelled := again()
	writeFile(t, filepath.Join(labelled.data, "backup_label"), []byte(manifest.Quiesce.Databases["db"]+"\n"))
	writeFile(t, filepath.Join(labelled.data, "recovery.signal"), nil)
	lab.Do(t, "chown", "nobody:", labelled.data+"/backup_label", labelled.data+"/recovery.signal")
	labelled.start(t, "restore_command=cp "+live.data+"/pg_wal/%f %p")
	if last := labelled.book(t, "restored with its label"); last < later {
		t.Errorf("the log leads to transaction %d, and %d had been acknowledged", last, later)
	}
}
