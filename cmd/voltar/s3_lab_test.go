package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/internal/store/s3/s3test"
	"voltar/report"
)

// bucketDestination is a [[destination]] of the configuration.
func bucketDestination(name, endpoint, bucket string) string {
	return `
[[destination]]
name = "` + name + `"
type = "s3"
endpoint = "` + endpoint + `"
bucket = "` + bucket + `"
region = "` + s3test.Region + `"
access_key = "` + s3test.AccessKey + `"
secret_key = { env = "VOLTAR_TEST_S3_SECRET" }
`
}

// Three destinations are fed from one read. Two of them are whole, and the volume comes back from the bucket alone; the
// third fails in the middle of the run, and costs only itself.
func TestLabDiskAndBuckets(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "good", s3test.Bucket{})
	server.Make(t, "bad", s3test.Bucket{})
	proxy := s3test.StartProxy(t, server)
	lab.VG(t, "vg", 400<<20)
	device := lab.LV(t, "vg", "data", 64<<20)
	lab.Do(t, "mkfs.ext4", "-q", device)
	dir := lab.Mount(t, device, "defaults")
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("world"), 0o640); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, bucketDestination("near", server.Endpoint, "good")+bucketDestination("far", proxy.Endpoint, "bad"))
	failing := proxy.Fail(&s3test.Fault{Match: func(r *http.Request) bool {
		return s3test.Data(r) && strings.Contains(r.URL.Path, ".index.gz")
	}, Do: s3test.Answer(507, "XMinioStorageFull", "No room")})
	result := s.run(t, 3)
	if failing.Done() == 0 {
		t.Fatal("nothing failed")
	}
	v := volume(t, result, "vg/data")
	copies := map[string]report.Copy{}
	for _, c := range v.Copies {
		copies[c.Destination] = c
	}
	for _, name := range []string{"disk", "near"} {
		if c := copies[name]; c.Error != nil || c.Path == "" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := copies["far"]; c.Error == nil || !strings.Contains(c.Error.Message, "the store is full") {
		t.Errorf("far: %+v", c)
	}
	code, out, errs := voltar(t, "list", "--json", "--config", s.config)
	var lines []catalog.Line
	if err := json.Unmarshal([]byte(out), &lines); err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s", code, err, errs)
	}
	on := map[string]int64{}
	for _, line := range lines {
		on[line.Destination] = line.SizeBytes
	}
	if len(lines) != 2 || on["disk"] == 0 || on["near"] == 0 {
		t.Errorf("%+v", lines)
	}
	if err := os.RemoveAll(s.backups); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(s.dir, "restored")
	code, _, errs = voltar(t, "restore", "vg/data", "--from", "near", "--to-dir", target, "--config", s.config)
	if code != 0 {
		t.Fatalf("%d\n%s", code, errs)
	}
	content, err := os.ReadFile(filepath.Join(target, "hello"))
	if err != nil || string(content) != "world" {
		t.Errorf("%q, %v", content, err)
	}
	proxy.Heal()
	objects := 0
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	for o := range client.ListObjectsIter(t.Context(), "bad", minio.ListObjectsOptions{Recursive: true}) {
		if objects++; filepath.Base(o.Key) != "voltar.json" {
			t.Errorf("%s is left of the backup that failed", o.Key)
		}
	}
	if objects != 1 {
		t.Errorf("%d objects are left, want the marker alone", objects)
	}
	// The next night it takes part again, and catches up: both backups are whole on it. The disk, which was emptied, gets
	// the first one, too.
	result = s.run(t, 0)
	for _, d := range result.Destinations {
		if want := map[string]int{"disk": 1, "near": 0, "far": 1}[d.Name]; len(d.CaughtUp) != want {
			t.Errorf("%s caught up on %+v, want %d", d.Name, d.CaughtUp, want)
		}
	}
	code, out, errs = voltar(t, "verify", "--all", "--from", "far", "--json", "--config", s.config)
	if code != 0 || strings.Count(out, `"vg/data@`) < 2 {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}
