package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"voltar/internal/store"
	"voltar/internal/store/s3/s3test"
)

func TestPartBytes(t *testing.T) {
	s := &Store{minPart: minPartBytes}
	for _, test := range []struct {
		name           string
		maxBytes, want int64
	}{
		{"nothing known", 0, 64 << 20},
		{"small", 1, 16 << 20},
		{"7,000 of the smallest parts", 7_000 * 16 << 20, 16 << 20},
		{"one byte more", 7_000*16<<20 + 1, 17 << 20},
		{"1 TiB", 1 << 40, 150 << 20},
		{"the largest object", 5 << 40, 749 << 20},
	} {
		got, err := s.partBytes(test.maxBytes)
		if err != nil || got != test.want {
			t.Errorf("%s: %d, %v; want %d", test.name, got, err, test.want)
		}
		if got*evenParts < test.maxBytes {
			t.Errorf("%s: %d parts of %d hold less than %d", test.name, evenParts, got, test.maxBytes)
		}
		held := int64(0)
		for number := range maxParts {
			size := grownPartBytes(got, number)
			if number < evenParts && size != got || size > maxPartBytes {
				t.Fatalf("%s: part %d has %d bytes", test.name, number+1, size)
			}
			held += size
		}
		if held < maxObjectBytes {
			t.Errorf("%s: what is larger than announced ends at %d", test.name, held)
		}
	}
	if _, err := s.partBytes(5<<40 + 1); err == nil {
		t.Error("more than the largest object is taken")
	}
}

// uploads lists what the server keeps of unfinished uploads, as one who knows the key.
func uploads(t *testing.T, server *s3test.Server, bucket, object string) (list []minio.ObjectMultipartInfo) {
	t.Helper()
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	for upload := range client.ListIncompleteUploads(t.Context(), bucket, object, true) {
		if upload.Err != nil {
			t.Fatal(upload.Err)
		}
		list = append(list, upload)
	}
	return list
}

// childEnv makes this test's program the one that is killed.
const childEnv = "VOLTAR_TEST_S3_UPLOAD"

// A program that dies in the middle of an upload leaves no object, and no upload once the next one has swept; what
// others have under way is not touched.
func TestKilledUpload(t *testing.T) {
	if settings := os.Getenv(childEnv); settings != "" {
		uploadForEver(t, strings.Split(settings, "|"))
	}
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		t.Run(string(kind), func(t *testing.T) {
			server := s3test.Start(t, kind)
			server.Make(t, "bucket", s3test.Bucket{})
			opts := optionsFor(t, server, "bucket")
			const folder = "host/vg/lv/2026-11-20T010001Z"
			object := opts.Prefix + "/" + folder + "/lv.tar.gz"
			child := exec.Command(os.Args[0], "-test.run=^TestKilledUpload$")
			child.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{opts.Endpoint, opts.Bucket, opts.StateDir, folder + "/lv.tar.gz"}, "|"))
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // a part has gone
				t.Fatal(err)
			}
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := child.Wait(); err == nil {
				t.Fatal("the child was not killed")
			}
			if len(uploads(t, server, "bucket", object)) != 1 {
				t.Fatal("the child left no upload: nothing is tested")
			}
			s := openStore(t, opts)
			other, err := s.Create(t.Context(), "host/vg/lv/2026-11-20T010002Z/lv.tar.gz", store.PutOptions{MaxBytes: large})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Write(noise(large - 1)); err != nil {
				t.Fatal(err)
			}
			if objects, err := s.List(t.Context(), ""); err != nil || len(objects) != 0 {
				t.Errorf("before the sweep there is %v, %v", objects, err)
			}
			if freed, err := s.Sweep(t.Context(), folder); err != nil || freed < testPartBytes {
				t.Errorf("Sweep = %d, %v", freed, err)
			}
			if left := uploads(t, server, "bucket", object); len(left) > 0 {
				t.Errorf("after the sweep there is %v", left)
			}
			if _, err := other.Commit(t.Context()); err != nil {
				t.Errorf("the other upload: %v", err)
			}
			if notes, err := filepath.Glob(opts.StateDir + "/uploads/*"); err != nil || len(notes) > 0 {
				t.Errorf("notes are left: %v, %v", notes, err)
			}
		})
	}
}

// uploadForEver sends a part of an object and never ends it.
func uploadForEver(t *testing.T, settings []string) {
	s := openStore(t, Options{
		Endpoint: settings[0], Bucket: settings[1], Prefix: "backups/here", Region: s3test.Region, StateDir: settings[2],
		Credentials: Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey},
	})
	w, err := s.Create(context.Background(), settings[3], store.PutOptions{MaxBytes: large})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise(testPartBytes + 1)); err != nil {
		t.Fatal(err)
	}
	for len(w.(*writer).slots) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Print("!")
	select {}
}

// An upload that fails, or is given up, leaves nothing: neither here nor there.
func TestAbortedUpload(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	server.Make(t, "bucket", s3test.Bucket{})
	opts := optionsFor(t, server, "bucket")
	s := openStore(t, opts)
	for _, cancelled := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		w, err := s.Create(ctx, "h/a", store.PutOptions{MaxBytes: large})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(noise(large)); err != nil {
			t.Fatal(err)
		}
		if cancelled {
			cancel()
		}
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
		cancel()
		if left := uploads(t, server, "bucket", opts.Prefix+"/h/a"); len(left) > 0 {
			t.Errorf("cancelled %t: %v is left", cancelled, left)
		}
	}
	if notes, err := filepath.Glob(opts.StateDir + "/uploads/*"); err != nil || len(notes) > 0 {
		t.Errorf("notes are left: %v, %v", notes, err)
	}
	if free := len(s.memory.free) + s.memory.unmet; free != DefaultMemoryBytes/chunkBytes {
		t.Errorf("%d chunks of memory are free", free)
	}
}

// With too little memory for its parts, an object goes through files, and memory never grows.
func TestPartsInFiles(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	for _, megabytes := range []int64{0, 1, 6, 12} {
		t.Run(fmt.Sprint(megabytes), func(t *testing.T) {
			opts := optionsFor(t, server, "bucket")
			opts.Memory = NewMemory(megabytes << 20)
			s := openStore(t, opts)
			data := noise(3*testPartBytes + 99)
			if _, err := put(s, "a", data); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(get(t, s, "a"), data) {
				t.Error("other bytes came back")
			}
			if made := len(opts.Memory.free); int64(made) > megabytes || opts.Memory.unmet+made != int(megabytes) {
				t.Errorf("%d chunks were made and are free, %d never, of %d", made, opts.Memory.unmet, megabytes)
			}
			entries, err := os.ReadDir(opts.StateDir)
			if err != nil || len(entries) != 1 { // the folder of notes
				t.Errorf("%v, %v", entries, err)
			}
		})
	}
}

// Parts for very large objects never take memory.
func TestLargePartsAreInFiles(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	s := openStore(t, optionsFor(t, server, "bucket"))
	w, err := s.Create(t.Context(), "a", store.PutOptions{MaxBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	data := noise(155 << 20) // a part is 150 MiB
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if len(s.memory.free)+s.memory.unmet != DefaultMemoryBytes/chunkBytes {
		t.Error("a part is in memory")
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, s, "a"), data) {
		t.Error("other bytes came back")
	}
}

// Four long streams at a time, of which nothing is known, in the memory of one.
func TestMemoryIsShared(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	opts := optionsFor(t, server, "bucket")
	opts.Memory = NewMemory(70 << 20)
	s := openStore(t, opts)
	errs := make(chan error)
	piece := noise(1 << 20)
	for i := range 4 {
		go func() {
			w, err := s.Create(t.Context(), fmt.Sprintf("h/%d", i), store.PutOptions{})
			for n := 0; n < 70 && err == nil; n++ {
				_, err = w.Write(piece)
			}
			if err == nil {
				_, err = w.Commit(t.Context())
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	t.Logf("%d MiB of heap were taken", stats.HeapSys>>20)
	for _, o := range mustList(t, s, "h") {
		if o.SizeBytes != 70<<20 {
			t.Errorf("%+v", o)
		}
	}
}

func mustList(t *testing.T, s *Store, prefix string) []store.Object {
	t.Helper()
	objects, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// What becomes larger than was announced does not run out of parts: they grow.
func TestMoreThanAnnounced(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	s := openStore(t, optionsFor(t, server, "bucket"))
	data := noise(9 * testPartBytes)
	w, err := s.Create(t.Context(), "a", store.PutOptions{MaxBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	object := w.(*writer)
	write := func(bytes int64) {
		t.Helper()
		if _, err := w.Write(data[object.size : object.size+bytes]); err != nil {
			t.Fatal(err)
		}
	}
	write(testPartBytes + 1) // the first part is on its way
	object.partBytes = grownPartBytes(object.evenBytes, evenParts)
	write(2*testPartBytes - 1 + 1)
	object.partBytes = grownPartBytes(object.evenBytes, evenParts+doubleEvery)
	write(4*testPartBytes - 1 + 1)
	var sizes []int64
	for _, p := range object.sent {
		sizes = append(sizes, p.Size/testPartBytes)
	}
	if !slices.Equal(sizes, []int64{1, 2, 4}) {
		t.Errorf("parts have %v times the first one's size", sizes)
	}
	if _, err := w.Write(data[object.size:]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, s, "a"), data) {
		t.Error("other bytes came back")
	}
}

// What is larger than any object fails as such.
func TestMoreThanAnyObject(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	s := openStore(t, optionsFor(t, server, "bucket"))
	for _, at := range []func(*writer){
		func(w *writer) { w.size = maxObjectBytes },
		func(w *writer) { w.sent = make([]minio.ObjectPart, maxParts) },
	} {
		w, err := s.Create(t.Context(), "a", store.PutOptions{MaxBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		at(w.(*writer))
		if _, err := w.Write(noise(testPartBytes + 1)); err == nil || !strings.Contains(err.Error(), "cannot store more than") {
			t.Errorf("%v", err)
		}
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}
}

func TestTagsAndStorage(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		server := s3test.Start(t, kind)
		server.Make(t, "bucket", s3test.Bucket{})
		client, err := server.Client()
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{10, large} {
			opts := optionsFor(t, server, "bucket")
			s := openStore(t, opts)
			w, err := s.Create(t.Context(), "a", store.PutOptions{MaxBytes: int64(size), Tags: map[string]string{"volume": "@dump/naïve;1"}})
			if err != nil {
				t.Fatal(err)
			}
			w.(store.TagWriter).SetTag("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709")
			if _, err := w.Write(noise(size)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(t.Context()); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			tags, err := client.GetObjectTagging(t.Context(), "bucket", opts.Prefix+"/a", minio.GetObjectTaggingOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := tags.ToMap()
			if got["volume"] != "@dump/na_ve_1" || got["sha1"] != "da39a3ee5e6b4b0d3255bfef95601890afd80709" {
				t.Errorf("%s: %v", kind, got)
			}
		}
	}
}

func TestChecksums(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.MinIO} {
		server := s3test.Start(t, kind)
		server.Make(t, "bucket", s3test.Bucket{})
		for _, sum := range []Checksum{CRC64NVME, CRC32C, MD5} {
			for _, size := range []int{0, 10, large} {
				t.Run(fmt.Sprintf("%s/%s/%d", kind, sum, size), func(t *testing.T) {
					opts := optionsFor(t, server, "bucket")
					opts.Checksum = sum
					s := openStore(t, opts)
					data := noise(size)
					if _, err := put(s, "a", data); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(get(t, s, "a"), data) {
						t.Error("other bytes came back")
					}
					info, err := s.stat(t.Context(), "a", "")
					if err != nil {
						t.Fatal(err)
					}
					if sum != MD5 && size == large && info.ChecksumMode != fullObject {
						t.Errorf("the server keeps a checksum of type %q", info.ChecksumMode)
					}
				})
			}
		}
	}
}

// What a server holds and says is compared with what was sent.
func TestCommitCompares(t *testing.T) {
	server := s3test.Start(t, s3test.MinIO)
	for _, size := range []int{10, large} {
		for _, wrong := range []string{"size", "sum"} {
			t.Run(fmt.Sprintf("%s/%d", wrong, size), func(t *testing.T) {
				bucket := bucketName(t)
				server.Make(t, bucket, s3test.Bucket{})
				s := openStore(t, optionsFor(t, server, bucket))
				w, err := s.create(t.Context(), "a", store.PutOptions{MaxBytes: int64(size)})
				if err != nil {
					t.Fatal(err)
				}
				data := noise(size)
				if _, err := w.Write(data); err != nil {
					t.Fatal(err)
				}
				if wrong == "size" {
					w.size++
				} else {
					w.part.sum.Write([]byte{1})
				}
				if _, err := w.Commit(t.Context()); err == nil {
					t.Error("it was taken")
				}
				nothingLeft(t, server, bucket, s)
			})
		}
	}
}

func TestUploadLimit(t *testing.T) {
	server := s3test.Start(t, s3test.Versitygw)
	server.Make(t, "bucket", s3test.Bucket{})
	opts := optionsFor(t, server, "bucket")
	opts.UploadLimit = 10 << 20
	s := openStore(t, opts)
	data := noise(2 << 20)
	began := time.Now()
	if _, err := put(s, "a", data); err != nil {
		t.Fatal(err)
	}
	// A lower bound cannot fail on a machine that is busy.
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("2 MiB at 10 MiB/s took %s", took)
	}
	if !bytes.Equal(get(t, s, "a"), data) {
		t.Error("other bytes came back")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	slow := newLimiter(1)
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if err := slow.wait(ctx, 1000); !errors.Is(err, cause) {
		t.Errorf("waiting ended with %v", err)
	}
}

// What is sent again is no progress: a server that hangs would otherwise look alive for as long as its kernel takes data.
func TestMovedBytesCountOnce(t *testing.T) {
	s := &Store{memory: NewMemory(DefaultMemoryBytes)}
	p := newPart(s.memory, t.TempDir(), crc32.NewIEEE())
	if _, err := p.fill(noise(100_000)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ reads, moved int64 }{{60_000, 60_000}, {40_000, 60_000}, {100_000, 100_000}, {100_000, 100_000}} {
		if _, err := io.CopyN(io.Discard, s.body(t.Context(), p), step.reads); err != nil {
			t.Fatal(err)
		}
		if got := s.MovedBytes(); got != step.moved {
			t.Errorf("after a request of %d bytes %d have moved, want %d", step.reads, got, step.moved)
		}
	}
	if err := p.release(); err != nil {
		t.Fatal(err)
	}
}
