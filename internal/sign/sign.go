// Package sign says who made a backup: beside manifest.json lies manifest.json.sig, a detached Ed25519 signature in OpenSSH's
// format (PROTOCOL.sshsig of OpenSSH), which `ssh-keygen -Y verify` checks. It covers the bytes of the manifest, which has the
// sums of all other files.
package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"voltar/internal/catalog"
	"voltar/internal/safedir"
	"voltar/internal/say"
)

// Namespace keeps signatures of manifests apart from those that the same key makes of other things.
const Namespace = "voltar-manifest"

const (
	magic     = "SSHSIG"
	version   = 1
	blockType = "SSH SIGNATURE"
	hashName  = "sha512"
)

// Key signs. It never leaves the host.
type Key struct{ signer ssh.Signer }

// ReadKey reads an Ed25519 key as `ssh-keygen -t ed25519` makes it, without a passphrase, that nobody else can read
// or exchange.
func ReadKey(path string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, say.WithHint(fmt.Errorf("read the signing key: others can read %s", path), "run `chmod 600 "+path+"`")
	}
	text, err := safedir.ReadFile(path) // that has the mode of before: nobody else can have exchanged it
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return nil, say.WithHint(fmt.Errorf("read the signing key %s: %w", path, err), "make it with `ssh-keygen -t ed25519 -N '' -f "+path+"`")
	}
	if _, ok := raw.(*ed25519.PrivateKey); !ok {
		return nil, say.WithHint(fmt.Errorf("read the signing key %s: it is no Ed25519 key", path), "make one with `ssh-keygen -t ed25519`")
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		return nil, fmt.Errorf("read the signing key %s: %w", path, err)
	}
	return &Key{signer}, nil
}

// signature is the content of a signature file, after the magic and the version.
type signature struct {
	PublicKey, Namespace, Reserved, HashAlgorithm, Signature string
}

// signedData is what the key signs, after the magic.
type signedData struct{ Namespace, Reserved, HashAlgorithm, Hash string }

func toSign(message []byte) []byte {
	hash := sha512.Sum512(message)
	return append([]byte(magic), ssh.Marshal(signedData{Namespace, "", hashName, string(hash[:])})...)
}

// Sign returns the signature file of a message.
func (k *Key) Sign(message []byte) ([]byte, error) {
	made, err := k.signer.Sign(rand.Reader, toSign(message))
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	body := ssh.Marshal(struct{ Version uint32 }{version})
	body = append(body, ssh.Marshal(signature{string(k.signer.PublicKey().Marshal()), Namespace, "", hashName, string(ssh.Marshal(made))})...)
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: append([]byte(magic), body...)}), nil
}

// Trusted are the keys whose signatures count.
type Trusted []ssh.PublicKey

// ReadTrusted reads a file as ssh-keygen takes it for allowed signers: names, options and a key on each line. Of options only
// `namespaces` is known, and a line with another is refused. So is a file that others can change or exchange.
func ReadTrusted(path string) (Trusted, error) {
	text, err := safedir.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the trusted keys: %w", err)
	}
	return parseTrusted(path, string(text))
}

func parseTrusted(path, text string) (keys Trusted, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		_, rest, _ := strings.Cut(line, " ") // the names, which say nothing to us
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil || key.Type() != ssh.KeyAlgoED25519 {
			return nil, fmt.Errorf("read the trusted keys: line %d of %s has no Ed25519 key behind its names", number, path)
		}
		ours := true
		for _, option := range options {
			names, isNamespaces := strings.CutPrefix(option, "namespaces=")
			if !isNamespaces {
				return nil, fmt.Errorf("read the trusted keys: line %d of %s has an option that is not known: %s", number, path, option)
			}
			ours = slices.Contains(strings.Split(strings.Trim(names, `"`), ","), Namespace)
		}
		if ours {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read the trusted keys: there is none for %q in %s", Namespace, path)
	}
	return keys, nil
}

// Has tells whether the signatures of a key count.
func (t Trusted) Has(key *Key) bool {
	return slices.ContainsFunc(t, func(known ssh.PublicKey) bool { return bytes.Equal(known.Marshal(), key.signer.PublicKey().Marshal()) })
}

// maxSignatures is how many signatures a file may hold: that of the manifest, and that of the one which was there before.
const maxSignatures = 2

// find returns the signature of a message by a trusted key, out of a file of at most maxSignatures. The error wraps
// catalog.ErrUntrusted, and is about the first of them.
func (t Trusted) find(message, file []byte) (signature []byte, err error) {
	rest := file
	for range maxSignatures {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		verdict := t.verify(message, block)
		if verdict == nil {
			return pem.EncodeToMemory(block), nil
		}
		if err == nil {
			err = verdict
		}
	}
	if err == nil {
		err = fmt.Errorf("%w: its signature cannot be read", catalog.ErrUntrusted)
	}
	return nil, err
}

// Verify wants a signature of a message by a trusted key. The error wraps catalog.ErrUntrusted.
func (t Trusted) Verify(message, file []byte) error {
	_, err := t.find(message, file)
	return err
}

func (t Trusted) verify(message []byte, block *pem.Block) error {
	head := append([]byte(magic), ssh.Marshal(struct{ Version uint32 }{version})...)
	body, found := bytes.CutPrefix(block.Bytes, head)
	var sig signature
	if block.Type != blockType || !found || ssh.Unmarshal(body, &sig) != nil {
		return fmt.Errorf("%w: its signature is of another format", catalog.ErrUntrusted)
	}
	var made ssh.Signature
	if sig.Namespace != Namespace || sig.HashAlgorithm != hashName || ssh.Unmarshal([]byte(sig.Signature), &made) != nil {
		return fmt.Errorf("%w: its signature is of something else", catalog.ErrUntrusted)
	}
	for _, key := range t {
		if string(key.Marshal()) != sig.PublicKey {
			continue
		}
		if key.Verify(toSign(message), &made) != nil {
			return fmt.Errorf("%w: it is not what was signed", catalog.ErrUntrusted)
		}
		return nil
	}
	return fmt.Errorf("%w: a key signed it that is not trusted", catalog.ErrUntrusted)
}
