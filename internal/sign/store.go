package sign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/say"
	"voltar/internal/store"
)

// maxSignatureBytes bounds a signature file; a manifest is bounded by catalog.MaxManifestBytes.
const maxSignatureBytes = 64 << 10

// signed is a store whose manifests are signed as they are written, and checked as they are read. So everybody who reads
// backups, to list, restore, verify, copy or end them, meets those of strangers as manifests that cannot be read.
type signed struct {
	store.Store
	Options
}

// Options of Wrap.
type Options struct {
	Trusted Trusted
	// Key signs manifests that are written. Without one none can be written, because of NoKey: what cannot be signed would be
	// a stranger's.
	Key   *Key
	NoKey error
	// TakeAll has manifests opened whoever signed them.
	TakeAll bool
}

// Wrap has a store's manifests signed by the key, and opened only with a signature of a trusted key.
func Wrap(inner store.Store, opts Options) store.Store { return &signed{inner, opts} }

// Unwrap returns the store itself, for what it can do beside; see store.As.
func (s *signed) Unwrap() store.Store { return s.Store }

// Signs tells whether a store has manifests signed.
func Signs(s store.Store) bool {
	_, found := store.As[*signed](s)
	return found
}

// Create begins an object; a manifest is signed when it is committed.
func (s *signed) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if path.Base(key) != catalog.ManifestName {
		return s.Store.Create(ctx, key, opts)
	}
	if s.Key == nil {
		return nil, fmt.Errorf("create %s: %w", key, s.NoKey)
	}
	w, err := s.Store.Create(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	return &writer{Writer: w, store: s, key: key, opts: opts}, nil
}

// writer takes a manifest.
type writer struct {
	store.Writer
	store *signed
	key   string
	opts  store.PutOptions
	text  bytes.Buffer
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	_, _ = w.text.Write(p[:n]) // never fails
	return n, err
}

// Commit writes the signature first: a manifest never stands without. Where the manifest takes the place of another, the
// signature file holds that one's signature as well, behind the new one: whichever of the two manifests stands after a crash
// is signed.
func (w *writer) Commit(ctx context.Context) (store.Object, error) {
	err := w.sign(ctx)
	if err != nil {
		return store.Object{}, errors.Join(fmt.Errorf("sign %s: %w", w.key, err), w.Abort())
	}
	return w.Writer.Commit(ctx)
}

func (w *writer) sign(ctx context.Context) error {
	text, err := w.store.Key.Sign(w.text.Bytes())
	if err != nil {
		return err
	}
	opts := store.PutOptions{Tags: w.opts.Tags, LockUntil: w.opts.LockUntil, IfAbsent: w.opts.IfAbsent}
	if !w.opts.IfAbsent {
		present, err := w.store.present(ctx, w.key)
		if err != nil {
			return err
		}
		text = append(text, present...)
	}
	return w.store.put(ctx, w.key, text, opts)
}

// present returns the signature of the manifest that stands, which has to be a trusted one: nobody is to make a stranger's
// backup his own by changing it.
func (s *signed) present(ctx context.Context, key string) ([]byte, error) {
	text, held, err := s.readBoth(ctx, key)
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Trusted.find(text.bytes, held.bytes)
}

// put writes the signature file of a manifest. Where it is to be the first it may be there already, when the store's answer
// to an earlier try was lost: a signature of this kind is the same each time.
func (s *signed) put(ctx context.Context, key string, text []byte, opts store.PutOptions) error {
	opts.MaxBytes = int64(len(text))
	at := signatureOf(key)
	w, err := s.Store.Create(ctx, at, opts)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return errors.Join(err, w.Abort())
	}
	_, err = w.Commit(ctx)
	if errors.Is(err, store.ErrExists) {
		if held, readErr := s.read(ctx, at, maxSignatureBytes); readErr == nil && bytes.Equal(held.bytes, text) {
			return nil
		}
	}
	return err
}

func signatureOf(key string) string { return path.Join(path.Dir(key), catalog.SignatureName) }

// Open opens an object; a manifest only when a trusted key has signed it as one of the host in whose folder it lies. What is
// read is what was checked.
func (s *signed) Open(ctx context.Context, key string) (store.Reader, error) {
	if s.TakeAll || path.Base(key) != catalog.ManifestName {
		return s.Store.Open(ctx, key)
	}
	text, signature, err := s.readBoth(ctx, key)
	if err == nil {
		_, err = s.Trusted.find(text.bytes, signature.bytes)
	}
	if err == nil {
		err = checkHost(key, text.bytes)
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("open %s: %w", key, err))
	}
	return &checked{bytes.NewReader(text.bytes), int64(len(text.bytes)), append(text.marks, signature.marks...)}, nil
}

// Trust tells whose manifests are opened: a text that is another one when that changes, and "" for everybody's.
func (s *signed) Trust() string {
	if s.TakeAll {
		return ""
	}
	var keys []string
	for _, key := range s.Trusted {
		keys = append(keys, string(key.Marshal()))
	}
	slices.Sort(keys)
	sum := sha256.Sum256([]byte(strings.Join(keys, "\n")))
	return hex.EncodeToString(sum[:])
}

// withHint says what can be done about a stranger's backup.
func withHint(err error) error {
	if !errors.Is(err, catalog.ErrUntrusted) {
		return err
	}
	return say.WithHint(err, "nothing says who made it: `voltar sign` signs what this host made before it had a key, "+
		"and --untrusted takes it as it is")
}

// readBoth reads a manifest and its signature. The error of a manifest without one wraps catalog.ErrUntrusted.
func (s *signed) readBoth(ctx context.Context, key string) (text, signature whole, err error) {
	if text, err = s.read(ctx, key, catalog.MaxManifestBytes); err != nil {
		return text, signature, err
	}
	signature, err = s.read(ctx, signatureOf(key), maxSignatureBytes)
	if errors.Is(err, store.ErrNotExist) {
		err = fmt.Errorf("%w: it has no signature", catalog.ErrUntrusted)
	}
	return text, signature, err
}

// Unsigned is a backup that no trusted key has signed, as it was read.
type Unsigned struct {
	Manifest  *catalog.Manifest
	Signature bool // it has one that does not count

	in   *signed
	key  string
	text []byte
}

// ReadUnsigned reads the manifest in the folder of a backup, whoever made it. The store is one that Wrap returned. The
// caller has the locks of the volume and of the destination until Sign is over.
func ReadUnsigned(ctx context.Context, in store.Store, folder string) (*Unsigned, error) {
	s, found := store.As[*signed](in)
	if !found {
		return nil, fmt.Errorf("read %s in %s: no keys are trusted", folder, in)
	}
	u := &Unsigned{in: s, key: path.Join(folder, catalog.ManifestName), Signature: true}
	text, _, err := s.readBoth(ctx, u.key)
	u.text = text.bytes
	if errors.Is(err, catalog.ErrUntrusted) {
		u.Signature, err = false, nil
	}
	if err == nil {
		err = checkHost(u.key, u.text)
	}
	if err == nil {
		u.Manifest, err = catalog.ParseManifest(u.text)
	}
	if err == nil && u.Manifest.ID().Path(u.Manifest.Host.Name) != folder {
		err = fmt.Errorf("%w: its manifest is that of %s", catalog.ErrDamaged, u.Manifest.ID())
	}
	if err != nil {
		return nil, fmt.Errorf("read the manifest in %s: %w", folder, err)
	}
	return u, nil
}

// Sign signs the manifest that was read, and holds the signature as long as the manifest is held.
func (u *Unsigned) Sign(ctx context.Context) error {
	if err := u.sign(ctx); err != nil {
		return fmt.Errorf("sign %s in %s: %w", u.key, u.in, err)
	}
	return nil
}

func (u *Unsigned) sign(ctx context.Context) error {
	if u.in.Key == nil {
		return u.in.NoKey
	}
	signature, err := u.in.Key.Sign(u.text)
	if err != nil {
		return err
	}
	var opts store.PutOptions
	if locker, ok := store.As[store.Locker](u.in.Store); ok && locker.LockFor() > 0 {
		if opts.LockUntil, err = locker.LockedUntil(ctx, u.key); err != nil {
			return err
		}
		if !opts.LockUntil.After(time.Now()) {
			opts.LockUntil = time.Time{}
		}
	}
	return u.in.put(ctx, u.key, signature, opts)
}

// checkHost wants a manifest to name the host in whose folder it lies; the rest of its place is compared by whoever lists.
func checkHost(key string, text []byte) error {
	var m struct {
		Host struct {
			Name string `json:"name"`
		} `json:"host"`
	}
	host, _, _ := strings.Cut(key, "/")
	if err := json.Unmarshal(text, &m); err != nil || m.Host.Name != host {
		return fmt.Errorf("%w: what was signed is a backup of host %q", catalog.ErrUntrusted, m.Host.Name)
	}
	return nil
}

// whole is an object that was read whole, with its marks as store.Marked has them.
type whole struct {
	bytes []byte
	marks []string
}

func (s *signed) read(ctx context.Context, key string, maxBytes int64) (c whole, err error) {
	r, err := s.Store.Open(ctx, key)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.SizeBytes() > maxBytes {
		return c, fmt.Errorf("%w: %s holds %d bytes", catalog.ErrDamaged, key, r.SizeBytes())
	}
	if m, ok := r.(store.Marked); ok {
		c.marks = m.Marks()
	}
	c.bytes, err = io.ReadAll(io.LimitReader(r, maxBytes))
	return c, err
}

// checked reads a manifest that was checked.
type checked struct {
	*bytes.Reader
	size  int64
	marks []string // of the manifest and of its signature
}

func (c *checked) SizeBytes() int64 { return c.size }
func (c *checked) Close() error     { return nil }

// Marks are of the manifest and of its signature; see store.Marked.
func (c *checked) Marks() []string { return c.marks }
