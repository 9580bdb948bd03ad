package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// failOn returns a fault that gives err for one step, on paths that contain part.
func failOn(step Op, part string, err error) Fault {
	return func(op Op, path string) error {
		if op == step && strings.Contains(path, part) {
			return err
		}
		return nil
	}
}

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	return got
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, content := range []string{"first", "second", ""} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := mustRead(t, path); got != content {
			t.Errorf("content %q, want %q", got, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("permissions %o, want 640", info.Mode().Perm())
	}
	if got := names(t, dir); !slices.Equal(got, []string{"state"}) {
		t.Errorf("folder holds %q", got)
	}
}

// Every step that fails must leave the earlier file, no temporary file, and an error that says why.
func TestFaultLeavesEarlierFile(t *testing.T) {
	for _, step := range []Op{OpCreate, OpWrite, OpSync, OpClose, OpRename} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(string(step)+"/"+cause.Error(), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "state")
				if err := WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
				err := Host(failOn(step, tempMark, cause)).WriteFile(path, []byte("new"), 0o600)
				if !errors.Is(err, cause) {
					t.Errorf("error %v, want %v", err, cause)
				}
				if got := mustRead(t, path); got != "old" {
					t.Errorf("content %q, want the old", got)
				}
				if got := names(t, dir); !slices.Equal(got, []string{"state"}) {
					t.Errorf("folder holds %q", got)
				}
			})
		}
	}
}

func TestFailedFolderSync(t *testing.T) {
	dir := t.TempDir()
	broken := Host(failOn(OpSyncDir, dir, syscall.EIO))
	fresh, replaced := filepath.Join(dir, "fresh"), filepath.Join(dir, "replaced")
	if err := WriteFile(replaced, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fresh, replaced} {
		if err := broken.WriteFile(path, []byte("new"), 0o600); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: error %v, want EIO", path, err)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"replaced"}) {
		t.Errorf("folder holds %q: a file of which nobody knows that it is durable must not appear", got)
	}
}

func TestFolderThatCannotBeSynced(t *testing.T) {
	for _, cause := range []error{syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		dir := t.TempDir()
		path := filepath.Join(dir, "state")
		if err := Host(failOn(OpSyncDir, dir, cause)).WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Errorf("a file system that answers %v: %v", cause, err)
		}
		if got := mustRead(t, path); got != "x" {
			t.Errorf("content %q", got)
		}
	}
}

func TestPermissionsDespiteUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, perm := range []fs.FileMode{0o600, 0o644, 0o640} {
		path := filepath.Join(t.TempDir(), "state")
		if err := WriteFile(path, nil, perm); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != perm {
			t.Errorf("permissions %v, %v, want %v", info.Mode(), err, perm)
		}
	}
}

// The steps come in the order that survives a power cut.
func TestOrderOfSteps(t *testing.T) {
	dir := t.TempDir()
	var steps []string
	record := func(op Op, path string) error {
		what := "file"
		if path == dir {
			what = "folder"
		} else if IsTemp(filepath.Base(path)) {
			what = "temp"
		}
		steps = append(steps, string(op)+" "+what)
		return nil
	}
	if err := Host(record).WriteFile(filepath.Join(dir, "state"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"create temp", "write temp", "fsync temp", "close temp", "rename temp", "fsync folder folder"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

func TestFileIsCommittedOrAborted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "archive")
	create := func() *File {
		f, err := (*FS)(nil).Create(path, 0o600, CreateOptions{Tag: "RUN"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, "data"); err != nil {
			t.Fatal(err)
		}
		return f
	}

	aborted := create()
	left := names(t, dir)
	if len(left) != 1 || !IsTemp(left[0]) || !strings.HasPrefix(left[0], ".archive.voltar-tmp-RUN-") {
		t.Errorf("while it is written, the folder holds %q", left)
	}
	if err := errors.Join(aborted.Abort(), aborted.Abort()); err != nil {
		t.Error(err)
	}
	if err := aborted.Commit(); err == nil {
		t.Error("Commit after Abort succeeded")
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("after Abort the folder holds %q", left)
	}

	committed := create()
	if err := committed.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := committed.Abort(); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	if err := committed.Commit(); err == nil {
		t.Error("a second Commit succeeded")
	}
	if _, err := committed.Write([]byte("x")); err == nil {
		t.Error("Write after Commit succeeded")
	}
	if got := mustRead(t, path); got != "data" {
		t.Errorf("content %q", got)
	}
}

// A write error is remembered: nobody can commit what lacks bytes.
func TestCommitAfterFailedWrite(t *testing.T) {
	dir := t.TempDir()
	full := true
	host := Host(func(op Op, _ string) error {
		if op == OpWrite && full {
			return syscall.ENOSPC
		}
		return nil
	})
	f, err := host.Create(filepath.Join(dir, "archive"), 0o600, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Write([]byte("12345678"))
	if !errors.Is(err, syscall.ENOSPC) || n != 4 {
		t.Errorf("Write = %d, %v, want 4 and ENOSPC", n, err)
	}
	full = false
	if _, err := f.Write([]byte("more")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("second Write: %v, want the first's error", err)
	}
	if err := f.Commit(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Commit: %v, want ENOSPC", err)
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("folder holds %q", left)
	}
}

// Some file systems lose bytes without an error: what is committed has the size that was written.
func TestCommitLooksAtTheSize(t *testing.T) {
	dir := t.TempDir()
	f, err := (*FS)(nil).Create(filepath.Join(dir, "archive"), 0o600, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, names(t, dir)[0]), 3); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err == nil {
		t.Error("a file that lost bytes was committed")
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("folder holds %q", left)
	}
}

func TestStreamHoldsEveryByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	f, err := (*FS)(nil).Create(path, 0o600, CreateOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	want := 3*windowBytes + 1
	for f.Size() < int64(want) {
		part := chunk[:min(len(chunk), want-int(f.Size()))]
		if _, err := f.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if f.behind.started == 0 || f.behind.waited == 0 {
		t.Error("nothing was written back while writing")
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, path)
	if len(got) != want || got[:len(chunk)] != string(chunk) || got[len(got)-1] != '0' {
		t.Errorf("file of %d bytes is not what was written", len(got))
	}
}

// Of many exclusive files of one name one appears, whole, whichever way the file system knows; the others leave nothing.
func TestExclusive(t *testing.T) {
	dir := t.TempDir()
	files := (*FS)(nil)
	for name, rename := range map[string]func(oldPath, newPath string) error{
		"in one step": files.renameNoReplace, "by an empty file": files.renameReserved, "whatever is there": files.renameAlone,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			var group sync.WaitGroup
			var won atomic.Int32
			for i := range 8 {
				group.Go(func() {
					temp := fmt.Sprintf("%s-%d", path, i)
					if err := os.WriteFile(temp, []byte(temp), 0o600); err != nil {
						t.Error(err)
					}
					switch err := rename(temp, path); {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, fs.ErrExist):
						t.Error(err)
					}
				})
			}
			group.Wait()
			if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), path+"-") || won.Load() != 1 {
				t.Errorf("%d were told that they had it, and it holds %q, %v", won.Load(), data, err)
			}
		})
	}
	path := filepath.Join(dir, "file")
	for i, wanted := range []error{nil, fs.ErrExist} {
		file, err := files.Create(path, 0o600, CreateOptions{Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(file, i); err != nil {
			t.Fatal(err)
		}
		if err := file.Commit(); !errors.Is(err, wanted) {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".file*"))
	if data, readErr := os.ReadFile(path); string(data) != "0" || errors.Join(err, readErr) != nil || len(left) > 0 {
		t.Errorf("it holds %q, and beside it there is %q, %v", data, left, errors.Join(err, readErr))
	}
}

func TestTempNames(t *testing.T) {
	long := strings.Repeat("n", maxNameBytes)
	path := filepath.Join(t.TempDir(), long)
	if err := WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Errorf("a name of %d bytes: %v", len(long), err)
	}
	for name, want := range map[string]bool{
		".a.voltar-tmp-0123456789ab": true, ".a.voltar-tmp-RUN-0123": true, "a.voltar-tmp-0123": false, ".hidden": false,
		"volume-00000001.tar.gz": false,
	} {
		if IsTemp(name) != want {
			t.Errorf("IsTemp(%q) = %v", name, !want)
		}
	}
	first, second := tempPath("d/n", ""), tempPath("d/n", "")
	if first == second {
		t.Error("two temporary names are the same")
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	host := Host(func(op Op, path string) error {
		if op == OpSyncDir {
			synced = append(synced, path)
		}
		return nil
	})
	path := filepath.Join(dir, "a", "b")
	for range 2 {
		if err := host.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{dir, filepath.Join(dir, "a")}; !slices.Equal(synced, want) {
		t.Errorf("fsynced %q, want %q", synced, want)
	}
	if err := WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := host.MkdirAll(filepath.Join(dir, "file", "x"), 0o700); err == nil {
		t.Error("a folder below a file was made")
	}
	broken := Host(failOn(OpMkdir, "c", syscall.EROFS))
	if err := broken.MkdirAll(filepath.Join(dir, "c"), 0o700); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want EROFS", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Host(failOn(OpSyncDir, dir, syscall.EIO)).Remove(path); !errors.Is(err, syscall.EIO) {
		t.Errorf("error %v, want EIO of the folder's fsync", err)
	}
	if err := Remove(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
}

func TestRootCannotBeLeft(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	in := In(root, nil)
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"link/f", "../f", outside + "/f"} {
		if err := in.WriteFile(path, []byte("x"), 0o600); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if got := names(t, outside); len(got) != 0 {
		t.Errorf("outside there is %q", got)
	}
	if err := errors.Join(in.MkdirAll("a/b", 0o700), in.WriteFile("a/b/f", []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, filepath.Join(dir, "a/b/f")); got != "x" {
		t.Errorf("content %q", got)
	}
	if err := errors.Join(in.Rename("a/b/f", "a/b/g"), in.Remove("a/b/g"), in.Remove("a/b")); err != nil {
		t.Error(err)
	}
}

func TestAppender(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var fail error
	host := Host(func(op Op, _ string) error {
		if op == OpWrite {
			return fail
		}
		return nil
	})
	a, err := host.OpenAppend(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Append([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	fail = syscall.ENOSPC
	if err := a.Append([]byte("torn record\n")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	if got := mustRead(t, path); got != "one\n" {
		t.Errorf("after a failed write the file holds %q", got)
	}
	fail = nil
	if err := a.Append([]byte("two\n")); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := host.OpenAppend(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Append([]byte("three\n")), again.Close()); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, path); got != "one\ntwo\nthree\n" {
		t.Errorf("file holds %q", got)
	}
}

func TestAppenderStopsWhenTheDiskIsNotToBeTrusted(t *testing.T) {
	for _, steps := range [][]Op{{OpSync}, {OpWrite, OpTruncate}} {
		broken := true
		host := Host(func(op Op, _ string) error {
			if broken && slices.Contains(steps, op) {
				return syscall.EIO
			}
			return nil
		})
		a, err := host.OpenAppend(filepath.Join(t.TempDir(), "log"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Append([]byte("one\n")); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v: error %v, want EIO", steps, err)
		}
		broken = false
		if err := a.Append([]byte("two\n")); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v: an append behind it: %v, want EIO", steps, err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
