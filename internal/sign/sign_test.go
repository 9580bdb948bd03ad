package sign

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/safedir"
	"voltar/internal/store"
	"voltar/internal/store/disk"
)

const run = "20261120T010001Z-3f9a0c"

var night = time.Date(2026, 11, 20, 1, 0, 1, 0, time.UTC)

// newKey makes a key with ssh-keygen, and the file of allowed signers that names it.
func newKey(t *testing.T) (key *Key, trusted Trusted, keyFile, signersFile string) {
	t.Helper()
	dir := t.TempDir()
	keyFile, signersFile = filepath.Join(dir, "key"), filepath.Join(dir, "trusted_keys")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", keyFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(keyFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	text := "# hosts\n\nvolume-host namespaces=\"other," + Namespace + "\" " + string(public)
	if err := os.WriteFile(signersFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err = ReadKey(keyFile); err != nil {
		t.Fatal(err)
	}
	if trusted, err = ReadTrusted(signersFile); err != nil {
		t.Fatal(err)
	}
	return key, trusted, keyFile, signersFile
}

// What is signed here ssh-keygen verifies, and the other way round.
func TestSSHKeygenAgrees(t *testing.T) {
	key, trusted, keyFile, signersFile := newKey(t)
	message := []byte("{\"format\":\"voltar/1\"}\n")
	ours, err := key.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "manifest.json")
	if err := errors.Join(os.WriteFile(file, message, 0o600), os.WriteFile(file+".sig", ours, 0o600)); err != nil {
		t.Fatal(err)
	}
	verify := func(message []byte) error { return sshVerify(signersFile, message, file+".sig") }
	if err := verify(message); err != nil {
		t.Errorf("ssh-keygen does not verify it: %v\n%s", err, ours)
	}
	if err := verify(append(message, ' ')); err == nil {
		t.Error("ssh-keygen verifies another message")
	}
	before, err := key.Sign([]byte("what stood there before"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".sig", append(ours, before...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(message); err != nil {
		t.Errorf("with the signature of what stood there before: %v", err)
	}
	sign := exec.Command("ssh-keygen", "-Y", "sign", "-f", keyFile, "-n", Namespace)
	sign.Stdin = bytes.NewReader(message)
	theirs, err := sign.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := trusted.Verify(message, theirs); err != nil {
		t.Errorf("what ssh-keygen signed: %v", err)
	}
	sign = exec.Command("ssh-keygen", "-Y", "sign", "-f", keyFile, "-n", "file")
	sign.Stdin = bytes.NewReader(message)
	if theirs, err = sign.Output(); err != nil {
		t.Fatal(err)
	}
	if err := trusted.Verify(message, theirs); !errors.Is(err, catalog.ErrUntrusted) {
		t.Errorf("of another namespace: %v", err)
	}
}

// sshVerify asks ssh-keygen.
func sshVerify(signersFile string, message []byte, signatureFile string) error {
	cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", signersFile, "-I", "volume-host", "-n", Namespace, "-s", signatureFile)
	cmd.Stdin = bytes.NewReader(message)
	return cmd.Run()
}

func TestForgedSignatures(t *testing.T) {
	key, trusted, _, _ := newKey(t)
	stranger, _, _, _ := newKey(t)
	message := []byte("message")
	good, err := key.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := trusted.Verify(message, good); err != nil {
		t.Fatal(err)
	}
	theirs, err := stranger.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"a stranger's": theirs, "empty": nil, "text": []byte("trust me"), "cut short": good[:len(good)/2],
		"of another kind": bytes.ReplaceAll(good, []byte("SSH SIGNATURE"), []byte("CERTIFICATE")),
	} {
		if err := trusted.Verify(message, file); !errors.Is(err, catalog.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := trusted.Verify([]byte("massage"), good); !errors.Is(err, catalog.ErrUntrusted) {
		t.Errorf("of another message: %v", err)
	}
}

// Whoever can exchange the files decides whose backups count, whatever the modes of the files themselves.
func TestKeyFilesThatOthersCanExchangeAreRefused(t *testing.T) {
	_, _, keyFile, signersFile := newKey(t)
	exposed := filepath.Join(t.TempDir(), "exposed")
	for at := filepath.Dir(exposed); at != os.TempDir() && at != "/"; at = filepath.Dir(at) { // the way there is open to others
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(exposed, 0o700), os.Chmod(exposed, 0o777)); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	for _, file := range []string{keyFile, signersFile} {
		links[file] = filepath.Join(exposed, filepath.Base(file))
		if err := os.Symlink(file, links[file]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadKey(links[keyFile]); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("a key by a link that others can exchange: %v", err)
	}
	if _, err := ReadTrusted(links[signersFile]); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("trusted keys by a link that others can exchange: %v", err)
	}
}

func TestKeyFilesAreLookedAt(t *testing.T) {
	_, _, keyFile, signersFile := newKey(t)
	public, err := os.ReadFile(keyFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(keyFile, 0o640), os.Chmod(signersFile, 0o666)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(keyFile); err == nil || !strings.Contains(err.Error(), "others can read") {
		t.Errorf("a key that others can read: %v", err)
	}
	if _, err := ReadTrusted(signersFile); !errors.Is(err, safedir.ErrUntrusted) {
		t.Errorf("trusted keys that others can change: %v", err)
	}
	for name, text := range map[string]string{
		"no key": "# nothing\n", "no names": string(public[:len("ssh-ed25519 AAAA")]),
		"another namespace": "host namespaces=\"file\" " + string(public), "an option": "host cert-authority " + string(public),
	} {
		if keys, err := parseTrusted("file", text); err == nil {
			t.Errorf("%s: %v", name, keys)
		}
	}
}

// site is a store with a backup of a volume, signed by one key.
func newSite(t *testing.T) (plain, signed store.Store, key *Key) {
	t.Helper()
	key, trusted, _, _ := newKey(t)
	s, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, Wrap(s, Options{Key: key, Trusted: trusted}), key
}

func manifest(host string, at time.Time) *catalog.Manifest {
	return &catalog.Manifest{
		Format: catalog.Format, Status: catalog.StatusComplete, Host: catalog.Host{Name: host, MachineID: "m"}, Run: run, Time: at, Started: at, Ended: at,
		Source:  catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: "v", VGUUID: "1", LVUUID: "2", SizeBytes: 1 << 20},
		Extents: []catalog.Extent{{SizeBytes: 1 << 20, State: catalog.StateSwap}},
	}
}

func add(t *testing.T, s store.Store, host string, at time.Time) string {
	t.Helper()
	m := manifest(host, at)
	d, err := catalog.Begin(t.Context(), s, host, m.ID(), run, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := d.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d.Path()
}

func list(t *testing.T, s store.Store, host string) (good, untrusted int) {
	t.Helper()
	l, err := catalog.List(t.Context(), s, host, catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range l.Unreadable {
		if errors.Is(u.Err, catalog.ErrUntrusted) {
			untrusted++
		}
	}
	return len(l.Backups), untrusted
}

func copyObject(t *testing.T, s store.Store, from, to string) {
	t.Helper()
	r, err := s.Open(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(t.Context(), to, store.PutOptions{})
	if err == nil {
		_, err = io.Copy(w, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// Only what a trusted key has signed counts, and only in the place that it was signed for.
func TestStrangersBackupsDoNotCount(t *testing.T) {
	plain, signed, _ := newSite(t)
	first := add(t, signed, "host", night)
	second := add(t, signed, "host", night.Add(time.Hour))
	if good, untrusted := list(t, signed, "host"); good != 2 || untrusted != 0 {
		t.Fatalf("%d good, %d untrusted", good, untrusted)
	}
	add(t, plain, "host", night.Add(2*time.Hour)) // made up by whoever may write
	if good, untrusted := list(t, signed, "host"); good != 2 || untrusted != 1 {
		t.Errorf("with one that is not signed: %d good, %d untrusted", good, untrusted)
	}
	if good, _ := list(t, plain, "host"); good != 3 {
		t.Errorf("without asking for signatures there are %d", good)
	}
	copyObject(t, plain, path.Join(first, catalog.SignatureName), path.Join(second, catalog.SignatureName))
	if good, untrusted := list(t, signed, "host"); good != 1 || untrusted != 2 {
		t.Errorf("with the signature of another: %d good, %d untrusted", good, untrusted)
	}
	for _, name := range []string{catalog.ManifestName, catalog.SignatureName} {
		copyObject(t, plain, path.Join(first, name), path.Join(second, name))
		copyObject(t, plain, path.Join(first, name), strings.Replace(path.Join(first, name), "host/", "other/", 1))
	}
	if good, _ := list(t, signed, "host"); good != 1 {
		t.Errorf("with all of another: %d good", good)
	}
	if good, untrusted := list(t, signed, "other"); good != 0 || untrusted != 1 {
		t.Errorf("moved to another host: %d good, %d untrusted", good, untrusted)
	}
}

// The signature comes before the manifest, and both go together.
func TestSignatureComesFirstAndGoesLast(t *testing.T) {
	plain, _, key := newSite(t)
	var order []string
	s := Wrap(watching{plain, &order}, Options{Key: key, Trusted: Trusted{key.signer.PublicKey()}})
	folder := add(t, s, "host", night)
	want := []string{catalog.ClaimName, catalog.SignatureName, catalog.ManifestName}
	if !slices.Equal(order, want) {
		t.Errorf("%q was the order, want %q", order, want)
	}
	if _, err := catalog.Delete(t.Context(), s, folder); err != nil {
		t.Fatal(err)
	}
	if left, err := plain.List(t.Context(), "host"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	m := manifest("host", night)
	d, err := catalog.Begin(t.Context(), Wrap(failing{plain}, Options{Key: key, Trusted: Trusted{key.signer.PublicKey()}}), "host", m.ID(), run, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), m); err == nil {
		t.Error("it was committed")
	}
	if err := d.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := plain.List(t.Context(), "host"); err != nil || len(left) > 0 {
		t.Errorf("after an abort there is %v, %v", left, err)
	}
}

// watching notes what appears.
type watching struct {
	store.Store
	order *[]string
}

type watchingWriter struct {
	store.Writer
	appears func()
}

func (s watching) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	return watchingWriter{w, func() { *s.order = append(*s.order, path.Base(key)) }}, err
}

func (w watchingWriter) Commit(ctx context.Context) (store.Object, error) {
	w.appears()
	return w.Writer.Commit(ctx)
}

// failing takes no manifest.
type failing struct{ store.Store }

type failingWriter struct{ store.Writer }

func (s failing) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	if path.Base(key) == catalog.ManifestName {
		w = failingWriter{w}
	}
	return w, err
}

func (w failingWriter) Commit(context.Context) (store.Object, error) {
	return store.Object{}, errors.Join(errors.New("no room"), w.Abort())
}
