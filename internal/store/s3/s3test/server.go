// Package s3test starts real S3 servers on loopback, for tests, and puts a proxy before them that makes trouble. The
// servers are built by `make setup`, at the versions that the file versions pins.
package s3test

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

//go:embed versions
var versions string

// Account that every server knows.
const (
	AccessKey = "voltar-test"
	SecretKey = "not-a-secret-key"
	Region    = "us-east-1"
)

// Kind is a server program.
type Kind string

// The servers there are. Versitygw keeps objects as files of a folder.
const (
	MinIO     Kind = "minio"
	Versitygw Kind = "versitygw"
)

// Server is one that runs until its test ends.
type Server struct {
	Endpoint string
	Dir      string // of its data
}

// Binary returns the path of a server's program.
func Binary(t testing.TB, kind Kind) string {
	t.Helper()
	version := ""
	for line := range strings.Lines(versions) {
		if module, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && path.Base(module) == string(kind) {
			version = v
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	binary := filepath.Join(dir, ".cache", "bin", string(kind)+"-"+version)
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v: `make setup` builds it", err)
	}
	return binary
}

// Start starts a server and waits until it answers.
func Start(t testing.TB, kind Kind) *Server {
	t.Helper()
	return StartAt(t, kind, freeAddress(t), t.TempDir())
}

// StartAt starts a server at an address, with its data in a folder.
func StartAt(t testing.TB, kind Kind, address, dir string) *Server {
	t.Helper()
	s := &Server{Endpoint: "http://" + address, Dir: dir}
	data, versionsDir := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	for _, folder := range []string{data, versionsDir} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var cmd *exec.Cmd
	switch kind {
	case MinIO:
		cmd = exec.Command(Binary(t, kind), "server", "--quiet", "--address", address, data)
		cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+AccessKey, "MINIO_ROOT_PASSWORD="+SecretKey, "MINIO_BROWSER=off",
			"MINIO_UPDATE=off", "CI=true", "HOME="+dir)
	case Versitygw:
		args := []string{"--port", address, "--access", AccessKey, "--secret", SecretKey, "--quiet", "--keep-alive", "posix"}
		if err := unix.Setxattr(data, "user.voltar-test", []byte("x"), 0); err == nil {
			args = append(args, "--versioning-dir", versionsDir)
		} else { // an older tmpfs: what would be in attributes goes to files, and there are no versions
			args = append(args, "--sidecar", versionsDir)
		}
		cmd = exec.Command(Binary(t, kind), append(args, data)...)
	}
	var output lockedBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed, or its output tells
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-ended
	})
	if err := s.await(ended); err != nil {
		t.Fatalf("%s does not answer: %v\n%s", kind, err, output.String())
	}
	return s
}

// await waits until the server answers a signed request.
func (s *Server) await(ended <-chan struct{}) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := client.ListBuckets(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ended:
			return errors.New("it ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Client is a connection of the client library, for looking behind the store's back.
func (s *Server) Client() (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(s.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region, MaxRetries: 1,
		Transport: &http.Transport{DisableKeepAlives: true},
	})
}

// Bucket is how one is made.
type Bucket struct {
	Versioned bool
	Locking   bool // which versions, too
}

// Make makes a bucket of a name.
func (s *Server) Make(t testing.TB, name string, b Bucket) {
	t.Helper()
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: b.Locking}); err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
	if b.Versioned && !b.Locking {
		if err := client.EnableVersioning(t.Context(), name); err != nil {
			t.Fatalf("enable versions of bucket %s: %v", name, err)
		}
	}
}

// freeAddress draws an address of this machine where nobody but the server listens, on a port that no connection is given
// as its own: neither can one that was free at a look be taken until the server has it, nor another's server answer there.
// MinIO listens at 127.0.0.1 as well, hence the look.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		port := strconv.Itoa(10000 + rand.N(20000))
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("127.%d.%d.%d:%s", 1+rand.N(254), rand.N(255), 1+rand.N(254), port)
	}
}

// lockedBuffer takes output from several goroutines.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// quietLog takes what an HTTP server complains of while it makes trouble.
func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }
