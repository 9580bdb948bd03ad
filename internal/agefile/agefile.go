// Package agefile writes and reads files that are encrypted with age (age-encryption.org/v1): for recipients, who are
// public keys, and back with the identity of any of them. What is read can be read at any offset: the format encrypts
// in chunks of 64 KiB (https://c2sp.org/age), and only those that are asked for are fetched.
package agefile

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"voltar/internal/safedir"
)

// Format is what the first line of every encrypted file says.
const Format = "age-encryption.org/v1"

const (
	chunkBytes      = 64 << 10
	tagBytes        = 16 // behind each chunk
	nonceBytes      = 16 // between the header and the first chunk
	storedChunk     = chunkBytes + tagBytes
	classicPrefix   = "age1"
	quantumPrefix   = "age1pq1"
	secretPrefix    = "AGE-SECRET-KEY-"
	maxKeyFileBytes = 1 << 20
)

// Recipients are those who can read what is encrypted for them. They are safe for concurrent use.
type Recipients struct {
	keys        []string
	list        []age.Recipient
	headerBytes int64 // of every file for them, with the nonce
}

// ParseRecipients reads public keys: those that begin with age1, or age1pq1 for ones that withstand quantum computers,
// which cannot be mixed with others.
func ParseRecipients(keys []string) (*Recipients, error) {
	if len(keys) == 0 {
		return nil, errors.New("cannot encrypt for nobody: name a recipient")
	}
	r := &Recipients{}
	for _, key := range keys {
		recipient, err := parseRecipient(key)
		if err != nil {
			return nil, err
		}
		r.keys, r.list = append(r.keys, key), append(r.list, recipient)
	}
	// A trial tells whether these keys go together, and the size of the header, which depends on them alone.
	var size counter
	if _, err := age.Encrypt(&size, r.list...); err != nil {
		return nil, fmt.Errorf("cannot encrypt for these recipients: %w", err)
	}
	r.headerBytes = size.bytes
	return r, nil
}

func parseRecipient(key string) (age.Recipient, error) {
	var recipient age.Recipient
	var err error
	switch {
	case strings.HasPrefix(strings.ToUpper(key), secretPrefix):
		return nil, errors.New("cannot take a secret key as a recipient: put the public key that belongs to it here " +
			"(`age-keygen -y FILE` prints it), and keep the secret one off this host")
	case strings.HasPrefix(key, quantumPrefix):
		recipient, err = age.ParseHybridRecipient(key)
	case strings.HasPrefix(key, classicPrefix):
		recipient, err = age.ParseX25519Recipient(key)
	default:
		return nil, fmt.Errorf("cannot take %q as a recipient: it is no public key of age, like age1…", key)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take %q as a recipient: %w", key, err)
	}
	return recipient, nil
}

// ReadKeys reads a file of public keys, one in each line; empty lines and those that begin with # say nothing.
// A file that others can change or exchange is refused: they would read what is encrypted for its keys.
func ReadKeys(path string) ([]string, error) {
	text, err := safedir.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var keys []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("cannot find a public key in %s", path)
	}
	return keys, nil
}

// Keys returns the public keys.
func (r *Recipients) Keys() []string { return r.keys }

// StoredBytes is the size of a file that was plainBytes long, once it is encrypted.
func (r *Recipients) StoredBytes(plainBytes int64) int64 {
	chunks := max(1, (plainBytes+chunkBytes-1)/chunkBytes)
	return r.headerBytes + plainBytes + chunks*tagBytes
}

// Writer encrypts what is written to it. It holds one chunk.
type Writer struct {
	recipients *Recipients
	encrypted  io.WriteCloser
	plain      int64
}

// NewWriter begins an encrypted file on dst, which stays the caller's. What was written is whole only after Close.
func (r *Recipients) NewWriter(dst io.Writer) (*Writer, error) {
	encrypted, err := age.Encrypt(dst, r.list...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return &Writer{recipients: r, encrypted: encrypted}, nil
}

func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.encrypted.Write(p)
	w.plain += int64(n)
	return n, err
}

// Close writes the last chunk, without which nobody takes the file for whole.
func (w *Writer) Close() error { return w.encrypted.Close() }

// PlainBytes is how much was written.
func (w *Writer) PlainBytes() int64 { return w.plain }

// StoredBytes is the size that the encrypted file must have after Close.
func (w *Writer) StoredBytes() int64 { return w.recipients.StoredBytes(w.plain) }

// counter counts what is written to it.
type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

// Encrypt encrypts what produce writes, and returns how much that was.
func (r *Recipients) Encrypt(w io.Writer, produce func(io.Writer) error) (plainBytes int64, err error) {
	sealed, err := r.NewWriter(w)
	if err != nil {
		return 0, err
	}
	if err := produce(sealed); err != nil {
		return 0, err
	}
	return sealed.PlainBytes(), sealed.Close()
}
