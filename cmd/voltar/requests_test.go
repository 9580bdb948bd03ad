package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/store/s3"
	"voltar/internal/store/s3/s3test"
)

// Requests to a bucket do not grow with the backups that it holds, but for the first look at each; and what names a source
// does not grow with the sources.
func TestRequestsToABucketOfManyBackups(t *testing.T) {
	const sources, nights = 20, 6
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	var count atomic.Int64
	proxy := s3test.StartProxy(t, server)
	proxy.Fail(&s3test.Fault{Match: func(*http.Request) bool { count.Add(1); return false }})
	proxy.Fail(&s3test.Fault{Match: s3test.Reading, Do: anHourLater})
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tree"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree", "file"), []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("host = \"volume-host\"\nstate_dir = \"%s/state\"\nrun_dir = \"%s/run\"\n[retention]\ndays = 0\nkeep_last = 5\n", dir, dir)
	for i := range sources {
		text += fmt.Sprintf("[[directory]]\nname = \"tree%02d\"\npath = \"%s/tree\"\n", i, dir)
	}
	text += fmt.Sprintf("[[destination]]\nname = \"bucket\"\ntype = \"s3\"\nendpoint = \"%s\"\nbucket = \"bucket\"\nregion = \"%s\"\n"+
		"access_key = \"%s\"\nsecret_key = { env = \"VOLTAR_TEST_S3_SECRET\" }\n", proxy.Endpoint, s3test.Region, s3test.AccessKey)
	config := filepath.Join(dir, "voltar.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 1, 0, 0, 0, time.UTC)
	command := func(most int, args ...string) (out string) {
		t.Helper()
		count.Store(0)
		code, out, errs := voltarAt(t, now, append(args, "--config", config)...)
		if code != 0 {
			t.Fatalf("%q ended with %d: %s%s", args, code, out, errs)
		}
		if made := count.Load(); made > int64(most) || made == 0 {
			t.Errorf("%q took %d requests, more than %d", args, made, most)
		} else {
			t.Logf("%q took %d requests", args, made)
		}
		return out
	}
	command(1000, "run", "--no-mail", "@directory/tree00") // the host's marker is there from now on
	bucket := fillBucket(t, server, sources, nights, now)

	command(sources+sources*nights+20, "list")
	command(sources+20, "list")
	lost := catalog.ID{Ref: catalog.Ref{Kind: catalog.SourceDirectory, Name: "tree19"}, Time: now.AddDate(0, 0, -2)}
	if err := bucket.Delete(t.Context(), lost.Path("volume-host")+"/tree19.tar.gz"); err != nil {
		t.Fatal(err)
	}
	if out := command(sources+21, "list"); strings.Count(out, "damaged: tree19.tar.gz is missing") != 1 || strings.Count(out, "damaged") != 1 {
		t.Errorf("a list of a bucket that lacks a file: %s", out)
	}
	command(20, "prune", "--dry-run", "@directory/tree01")
	command(4*sources+10, "report", "--fleet", "--older-than", "900d")
	command(45, "run", "--no-mail", "@directory/tree01")
	command(45, "run", "--no-mail", "@directory/tree02")
	command(10, "list", "@directory/tree03")
	count.Store(0)
	code, out, errs := voltarAt(t, now, "complete", "--", "--config", config, "ls", "@directory/tree03@")
	if made := count.Load(); code != 0 || strings.Count(out, "@directory/tree03@") != nights || made > 5 {
		t.Errorf("to complete a time took %d requests, and ended with %d: %s%s", made, code, out, errs)
	}
}

// anHourLater answers by a clock that is ahead: what was just written has stood for long enough to be known again.
func anHourLater(w http.ResponseWriter, r *http.Request, forward http.Handler, _ <-chan struct{}) {
	answer := httptest.NewRecorder()
	forward.ServeHTTP(answer, r)
	maps.Copy(w.Header(), answer.Header())
	w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	w.WriteHeader(answer.Code)
	_, _ = io.Copy(w, answer.Body)
}

// fillBucket stores backups of two files each, of some nights before a time.
func fillBucket(t *testing.T, server *s3test.Server, sources, nights int, before time.Time) store.Store {
	t.Helper()
	machineID, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := s3.Open(s3.Options{
		Endpoint: server.Endpoint, Bucket: "bucket", Region: s3test.Region,
		Credentials: s3.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey},
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, data []byte) {
		w, err := bucket.Create(t.Context(), key, store.PutOptions{MaxBytes: int64(len(data))})
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			_, err = w.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range sources {
		for night := range nights {
			source := catalog.Source{Kind: catalog.SourceDirectory, Name: fmt.Sprintf("tree%02d", i), Path: "/tree"}
			name := catalog.NamesOf(source.Ref(), false).Archive("")
			at := before.AddDate(0, 0, -night-1)
			m := &catalog.Manifest{
				Format: catalog.Format, Voltar: "1.0.0", Status: catalog.StatusComplete, Run: "20261120T010001Z-3f9a0c",
				Host:   catalog.Host{Name: "volume-host", MachineID: strings.TrimSpace(string(machineID))},
				Source: source, Time: at, Started: at, Ended: at,
				Extents: []catalog.Extent{{State: catalog.StateFiles, Archive: name}},
				Files: []catalog.File{
					{Name: name, SizeBytes: 4, SHA1: strings.Repeat("a", 40), SHA256: strings.Repeat("b", 64)},
				},
			}
			data, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			put(m.ID().Path("volume-host")+"/"+name, []byte("1234"))
			put(m.ID().Path("volume-host")+"/"+catalog.ManifestName, data)
		}
	}
	return bucket
}
