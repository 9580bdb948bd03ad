package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"voltar/internal/store/s3/s3test"
	"voltar/report"
)

// silentServer takes connections and never says a word. It counts them.
func silentServer(t *testing.T) (endpoint string, connections *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	})
	connections = &atomic.Int64{}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			connections.Add(1)
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return "http://" + listener.Addr().String(), connections
}

// refusingServer is an address at which nothing listens.
func refusingServer(t *testing.T) (endpoint string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + listener.Addr().String()
}

const smallSources = 8

// directories are so many small sources for the configuration.
func directories(t *testing.T, count int) string {
	t.Helper()
	var text strings.Builder
	for i := range count {
		path := t.TempDir()
		writeFile(t, filepath.Join(path, "file"), []byte("text"))
		fmt.Fprintf(&text, "\n[[directory]]\nname = \"d%d\"\npath = %q\n", i, path)
	}
	return text.String()
}

// Destinations that refuse, hang, or die in the middle are given up once and not tried for each volume: the backups stand on
// the one that is well, and the report tells each of the others once.
func TestDestinationsThatAreDown(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	silent, connections := silentServer(t)
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	proxy := s3test.StartProxy(t, server)
	var stored atomic.Int64
	died := &s3test.Fault{Do: s3test.Hang, Match: func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, ".tar.gz") && stored.Add(1) > 2 || stored.Load() > 2
	}}
	proxy.Fail(died)

	impatient := "patience = \"3s\"\n"
	s := newSite(t, bucketDestination("refusing", refusingServer(t), "bucket")+impatient+
		bucketDestination("silent", silent, "bucket")+impatient+bucketDestination("dying", proxy.Endpoint, "bucket")+impatient+
		directories(t, smallSources))
	result := s.run(t, exitAttention)

	for _, v := range result.Volumes {
		for _, c := range v.Copies {
			if good := c.Error == nil && c.Path != ""; c.Destination == "disk" && !good {
				t.Errorf("%s: there is no backup on the destination that is well: %+v", v.Name, c.Error)
			}
		}
	}
	// A dead connection may be tried once more; eight sources would make at least as many.
	if n := connections.Load(); n == 0 || n >= smallSources {
		t.Errorf("the silent server was asked %d times", n)
	}
	if n := died.Done(); n == 0 || n >= smallSources {
		t.Errorf("the server that died was asked %d times after that", n)
	}
	text := report.Text(result, report.Options{})
	wrong, _, _ := strings.Cut(text, "VOLUME  ")
	for _, name := range []string{"refusing", "silent", "dying"} {
		if n := strings.Count(wrong, "destination "+name); n != 1 {
			t.Errorf("what went wrong with %s is told %d times", name, n)
		}
	}
	if want := fmt.Sprintf("missing: %d directories; good on disk", smallSources); strings.Count(wrong, want) < 2 {
		t.Errorf("where the volumes are instead is not told: %q", want)
	}
	if t.Failed() {
		t.Log(text)
	}

	code, out, errs := voltar(t, "list", "--config", s.config)
	if code != exitAttention || strings.Count(out, " disk ") != smallSources {
		t.Errorf("list ends with %d\n%s\n%s", code, out, errs)
	}
}

// The first signal ends a mount whose store does not answer before anything is mounted; it does not wait for the store's patience.
func TestMountIsInterruptedAtItsStart(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	for _, source := range []string{"--all", "web", "web@2026-11-20"} {
		silent, connections := silentServer(t)
		s := newSite(t, bucketDestination("silent", silent, "bucket"))
		p := start(t, "mount", "--config", s.config, "--from", "silent", source, t.TempDir())
		for connections.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		p.signal(t, syscall.SIGINT)
		if code := p.wait(t); code != exitInterrupted || !strings.Contains(p.stderr.String(), "interrupted") || strings.Contains(p.stderr.String(), "given up") {
			t.Errorf("%s: %d\n%s", source, code, &p.stderr)
		}
	}
}

// A destination that does not answer is told with what whoever waits can do, and without the name of something else.
func TestHintOfADestinationThatIsDown(t *testing.T) {
	t.Setenv("VOLTAR_TEST_S3_SECRET", s3test.SecretKey)
	s := newSite(t, bucketDestination("refusing", refusingServer(t), "bucket")+"patience = \"1s\"\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"mount", "--all", t.TempDir()}, "hint: mount again as soon as it answers"},
		{[]string{"ls", "web"}, "hint: try again as soon as it answers"},
		{[]string{"restore", "web"}, "hint: try again as soon as it answers"},
	} {
		_, _, errs := voltar(t, append(c.args, "--from", "refusing", "--config", s.config)...)
		if !strings.Contains(errs, "given up: s3://") || !strings.Contains(errs, c.want) || strings.Contains(errs, "the next run") {
			t.Errorf("%q: %s", c.args, errs)
		}
	}
}
