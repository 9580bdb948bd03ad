package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"voltar/archive"
	"voltar/internal/store"
	"voltar/internal/store/s3"
)

// Account of the servers that uploads are measured with.
const (
	benchAccount = "bench"
	benchSecret  = "not-a-secret-key"
	benchBucket  = "bench"
	benchRegion  = "us-east-1"
)

// measureS3 measures the upload of one stream of so many bytes to servers on loopback, which it starts.
func (b *bench) measureS3(ctx context.Context, bytes int64) error {
	var tasks []*task
	for _, kind := range []string{"versitygw", "minio"} {
		server, stop, err := b.startServer(ctx, kind)
		if err != nil {
			return fmt.Errorf("start %s: %w", kind, err)
		}
		defer stop()
		tasks = append(tasks, b.s3Tasks(kind, server, bytes)...)
	}
	return b.run(ctx, tasks)
}

// s3Tasks upload the same stream, each the way that its program's documentation has it for standard input.
func (b *bench) s3Tasks(kind, endpoint string, bytes int64) []*task {
	group := fmt.Sprintf("%d MiB to %s", bytes>>20, kind)
	flow := fmt.Sprintf("%s step flow - %d", quote(b.self), bytes)
	clear := b.step("s3-clear", ".", endpoint)
	put := func(bound int64) []string {
		return shell("%s | %s step s3-put . %s %d", flow, quote(b.self), endpoint, bound)
	}
	return []*task{
		{group: group, name: "voltar, of a known bound, with sums", base: true, before: [][]string{clear}, argv: put(bytes)},
		{group: group, name: "voltar, of unknown length, with sums", before: [][]string{clear}, argv: put(0)},
		{group: group, name: "rclone rcat", needs: "rclone", before: [][]string{clear},
			argv: shell("%s | env -u AWS_CA_BUNDLE RCLONE_CONFIG=/dev/null rclone rcat --s3-provider Other --s3-no-check-bucket "+
				"--s3-endpoint %s --s3-region %s --s3-access-key-id %s --s3-secret-access-key %s :s3:%s/rclone",
				flow, endpoint, benchRegion, benchAccount, benchSecret, benchBucket)},
		{group: group, name: "mc pipe", needs: "mc", before: [][]string{clear},
			argv: shell("%s | MC_CONFIG_DIR=$PWD/mc MC_HOST_b=http://%s:%s@%s mc --quiet pipe b/%s/mc", flow, benchAccount, benchSecret,
				endpoint[len("http://"):], benchBucket)},
		{group: group, name: "voltar stream, compressed (the program)", needs: b.program(), before: [][]string{clear},
			argv: shell("%s stream flow --config %s", quote(b.program()), quote(b.streamConfig(kind, endpoint, flow)))},
	}
}

// program is voltar itself, as `make build` leaves it.
func (b *bench) program() string {
	path, err := filepath.Abs("voltar")
	if err != nil {
		return "voltar"
	}
	return path
}

// streamConfig writes a configuration of the defaults with the stream and the server; "" when it cannot.
func (b *bench) streamConfig(kind, endpoint, flow string) string {
	dir := filepath.Join(b.work, kind)
	path := filepath.Join(dir, "voltar.toml")
	text := fmt.Sprintf(`host = "bench"
state_dir = %q
run_dir = %q
[retention]
days = 7
[[destination]]
name = "bucket"
type = "s3"
endpoint = %q
bucket = %q
region = %q
access_key = %q
secret_key = { env = "VOLTAR_BENCH_SECRET" }
[[stream]]
name = "flow"
command = ["sh", "-c", %q]
level = "fast"
`, filepath.Join(dir, "state"), filepath.Join(dir, "run"), endpoint, benchBucket, benchRegion, benchAccount, flow)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		fmt.Fprintln(b.stderr, "left out:", err)
		return ""
	}
	return path
}

// startServer starts a server of those that the tests use, with its data in the folder of results, and makes the bucket.
func (b *bench) startServer(ctx context.Context, kind string) (endpoint string, stop func(), err error) {
	found, err := filepath.Glob(filepath.Join(".cache", "bin", kind+"-*"))
	if err != nil || len(found) == 0 {
		return "", nil, errors.Join(err, fmt.Errorf("there is no .cache/bin/%s-*: `make setup` builds it", kind))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := listener.Addr().String()
	dir := filepath.Join(b.work, kind)
	if err := errors.Join(listener.Close(), os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "data", benchBucket), 0o700)); err != nil {
		return "", nil, err
	}
	args := []string{"server", "--quiet", "--address", address, filepath.Join(dir, "data")}
	if kind == "versitygw" {
		args = []string{"--port", address, "--access", benchAccount, "--secret", benchSecret, "--quiet", "--keep-alive", "posix",
			filepath.Join(dir, "data")}
	}
	cmd := exec.CommandContext(ctx, found[0], args...)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+benchAccount, "MINIO_ROOT_PASSWORD="+benchSecret, "MINIO_BROWSER=off",
		"MINIO_UPDATE=off", "CI=true", "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = os.RemoveAll(dir) }
	endpoint = "http://" + address
	if err := b.awaitServer(ctx, endpoint); err != nil {
		stop()
		return "", nil, err
	}
	return endpoint, stop, nil
}

// awaitServer waits until a server answers, and then until the bucket can be used.
func (b *bench) awaitServer(ctx context.Context, endpoint string) error {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		answer, err := http.Get(endpoint)
		if err == nil {
			_ = answer.Body.Close()
			_, err = b.command(ctx, b.step("s3-clear", ".", endpoint))
		}
		if err == nil || ctx.Err() != nil || time.Since(began) > time.Minute {
			return err
		}
	}
}

func openBucket(endpoint, dir string) (*s3.Store, error) {
	return s3.Open(s3.Options{
		Endpoint: endpoint, Bucket: benchBucket, Region: benchRegion, PathStyle: true, StateDir: filepath.Join(dir, "s3"),
		Credentials: s3.Credentials{AccessKey: benchAccount, SecretKey: benchSecret},
	})
}

// stepPut stores standard input as one object, as a run does: summed up on the way, tagged, compared. Of a bound of 0
// nothing is known.
func stepPut(ctx context.Context, dir, endpoint, bound string) error {
	maxBytes, err := strconv.ParseInt(bound, 10, 64)
	if err != nil {
		return err
	}
	s, err := openBucket(endpoint, dir)
	if err != nil {
		return err
	}
	w, err := s.Create(ctx, "voltar", store.PutOptions{MaxBytes: maxBytes, Tags: map[string]string{"host": "bench"}})
	if err != nil {
		return err
	}
	sums := archive.NewSums()
	if _, err := io.CopyBuffer(io.MultiWriter(sums, w), onlyReader{os.Stdin}, make([]byte, 1<<20)); err != nil {
		return errors.Join(err, w.Abort())
	}
	digest := sums.Sum()
	if tagger, ok := w.(store.TagWriter); ok {
		tagger.SetTag("sha1", digest.SHA1)
	}
	object, err := w.Commit(ctx)
	if err == nil && object.SizeBytes != digest.SizeBytes {
		err = fmt.Errorf("the store holds %d bytes of %d", object.SizeBytes, digest.SizeBytes)
	}
	return err
}

// onlyReader hides that a file could write itself.
type onlyReader struct{ io.Reader }

// stepClear empties the bucket.
func stepClear(ctx context.Context, dir, endpoint string) error {
	s, err := openBucket(endpoint, dir)
	if err != nil {
		return err
	}
	objects, err := s.List(ctx, "")
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := s.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}

// stepFlow writes so many bytes that do not compress, no two blocks of which are the same.
func stepFlow(bytes string, stdout io.Writer) error {
	left, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	source := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	for left > 0 {
		part := block[:min(left, int64(len(block)))]
		if _, err := source.Read(part); err != nil {
			return err
		}
		if _, err := stdout.Write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return nil
}
