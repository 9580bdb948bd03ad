package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/browse/browsetest"
	"voltar/internal/lab"
	"voltar/internal/placement"
	"voltar/internal/store/s3/s3test"
)

// voltarAt is voltar with a clock of the test's own.
func voltarAt(t *testing.T, now time.Time, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(strings.NewReader(""), &out, &errs, func() time.Time { return now })
	code = a.execute(context.WithoutCancel(t.Context()), append([]string{"voltar"}, args...))
	return code, out.String(), errs.String()
}

// folderDestination is a [[destination]] of the configuration.
func folderDestination(name, path, more string) string {
	return "\n[[destination]]\nname = \"" + name + "\"\ntype = \"disk\"\npath = \"" + path + "\"\nrequire_mount = \"none\"\n" + more
}

func TestCopyCommand(t *testing.T) {
	far := filepath.Join(t.TempDir(), "far")
	s, _, _ := newStocked(t, folderDestination("far", far, "retention = { keep_last = 1 }\n"))
	now := browsetest.Night.Add(10 * time.Hour)
	for _, c := range []struct {
		name string
		args []string
		code int
		out  string
		errs string
	}{
		{"without ends", []string{"--all"}, 2, "", "name two destinations"},
		{"without anything to copy", []string{"--from", "disk", "--to", "far"}, 2, "", "--all"},
		{"with too much", []string{"plain", "--all", "--from", "disk", "--to", "far"}, 2, "", "--all"},
		{"to nowhere", []string{"--all", "--from", "disk", "--to", "moon"}, 2, "", `no destination "moon"`},
		{"of no volume", []string{"nothing", "--from", "disk", "--to", "far"}, 2, "", "there are backups of vg/plain, vg/volume-00000001"},
		{"dry run", []string{"plain", "--dry-run", "--from", "disk", "--to", "far"}, 0, "would copy", ""},
		{"one that retention leaves", []string{"plain@2026-11-20T01", "plain", "--from", "disk", "--to", "far"}, 3, "left    not among last 1", ""},
		{"of one volume, once more", []string{"plain", "--from", "disk", "--to", "far"}, 0, "far has 1 of 2 already.", ""},
		{"everything", []string{"--all", "--from", "disk", "--to", "far"}, 0, "vg/volume-00000001@2026-11-20T010001Z", ""},
		{"everything again", []string{"--all", "--from", "disk", "--to", "far"}, 0, "far has 2 of 3 already.", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"copy", "--config", s.config}, c.args...)
			code, out, errs := voltarAt(t, now, args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
				t.Errorf("%d, want %d\n%s\n%s", code, c.code, out, errs)
			}
		})
	}
	code, out, _ := voltarAt(t, now, "copy", "--all", "--from", "disk", "--to", "far", "--json", "--config", s.config)
	var lines []placement.CopyLine
	if err := json.Unmarshal([]byte(out), &lines); err != nil || code != 0 || len(lines) != 3 {
		t.Errorf("%d, %v in %s", code, err, out)
	}
	if code, out, errs := voltarAt(t, now, "verify", "--all", "--full", "--from", "far", "--config", s.config); code != 0 {
		t.Errorf("verify: %d\n%s\n%s", code, out, errs)
	}
	if err := os.Truncate(filepath.Join(s.backups, "volume-host/vg/plain/2026-11-20T020001Z/plain.tar.gz"), 10); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(far, "volume-host/vg/plain")); err != nil {
		t.Fatal(err)
	}
	code, out, _ = voltarAt(t, now, "copy", "plain", "--from", "disk", "--to", "far", "--config", s.config)
	if code != 1 || !strings.Contains(out, "it holds 10 bytes") {
		t.Errorf("of a damaged one: %d\n%s", code, out)
	}
}

// heldPart lets one part reach the server, tells its request, and never answers. The server has nothing in hand then that it
// could still store after the upload was ended.
func heldPart(seen chan<- *http.Request) s3test.Trouble {
	var once sync.Once
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler, ended <-chan struct{}) {
		once.Do(func() {
			forward.ServeHTTP(httptest.NewRecorder(), r)
			seen <- r
		})
		s3test.Hang(w, r, forward, ended)
	}
}

// The whole program is killed in the middle of an upload, first in a run, then in a copy. No object of the backup can be
// seen, and after the next one there is no incomplete upload either: neither on a server that lists them, nor on one
// that does so by exact key alone.
func TestKilledUploads(t *testing.T) {
	kinds := []s3test.Kind{s3test.Versitygw}
	if lab.Slow {
		kinds = append(kinds, s3test.MinIO)
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) { testKilledUploads(t, kind) })
	}
}

func testKilledUploads(t *testing.T, kind s3test.Kind) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	server := s3test.Start(t, kind)
	server.Make(t, "bucket", s3test.Bucket{})
	proxy := s3test.StartProxy(t, server)
	data := t.TempDir()
	content, err := os.Create(filepath.Join(data, "content"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(content, rand.Reader, 72<<20); err != nil { // more than a part of a stream of unknown length
		t.Fatal(err)
	}
	if err := content.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, bucketDestination("far", proxy.Endpoint, "bucket")+"\n[[directory]]\nname = \"data\"\npath = \""+data+"\"\nlevel = \"fast\"\n")
	u := uploads{t: t, server: server, proxy: proxy, site: s}

	run := []string{"run", "@directory/data", "--config", s.config}
	u.kill(run...)
	u.wantSuccess(run...)
	u.wantClean(1)

	near := []string{"run", "@directory/data", "--to", s.backups, "--config", s.config}
	u.wantSuccess(near...)
	cp := []string{"copy", "--all", "--from", "disk", "--to", "far", "--config", s.config}
	u.kill(cp...)
	u.wantSuccess(cp...)
	u.wantClean(2)
	u.wantSuccess("verify", "--all", "--from", "far", "--config", s.config)
}

// uploads kills programs and looks at what they leave on a server.
type uploads struct {
	t      *testing.T
	server *s3test.Server
	proxy  *s3test.Proxy
	site   site
	keys   []string // that were being uploaded
}

// kill starts the program and kills it when a part of an object is on the server.
func (u *uploads) kill(args ...string) {
	u.t.Helper()
	seen := make(chan *http.Request, 1)
	u.proxy.Fail(&s3test.Fault{Match: s3test.Parts, Do: heldPart(seen)})
	p := start(u.t, args...)
	select {
	case r := <-seen:
		u.keys = append(u.keys, strings.TrimPrefix(r.URL.Path, "/bucket/"))
	case <-time.After(5 * time.Minute):
		u.t.Error("no part was sent")
	}
	p.signal(u.t, syscall.SIGKILL)
	if code := p.wait(u.t); code != -1 {
		u.t.Fatalf("exit code %d\n%s", code, &p.stderr)
	}
	u.proxy.Heal()
	key := u.keys[len(u.keys)-1]
	if open := u.open(key); open != 1 {
		u.t.Errorf("%d incomplete uploads of %s after the kill, want 1: nothing is tested", open, key)
	}
	for _, object := range u.objects() {
		if object == key || strings.HasPrefix(object, filepath.Dir(key)+"/manifest") {
			u.t.Errorf("%s is there", object)
		}
	}
}

func (u *uploads) wantSuccess(args ...string) {
	u.t.Helper()
	if code, out, errs := voltar(u.t, args...); code != 0 {
		u.t.Fatalf("%q: exit code %d\n%s\n%s", args, code, out, errs)
	}
}

// wantClean wants so many whole backups in the bucket and nothing else.
func (u *uploads) wantClean(backups int) {
	u.t.Helper()
	manifests := 0
	folders := map[string]bool{}
	for _, object := range u.objects() {
		if filepath.Base(object) == "manifest.json" {
			manifests++
		}
		if filepath.Base(object) != "voltar.json" {
			folders[filepath.Dir(object)] = true
		}
	}
	if manifests != backups || len(folders) != backups {
		u.t.Errorf("%d manifests in %v, want %d", manifests, folders, backups)
	}
	for _, key := range u.keys {
		if open := u.open(key); open != 0 {
			u.t.Errorf("%d incomplete uploads of %s", open, key)
		}
	}
	notes, err := filepath.Glob(filepath.Join(u.site.dir, "state/s3/uploads/*"))
	if err != nil || len(notes) > 0 {
		u.t.Errorf("notes on uploads: %q, %v", notes, err)
	}
	// Where MinIO keeps the parts of incomplete uploads.
	parts, err := filepath.Glob(filepath.Join(u.server.Dir, "data/.minio.sys/multipart/*/*"))
	if err != nil || len(parts) > 0 {
		u.t.Errorf("parts: %q, %v", parts, err)
	}
}

func (u *uploads) client() *minio.Client {
	u.t.Helper()
	client, err := u.server.Client()
	if err != nil {
		u.t.Fatal(err)
	}
	return client
}

// open counts the incomplete uploads of a key.
func (u *uploads) open(key string) (count int) {
	u.t.Helper()
	for upload := range u.client().ListIncompleteUploads(u.t.Context(), "bucket", key, true) {
		if upload.Err != nil {
			u.t.Fatal(upload.Err)
		}
		count++
	}
	return count
}

func (u *uploads) objects() (keys []string) {
	u.t.Helper()
	for object := range u.client().ListObjectsIter(u.t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		if object.Err != nil {
			u.t.Fatal(object.Err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// What was copied to a bucket with object lock is held there, however the copy came about.
func TestCopyToABucketThatLocks(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{Locking: true})
	s, _, _ := newStocked(t, bucketDestination("far", server.Endpoint, "bucket")+`object_lock = { mode = "compliance", days = 30 }
`)
	began := time.Now()
	if code, out, errs := voltar(t, "copy", "--all", "--from", "disk", "--to", "far", "--config", s.config); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, out, errs)
	}
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	locked := 0
	for object := range client.ListObjectsIter(t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		if object.Err != nil {
			t.Fatal(object.Err)
		}
		if strings.HasSuffix(object.Key, "voltar.json") { // says whose the store is
			continue
		}
		mode, until, err := client.GetObjectRetention(t.Context(), "bucket", object.Key, "")
		if err != nil || *mode != minio.Compliance || until.Before(began.AddDate(0, 0, 29)) {
			t.Errorf("%s: locked until %v (%v)", object.Key, until, err)
		}
		locked++
	}
	if locked < 9 { // three backups of an archive, an index and a manifest at least
		t.Errorf("%d objects", locked)
	}
	if code, out, errs := voltar(t, "verify", "--all", "--full", "--from", "far", "--config", s.config); code != 0 {
		t.Errorf("verify: %d\n%s\n%s", code, out, errs)
	}
}
