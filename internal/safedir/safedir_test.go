package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// A folder that nobody else can enter says nothing of what a link in it leads back out to.
func TestALinkLeadsOutOfAClosedFolder(t *testing.T) {
	dir := base(t)
	closed := mkdir(t, filepath.Join(dir, "closed"), 0o700)
	exposed := mkdir(t, filepath.Join(dir, "exposed"), 0o777)
	mkdir(t, filepath.Join(exposed, "own"), 0o700)
	write(t, filepath.Join(exposed, "own", "file"), "text")
	inside := mkdir(t, filepath.Join(closed, "inside"), 0o700)
	write(t, filepath.Join(inside, "file"), "text")
	for link, target := range map[string]string{
		filepath.Join(closed, "back"):   "../exposed/own",
		filepath.Join(inside, "around"): "../../closed/../exposed/own",
		filepath.Join(inside, "within"): "../inside",
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(filepath.Join(link, "file"))
		for what, err := range map[string]error{"a folder": open(t, link), "a new folder": open(t, filepath.Join(link, "new")), "a file": err} {
			if within := filepath.Base(link) == "within"; (err == nil) != within || !within && !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s by the link to %s: %v", what, target, err)
			}
		}
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

func TestFilesThatOthersCanChangeAreRefused(t *testing.T) {
	for _, c := range []struct {
		name         string
		folder, file os.FileMode
		hint         string // "" when it is read; FOLDER and FILE stand for the paths
	}{
		{"one's own", 0o755, 0o644, ""},
		{"a group's", 0o755, 0o664, "chmod go-w FILE"},
		{"everybody's", 0o755, 0o602, "chmod go-w FILE"},
		{"everybody's behind a closed folder", 0o700, 0o602, "chmod go-w FILE"},
		{"in a folder of a group", 0o775, 0o600, "chmod go-w FOLDER"},
		{"in everybody's folder", 0o777, 0o600, "chmod go-w FOLDER"},
		{"in a folder as /tmp", 0o777 | os.ModeSticky, 0o600, ""},
		{"in a folder that others cannot enter", 0o722, 0o600, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := mkdir(t, filepath.Join(base(t), "folder"), c.folder)
			file := filepath.Join(folder, "file")
			write(t, file, "text")
			chmod(t, file, c.file)
			link := filepath.Join(base(t), "link")
			if err := os.Symlink(file, link); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{file, link} {
				content, err := ReadFile(path)
				if c.hint == "" {
					if string(content) != "text" || err != nil {
						t.Errorf("%q, %v", content, err)
					}
					continue
				}
				wantUntrusted(t, err)
				want := strings.NewReplacer("FOLDER", folder, "FILE", file).Replace(c.hint)
				if hints := say.Hints(err); content != nil || len(hints) != 1 || hints[0] != want {
					t.Errorf("%q, and the hints %q, want %q", content, hints, want)
				}
			}
		})
	}
}

func TestALinkThatOthersCanExchangeIsRefused(t *testing.T) {
	file := filepath.Join(base(t), "file")
	write(t, file, "text")
	link := filepath.Join(mkdir(t, filepath.Join(base(t), "open"), 0o777), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	_, err := ReadFile(link)
	wantUntrusted(t, err)
}

func TestFilesOfOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		content, err := ReadFile("/etc/passwd") // root's is trusted by everybody
		if err != nil || len(content) == 0 {
			t.Errorf("%d bytes, %v", len(content), err)
		}
		return
	}
	file := filepath.Join(base(t), "file")
	write(t, file, "text")
	if err := os.Chown(file, 4242, 0); err != nil {
		t.Fatal(err)
	}
	_, err := ReadFile(file)
	wantUntrusted(t, err)
}

func TestPipesOfTheShellAreRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if content, err := ReadFile(fmt.Sprintf("/dev/fd/%d", r.Fd())); string(content) != "text" || err != nil {
		t.Errorf("%q, %v", content, err)
	}
	if content, err := ReadFile(os.DevNull); len(content) > 0 || err != nil {
		t.Errorf("%q, %v", content, err)
	}
}

func TestErrorsOfFilesNameThePath(t *testing.T) {
	dir := base(t)
	for path, want := range map[string]error{filepath.Join(dir, "none"): fs.ErrNotExist, dir: unix.EISDIR} {
		var failure *fs.PathError
		if _, err := ReadFile(path); !errors.As(err, &failure) || !errors.Is(err, want) || failure.Path != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
