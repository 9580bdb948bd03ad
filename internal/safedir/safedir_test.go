package safedir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"voltar/internal/say"
)

// base is a folder that others may enter, on a way that they cannot change. Its mode does not depend on the umask.
func base(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		chmod(t, at, 0o755)
	}
	return dir
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(t, path, mode)
	return path
}

func open(t *testing.T, path string) error {
	t.Helper()
	checked := Check(path)
	root, err := Open(path)
	if (checked == nil) != (err == nil) {
		t.Errorf("Check says %v, Open %v", checked, err)
	}
	if err == nil {
		root.Close()
	}
	return err
}

func wantUntrusted(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrUntrusted) || len(say.Hints(err)) != 1 {
		t.Errorf("error %v with the hints %q", err, say.Hints(err))
	}
}

func TestWhatIsMissingIsMadeForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(base(t), "a", "b")
	if err := Check(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(path)); err == nil {
		t.Error("Check made something")
	}
	root, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, dir := range []string{path, filepath.Dir(path)} {
		if info, err := os.Lstat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if err := root.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(path, "file")); err != nil {
		t.Error(err)
	}
}

func TestAFolderOfOnesOwnKeepsItsMode(t *testing.T) {
	path := mkdir(t, filepath.Join(base(t), "own"), 0o755)
	if err := open(t, path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	link := filepath.Join(base(t), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := open(t, filepath.Join(link, "..", "own", "new")); err != nil {
		t.Errorf("through a link of one's own: %v", err)
	}
}

func TestFoldersThatOthersCanWriteToAreRefused(t *testing.T) {
	path := mkdir(t, filepath.Join(base(t), "open"), 0o777)
	wantUntrusted(t, open(t, path))
	wantUntrusted(t, open(t, filepath.Join(path, "new")))
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v: something was made", entries, err)
	}
	link := filepath.Join(base(t), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	wantUntrusted(t, open(t, filepath.Join(link, "new")))

	chmod(t, path, 0o777|os.ModeSticky) // as /tmp: names that are there cannot be exchanged
	wantUntrusted(t, open(t, path))
	if err := open(t, filepath.Join(path, "new")); err != nil {
		t.Errorf("in a folder as /tmp: %v", err)
	}

	closed := mkdir(t, filepath.Join(base(t), "closed"), 0o700)
	if err := open(t, mkdir(t, filepath.Join(closed, "open"), 0o777)); err != nil {
		t.Errorf("behind a folder that nobody else can enter: %v", err)
	}
}

func TestFoldersOfOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		// Whatever is root's serves: it is not ours.
		wantUntrusted(t, open(t, "/"))
		return
	}
	const other = 4242
	path := mkdir(t, filepath.Join(base(t), "theirs"), 0o700)
	below := mkdir(t, filepath.Join(path, "below"), 0o700)
	if err := os.Lchown(path, other, 0); err != nil {
		t.Fatal(err)
	}
	wantUntrusted(t, open(t, path))
	wantUntrusted(t, open(t, below))
	wantUntrusted(t, open(t, filepath.Join(path, "new")))
	link := filepath.Join(base(t), "link")
	if err := errors.Join(os.Symlink(base(t), link), os.Lchown(link, other, 0)); err != nil {
		t.Fatal(err)
	}
	wantUntrusted(t, open(t, link))
	group := mkdir(t, filepath.Join(base(t), "group"), 0o770)
	if err := os.Chown(group, 0, other); err != nil {
		t.Fatal(err)
	}
	wantUntrusted(t, open(t, group))
}

func TestErrorsNameThePath(t *testing.T) {
	dir := base(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), loop} {
		if err := open(t, path); err == nil || errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
