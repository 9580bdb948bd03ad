package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"voltar/internal/catalog"
	"voltar/internal/store"
)

// Bounds of what is read into memory whole.
const (
	maxManifestBytes  = 64 << 20
	maxSignatureBytes = 64 << 10
)

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSignatureBytes+1))
	if err == nil && len(data) > maxSignatureBytes {
		err = fmt.Errorf("it is longer than %d bytes", maxSignatureBytes)
	}
	return data, err
}

// signed is a store whose manifests are signed as they are written, and checked as they are read. So everybody who reads
// backups, to list, restore, verify, copy or end them, meets those of strangers as manifests that cannot be read.
type signed struct {
	store.Store
	key     *Key // nil signs nothing
	trusted Trusted
}

// Wrap has a store's manifests signed by the key, where there is one, and opened only with a signature of a trusted key.
func Wrap(inner store.Store, key *Key, trusted Trusted) store.Store {
	return &signed{inner, key, trusted}
}

// Unwrap returns the store itself, for what it can do beside; see store.As.
func (s *signed) Unwrap() store.Store { return s.Store }

// Create begins an object; a manifest is signed when it is committed.
func (s *signed) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	if err != nil || s.key == nil || path.Base(key) != catalog.ManifestName {
		return w, err
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

// Commit writes the signature first: a manifest never stands without.
func (w *writer) Commit(ctx context.Context) (store.Object, error) {
	if err := w.sign(ctx); err != nil {
		return store.Object{}, errors.Join(fmt.Errorf("sign %s: %w", w.key, err), w.Abort())
	}
	return w.Writer.Commit(ctx)
}

func (w *writer) sign(ctx context.Context) error {
	text, err := w.store.key.Sign(w.text.Bytes())
	if err != nil {
		return err
	}
	opts := store.PutOptions{MaxBytes: int64(len(text)), Tags: w.opts.Tags, LockUntil: w.opts.LockUntil}
	to, err := w.store.Store.Create(ctx, path.Join(path.Dir(w.key), catalog.SignatureName), opts)
	if err != nil {
		return err
	}
	if _, err := to.Write(text); err != nil {
		return errors.Join(err, to.Abort())
	}
	_, err = to.Commit(ctx)
	return err
}

// Open opens an object; a manifest only when a trusted key has signed it as one of the host in whose folder it lies. What is
// read is what was checked.
func (s *signed) Open(ctx context.Context, key string) (store.Reader, error) {
	if path.Base(key) != catalog.ManifestName {
		return s.Store.Open(ctx, key)
	}
	text, err := s.read(ctx, key, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	signature, err := s.read(ctx, path.Join(path.Dir(key), catalog.SignatureName), maxSignatureBytes)
	if errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w: it has no signature", key, ErrUntrusted)
	}
	if err == nil {
		err = s.trusted.Verify(text, signature)
	}
	if err == nil {
		err = checkHost(key, text)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return &checked{bytes.NewReader(text), int64(len(text))}, nil
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
		return fmt.Errorf("%w: what was signed is a backup of host %q", ErrUntrusted, m.Host.Name)
	}
	return nil
}

func (s *signed) read(ctx context.Context, key string, maxBytes int64) (_ []byte, err error) {
	r, err := s.Store.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.SizeBytes() > maxBytes {
		return nil, fmt.Errorf("%w: %s holds %d bytes", catalog.ErrDamaged, key, r.SizeBytes())
	}
	return io.ReadAll(io.LimitReader(r, maxBytes))
}

// checked reads a manifest that was checked.
type checked struct {
	*bytes.Reader
	size int64
}

func (c *checked) SizeBytes() int64 { return c.size }
func (c *checked) Close() error     { return nil }
