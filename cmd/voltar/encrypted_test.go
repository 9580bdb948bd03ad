package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"voltar/internal/agefile"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/store/disk"
)

// newSealed returns a site whose backup is encrypted, and files with the secret key and with somebody else's.
func newSealed(t *testing.T) (s site, store *disk.Store, b catalog.Backup, key, wrong string) {
	t.Helper()
	var public []string
	var files []string
	for _, name := range []string{"key.txt", "wrong.txt"} {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		public = append(public, identity.Recipient().String())
		files = append(files, filepath.Join(t.TempDir(), name))
		if err := os.WriteFile(files[len(files)-1], []byte(identity.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recipients, err := agefile.ParseRecipients(public[:1])
	if err != nil {
		t.Fatal(err)
	}
	s = newSite(t, `recipients = ["`+public[0]+`"]`)
	store = browsetest.Open(t, s.backups)
	b = browsetest.Make(t, store, browsetest.Spec{For: recipients, Fill: func(dir string) {
		for name, content := range map[string][]byte{"file": []byte("text\n"), "noise": browsetest.Noise("n", 300<<10)} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}})
	return s, store, b, files[0], files[1]
}

func TestEncryptedBackupsOnTheCommandLine(t *testing.T) {
	s, _, b, key, wrong := newSealed(t)
	public := b.Manifest.Encryption.Recipients[0]
	open := filepath.Join(t.TempDir(), "open.txt")
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(open, secret, 0o644), os.Chmod(open, 0o644)); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		args      []string
		stdin     string
		code      int
		out, errs string
	}{
		{"list", []string{"list"}, "", 0, "complete, encrypted", ""},
		{"ls of extents needs no key", []string{"ls", "volume-00000001"}, "", 0, "p2      image", ""},
		{"ls", []string{"ls", "volume-00000001", "p1:/", "--identity", key}, "", 0, "file\n", ""},
		{"cat", []string{"cat", "volume-00000001", "p1:/file", "-i", key}, "", 0, "text\n", ""},
		{"cat with the right key among others", []string{"cat", "volume-00000001", "p1:/file", "-i", wrong, "-i", key}, "", 0, "text\n", ""},
		{"cat with the key on standard input", []string{"cat", "volume-00000001", "p1:/file", "-i", "-"}, string(secret), 0, "text\n", ""},
		{"cat with a key that others can read", []string{"cat", "volume-00000001", "p1:/file", "-i", open}, "", 0, "text\n", "chmod 600 " + open},
		{"cat without a key", []string{"cat", "volume-00000001", "p1:/file"}, "", 2, "", "encrypted to " + public + "\nhint: give the secret key of one of them: --identity FILE"},
		{"cat with the wrong key", []string{"cat", "volume-00000001", "p1:/file", "-i", wrong}, "", 2, "", "none of the identities opens it"},
		{"cat with a file that is no key", []string{"cat", "volume-00000001", "p1:/file", "-i", s.config}, "", 2, "", "--identity " + s.config},
		{"cat with a file that is not there", []string{"cat", "volume-00000001", "p1:/file", "-i", filepath.Join(t.TempDir(), "missing")}, "", 2, "", "no such file"},
		{"verify without a key", []string{"verify", "--full"}, "", 0, "note: what is in encrypted files was not checked", ""},
		{"verify with it", []string{"verify", "--full", "-i", key}, "", 0, "good", ""},
		{"verify with the wrong one", []string{"verify", "--full", "-i", wrong}, "", 3, "NOT GOOD", ""},
		{"restore without a key", []string{"restore", "volume-00000001", "--to-dir", filepath.Join(t.TempDir(), "x")}, "", 2, "", "--identity FILE"},
		{"restore", []string{"restore", "volume-00000001", "--to-dir", filepath.Join(t.TempDir(), "x"), "-i", key, "--dry-run"}, "", 0, "extract", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(context.WithoutCancel(t.Context()), append([]string{"voltar"}, append(c.args, "--config", s.config)...),
				strings.NewReader(c.stdin), &out, &errs)
			if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.errs) {
				t.Errorf("exit code %d, want %d\nstdout %.300q\nwant   %.300q\nstderr %s", code, c.code, &out, c.out, &errs)
			}
			if strings.Contains(out.String()+errs.String(), "AGE-SECRET-KEY") {
				t.Error("the secret key was printed")
			}
			if strings.Contains(errs.String(), "chmod") != strings.Contains(c.errs, "chmod") {
				t.Errorf("stderr %s", &errs)
			}
		})
	}
}

// A lost index of an encrypted backup is made again with the key, for the recipients of the destination.
func TestRepairOfAnEncryptedIndexOnTheCommandLine(t *testing.T) {
	s, store, b, key, _ := newSealed(t)
	index := filepath.Join(store.Folder(), b.Path(), b.Manifest.Extents[1].Index.Name)
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	code, out, errs := voltar(t, "verify", "--repair-index", "--config", s.config)
	if code != 3 || !strings.Contains(out, "--identity FILE") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	code, out, errs = voltar(t, "verify", "--repair-index", "--identity", key, "--config", s.config)
	if code != 0 || !strings.Contains(out, "written anew: volume-00000001.p1.index.gz.age") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if text, err := os.ReadFile(index); err != nil || !bytes.HasPrefix(text, []byte(agefile.Format)) {
		t.Errorf("%.30q, %v", text, err)
	}
}

// A destination whose recipients cannot be read takes nothing, rather than everything in the open.
func TestNothingGoesInTheOpenWithoutRecipients(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "recipients")
	s := newSite(t, `recipients_file = "`+missing+"\"\n"+`[[directory]]
name = "etc"
path = "`+t.TempDir()+`"
`)
	code, _, errs := voltar(t, "run", "@directory/etc", "--config", s.config)
	if code != exitNothing || !strings.Contains(errs, "destination disk: read recipients_file: ") {
		t.Errorf("%d\n%s", code, errs)
	}
	left, err := os.ReadDir(s.backups)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() == "volume-host" }) {
		t.Errorf("something was stored: %v", left)
	}
}

// terminal is both ends of a new pseudo-terminal: a person's, and a program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(person.Close(), program.Close()) })
	return person, program
}

// A key that is itself encrypted is opened with what a person types, who alone knows it.
func TestPassphraseIsAskedForAtTheTerminal(t *testing.T) {
	s, _, _, key, _ := newSealed(t)
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	const passphrase = "what a person types"
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(10)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err == nil {
		_, err = w.Write(secret)
	}
	if err := errors.Join(err, w.Close(), os.WriteFile(key, sealed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]struct {
		code      int
		out, errs string
	}{
		passphrase:       {0, "text\n", ""},
		"something else": {2, "", "passphrase"},
	} {
		person, program := terminal(t)
		cmd := exec.Command("/proc/self/exe", "cat", "volume-00000001", "p1:/file", "--identity", key, "--config", s.config)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
		cmd.ExtraFiles = []*os.File{program}
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		shown, prompt := make([]byte, 1000), "Passphrase of "+key+": "
		n, err := io.ReadAtLeast(person, shown, len(prompt))
		if err != nil || string(shown[:n]) != prompt {
			t.Errorf("shown %q, %v, want %q", shown[:n], err, prompt)
		}
		for echo := uint32(unix.ECHO); echo != 0; time.Sleep(time.Millisecond) { // a person is not that quick
			mode, err := unix.IoctlGetTermios(int(person.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			echo = mode.Lflag & unix.ECHO
		}
		if _, err := person.WriteString(typed + "\n"); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its exit code tells
		if code := cmd.ProcessState.ExitCode(); code != want.code || out.String() != want.out || !strings.Contains(errs.String(), want.errs) {
			t.Errorf("%q: exit code %d, want %d\nstdout %q\nstderr %s", typed, code, want.code, &out, &errs)
		}
		if n, err = person.Read(shown); err != nil || strings.TrimSpace(string(shown[:n])) != "" {
			t.Errorf("what was typed is shown: %q, %v", shown[:n], err)
		}
	}
}
