package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/durable"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/internal/store/storetest"
)

// mustOpen opens a store that is closed at the end of the test.
func mustOpen(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		later := func() time.Time { return time.Now().Add(time.Hour) } // what was just written has stood for long
		return mustOpen(t, Options{Path: filepath.Join(t.TempDir(), "backups"), Run: "20261120T010001Z-3f9a0c", Now: later})
	})
}

// A file whose last change may be of the same tick as the next one has no mark, so its successor is never mistaken for it.
func TestYoungFilesHaveNoMark(t *testing.T) {
	var now time.Time
	s := mustOpen(t, Options{Path: t.TempDir(), Now: func() time.Time { return now }})
	if err := put(s, "h/a", "x"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.String(), "h/a"))
	if err != nil {
		t.Fatal(err)
	}
	changed := time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
	for age, young := range map[time.Duration]bool{-time.Hour: true, -1: true, 0: true, settled - 1: true, settled: false, time.Hour: false} {
		now = changed.Add(age)
		r, err := s.Open(t.Context(), "h/a")
		if err != nil {
			t.Fatal(err)
		}
		if marks := r.(store.Marked).Marks(); len(marks) != 1 || (marks[0] == "") != young {
			t.Errorf("at the age of %v it has the marks %q", age, marks)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A folder that cannot be looked into hides no other.
func TestLookIntoAFolderThatCannotBeRead(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	for _, key := range []string{"h/a/m", "h/b/m", "h/c/m"} {
		if err := put(s, key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("loop", filepath.Join(s.String(), "h/b/loop")); err != nil {
		t.Fatal(err)
	}
	folders, err := s.Look(t.Context(), "h", "m", "loop/m")
	if err != nil || len(folders) != 3 {
		t.Fatalf("%+v, %v", folders, err)
	}
	for _, f := range folders {
		if broken := f.Name == "b"; errors.Is(f.Err, syscall.ELOOP) != broken || (f.Err != nil) != broken || len(f.Objects) != 1 {
			t.Errorf("%+v", f)
		}
	}
}

// put writes one object.
func put(s *Store, key, data string) error {
	w, err := s.Create(context.Background(), key, store.PutOptions{})
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(data)); err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Commit(context.Background())
	return err
}

// tree lists every path below a folder.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			paths = append(paths, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestModes(t *testing.T) {
	s := mustOpen(t, Options{Path: filepath.Join(t.TempDir(), "new", "backups")})
	if err := put(s, "h/v/a", "x"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		".": 0o700 | fs.ModeDir, "h": 0o700 | fs.ModeDir, "h/v": 0o700 | fs.ModeDir, "h/v/a": 0o600,
	} {
		info, err := os.Stat(filepath.Join(s.String(), path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestTemporaryNames(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir(), Run: "RUN"})
	w, err := s.Create(context.Background(), "h/a", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := tree(t, s.String())
	if len(got) != 2 || !strings.HasPrefix(got[1], "h/.a.voltar-tmp-RUN-") {
		t.Errorf("while it is written the folder holds %q", got)
	}
	if err := put(s, got[1], "x"); !errors.Is(err, store.ErrBadKey) {
		t.Errorf("an object of a temporary name: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(context.Background(), "h"); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, s.String()); len(got) != 0 {
		t.Errorf("after the sweep the folder holds %q", got)
	}
}

func TestFaults(t *testing.T) {
	cases := []struct {
		step    durable.Op
		cause   error
		noSpace bool
	}{
		{durable.OpMkdir, syscall.ENOSPC, true}, {durable.OpCreate, syscall.EDQUOT, true},
		{durable.OpWrite, syscall.ENOSPC, true}, {durable.OpWrite, syscall.EIO, false},
		{durable.OpSync, syscall.EIO, false}, {durable.OpSync, syscall.EDQUOT, true},
		{durable.OpClose, syscall.ENOSPC, true}, {durable.OpRename, syscall.EROFS, false},
		{durable.OpSyncDir, syscall.EIO, false},
	}
	for _, c := range cases {
		t.Run(string(c.step)+"/"+c.cause.Error(), func(t *testing.T) {
			broken := false
			s := mustOpen(t, Options{Path: t.TempDir(), Fault: func(op durable.Op, path string) error {
				if broken && op == c.step && strings.HasPrefix(path, "h") {
					return c.cause
				}
				return nil
			}})
			broken = true
			err := put(s, "h/v/a", "data")
			if !errors.Is(err, c.cause) || errors.Is(err, store.ErrNoSpace) != c.noSpace {
				t.Fatalf("error %v, want %v", err, c.cause)
			}
			var whole *store.WholeError
			if errors.As(err, &whole) != c.noSpace || c.noSpace && strings.Contains(whole.Error(), "h/v/a") {
				t.Errorf("of the destination as a whole it says %v", whole)
			}
			if c.noSpace && !strings.Contains(err.Error(), " free; a quota may be in the way, or the disk is failing") {
				t.Errorf("%q does not say that there is room", err)
			}
			if !strings.Contains(err.Error(), filepath.Join(s.String(), "h/v/a")) {
				t.Errorf("%q does not say where", err)
			}
			for _, left := range tree(t, s.String()) {
				if left != "h" && left != "h/v" {
					t.Errorf("%s was left", left)
				}
			}
			broken = false
			if err := put(s, "h/v/a", "data"); err != nil {
				t.Errorf("once the fault is gone: %v", err)
			}
		})
	}
}

func TestDeleteFault(t *testing.T) {
	broken := false
	s := mustOpen(t, Options{Path: t.TempDir(), Fault: func(op durable.Op, path string) error {
		if broken && op == durable.OpRemove && path == "h/a" {
			return syscall.EIO
		}
		return nil
	}})
	if err := put(s, "h/a", "x"); err != nil {
		t.Fatal(err)
	}
	broken = true
	if err := s.Delete(context.Background(), "h/a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("error %v, want EIO", err)
	}
}

func TestLinksAreNotFollowedOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Options{Path: t.TempDir()})
	for name, target := range map[string]string{"dir": outside, "file": filepath.Join(outside, "secret"), "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(s.String(), name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for _, key := range []string{"file", "dir/secret", "dir", "loop"} {
		if _, err := s.Open(ctx, key); err == nil {
			t.Errorf("%s was opened", key)
		}
		if _, err := s.Stat(ctx, key); err == nil {
			t.Errorf("%s has a size", key)
		}
		if err := put(s, key, "overwritten"); err == nil {
			t.Errorf("%s was written", key)
		}
		_ = s.Delete(ctx, key) // refused or nothing to do: what counts is what stands afterwards
	}
	objects, err := s.List(ctx, "")
	if err != nil || len(objects) != 0 {
		t.Errorf("List = %v, %v", objects, err)
	}
	if names, err := s.Folders(ctx, ""); err != nil || len(names) != 0 {
		t.Errorf("Folders = %v, %v", names, err)
	}
	if _, err := s.Sweep(ctx, ""); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(data) != "x" {
		t.Errorf("outside: %q, %v", data, err)
	}
	if got := tree(t, outside); !slices.Equal(got, []string{"secret"}) {
		t.Errorf("outside: %q", got)
	}
}

// What is no regular file of ours is neither listed nor opened, and opening it does not hang.
func TestForeignFiles(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	if err := put(s, "h/a", "x"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(s.String(), "h", "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.String(), "h", "not\xffutf8"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	objects, err := s.List(context.Background(), "")
	if err != nil || len(objects) != 1 {
		t.Errorf("List = %v, %v", objects, err)
	}
	if _, err := s.Open(context.Background(), "h/fifo"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("open a FIFO: %v", err)
	}
	for _, name := range []string{"vg", "Icon\r", "line\nbreak", "not\xffutf8 either"} {
		if err := os.Mkdir(filepath.Join(s.String(), "h", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	folders, err := s.Folders(context.Background(), "h")
	if err != nil || !slices.Equal(folders, []string{"vg"}) {
		t.Errorf("Folders = %q, %v", folders, err)
	}
}

// use opens a folder and says why it cannot be used.
func use(opts Options) error {
	s, err := Open(opts)
	if err != nil {
		return err
	}
	_, err = s.Usage(context.Background())
	return errors.Join(err, s.Close())
}

func TestRequireMount(t *testing.T) {
	mount := t.TempDir()
	path := filepath.Join(mount, "backups")
	if err := use(Options{Path: path, RequireMount: mount}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("a folder that is no mountpoint: %v", err)
	}
	if err := use(Options{Path: path, RequireMount: filepath.Join(mount, "missing")}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("a mountpoint that is not there: %v", err)
	}
	if got := tree(t, mount); len(got) != 0 {
		t.Errorf("below the missing mount %q was made", got)
	}
	mustOpen(t, Options{Path: path, RequireMount: "/"})
	if err := use(Options{Path: path, RequireMount: "/proc"}); err == nil || errors.Is(err, ErrNotMounted) {
		t.Errorf("a folder elsewhere than the mount: %v", err)
	}
	if _, err := Open(Options{Path: "relative"}); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestUnmountedMeanwhile(t *testing.T) {
	mount := t.TempDir()
	isMounted := true
	s, err := open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount},
		host{t.TempDir(), func(path string) (bool, error) { return isMounted && path == mount, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := put(s, "a", "x"); err != nil {
		t.Fatal(err)
	}
	isMounted = false
	want := mount + " is not mounted\nhint: mount its disk; if it is not meant to be a mountpoint, require_mount in the configuration " +
		"names another, or \"none\""
	if err := put(s, "b", "x"); !errors.Is(err, ErrNotMounted) || say.Text(err) != want {
		t.Errorf("after it was unmounted: %v", say.Text(err))
	}
}

// One cause, and the command that the host's own tables ask for.
func TestWhatFstabMountsIsMountedByItsName(t *testing.T) {
	root := t.TempDir()
	fstab := filepath.Join(root, "etc/fstab")
	err := errors.Join(os.Mkdir(filepath.Dir(fstab), 0o700), os.WriteFile(fstab, []byte("UUID=4 /srv/usb ext4 noauto 0 2\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(Options{Path: "/srv/usb/backups", RequireMount: "/srv/usb"}, host{root, func(string) (bool, error) { return false, nil }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Open(t.Context(), "h/a")
	if want := "/srv/usb is not mounted\nhint: `mount /srv/usb`: what belongs there is in /etc/fstab"; err == nil || say.Text(err) != want {
		t.Errorf("%v, want %s", say.Text(err), want)
	}
}

// Another folder under the same path is what a lazy unmount, or a mount over it, leaves.
func TestFolderReplacedMeanwhile(t *testing.T) {
	path := t.TempDir()
	s := mustOpen(t, Options{Path: path})
	if err := put(s, "a", "x"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(path, path+".old"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := put(s, "a", "x"); !errors.Is(err, ErrMoved) {
		t.Errorf("error %v, want ErrMoved", err)
	}
	if _, err := s.Usage(t.Context()); !errors.Is(err, ErrMoved) {
		t.Errorf("its room is told: %v, want ErrMoved", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := put(s, "a", "x"); !errors.Is(err, ErrMoved) {
		t.Errorf("error %v, want ErrMoved", err)
	}
}

func TestUsage(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	usage, err := s.Usage(context.Background())
	if err != nil || usage.TotalBytes <= 0 || usage.FreeBytes < 0 || usage.FreeBytes > usage.TotalBytes {
		t.Errorf("Usage = %+v, %v", usage, err)
	}
}

// Only an object that is written makes a missing folder: whoever reads finds nothing, and room where it is to be.
func TestMissingFolder(t *testing.T) {
	above := t.TempDir()
	s := mustOpen(t, Options{Path: filepath.Join(above, "new", "backups")})
	ctx := t.Context()
	notes, err := s.Probe(ctx)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], s.String()+" is not there yet: the first run makes it") {
		t.Errorf("Probe = %q, %v", notes, err)
	}
	objects, err := s.List(ctx, "")
	if err != nil || len(objects) > 0 {
		t.Errorf("List = %v, %v", objects, err)
	}
	folders, err := s.Look(ctx, "", "m")
	if err != nil || len(folders) > 0 {
		t.Errorf("Look = %v, %v", folders, err)
	}
	names, err := s.Folders(ctx, "h")
	if err != nil || len(names) > 0 {
		t.Errorf("Folders = %v, %v", names, err)
	}
	if _, err := s.Open(ctx, "h/a"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
	freed, err := s.Sweep(ctx, "h")
	if err := errors.Join(err, s.Delete(ctx, "h/a")); err != nil || freed != 0 {
		t.Errorf("Sweep and Delete: %d bytes, %v", freed, err)
	}
	usage, err := s.Usage(ctx)
	if there, thereErr := mustOpen(t, Options{Path: above}).Usage(ctx); err != nil || thereErr != nil || usage.TotalBytes != there.TotalBytes ||
		usage.Inodes != there.Inodes {
		t.Errorf("Usage = %+v, %v, and above it %+v, %v", usage, err, there, thereErr)
	}
	if got := tree(t, above); len(got) > 0 {
		t.Errorf("whoever reads has made %q", got)
	}
	if err := put(s, "h/a", "x"); err != nil {
		t.Fatal(err)
	}
	if objects, err := s.List(ctx, ""); err != nil || len(objects) != 1 || s.Pending(ctx) != "" {
		t.Errorf("with an object: List = %v, %v; %s", objects, err, s.Pending(ctx))
	}
}

// A folder that cannot be made is told, and nothing is made in its stead.
func TestFolderThatCannotBeMade(t *testing.T) {
	above := t.TempDir()
	if err := errors.Join(os.Symlink("nowhere", filepath.Join(above, "link")), os.WriteFile(filepath.Join(above, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"link": "link is a symbolic link to what is not there", "link/below": "link is a symbolic link to what is not there", "file": "file is no folder",
		"file/below/it": filepath.Join(above, "file") + " is no folder",
	} {
		if err := use(Options{Path: filepath.Join(above, path)}); err == nil || !strings.HasSuffix(err.Error(), want) || len(say.Hints(err)) == 0 {
			t.Errorf("%s: %v, want %q and a hint", path, say.Text(err), want)
		}
	}
	isMounted := true
	mount := filepath.Join(above, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := open(Options{Path: filepath.Join(mount, "backups"), RequireMount: mount},
		host{t.TempDir(), func(string) (bool, error) { return isMounted, nil }})
	if err != nil {
		t.Fatal(err)
	}
	isMounted = false
	if _, err := s.Probe(t.Context()); !errors.Is(err, ErrNotMounted) {
		t.Errorf("Probe: %v, want ErrNotMounted", err)
	}
	if _, err := s.List(t.Context(), ""); !errors.Is(err, ErrNotMounted) {
		t.Errorf("List: %v, want ErrNotMounted", err)
	}
	if err := put(s, "a", "x"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("a first object: %v, want ErrNotMounted", err)
	}
	if got := tree(t, mount); len(got) > 0 {
		t.Errorf("below the missing mount %q was made", got)
	}
}

// Errors end with the next step.
func TestNextSteps(t *testing.T) {
	for cause, want := range map[error]string{syscall.EROFS: "remount,rw", syscall.EACCES: "root"} {
		above := t.TempDir()
		s := mustOpen(t, Options{Path: filepath.Join(above, "backups"), Fault: func(durable.Op, string) error { return cause }})
		if err := put(s, "h/a", "x"); !errors.Is(err, cause) || !strings.Contains(strings.Join(say.Hints(err), "\n"), want) ||
			!strings.Contains(strings.Join(say.Hints(err), "\n"), above) {
			t.Errorf("%v, want a hint with %q and %s", say.Text(err), want, above)
		}
	}
}

// The program can end while a disk hangs, and what comes back later is let go.
func TestCloseWhileTheDiskHangs(t *testing.T) {
	mount := t.TempDir()
	hangs, goOn := make(chan struct{}), make(chan struct{})
	s, err := open(Options{Path: mount, RequireMount: mount}, host{t.TempDir(), func(string) (bool, error) {
		close(hangs)
		<-goOn
		return true, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	late := make(chan error)
	go func() {
		_, err := s.Usage(context.Background())
		late <- err
	}()
	<-hangs
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := <-late; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after the end: %v, want fs.ErrClosed", err)
	}
}

// A folder that appears while it is looked for is no link that leads nowhere: all writers of a first run make the destination's.
func TestFolderThatAppears(t *testing.T) {
	dir := t.TempDir()
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = os.Mkdir(filepath.Join(dir, "backups"), 0o700)
			_ = os.Remove(filepath.Join(dir, "backups"))
		}
	}()
	for range 20_000 {
		if _, err := nearest(filepath.Join(dir, "backups")); err != nil {
			t.Fatal(err)
		}
	}
}
